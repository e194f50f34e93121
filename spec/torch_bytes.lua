-- Makes what torch.save writes, byte by byte, well-formed and malformed: pickles of protocol 2 and
-- the archive around them. Each function but the last returns the opcodes of one value.

local bytes = require "dump_bytes"

local M = {}

function M.str(text)
    return "X" .. bytes.le(#text, 4) .. text
end

function M.int(value)
    if value >= -2 ^ 31 and value < 2 ^ 31 then
        return "J" .. bytes.le(value % 2 ^ 32, 4)
    end
    return "\138\8" .. bytes.le(value, 8)
end

function M.global(module, name)
    return "c" .. module .. "\n" .. name .. "\n"
end

function M.tuple(values)
    return "(" .. table.concat(values) .. "t"
end

function M.ints(values)
    local list = {}
    for k, value in ipairs(values) do
        list[k] = M.int(value)
    end
    return M.tuple(list)
end

-- items: { { key, opcodes }, ... }; a key that is no string is opcodes too, in a table.
function M.dict(items)
    local parts = {}
    for k, item in ipairs(items) do
        parts[k] = (type(item[1]) == "string" and M.str(item[1]) or item[1][1]) .. item[2]
    end
    return "}(" .. table.concat(parts) .. "u"
end

function M.list(values)
    return "](" .. table.concat(values) .. "e"
end

M.ordered_dict = M.global("collections", "OrderedDict") .. ")R"

-- A tensor of { storage = "FloatStorage", key = "0", n = 3 (elements of the storage), offset = 0,
-- shape = { 3 }, strides = { 1 }, id (opcodes of the persistent id), extra (more arguments) }.
function M.tensor(t)
    t = t or {}
    local id = t.id or M.tuple { M.str "storage", M.global("torch", t.storage or "FloatStorage"),
        M.str(t.key or "0"), M.str "cpu", M.int(t.n or 3) }
    return M.global("torch._utils", "_rebuild_tensor_v2") .. M.tuple { id .. "Q",
        t.offset_opcodes or M.int(t.offset or 0), M.ints(t.shape or { 3 }),
        M.ints(t.strides or { 1 }), "\137", M.ordered_dict, t.extra or "" } .. "R"
end

function M.pickle(value)
    return "\128\2" .. value .. "."
end

-- The bytes of an archive of { value (opcodes) or pickle (its bytes), pickle_also, storages (list
-- of { key, data, also }), byteorder, prefix = "archive", second (prefix of a second pickle),
-- pad = 64 }; also: what bytes.zip takes of a member.
function M.archive(t)
    local members, at = {}, 0
    local function add(name, data, also)
        local member = { name = name, data = data }
        local pad = -(at + 30 + #name) % (t.pad or 64) -- the data begins at a multiple of it
        member.local_extra = ("Z"):rep(pad)
        at = at + 30 + #name + pad + #data
        for key, value in pairs(also or {}) do
            member[key] = value
        end
        members[#members + 1] = member
    end
    local prefix = t.prefix or "archive"
    local pickle = t.pickle or M.pickle(t.value or M.tensor())
    add(prefix .. "/data.pkl", pickle, t.pickle_also)
    if t.byteorder then
        add(prefix .. "/byteorder", t.byteorder)
    end
    for _, storage in ipairs(t.storages or { { "0", bytes.pack("float", { 1, 2, 3 }) } }) do
        add(prefix .. "/data/" .. storage[1], storage[2], storage[3])
    end
    if t.second then
        add(t.second .. "/data.pkl", pickle)
    end
    return bytes.zip(members)
end

return M
