-- The elements of an array as they lie in a file, and how they become an array: used where they
-- lie, or copied into C order and this machine's byte order.
--
-- A reader describes them by  dtype, shape, n, bytes (of all elements) and, where they differ from
-- what the kernels take,
--   strides   elements from one index of an axis to the next; nil: C order, no gaps
--   swapped   whether the bytes of each element are in the other order

local ffi = require "ffi"
local array = require "ghm.array"
local mapfile = require "ghm.dumps.mapfile"

local M = {}

-- The number of elements of a shape and their bytes, or nil where there are more than 2^53.
function M.measure(dtype, shape)
    local n, size = array.count(shape), array.itemsize[dtype]
    if n and n <= 2 ^ 53 / size then
        return n, n * size
    end
    return nil
end

-- The elements from the first to the last in the file, both counted. May be beyond 2^53 and is
-- then rounded, but never below it.
function M.span(info)
    local last = 0
    for axis, stride in ipairs(info.strides or {}) do
        last = last + (info.shape[axis] - 1) * stride
    end
    return info.n == 0 and 0 or info.strides and last + 1 or info.n
end

-- Whether strides are those of C order without gaps; an axis of one element may have any, and so
-- may an array without elements.
function M.is_dense(shape, strides)
    local expected, dense = 1, true
    for axis = #shape, 1, -1 do
        dense = dense and (shape[axis] == 1 or strides[axis] == expected)
        expected = expected * shape[axis]
    end
    return dense or expected == 0
end

-- How elements at this byte of a file, or address, come to the user: "mapped" where they lie, or
-- "converted" into a copy (byte order, strides, alignment).
local function how_stored(info, offset)
    local aligned = offset % array.itemsize[info.dtype] == 0
    return aligned and not info.swapped and not info.strides and "mapped" or "converted"
end

-- Copies `count` elements into C order and this machine's byte order, from the first, which C order
-- counts, on.
local function rearrange(info, source, target, first, count)
    local size, rank, strides = array.itemsize[info.dtype], #info.shape, info.strides
    local flip = info.swapped and size - 1 or 0 -- byte b of an element comes from byte b xor flip
    local index, from, left = {}, 0, first
    for axis = strides and rank or 0, 1, -1 do
        index[axis] = left % info.shape[axis]
        left = (left - index[axis]) / info.shape[axis]
        from = from + index[axis] * strides[axis]
    end
    for k = 0, count - 1 do
        local s, t = source + (strides and from or first + k) * size, target + k * size
        for b = 0, size - 1 do
            t[b] = s[bit.bxor(b, flip)]
        end
        local axis = strides and rank or 0
        while axis > 0 do -- the next index in C order, as an odometer
            index[axis], from = index[axis] + 1, from + strides[axis]
            if index[axis] < info.shape[axis] then
                break
            end
            index[axis], from = 0, from - info.shape[axis] * strides[axis]
            axis = axis - 1
        end
    end
end

-- Some of the elements that begin at ptr (uint8_t pointer), from the first, which C order counts,
-- on: a read-only view kept alive by owner when stored is "mapped", else a new array.
local function part(info, ptr, owner, stored, first, shape)
    local count, size = array.count(shape), array.itemsize[info.dtype]
    if stored == "mapped" then
        local view = array.view(ptr + first * size, info.dtype, shape, owner)
        view.readonly = true
        return view
    end
    local a = array.new(info.dtype, shape)
    local target = ffi.cast("uint8_t *", a.ptr)
    if info.swapped or info.strides then
        rearrange(info, ptr, target, first, count)
    else
        ffi.copy(target, ptr + first * size, count * size)
    end
    return a
end

-- The array whose elements begin at ptr; see above.
function M.array(info, ptr, owner, stored)
    return part(info, ptr, owner, stored, 0, info.shape)
end

-- The same in turn: function(count) -> the next count of them, as a list.
function M.pieces(info, ptr, owner, stored)
    local at = 0
    return function(count)
        at = at + count
        return part(info, ptr, owner, stored, at - count, { count })
    end
end

-- Pieces of a mapped file: asked for one piece ahead, so that the disk is read while the kernel
-- works, and let go of behind; the page cache keeps them. Strides may lead anywhere.
local function mapped_pieces(info, ptr, owner, stored, file, name)
    local next_piece, size = M.pieces(info, ptr, owner, stored), array.itemsize[info.dtype]
    local gone, at = 0, 0
    file:guard()
    return function(count)
        file:check(name)
        if info.strides then
            mapfile.let_go(ptr, M.span(info) * size)
            return next_piece(count)
        end
        mapfile.let_go(ptr + gone * size, (at - gone) * size)
        gone, at = at, at + count
        mapfile.ask_for(ptr + at * size, math.min(count, info.n - at) * size)
        return next_piece(count)
    end
end

-- All elements of a mapped file at once.
local function mapped_array(info, ptr, owner, stored, file, name)
    if stored == "mapped" then
        return M.array(info, ptr, owner, stored)
    end
    return file:guarding(name, function()
        return M.array(info, ptr, owner, stored)
    end)
end

-- An entry (as ghm.dumps.dump describes them) for elements that lie uncompressed at a byte of
-- `file`, a mapfile.
function M.entry(file, name, info, offset)
    local stored = how_stored(info, offset)
    local function reading(how)
        return function()
            local ptr, owner = file:map(offset, M.span(info) * array.itemsize[info.dtype], name)
            return how(info, ptr, owner, stored, file, name)
        end
    end
    return {
        name = name, dtype = info.dtype, shape = info.shape, n = info.n, bytes = info.bytes,
        stored = stored, offset = offset,
        read = reading(mapped_array), pieces = reading(mapped_pieces),
    }
end

-- Makes an entry call check() before each reading of its elements.
function M.guard(entry, check)
    for _, way in ipairs { "read", "pieces" } do
        local plain = entry[way]
        entry[way] = function()
            check()
            return plain()
        end
    end
end

return M
