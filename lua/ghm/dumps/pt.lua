-- What torch.save writes: a zip archive of PREFIX/data.pkl, a pickle that says what there is, and
-- PREFIX/data/KEY, the elements of one storage each, which tensors are views of.
--
-- Arrays are the tensors in the pickled dicts, lists and tuples, nested ones named as
-- "levels.P3.logits" and "0"; a tensor saved alone is named by the file's stem.

local array = require "ghm.array"
local elements = require "ghm.dumps.elements"
local pickle = require "ghm.dumps.pickle"
local zip = require "ghm.dumps.zip"

local M = { format = "pt", extensions = { "pt", "pth" } }

local RANK_LIMIT = 8
local DEPTH_LIMIT, VALUES_LIMIT, NAME_LIMIT = 64, 1e6, 1000 -- of dicts and lists in each other

-- The beginning of what torch.save wrote before version 1.6.
local LEGACY = "\128\2\138\10l\252\156F\249 j\168P\25."

local TENSOR, PARAMETER = "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"

local storages = {
    ["torch HalfStorage"] = "f2", ["torch BFloat16Storage"] = "bf16", ["torch FloatStorage"] = "f4",
    ["torch DoubleStorage"] = "f8", ["torch CharStorage"] = "i1", ["torch ByteStorage"] = "u1",
    ["torch BoolStorage"] = "b1", ["torch ShortStorage"] = "i2", ["torch IntStorage"] = "i4",
    ["torch LongStorage"] = "i8",
}

local globals = { [TENSOR] = true, [PARAMETER] = true, ["collections OrderedDict"] = true,
    ["torch Size"] = true }
for name in pairs(storages) do
    globals[name] = true
end

-- What a user can save instead of what globals of these patterns make.
local instead = { { "^torch._utils _rebuild_sparse_tensor$", "x.to_dense()" },
    { "^torch._utils _rebuild_qtensor$", "x.dequantize()" },
    { "^torch._utils _rebuild_tensor_v3$", "x.float(), of a dtype such as uint16 or float8" },
    { "^torch._tensor _rebuild_from_type", "x.as_subclass(torch.Tensor)" },
    { "^torch Complex", "torch.view_as_real(x), of a complex x" },
    { "^numpy%..*_reconstruct$", "torch.as_tensor(x), of a NumPy array" },
    { "^numpy%..*scalar$", "x.item(), of a NumPy scalar" },
    { "^collections ", "dict(x)" },
    { "^torch%.nn%.", "module.state_dict()" }, { "^__torch__", "module.state_dict()" } }

-- Whether a pickle may hold a global; if not, what to do.
local function is_known(name)
    for _, other in ipairs(instead) do
        if name:find(other[1]) then
            return globals[name], "save " .. other[2]
        end
    end
    return globals[name], "leave it out"
end

-- The prefix of PREFIX/data.pkl among the members, and that of a second one; nil without.
local function prefixes(members)
    local found = {}
    for _, member in ipairs(members) do
        found[#found + 1] = member.name:match "^([^/]+)/data%.pkl$"
    end
    return found[1], found[2]
end

-- Whether the file is of this format, or is called so: other forms of a pickle are told from it
-- when it is opened.
function M.claims(head, file)
    if zip.claims(head) then
        return prefixes(zip.members(file)) ~= nil
    end
    return head:sub(1, #LEGACY) == LEGACY or file.path:find "%.pth?$" ~= nil
end

local function is_count(x)
    return type(x) == "number" and x >= 0 and x == math.floor(x) and x <= 2 ^ 53
end

-- The items of a tuple of counts -> a plain list, or nil.
local function counts(tuple)
    local list = {}
    for k, x in ipairs(type(tuple) == "table" and tuple.kind == "tuple" and tuple or { false }) do
        if not is_count(x) then
            return nil
        end
        list[k] = x
    end
    return list
end

-- One archive that is being read: file, opts, prefix, members (by name), entries, unread (as of
-- ghm.dumps.dump), known (names), numbers (list -> whether it is one of numbers).
local Archive = {}
Archive.__index = Archive

-- Checks a member's CRC-32, once for all tensors in it; 0 says that the writer left it out.
function Archive:check_crc(name, member)
    if member.crc ~= 0 and not self.checked[member] then
        zip.check_crc(self.file, name, member)
    end
    self.checked[member] = true
end

-- The member with the elements of a tensor's storage, its dtype, its number of elements.
function Archive:storage(name, value)
    local id = type(value) == "table" and value.kind == "persistent" and value.id or {}
    local global = type(id[2]) == "table" and id[2].kind == "global" and id[2].name
    local dtype = storages[global]
    if id[1] ~= "storage" or not dtype or type(id[3]) ~= "string" or not is_count(id[5]) then
        self.file:refuse(name, self.pickle.offset, "its storage is not what torch.save writes")
    end
    local member = self.members[("%s/data/%s"):format(self.prefix, id[3])]
    if not member then
        self.file:refuse(name, self.pickle.offset, "its storage '%s' is not in the archive", id[3])
    elseif member.method ~= 0 then
        self.file:refuse(name, member.offset, "its storage is compressed, expected it stored")
    elseif member.size ~= id[5] * array.itemsize[dtype] then
        self.file:refuse(name, member.offset, "its storage takes %.0f bytes, expected %.0f of %s",
            member.size, id[5] * array.itemsize[dtype], dtype)
    end
    return member, dtype, id[5]
end

-- The arguments of a tensor's call -> as ghm.dumps.elements describes it, its offset in elements;
-- fails where they are not those that torch.save writes.
function Archive:layout(name, args, dtype, n_stored)
    local function refuse(reason, ...)
        self.file:refuse(name, self.pickle.offset, reason, ...)
    end
    local offset, shape, strides, extra = args[2], counts(args[3]), counts(args[4]), args[7]
    if not is_count(offset) or not shape or not strides or #shape ~= #strides then
        refuse("offset, size or stride are no counts, expected as many sizes as strides")
    elseif #shape > RANK_LIMIT then
        refuse("%d axes, expected at most %d", #shape, RANK_LIMIT)
    elseif extra ~= nil and not (type(extra) == "table" and extra.kind == "dict"
        and #extra.keys == 0) then
        refuse("a tensor with attributes (conjugate, negative), expected a plain one: save"
            .. " x.resolve_conj().resolve_neg()")
    end
    local info = { dtype = dtype, shape = shape }
    info.strides = not elements.is_dense(shape, strides) and strides or nil
    info.n, info.bytes = elements.measure(dtype, shape)
    if not info.n then
        refuse("shape %s has more than 2^53 bytes", array.shape_text(shape))
    elseif offset > n_stored or elements.span(info) > n_stored - offset then
        refuse("%s%s with offset %.0f and strides %s passes the %.0f elements of its storage",
            dtype, array.shape_text(shape), offset, array.shape_text(strides), n_stored)
    elseif info.bytes > self.file.size then
        refuse("%s%s repeats the elements of its storage to %.0f bytes, more than the file has",
            dtype, array.shape_text(shape), info.bytes)
    end
    return info, offset
end

function Archive:add_tensor(name, args)
    if self.known[name] then
        self.file:refuse(name, self.pickle.offset, "the name occurs twice")
    end
    self.known[name] = true
    local member, dtype, n_stored = self:storage(name, args[1])
    local info, offset = self:layout(name, args, dtype, n_stored)
    local entry = elements.entry(self.file, name, info,
        member.offset + offset * array.itemsize[dtype])
    if self.opts.check_crc then
        elements.guard(entry, function()
            self:check_crc(name, member)
        end)
    end
    self.entries[#self.entries + 1] = entry
end

-- Notes what looks like an array and is not read; of several of a name the first.
function Archive:leave(name, reason)
    if not self.known[name] then
        self.known[name] = true
        self.unread[#self.unread + 1] = { name = name, reason = reason }
    end
end

-- The name that a key of a dict gives; of other types than words and whole numbers their type, and
-- why nothing below is read.
local function name_of(key)
    if type(key) == "string" or type(key) == "number" then
        return key
    end
    local kind = type(key) == "boolean" and "bool" or key.kind == "none" and "None" or key.kind
    return "{" .. kind .. "}", ("a dict's key is a %s, expected a word or a whole number"):format(
        kind)
end

-- Adds the items of a dict, list or tuple, each named by what it is called in there.
function Archive:add_items(keys, items, name, depth, reason)
    for k, item in ipairs(items) do
        if type(item) == "table" then
            local key, odd = name_of(not keys and k - 1 or keys[k])
            self:add(item, name and name .. "." .. key or tostring(key), depth + 1, reason or odd)
        end
    end
end

local function is_number(x)
    return type(x) == "number" or type(x) == "table" and x.kind == "float"
end

-- Whether a value is a list of numbers, or of lists that begin with one. Looked at once: one list
-- can be told a million times.
function Archive:is_list_of_numbers(value)
    if value.kind == "list" and self.numbers[value] == nil then
        self.numbers[value] = #value > 0
        for _, x in ipairs(value) do
            if not is_number(x) and not (type(x) == "table" and x.kind == "list"
                and is_number(x[1])) then
                self.numbers[value] = false
            end
        end
    end
    return self.numbers[value]
end

-- Adds the tensors in a pickled value, or notes them where there is a reason not to read them. What
-- is no tensor, numbers and words, is no array; a list of numbers among the tensors may be meant as
-- one, deeper ones are settings.
function Archive:add(value, name, depth, reason)
    self.seen = self.seen + 1
    if depth > DEPTH_LIMIT or self.seen > VALUES_LIMIT or #(name or "") > NAME_LIMIT then
        self.file:refuse(nil, self.pickle.offset, "dicts and lists nested deeper than %d levels,"
            .. " more than %d of them, or a name over %d bytes", DEPTH_LIMIT, VALUES_LIMIT,
            NAME_LIMIT)
    elseif value.kind == "dict" then
        self:add_items(value.keys, value.values, name, depth, reason)
    elseif depth <= 2 and self:is_list_of_numbers(value) then
        self:leave(name or self.file:stem(), "a list of numbers, expected torch.tensor(x)")
    elseif value.kind == "list" or value.kind == "tuple" then
        self:add_items(nil, value, name, depth, reason)
    elseif value.kind == "call" and value.name == TENSOR and reason then
        self:leave(name, reason)
    elseif value.kind == "call" and value.name == TENSOR then
        self:add_tensor(name or self.file:stem(), value.args)
    elseif value.kind == "call" and value.name == PARAMETER and type(value.args[1]) == "table" then
        self:add(value.args[1], name, depth + 1, reason)
    elseif value.kind == "persistent" then
        self:leave(name or self.file:stem(), "a bare storage, expected torch.tensor(x)")
    end
end

-- The small member of that name as a string, CRC checked; nil where there is none.
function Archive:text(name)
    local member = self.members[self.prefix .. "/" .. name]
    if not member then
        return nil
    elseif member.method ~= 0 then
        self.file:refuse(nil, member.offset, "%s is compressed, expected it stored", member.name)
    end
    self:check_crc(nil, member)
    return self.file:read(member.offset, member.size), member
end

local function refuse_other(file, head)
    local tar = file.size >= 262 and file:read(257, 5) == "ustar"
    local what = tar and "a tar archive of an early torch.save"
        or head:find "^\128[\1-\5]" and "a pickle without an archive, torch.save's legacy format"
        or "no zip archive"
    file:refuse(nil, 0, "%s, expected one that torch.save writes since 1.6: save it again with"
        .. " torch.save(torch.load(path), path)", what)
end

-- The reader -> list of entries in the pickle's order, no warnings, list of { name, reason } of
-- what is not read.
-- opts.check_crc: check storages too when they are read; a CRC of 0 says that there is none.
function M.open(file, opts)
    local head = file:read(0, math.min(file.size, 16))
    if not zip.claims(head) then
        refuse_other(file, head)
    end
    local self = setmetatable({ file = file, opts = opts, members = {}, entries = {}, unread = {},
        known = {}, checked = {}, numbers = {}, seen = 0 }, Archive)
    local members = zip.members(file)
    for _, member in ipairs(members) do
        self.members[member.name] = member
    end
    local second
    self.prefix, second = prefixes(members)
    if not self.prefix then
        file:refuse(nil, nil, "an archive without data.pkl, expected what torch.save writes")
    elseif second then
        file:refuse(nil, nil, "two pickles, %s/data.pkl and %s/data.pkl, expected one", self.prefix,
            second)
    end
    local text
    text, self.pickle = self:text "data.pkl"
    if self:text "byteorder" == "big" then
        file:refuse(nil, nil, "its elements are big-endian, expected little-endian ones")
    end
    local value = pickle.read(text, is_known, function(at, place, ...)
        file:refuse(place, self.pickle.offset + at, ...)
    end)
    if type(value) == "table" then
        self:add(value, nil, 1)
    end
    local left = self.unread[1]
    if #self.entries == 0 and left then
        file:refuse(left.name, self.pickle.offset, "no tensors that are read: %s", left.reason)
    elseif #self.entries == 0 then
        file:refuse(nil, self.pickle.offset, "the pickle holds no tensors, expected arrays")
    end
    return self.entries, {}, self.unread
end

return M
