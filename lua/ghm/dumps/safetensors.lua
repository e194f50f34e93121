-- The .safetensors format: the length of a header, the header (JSON), the elements.

local array = require "ghm.array"
local elements = require "ghm.dumps.elements"
local json = require "ghm.json"
local uint = require "ghm.dumps.little"

local M = { format = "safetensors", extensions = { "safetensors" } }

local HEADER_LIMIT = 1e8 -- the format's own
local METADATA = "__metadata__"

local dtypes = { F16 = "f2", BF16 = "bf16", F32 = "f4", F64 = "f8", I8 = "i1", U8 = "u1",
    BOOL = "b1", I16 = "i2", I32 = "i4", I64 = "i8" }

-- The format's other dtypes, each with one of ours whose elements take as many bytes. A tensor of
-- these is refused by name and the others are read; one of no such dtype refuses the file.
local not_read = { U16 = "i2", U32 = "i4", U64 = "i8", C64 = "f8", F8_E4M3 = "i1", F8_E5M2 = "i1",
    F8_E8M0 = "i1" }
local EXPECTED = "expected one of F16 BF16 F32 F64 I8 U8 I16 I32 I64 BOOL"

-- Whether a file that begins with the string `head` is of this format; there is no magic, so what
-- looks unlike it but is called so is claimed too, and told what is wrong.
function M.claims(head, file)
    return head:find "^....%z%z%z%z[ \t\r\n]*{" ~= nil or file.path:find "%.safetensors$" ~= nil
end

local function is_object(value)
    return type(value) == "table" and not json.is_array(value) and value ~= json.null
end

-- Whether value is a JSON list of whole numbers that are not negative.
local function is_counts(value)
    if not json.is_array(value) then
        return false
    end
    for _, x in ipairs(value) do
        if type(x) ~= "number" or x < 0 or x ~= math.floor(x) or x > 2 ^ 53 then
            return false
        end
    end
    return true
end

-- -> the header's object, the byte where the elements begin
local function read_header(file)
    local length = file.size >= 8 and uint(file:read(0, 8), 0, 8) or 0
    if length == 0 then
        file:refuse(nil, 0, "no length of a header, expected 8 bytes that are not all zero")
    elseif length > HEADER_LIMIT then
        file:refuse(nil, 0, "a header of %.0f bytes, expected at most %d", length, HEADER_LIMIT)
    elseif length > file.size - 8 then
        file:refuse(nil, 0, "a header of %.0f bytes, %.0f are there", length, file.size - 8)
    end
    local header, _, at, what = json.decode(file:read(8, length))
    if at then
        file:refuse(nil, 7 + at, "the header is no JSON: %s", what)
    elseif not is_object(header) then
        file:refuse(nil, 8, "the header is no JSON object, expected one of tensors")
    end
    return header, 8 + length
end

local function check_metadata(file, metadata)
    local good = metadata == nil or is_object(metadata)
    for _, value in pairs(good and metadata or {}) do
        good = good and type(value) == "string"
    end
    if not good then
        file:refuse(nil, 8, "'%s' is no object of strings", METADATA)
    end
end

-- What the header says of one tensor -> as ghm.dumps.elements describes it, with name, and first
-- and stop: its bytes, counted from where the elements begin; reason: why it is not read, or nil.
local function read_tensor(file, name, said, room)
    local function refuse(reason, ...)
        file:refuse(name, 8, reason, ...)
    end
    for key in pairs(is_object(said) and said or {}) do
        if key ~= "dtype" and key ~= "shape" and key ~= "data_offsets" then
            refuse("key '%s' is unknown, expected dtype, shape, data_offsets", key:sub(1, 40))
        end
    end
    if not is_object(said) or type(said.dtype) ~= "string" or not is_counts(said.shape)
        or not is_counts(said.data_offsets) or #said.data_offsets ~= 2 then
        refuse("expected a dtype, a shape of counts and data_offsets [begin, end]")
    end
    local info = { name = name, dtype = dtypes[said.dtype] or not_read[said.dtype],
        shape = said.shape, first = said.data_offsets[1], stop = said.data_offsets[2] }
    if not dtypes[said.dtype] then
        info.reason = ("dtype '%s' is not read"):format(said.dtype:sub(1, 40))
    end
    if not info.dtype then
        refuse("%s, %s", info.reason, EXPECTED)
    end
    info.n, info.bytes = elements.measure(info.dtype, info.shape)
    local shape = array.shape_text(info.shape):sub(1, 60)
    if not info.n then
        refuse("shape %s has more than 2^53 bytes", shape)
    elseif info.stop < info.first or info.stop > room then
        refuse("data_offsets [%.0f, %.0f] are no range of the %.0f bytes of elements", info.first,
            info.stop, room)
    elseif info.stop - info.first ~= info.bytes then
        refuse("%s%s takes %.0f bytes, data_offsets [%.0f, %.0f] give it %.0f",
            info.reason and said.dtype or info.dtype, shape, info.bytes, info.first, info.stop,
            info.stop - info.first)
    end
    return info
end

-- The reader -> list of entries in the order of their elements, no warnings, list of { name,
-- reason } of what is not read.
function M.open(file)
    local header, start = read_header(file)
    local room = file.size - start
    check_metadata(file, header[METADATA])
    header[METADATA] = nil
    local tensors = {}
    for name in pairs(header) do
        tensors[#tensors + 1] = name
    end
    table.sort(tensors) -- of several bad ones, each run tells the same
    for k, name in ipairs(tensors) do
        tensors[k] = read_tensor(file, name, header[name], room)
    end
    table.sort(tensors, function(a, b)
        if a.first ~= b.first then
            return a.first < b.first
        elseif a.stop ~= b.stop then
            return a.stop < b.stop
        end
        return a.name < b.name
    end)
    local entries, unread, filled = {}, {}, 0
    for _, info in ipairs(tensors) do
        if info.first ~= filled then
            file:refuse(info.name, start + info.first, "%s, expected its elements at byte %.0f",
                info.first < filled and "overlaps the tensor before it" or "a hole before it",
                start + filled)
        end
        filled = info.stop
        if info.reason then
            unread[#unread + 1] = { name = info.name, reason = info.reason }
        else
            entries[#entries + 1] = elements.entry(file, info.name, info, start + info.first)
        end
    end
    if #entries == 0 and unread[1] then
        file:refuse(unread[1].name, 8, "%s, %s", unread[1].reason, EXPECTED)
    elseif #entries == 0 then
        file:refuse(nil, 8, "holds no tensors, expected arrays")
    elseif filled ~= room then
        file:refuse(nil, start + filled, "%.0f bytes after the last tensor, expected none",
            room - filled)
    end
    return entries, {}, unread
end

return M
