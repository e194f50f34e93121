-- Arrays: a typed pointer with a shape, C order, element 0 first. No tensor library: what reads,
-- shows and hands data to the kernels, no arithmetic.
--
-- Fields of an array
--   ptr       cdata pointer to the element type (uint16_t for f2 and bf16); nil once freed
--   dtype     a key of array.itemsize
--   shape     list of plain numbers, {} for a scalar
--   n         number of elements
--   owner     whatever keeps the memory alive
--   readonly  true where writing is refused: a mapped file, the memory of a device
--   remote    of an array on a device: pointer there; asking for ptr fetches a copy (device.array)

local ffi = require "ffi"
local fault = require "ghm.fault"
local kinds = require "ghm.dtype"

ffi.cdef [[
void *calloc(size_t count, size_t size);
void free(void *p);
]]

local C = ffi.C
local M = {}

local LARGEST = 2 ^ 53 -- doubles count exactly up to here

-- The dtypes in the order in which messages list them, and the bytes of one element of each.
M.dtypes = { "f2", "f4", "f8", "bf16", "i1", "u1", "b1", "i2", "i4", "i8" }
M.itemsize = {}
for name, kind in pairs(kinds) do
    M.itemsize[name] = kind.size
end

local Array = {}
Array.__index = Array

-- Number of elements of a shape, or nil when a dimension is no count or the product passes 2^53.
function M.count(shape)
    local n, empty = 1, false
    for _, dim in ipairs(shape) do
        if not (dim >= 0 and dim <= LARGEST and dim == math.floor(dim)) then
            return nil
        end
        empty = empty or dim == 0
        n = n <= LARGEST / dim and n * dim or math.huge
    end
    -- one empty dimension empties the array, however long the others
    return empty and 0 or n <= LARGEST and n or nil
end

-- The place of the flat element i of a shape: list of 0-based indices, one for each axis.
function M.place(shape, i)
    local indices = {}
    for axis = #shape, 1, -1 do
        indices[axis] = i % shape[axis]
        i = math.floor(i / shape[axis])
    end
    return indices
end

function M.shape_text(shape)
    local dims = {}
    for k, dim in ipairs(shape) do
        dims[k] = ("%.0f"):format(dim)
    end
    return "[" .. table.concat(dims, ",") .. "]"
end

-- An array over memory that `owner` keeps alive; ptr is any pointer, aligned for the dtype, to at
-- least count(shape) elements. Nothing is copied.
function M.view(ptr, dtype, shape, owner)
    local kind = kinds[dtype] or error("unknown dtype " .. tostring(dtype), 2)
    local n = M.count(shape) or error("impossible shape " .. M.shape_text(shape), 2)
    return setmetatable({
        ptr = ffi.cast(kind.pointer, ptr), dtype = dtype, shape = shape, n = n, owner = owner,
    }, Array)
end

local UNSEEN_MOST = 2 ^ 28
local unseen = 0

-- To be told of memory that only a pointer holds, before it is taken: the collector sees but the
-- pointer, and would let gigabytes lie that nobody holds any more.
function M.account(bytes)
    unseen = unseen + bytes
    if unseen > UNSEEN_MOST then
        collectgarbage()
        unseen = bytes
    end
end

-- A zero-filled array in C memory. Fault "failed" when there is not so much memory.
function M.new(dtype, shape)
    local size = M.itemsize[dtype] or error("unknown dtype " .. tostring(dtype), 2)
    local n = M.count(shape)
    M.account((n or 0) * size)
    local memory = n and n <= LARGEST / size and C.calloc(math.max(n, 1), size) or nil
    if memory == nil then
        fault.raise("failed", "no memory for an array %s%s", dtype, M.shape_text(shape))
    end
    memory = ffi.gc(memory, C.free)
    local a = M.view(memory, dtype, shape, memory)
    a.heap = true
    return a
end

-- Writes the nested lists `list` from element `at` on; shape is what each level must have.
local function fill(a, list, depth, at)
    if depth > #a.shape then
        if type(list) ~= "number" then
            fault.raise("usage", "an array is made of numbers, not of a %s", type(list))
        end
        a:set(at, list)
        return at + 1
    elseif type(list) ~= "table" or #list ~= a.shape[depth] then
        fault.raise("usage", "ragged lists: expected %d entries at level %d, found %s",
            a.shape[depth], depth, type(list) == "table" and #list or "a " .. type(list))
    end
    for _, entry in ipairs(list) do
        at = fill(a, entry, depth + 1, at)
    end
    return at
end

-- An array from a number, a list of numbers or nested lists. shape is inferred from the nesting;
-- given, it shapes a flat list. Fault "usage": ragged lists, other things than numbers, values
-- that an integer dtype cannot hold, a shape that holds another number of elements.
function M.from(list, dtype, shape)
    local nested, level = {}, list
    while type(level) == "table" do
        nested[#nested + 1] = #level
        level = level[1]
    end
    local a = M.new(dtype, nested)
    fill(a, list, 1, 0)
    return shape and a:reshape(shape) or a
end

local function check_alive(self)
    if not self.ptr then
        error("the array was freed", 3)
    end
end

local function check_index(self, i)
    if not (i >= 0 and i < self.n) then
        error(("element %s of %s, counted from 0"):format(tostring(i), tostring(self)), 3)
    end
end

-- Element i, flat and 0-based, as a plain number; 64-bit integers beyond 2^53 are rounded.
function Array:get(i)
    check_alive(self)
    check_index(self, i)
    return kinds[self.dtype].decode(self.ptr[i])
end

-- Stores v, rounded to nearest even for floats. Fault "usage" where an integer dtype cannot hold v,
-- and for the arrays of a mapped file.
function Array:set(i, v)
    check_alive(self)
    check_index(self, i)
    if self.readonly then
        fault.raise("usage", "%s lies elsewhere and is read-only: convert '%s' makes a copy",
            tostring(self), self.dtype)
    end
    self.ptr[i] = kinds[self.dtype].encode(v)
end

-- The place of the flat element i: list of 0-based indices, one for each axis.
function Array:place(i)
    return M.place(self.shape, i)
end

-- Nested lists of plain numbers in the array's shape; a number for a scalar.
function Array:totable()
    local at = 0
    local function level(depth)
        if depth > #self.shape then
            at = at + 1
            return self:get(at - 1)
        end
        local list = {}
        for k = 1, self.shape[depth] do
            list[k] = level(depth + 1)
        end
        return list
    end
    return level(1)
end

-- A new array of the same values in another dtype. Floats round to nearest even and overflow to
-- infinity; fault "usage" where an integer dtype cannot hold a value.
function Array:convert(dtype)
    check_alive(self)
    local copy = M.new(dtype, self.shape)
    if dtype == self.dtype then
        ffi.copy(copy.ptr, self.ptr, self.n * M.itemsize[dtype])
        return copy
    end
    local decode, encode = kinds[self.dtype].decode, kinds[dtype].encode
    local from, to = self.ptr, copy.ptr
    for i = 0, self.n - 1 do
        to[i] = encode(decode(from[i]))
    end
    return copy
end

-- A view of the same memory in another shape of as many elements, else fault "usage".
function Array:reshape(shape)
    check_alive(self)
    if M.count(shape) ~= self.n then
        fault.raise("usage", "cannot reshape %s to %s: %.0f elements", tostring(self),
            M.shape_text(shape), self.n)
    end
    local view = M.view(self.ptr, self.dtype, shape, self.owner)
    view.readonly = self.readonly
    return view
end

-- One pass over the elements -> { min, max, mean (over finite elements, nil without any), zeros,
-- nonfinite (NaN and infinities), first_nonfinite (flat, 0-based, or nil) }.
function Array:summary()
    check_alive(self)
    local decode, ptr = kinds[self.dtype].decode, self.ptr
    local min, max, sum = math.huge, -math.huge, 0
    local zeros, nonfinite, first = 0, 0, -1
    for i = 0, self.n - 1 do
        local v = decode(ptr[i])
        if v - v ~= 0 then
            nonfinite = nonfinite + 1
            first = first < 0 and i or first
        else
            min, max, sum = math.min(min, v), math.max(max, v), sum + v
            zeros = zeros + (v == 0 and 1 or 0)
        end
    end
    local finite = self.n - nonfinite
    return {
        min = finite > 0 and min or nil, max = finite > 0 and max or nil,
        mean = finite > 0 and sum / finite or nil,
        zeros = zeros, nonfinite = nonfinite, first_nonfinite = first >= 0 and first or nil,
    }
end

-- Gives the memory back at once; its views must not be used afterwards. On a view: lets go of the
-- owner. Freeing twice is harmless.
function Array:free()
    local release, ptr = rawget(self, "release"), rawget(self, "ptr")
    if release then
        release()
    elseif ptr and self.heap then
        C.free(ffi.gc(self.owner, nil))
    end
    self.ptr, self.owner, self.remote, self.fetch, self.release = nil, nil, nil, nil, nil
end

function Array:__tostring()
    return self.dtype .. M.shape_text(self.shape)
end

-- Arrays whose elements lie where this process cannot look at them.
local Remote = { __tostring = Array.__tostring }

function Remote.__index(self, key)
    local fetch = key == "ptr" and rawget(self, "fetch")
    if not fetch then
        return Array[key]
    end
    local here = M.new(self.dtype, self.shape)
    fetch(here.ptr)
    self.ptr, self.owner, self.fetch = here.ptr, here, nil
    return here.ptr
end

-- An array at `pointer`, which only passes of the device can use. fetch(here) copies its elements
-- to memory here, once, when someone asks for them; release() gives the memory there back.
function M.remote(pointer, dtype, shape, fetch, release)
    return setmetatable({ remote = pointer, dtype = dtype, shape = shape, n = M.count(shape),
        readonly = true, fetch = fetch, release = release }, Remote)
end

-- Whether a value is an array.
function M.is(value)
    local kind = getmetatable(value)
    return kind == Array or kind == Remote
end

return M
