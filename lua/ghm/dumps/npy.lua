-- The .npy format 1.0, 2.0, 3.0: a magic string, a Python dict literal, the elements.

local array = require "ghm.array"
local elements = require "ghm.dumps.elements"
local uint = require "ghm.dumps.little"

local M = { format = "npy", extensions = { "npy" } }

local MAGIC = "\147NUMPY"
local HEADER_LIMIT = 10000 -- NumPy's own
local STRUCTURED = "[" -- the descr of a list of fields

M.EXPECTED = ("expected one of %s with '<' or '>'"):format(
    (table.concat(array.dtypes, " "):gsub("bf16 ", "")))

-- Whether a file that begins with the string `head` is of this format.
function M.claims(head)
    return head:sub(1, #MAGIC) == MAGIC
end

-- 'descr' of NumPy -> dtype, whether its bytes are in big-endian order; or nil and why elements of
-- that type are not read. Refuses what is no type.
local function read_descr(descr, refuse)
    local order, kind, unit = descr:match "^([<>|=])(%a%d+)(%[?%w*%]?)$"
    if descr:find "^|O%d*$" then
        return nil, "object elements are refused: reading them could run code"
    elseif descr == STRUCTURED then
        return nil, "structured elements are not read"
    elseif order == "|" and (array.itemsize[kind] or 1) > 1 then
        refuse("dtype '%s' has no byte order", descr)
    elseif unit == "" and array.itemsize[kind] then
        return kind, order == ">"
    end
    local reason = ("dtype '%s' is not read"):format(descr:sub(1, 40))
    if not (kind or ""):find "^[fiucbUSVMm]" then
        refuse("%s, %s", reason, M.EXPECTED)
    end
    return nil, reason
end

-- The inside of a tuple of integers -> list.
local function read_shape(text, refuse)
    local shape, rest = {}, text:gsub("%s+", "")
    while rest ~= "" do
        local digits, comma, more = rest:match "^(%d+)L?(,?)(.*)$"
        if not digits or digits:find "^0%d" or comma == "" and (more ~= "" or #shape == 0) then
            refuse("shape (%s) is no tuple of counts", text:sub(1, 60))
        elseif #digits > 16 or tonumber(digits) > 2 ^ 53 then
            refuse("dimension %s is beyond 2^53", digits:sub(1, 40))
        end
        shape[#shape + 1], rest = tonumber(digits), more
    end
    return shape
end

-- The three values that a header may hold, as patterns that end behind the value.
local values = {
    descr = { "^'([^'\\]*)'()", '^"([^"\\]*)"()', "^(%[)()" },
    fortran_order = { "^(True)()", "^(False)()" },
    shape = { "^%(([^()]*)%)()" },
}

-- The dict literal -> { descr, fortran_order, shape } as texts; of structured elements no more than
-- that they are.
local function read_dict(text, refuse)
    local found = {}
    local at = text:match "^%s*{%s*()"
    while at and not text:find("^}", at) do
        local key, start = text:match("^['\"]([%w_]+)['\"]%s*:%s*()", at)
        if not key then
            break
        elseif not values[key] or found[key] then
            refuse("header key '%s' %s, expected descr, fortran_order, shape once each",
                key:sub(1, 40), found[key] and "occurs twice" or "is unknown")
        end
        local value, stop
        for _, pattern in ipairs(values[key]) do
            if not value then
                value, stop = text:match(pattern, start)
            end
        end
        if not value then
            refuse("header key '%s' has no value that is understood", key)
        elseif value == STRUCTURED then
            return { descr = value, shape = "" }
        end
        found[key] = value
        at = text:match("^%s*,%s*()", stop) or text:match("^%s*()}", stop)
    end
    if not at or not text:find("^}%s*$", at) then
        refuse("the header is no dict literal of descr, fortran_order, shape")
    end
    for _, key in ipairs { "descr", "fortran_order", "shape" } do
        if not found[key] then
            refuse("header key '%s' is missing", key)
        end
    end
    return found
end

-- In Fortran order the first index runs fastest; nil where that is C order as well.
local function fortran_strides(shape)
    local strides, stride = {}, 1
    for axis, extent in ipairs(shape) do
        strides[axis], stride = stride, stride * extent
    end
    return not elements.is_dense(shape, strides) and strides or nil
end

-- Reads a header.
--   take(n)             the next n bytes as a string; refuses by itself when there are fewer
--   size                bytes of header and elements together
--   refuse(reason, ...) throws; called for everything that is malformed
-- -> the elements as ghm.dumps.elements describes them, with start: the bytes of the header; or nil
-- and why elements of that type are not read
function M.header(take, size, refuse)
    local lead = take(8)
    local major, minor = lead:byte(7, 8)
    if not M.claims(lead) then
        refuse("no .npy magic, expected \\x93NUMPY")
    elseif minor ~= 0 or major < 1 or major > 3 then
        refuse("version %d.%d of .npy, expected 1.0, 2.0 or 3.0", major, minor)
    end
    local width = major == 1 and 2 or 4
    local length = uint(take(width), 0, width)
    local start = 8 + width + length
    if length > HEADER_LIMIT then
        refuse("a header of %.0f bytes, expected at most %d", length, HEADER_LIMIT)
    end
    local dict = read_dict(take(length), refuse)
    local info = { start = start, shape = read_shape(dict.shape, refuse) }
    local swapped
    info.dtype, swapped = read_descr(dict.descr, refuse)
    if not info.dtype then
        return nil, swapped -- why
    end
    info.swapped = swapped and array.itemsize[info.dtype] > 1
    info.n, info.bytes = elements.measure(info.dtype, info.shape)
    if not info.n then
        refuse("shape %s has more than 2^53 bytes", array.shape_text(info.shape):sub(1, 60))
    elseif info.bytes > size - start then
        refuse("%s%s takes %.0f bytes, %.0f are there", info.dtype,
            array.shape_text(info.shape), info.bytes, size - start)
    end
    info.strides = dict.fortran_order == "True" and fortran_strides(info.shape) or nil
    return info
end

-- An entry for an array that lies uncompressed in `file` (mapfile), its header at byte `at`, with
-- `size` bytes in all, and the bytes of its header; or nil and why such elements are not read.
function M.entry(file, name, at, size)
    local taken = 0
    local function refuse(reason, ...)
        file:refuse(name, at + taken, reason, ...)
    end
    local info, reason = M.header(function(n)
        if n > size - taken then
            refuse("%d bytes of header expected, %.0f are left", n, size - taken)
        end
        taken = taken + n
        return file:read(at + taken - n, n, name)
    end, size, refuse)
    if not info then
        return nil, reason
    end
    return elements.entry(file, name, info, at + info.start), info.start
end

-- The reader of a lone .npy -> list of one entry, named by the file's stem; list of warnings.
function M.open(file)
    local entry, reason = M.entry(file, file:stem(), 0, file.size)
    if not entry then
        file:refuse(file:stem(), 0, "%s, %s", reason, M.EXPECTED)
    end
    local trailing = file.size - entry.offset - entry.bytes
    local warning = trailing > 0 and ("%.0f bytes after the array are ignored"):format(trailing)
    return { entry }, { warning or nil }
end

return M
