-- Makes dump files byte by byte, well-formed and malformed, for the specs of the readers.

local ffi = require "ffi"
local lu = require "luaunit"
local dump = require "ghm.dumps.dump"
local fault = require "ghm.fault"
local inflate = require "ghm.dumps.inflate"
local posix = require "ghm.posix"

ffi.cdef [[
int compress2(uint8_t *target, unsigned long *target_length, const char *source,
    unsigned long length, int level);
]]

local Z = ffi.load "libz.so.1"
local M = {}

-- `size` little-endian bytes of a whole number.
function M.le(value, size)
    local bytes = {}
    for k = 1, size do
        bytes[k] = string.char(value % 256)
        value = math.floor(value / 256)
    end
    return table.concat(bytes)
end

-- The bytes of numbers in a C type, in this machine's order.
function M.pack(ctype, values)
    local block = ffi.new(ctype .. "[?]", #values, values)
    return ffi.string(block, ffi.sizeof(block))
end

-- The bytes of an .npy: { descr, shape (as Python text), data, fortran = "False", major = 1,
-- minor = 0, header (whole dict text), length (said length of the header), pad = 64 }.
function M.npy(t)
    local major = t.major or 1
    local width = major == 1 and 2 or 4
    local header = t.header or ("{'descr': %s, 'fortran_order': %s, 'shape': %s, }"):format(
        t.descr and "'" .. t.descr .. "'" or "'<f4'", t.fortran or "False", t.shape or "(3,)")
    local pad = -(8 + width + #header + 1) % (t.pad or 64)
    header = header .. (" "):rep(pad) .. "\n"
    return "\147NUMPY" .. string.char(major, t.minor or 0) .. M.le(t.length or #header, width)
        .. header .. (t.data or M.pack("float", { 1, 2, 3 }))
end

function M.crc(bytes)
    return inflate.crc32(0, ffi.cast("const uint8_t *", bytes), #bytes)
end

-- Raw deflate: zlib's stream without its two bytes of header and four of checksum.
function M.deflate(bytes)
    local length = ffi.new("unsigned long[1]", #bytes + 1000)
    local target = ffi.new("uint8_t[?]", #bytes + 1000)
    assert(Z.compress2(target, length, bytes, #bytes, 6) == 0)
    return ffi.string(target + 2, tonumber(length[0]) - 6)
end

-- One member's local part and directory entry. member: { name, data, method (0), and what is to be
-- a lie: crc, size, packed, flags, offset, local_name, local_method, extra, disk }.
local function zip_member(member, at)
    local method = member.method or 0
    local body = member.body or method == 8 and M.deflate(member.data) or member.data
    local sizes = M.le(member.crc or M.crc(member.data), 4)
        .. M.le(member.packed or #body, 4) .. M.le(member.size or #member.data, 4)
    local name, extra = member.name, member.extra or ""
    local local_name = member.local_name or name
    local head = "PK\3\4" .. M.le(20, 2) .. M.le(member.flags or 0, 2)
        .. M.le(member.local_method or method, 2) .. M.le(0, 4) .. M.le(0, 12)
        .. M.le(#local_name, 2) .. M.le(#(member.local_extra or ""), 2) .. local_name
        .. (member.local_extra or "")
    local entry = "PK\1\2" .. M.le(20, 2) .. M.le(20, 2) .. M.le(member.flags or 0, 2)
        .. M.le(method, 2) .. M.le(0, 4) .. sizes .. M.le(#name, 2) .. M.le(#extra, 2) .. M.le(0, 2)
        .. M.le(0, 2) .. M.le(0, 2) .. M.le(0, 4) .. M.le(member.offset or at, 4) .. name .. extra
    return head .. body, entry
end

-- An archive of members. opts, mostly to lie with
--   comment                  after the end record
--   entries, size, offset    of the directory in the end record; disk its number there
--   zip64                    writes a zip64 end record; "sentinel": only asks for one
--   locator, narrow          where the zip64 record is said to be; the size beside its sentinel
--   gap                      bytes between the directory and its end record
--   directory(bytes)         -> the bytes of another directory
function M.zip(members, opts)
    opts = opts or {}
    local parts, entries, at = {}, {}, 0
    for k, member in ipairs(members) do
        parts[k], entries[k] = zip_member(member, at)
        at = at + #parts[k]
    end
    local directory = opts.directory and opts.directory(table.concat(entries))
        or table.concat(entries)
    local count, size, offset = opts.entries or #members, opts.size or #directory, opts.offset or at
    local wide = ""
    if opts.zip64 then
        local stop = at + #directory
        wide = opts.zip64 == "sentinel" and "" or "PK\6\6" .. M.le(44, 8) .. M.le(45, 2)
            .. M.le(45, 2) .. M.le(0, 8) .. M.le(count, 8) .. M.le(count, 8) .. M.le(size, 8)
            .. M.le(offset, 8) .. "PK\6\7" .. M.le(0, 4) .. M.le(opts.locator or stop, 8)
            .. M.le(1, 4)
        count, size, offset = 0xFFFF, opts.narrow or 0xFFFFFFFF, 0xFFFFFFFF
    end
    local comment = opts.comment or ""
    return table.concat(parts) .. directory .. (opts.gap or "") .. wide .. "PK\5\6"
        .. M.le(opts.disk or 0, 2) .. M.le(opts.disk or 0, 2) .. M.le(count, 2) .. M.le(count, 2)
        .. M.le(size, 4) .. M.le(offset, 4) .. M.le(#comment, 2) .. comment
end

-- The bytes of a .safetensors: { header (JSON text), data, length (said length of the header) }.
function M.safetensors(t)
    local header = t.header
        or '{"x":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}}'
    return M.le(t.length or #header, 8) .. header .. (t.data or M.pack("float", { 1, 2, 3 }))
end

local Folder = {}
Folder.__index = Folder

-- A new folder below the system's temporary one: { path, write(name, bytes) -> path, remove() }.
function M.folder()
    local path = os.tmpname()
    os.remove(path)
    assert(posix.make_folder(path))
    return M.folder_at(path)
end

-- A folder that is there already.
function M.folder_at(path)
    return setmetatable({ path = path }, Folder)
end

function Folder:write(name, bytes)
    local path = self.path .. "/" .. name
    local file = assert(io.open(path, "wb"))
    file:write(bytes)
    file:close()
    return path
end

function Folder:remove()
    os.execute("rm -rf " .. posix.quote(self.path))
end

-- Opens a dump and reads every array, CRC checked -> the dump.
function M.read_all(path)
    local file = dump.open(path, { check_crc = true })
    for _, name in ipairs(file.names) do
        file:get(name)
    end
    return file
end

-- Asserts that call(...) throws fault "dump" in one line that holds every text in `parts`.
function M.assert_refused(parts, call, ...)
    local ok, thrown = pcall(call, ...)
    lu.assertFalse(ok, "not refused; expected: " .. table.concat(parts, ", "))
    lu.assertTrue(fault.is(thrown), "no fault: " .. tostring(thrown))
    lu.assertEquals(thrown.kind, "dump")
    lu.assertNil(thrown.message:find "%c", "more than one line")
    for _, part in ipairs(parts) do
        lu.assertStrContains(thrown.message, part)
    end
end

return M
