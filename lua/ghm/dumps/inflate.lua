-- Raw deflate streams and CRC-32 by zlib.

local ffi = require "ffi"

ffi.cdef [[
typedef struct {
    const uint8_t *next_in; unsigned int avail_in; unsigned long total_in;
    uint8_t *next_out; unsigned int avail_out; unsigned long total_out;
    const char *msg; void *state;
    void *zalloc, *zfree, *opaque;
    int data_type; unsigned long adler, reserved;
} ghm_z_stream;
const char *zlibVersion(void);
int inflateInit2_(ghm_z_stream *z, int window_bits, const char *version, int size);
int inflate(ghm_z_stream *z, int flush);
int inflateEnd(ghm_z_stream *z);
unsigned long crc32_z(unsigned long crc, const uint8_t *data, size_t length);
]]

local Z = ffi.load "libz.so.1"
local M = {}

local OK, STREAM_END, BUF_ERROR = 0, 1, -5
local RAW = -15 -- no zlib header, the largest window
local CHUNK = 2 ^ 30 -- zlib counts in unsigned int

-- No deflate stream grows by more than this factor.
M.MAX_RATIO = 1032

-- CRC-32 of `length` bytes, going on from `crc` (0 at first), as a plain number.
function M.crc32(crc, ptr, length)
    return tonumber(Z.crc32_z(crc, ptr, length))
end

local Stream = {}
Stream.__index = Stream

-- A stream over `length` compressed bytes at ptr, which `owner` keeps alive.
-- stream.crc is the CRC-32 of what was read so far.
function M.open(ptr, length, owner)
    local z = ffi.new "ghm_z_stream"
    local code = Z.inflateInit2_(z, RAW, Z.zlibVersion(), ffi.sizeof(z))
    assert(code == OK, "zlib does not start: out of memory, or an ABI that is not zlib's")
    ffi.gc(z, Z.inflateEnd)
    return setmetatable({ z = z, source = ptr, left = length, owner = owner, crc = 0 }, Stream)
end

-- Inflates at most `n` bytes (up to CHUNK) to dst -> bytes written, or nil and the reason.
local function step(self, dst, n)
    local z = self.z
    if z.avail_in == 0 and self.left > 0 then
        local chunk = math.min(self.left, CHUNK)
        z.next_in, z.avail_in = self.source, chunk
        self.source, self.left = self.source + chunk, self.left - chunk
    end
    z.next_out, z.avail_out = dst, n
    local code = Z.inflate(z, 0)
    local got = n - z.avail_out
    self.crc = M.crc32(self.crc, dst, got)
    self.ended = code == STREAM_END
    if code == BUF_ERROR and z.avail_in == 0 and self.left == 0 then
        return nil, "the compressed data ends too early"
    elseif code ~= OK and code ~= STREAM_END and code ~= BUF_ERROR then
        return nil, "zlib: " .. (z.msg ~= nil and ffi.string(z.msg) or "error " .. code)
    end
    return got
end

-- Inflates exactly n bytes to dst (a uint8_t pointer) -> true, or nil and the reason.
function Stream:read(dst, n)
    local done = 0
    while done < n do
        if self.ended then
            return nil, ("%.0f bytes fewer than the directory says"):format(n - done)
        end
        local got, reason = step(self, dst + done, math.min(n - done, CHUNK))
        if not got then
            return nil, reason
        end
        done = done + got
    end
    return true
end

-- How many compressed bytes were read so far.
function Stream:taken()
    return tonumber(self.z.total_in)
end

-- Checks that nothing follows what was read, in the data or after it -> true, or nil, reason.
function Stream:finish()
    local spare = ffi.new "uint8_t[1]"
    while not self.ended do
        local got, reason = step(self, spare, 1)
        if not got then
            return nil, reason
        elseif got > 0 then
            return nil, "more bytes than the directory says"
        end
    end
    if self.left > 0 or self.z.avail_in > 0 then
        return nil, "bytes after the end of the compressed data"
    end
    return true
end

-- Frees zlib's state at once; the collector does it otherwise.
function Stream:close()
    Z.inflateEnd(ffi.gc(self.z, nil))
    self.z, self.owner = nil, nil
end

return M
