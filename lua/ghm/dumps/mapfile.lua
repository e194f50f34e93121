-- Files to read arrays from: bounded reads and checked mappings. `map` is the one place where a
-- (file, offset, length) becomes a pointer.

local clib = require "ghm.clib"
local ffi = require "ffi"
local fault = require "ghm.fault"

-- off_t has 64 bits wherever LuaJIT's pointers have
ffi.cdef [[
int open(const char *path, int flags, ...);
int close(int fd);
int64_t lseek(int fd, int64_t offset, int whence);
ssize_t pread(int fd, void *buffer, size_t count, int64_t offset);
void *mmap(void *where, size_t length, int protection, int flags, int fd, int64_t offset);
int munmap(void *start, size_t length);
int madvise(void *start, size_t length, int advice);
int posix_fadvise(int fd, int64_t offset, int64_t length, int advice);
int getpagesize(void);
char *strerror(int code);
]]

local C = ffi.C
local M = {}

local READ_ONLY = 0x80800 -- O_RDONLY | O_NONBLOCK | O_CLOEXEC: a FIFO must not make open() wait
local SEEK_END = 2
local PROT_READ, MAP_PRIVATE = 1, 2
local WILL_NEED, DONT_NEED = 3, 4 -- the same for madvise and posix_fadvise
local AHEAD = 2 ^ 26 -- bytes of a file that are asked for before it is opened
local MAP_FAILED = ffi.cast("void *", -1)
local EMFILE, EISDIR, ESPIPE = 24, 21, 29
local READ_LIMIT = 1e8 -- headers and directories; array data is mapped

local File = {}
File.__index = File

local handle = ffi.typeof "struct { int32_t number; }"

local function close_descriptor(d)
    C.close(d.number)
end

local function end_guard(g)
    clib.C.ghm_guard_end(g.number)
end

-- Throws fault "dump": one line naming the path, the array (its name, or the member of an archive,
-- a table with a name) and byte (nil: none) and the reason, a format with its values. Control
-- characters out of a file cannot reach the terminal.
function File:refuse(array, byte, reason, ...)
    local where = self.path
    if array then
        local is_member = type(array) == "table"
        local name = is_member and array.name or array
        where = ("%s: %s '%s'"):format(where, is_member and "member" or "array",
            #name > 80 and name:sub(1, 77) .. "..." or name)
    end
    if byte then
        where = where .. (": byte %.0f"):format(byte)
    end
    local line = where .. ": " .. reason:format(...)
    fault.raise("dump", "%s", (line:gsub("%c", "?")))
end

local function reason_text(code)
    if code == EISDIR then
        return "is a folder, expected a file"
    elseif code == ESPIPE then
        return "is a pipe or terminal, expected a file on disk"
    end
    return ffi.string(C.strerror(code))
end

-- Opens a file for reading -> { path, size }. Fault "dump": missing, unreadable, empty, a folder,
-- a FIFO. The descriptor is closed by :close() or with the last reference.
function M.open(path)
    local self = setmetatable({ path = path }, File)
    local fd = C.open(path, READ_ONLY)
    if fd < 0 and ffi.errno() == EMFILE then
        collectgarbage() -- it does not feel descriptors: those of dropped files may still be open
        fd = C.open(path, READ_ONLY)
    end
    if fd < 0 then
        self:refuse(nil, nil, "cannot be opened: %s", reason_text(ffi.errno()))
    end
    self.descriptor = ffi.gc(handle(fd), close_descriptor)
    local got = C.pread(fd, ffi.new "char[1]", 1, 0) -- tells folders and pipes from files
    local code = ffi.errno()
    self.size = tonumber(C.lseek(fd, 0, SEEK_END))
    if got < 0 then
        self:refuse(nil, nil, "%s", reason_text(code))
    elseif got == 0 or self.size <= 0 then
        self:refuse(nil, nil, "is empty, expected a dump")
    end
    return self
end

-- Refuses a range outside the file, and a file that has become shorter than it was when opened:
-- touching a mapping beyond the end would kill the process.
local function check_range(self, offset, length, array)
    if not self.descriptor then
        error("the file is closed", 3)
    elseif not (offset >= 0 and length >= 0 and offset <= self.size
        and length <= self.size - offset) then
        self:refuse(array, offset, "%.0f bytes expected, the file ends at byte %.0f",
            length, self.size)
    end
    local now = tonumber(C.lseek(self.descriptor.number, 0, SEEK_END))
    if now < self.size then
        self:refuse(array, nil, "the file shrank from %.0f to %.0f bytes while it was read",
            self.size, now)
    end
end

-- `length` bytes (at most 1e8) from `offset` as a string. Fault "dump" outside the file.
function File:read(offset, length, array)
    check_range(self, offset, length, array)
    assert(length <= READ_LIMIT, "array data is mapped, not read")
    local buffer, done = ffi.new("uint8_t[?]", length), 0
    while done < length do
        local got = tonumber(C.pread(self.descriptor.number, buffer + done, length - done,
            offset + done))
        if got <= 0 then
            self:refuse(array, offset + done, "cannot be read: %s",
                got < 0 and reason_text(ffi.errno()) or "the file ends here")
        end
        done = done + got
    end
    return ffi.string(buffer, length)
end

-- A read-only uint8_t pointer to `length` bytes at `offset`, and its owner: while that is
-- referenced the memory stays mapped, also after close(). Fault "dump" outside the file.
function File:map(offset, length, array)
    check_range(self, offset, length, array)
    if not self.mapping then
        local size = self.size
        local start = C.mmap(nil, size, PROT_READ, MAP_PRIVATE, self.descriptor.number, 0)
        if start == MAP_FAILED then
            self:refuse(array, nil, "cannot be mapped: %s", reason_text(ffi.errno()))
        end
        self.mapping = ffi.gc(start, function(p) -- holds the size only: it must not hold p
            C.munmap(p, size)
        end)
    end
    return ffi.cast("uint8_t *", self.mapping) + offset, self.mapping
end

-- From now until close(), what is mapped and no longer in the file reads as zeros, instead of
-- ending the process, and check() tells. Where there are too many guards already it does nothing.
function File:guard()
    local place = ffi.new "int32_t[1]"
    if not self.guarded and clib.C.ghm_guard_begin(self.mapping, self.size, place) == 0 then
        self.guarded = ffi.gc(handle(place[0]), end_guard)
    end
end

-- Refuses the file when some of its mapping, since it was guarded, could not be read.
function File:check(array)
    if self.guarded and clib.C.ghm_guard_lost(self.guarded.number) > 0 then
        self:refuse(array, nil, "the file was cut short, or its disk failed, while it was read")
    end
end

-- What the file is called, without folder and extension.
function File:stem()
    local base = self.path:match "[^/]*$"
    return base:match "^(.+)%.[^.]*$" or base
end

-- Says what becomes of the pages that `bytes` mapped bytes at ptr lie in. A mapping begins and ends
-- with a page, so that these are all its own.
local function advise(ptr, bytes, advice)
    if bytes > 0 then
        local first = ffi.cast("uintptr_t", ptr)
        local over = first % ffi.cast("uintptr_t", C.getpagesize())
        C.madvise(ffi.cast("void *", first - over), bytes + tonumber(over), advice)
    end
end

-- Has the system read mapped bytes that are needed soon, and does not wait.
function M.ask_for(ptr, bytes)
    advise(ptr, bytes, WILL_NEED)
end

-- The same for the beginning of a file that is opened later; whether it is there shows then.
function M.ask_for_file(path)
    local fd = C.open(path, READ_ONLY)
    if fd >= 0 then
        C.posix_fadvise(fd, 0, AHEAD, WILL_NEED)
        C.close(fd)
    end
end

-- Takes mapped bytes out of this process's memory. They can be touched again.
function M.let_go(ptr, bytes)
    advise(ptr, bytes, DONT_NEED)
end

local function stop_guarding(self)
    if self.guarded then
        end_guard(ffi.gc(self.guarded, nil))
        self.guarded = nil
    end
end

-- What read() gives, which looks at what is mapped, and what was lost meanwhile is refused. Arrays
-- that are handed out must not stay guarded: nobody would check what they read.
function File:guarding(array, read)
    local outer = self.guarded
    self:guard()
    local result = read()
    self:check(array)
    if not outer then
        stop_guarding(self)
    end
    return result
end

function File:close()
    stop_guarding(self)
    if self.descriptor then
        close_descriptor(ffi.gc(self.descriptor, nil))
    end
    self.descriptor, self.mapping = nil, nil
end

return M
