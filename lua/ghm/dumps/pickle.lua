-- Pickles of protocol 2, as torch.save writes them, read without running anything. Only the opcodes
-- that tensors in dicts and lists need are known. A global is a name in a record, a call a record
-- of a name and its arguments: nothing is ever looked up by a name, so nothing can run.
--
-- Values: numbers, strings, booleans, and tables with a `kind`
--   none, float     (no further fields: the value of a float is not kept)
--   tuple, list     the items are [1], [2], ...
--   dict            keys, values: two lists in the order of writing; an OrderedDict too
--   global          name = "module name"
--   call            name (of the global), args (a tuple)
--   persistent      id (a tuple): what the writer has put elsewhere

local uint = require "ghm.dumps.little"

local M = {}

local OPERATIONS_LIMIT = 1e7
local TABLES_LIMIT = 1e6 -- one byte makes a list of a hundred

local NONE, FLOAT = { kind = "none" }, { kind = "float" }

local Machine = {}
Machine.__index = Machine

local function is_container(value)
    return type(value) == "table" and (value.kind == "dict" or value.kind == "list")
end

-- Where in the dicts and lists the value that is being read belongs, "args.lr"; nil where that is
-- not known. On the stack lie, of each that is being filled: itself, a mark (none for one item
-- alone), its items so far. A tuple is only the mark and items, or without a mark its items.
function Machine:place()
    local words, at, mark, top = {}, 1, 1, #self.stack
    while at and is_container(self.stack[at]) do
        local value = self.stack[at]
        while self.marks[mark] and self.marks[mark] <= at do
            mark = mark + 1
        end
        local last = self.stack[top]
        local inner = self.marks[mark] or top > at and is_container(last) and #last == 0
            and #(last.keys or {}) == 0 and top or nil
        local item = (inner or top + 1) - at -- the number of the item that is being read
        local key = value.kind == "list" and #value + item - 1 or item % 2 == 0
            and self.stack[at + item - 1] or self.marks[mark] and self.stack[inner]
        if type(key) ~= "string" and type(key) ~= "number" then
            break
        end
        words[#words + 1], at = key, inner
    end
    return #words > 0 and table.concat(words, ".") or nil
end

function Machine:fail(reason, ...)
    self.refuse(self.started, self:place(), reason, ...)
end

-- The next n bytes of the text.
function Machine:take(n)
    if n > #self.text - self.at then
        self:fail("%.0f bytes expected, the pickle ends", n)
    end
    self.at = self.at + n
    return self.text:sub(self.at - n + 1, self.at)
end

function Machine:number(size)
    return uint(self:take(size), 0, size)
end

-- A two's complement number; beyond 2^53 rounded, perhaps to infinity.
function Machine:signed(size)
    local bytes = self:take(size)
    if size == 0 or bytes:byte(size) < 128 then
        return uint(bytes, 0, size)
    end
    return -1 - uint(bytes:gsub(".", function(c)
        return string.char(255 - c:byte())
    end), 0, size)
end

function Machine:line()
    local stop = self.text:find("\n", self.at + 1, true)
    if not stop then
        self:fail("a line has no end")
    end
    return self:take(stop - self.at):sub(1, -2)
end

function Machine:push(value)
    self.stack[#self.stack + 1] = value
end

-- Pushes a new table.
function Machine:make(value)
    self.tables = self.tables + 1
    if self.tables > TABLES_LIMIT then
        self:fail("more than %d dicts, lists, tuples and calls", TABLES_LIMIT)
    end
    self:push(value)
end

-- Takes the topmost value, of this kind if one is given; nothing below a mark can be taken.
function Machine:pop(kind)
    local top = #self.stack
    local value = self.stack[top]
    if top == 0 or top == self.marks[#self.marks] then
        self:fail("stack underflow")
    end
    self.stack[top] = nil
    return kind and self:expect(value, kind) or value
end

function Machine:expect(value, kind)
    if type(value) ~= "table" or value.kind ~= kind then
        self:fail("expected a %s, found a %s", kind, type(value) == "table" and value.kind
            or type(value))
    end
    return value
end

-- Takes the values above the last mark, and the mark.
function Machine:pop_marked()
    local mark = table.remove(self.marks)
    if not mark then
        self:fail("no mark on the stack")
    end
    local values = {}
    for k = mark + 1, #self.stack do
        values[k - mark], self.stack[k] = self.stack[k], nil
    end
    return values
end

function Machine:pop_tuple(size)
    local tuple = { kind = "tuple" }
    for k = size, 1, -1 do
        tuple[k] = self:pop()
    end
    return tuple
end

-- Puts pairs (key, value, key, value, ...) into the dict on the stack's top.
function Machine:set_items(items)
    local dict = self:expect(self:pop(), "dict")
    if #items % 2 == 1 then
        self:fail("a key without a value")
    end
    for k = 1, #items, 2 do
        dict.keys[#dict.keys + 1], dict.values[#dict.values + 1] = items[k], items[k + 1]
    end
    self:push(dict)
end

function Machine:append(items)
    local list = self:pop "list"
    for _, item in ipairs(items) do
        list[#list + 1] = item
    end
    self:push(list)
end

function Machine:recall(key)
    if self.memo[key] == nil then
        self:fail("nothing was memoized as %.0f", key)
    end
    self:push(self.memo[key])
end

function Machine:memoize(key)
    local value = self:pop()
    self.memo[key] = value
    self:push(value)
end

local function dict()
    return { kind = "dict", keys = {}, values = {} }
end

function Machine:call()
    local args, global = self:pop "tuple", self:pop "global"
    if global.name == "collections OrderedDict" and #args == 0 then
        self:make(dict())
    else
        self:make { kind = "call", name = global.name, args = args }
    end
end

local operations = {
    ["\128"] = function(self) -- PROTO
        local protocol = self:number(1)
        if protocol ~= 2 then
            self:fail("pickle protocol %d, expected torch.save's own, 2: leave pickle_protocol out",
                protocol)
        end
    end,
    ["("] = function(self) -- MARK
        self.marks[#self.marks + 1] = #self.stack
    end,
    ["N"] = function(self) self:push(NONE) end,
    ["\136"] = function(self) self:push(true) end, -- NEWTRUE
    ["\137"] = function(self) self:push(false) end, -- NEWFALSE
    ["K"] = function(self) self:push(self:number(1)) end, -- BININT1
    ["M"] = function(self) self:push(self:number(2)) end, -- BININT2
    ["J"] = function(self) self:push(self:signed(4)) end, -- BININT
    ["\138"] = function(self) -- LONG1
        self:push(self:signed(self:number(1)))
    end,
    ["G"] = function(self) -- BINFLOAT
        self:take(8)
        self:push(FLOAT)
    end,
    ["X"] = function(self) self:push(self:take(self:number(4))) end, -- BINUNICODE
    ["}"] = function(self) self:make(dict()) end, -- EMPTY_DICT
    ["]"] = function(self) self:make { kind = "list" } end, -- EMPTY_LIST
    [")"] = function(self) self:make { kind = "tuple" } end, -- EMPTY_TUPLE
    ["\133"] = function(self) self:make(self:pop_tuple(1)) end,
    ["\134"] = function(self) self:make(self:pop_tuple(2)) end,
    ["\135"] = function(self) self:make(self:pop_tuple(3)) end,
    ["t"] = function(self) -- TUPLE
        local tuple = self:pop_marked()
        tuple.kind = "tuple"
        self:make(tuple)
    end,
    ["s"] = function(self) self:set_items(self:pop_tuple(2)) end, -- SETITEM
    ["u"] = function(self) self:set_items(self:pop_marked()) end, -- SETITEMS
    ["a"] = function(self) self:append { self:pop() } end, -- APPEND
    ["e"] = function(self) self:append(self:pop_marked()) end, -- APPENDS
    ["q"] = function(self) self:memoize(self:number(1)) end, -- BINPUT
    ["r"] = function(self) self:memoize(self:number(4)) end, -- LONG_BINPUT
    ["h"] = function(self) self:recall(self:number(1)) end, -- BINGET
    ["j"] = function(self) self:recall(self:number(4)) end, -- LONG_BINGET
    ["c"] = function(self) -- GLOBAL
        local name = self:line() .. " " .. self:line()
        local known, advice = self.known(name)
        if not known then
            self:fail("refused global '%s': only tensors in dicts and lists are read; %s",
                name:sub(1, 80):gsub(" ", "."), advice)
        end
        self:make { kind = "global", name = name }
    end,
    ["R"] = Machine.call, -- REDUCE
    ["Q"] = function(self) -- BINPERSID
        self:make { kind = "persistent", id = self:pop "tuple" }
    end,
    ["b"] = function(self) -- BUILD: the attributes of a state_dict, which hold no tensors
        self:pop "dict"
        self:push(self:pop "dict")
    end,
}

-- Known, in order to be refused by name: they make objects or reach code.
local refused = { ["i"] = "INST", ["o"] = "OBJ", ["\129"] = "NEWOBJ", ["\130"] = "EXT1",
    ["\131"] = "EXT2", ["\132"] = "EXT4", ["\146"] = "NEWOBJ_EX", ["\147"] = "STACK_GLOBAL" }

-- Reads one pickle, the whole string -> its value.
--   known(name)             whether it may hold that global ("module name"); if not, what to do
--   refuse(at, place, ...)  throws: what is wrong at the 0-based byte `at`, place in the dicts and
--                           lists ("args.lr", or nil), a format and its values
function M.read(text, known, refuse)
    local self = setmetatable({ text = text, at = 0, started = 0, stack = {}, marks = {}, memo = {},
        tables = 0, known = known, refuse = refuse }, Machine)
    for _ = 1, OPERATIONS_LIMIT do
        self.started = self.at
        local code = self:take(1)
        if code == "." then -- STOP
            if #self.stack ~= 1 or #self.marks > 0 or self.at ~= #text then
                self:fail("the pickle stops with %d values, %d marks and %.0f bytes left, expected"
                    .. " one value", #self.stack, #self.marks, #text - self.at)
            end
            return self.stack[1]
        elseif not operations[code] then
            self:fail("%s: only tensors in dicts and lists are read", refused[code]
                and "refused opcode " .. refused[code]
                or ("unknown opcode 0x%02x"):format(code:byte()))
        end
        operations[code](self)
    end
    return self:fail("more than %d operations", OPERATIONS_LIMIT)
end

return M
