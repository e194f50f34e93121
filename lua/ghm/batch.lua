-- Batches: one call of a loss, as the core wants it. Arrays are checked against each other and
-- converted only where the core has no reader for their dtype; the rest is used where it lies.
--
-- A batch has  task, rows, cols, shape, n, form (of its targets, enum ghm_target), notes (list of
-- what is converted) and blocks(), which gives its rows in order, each block with c (ghm_batch) and
-- the arrays that c points into. A batch of arrays is one block, itself; ghm.dumps.blocks makes
-- batches that are read from a file as their blocks are asked for.

local array = require "ghm.array"
local clib = require "ghm.clib"
local fault = require "ghm.fault"
local ffi = require "ffi"

local C = clib.C
local M = {}

-- What a call can have, in the order in which it is read and told.
M.parts = { "pred", "target", "labels", "weight" }

-- array dtype -> the core's, per use; anything else is converted to the dtype under "otherwise"
local readable = {
    pred = { f4 = C.GHM_F32, f2 = C.GHM_F16, bf16 = C.GHM_BF16, otherwise = "f4" },
    target = { f4 = C.GHM_F32, f2 = C.GHM_F16, bf16 = C.GHM_BF16, u1 = C.GHM_U8, b1 = C.GHM_U8,
        otherwise = "f4" },
    labels = { u1 = C.GHM_U8, i4 = C.GHM_I32, i8 = C.GHM_I64, otherwise = "i8" },
    weight = { f4 = C.GHM_F32, u1 = C.GHM_U8, b1 = C.GHM_U8, otherwise = "f4" },
}

local integers = { i1 = true, i2 = true, i4 = true, i8 = true, u1 = true, b1 = true }

local function as_array(value, dtype)
    if value == nil or array.is(value) then
        return value
    end
    if type(value) ~= "table" then
        fault.raise("usage", "expected an array or a table of numbers, not a %s", type(value))
    end
    return array.from(value, dtype)
end

local function text_of(a)
    return a.dtype .. array.shape_text(a.shape)
end

-- Notes what array `a` is read as for a use.
local function plan(layout, use, a)
    local dtypes = readable[use]
    layout.as[use] = a.dtype
    if not dtypes[a.dtype] then
        if use == "labels" and not integers[a.dtype] then
            fault.raise("dump", "labels are %s, expected integers", text_of(a))
        end
        layout.notes[#layout.notes + 1] = ("%s %s is converted to %s"):format(use, text_of(a),
            dtypes.otherwise)
        layout.as[use] = dtypes.otherwise
    end
end

-- rows x cols of a shape: the last axis holds the columns, a plain list has one.
local function rows_and_cols(shape, n)
    if #shape < 2 then
        return n, 1
    end
    local cols = shape[#shape]
    local rows = 1
    for i = 1, #shape - 1 do
        rows = rows * shape[i]
    end
    return rows, math.max(cols, 1)
end

local function same_shape(a, b)
    if #a.shape ~= #b.shape then
        return false
    end
    for i, extent in ipairs(a.shape) do
        if extent ~= b.shape[i] then
            return false
        end
    end
    return true
end

local function add_dense(layout, pred, target)
    if not same_shape(pred, target) then
        fault.raise("dump", "target is %s, expected the shape of the logits or predictions, %s",
            text_of(target), text_of(pred))
    end
    layout.form = C.GHM_DENSE
    plan(layout, "target", target)
end

local function add_labels(layout, logits, labels, base)
    if #logits.shape < 2 then -- 0 and 1 would be taken for classes, 0 for the only one
        fault.raise("dump", "logits %s have no axis of classes, which labels need: 0 and 1 are "
            .. "targets (--target)", text_of(logits))
    elseif labels.n ~= layout.rows then
        fault.raise("dump", "labels are %s, expected one for each of %d rows of logits %s",
            text_of(labels), layout.rows, text_of(logits))
    end
    layout.form = clib.enum("GHM_", "labels", base or "zero_based")
    plan(layout, "labels", labels)
end

local function add_weight(layout, pred, weight)
    layout.weight_per_row = not same_shape(pred, weight)
    if layout.weight_per_row and weight.n ~= layout.rows then
        fault.raise("dump", "label_weight is %s, expected one per sample (%s) or one per row (%d)",
            text_of(weight), text_of(pred), layout.rows)
    end
    plan(layout, "weight", weight)
end

-- What a batch of these parts is like: everything but its data. parts.pred [rows, cols]; either
-- parts.target (dense, of the same shape) or parts.labels [rows]; parts.weight nil, per sample or
-- per row; each an array, or whatever has dtype, shape and n. base: of labels. Throws fault "dump"
-- where shapes or dtypes do not fit.
function M.layout(task, parts, base)
    local layout = { task = task, notes = {}, as = {}, shape = parts.pred.shape, n = parts.pred.n }
    layout.rows, layout.cols = rows_and_cols(layout.shape, layout.n)
    layout.rows = layout.n > 0 and layout.rows or 0
    plan(layout, "pred", parts.pred)
    if parts.target then
        add_dense(layout, parts.pred, parts.target)
    else
        add_labels(layout, parts.pred, parts.labels, base)
    end
    if parts.weight then
        add_weight(layout, parts.pred, parts.weight)
    end
    return layout
end

-- Some rows of a batch as the core reads them -> ghm_batch, the arrays that it points into.
function M.fill(layout, arrays, rows)
    local c, used = ffi.new "ghm_batch", {}
    c.task = clib.task(layout.task)
    c.rows, c.cols, c.target_form = rows, layout.cols, layout.form
    c.weight_per_row = layout.weight_per_row and 1 or 0
    for use, dtype in pairs(layout.as) do
        local a = arrays[use].dtype == dtype and arrays[use] or arrays[use]:convert(dtype)
        local field = use == "labels" and "target" or use
        local place = a.remote or a.ptr
        used[use], c[field], c[field .. "_dtype"] = a, place, readable[use][dtype]
    end
    return c, used
end

-- The ghm_batch of a batch or block, for code that reads the memory of this process: arrays on a
-- device are fetched, for good.
function M.here(one)
    for use, a in pairs(one.arrays) do
        if a.remote then
            one.c[use == "labels" and "target" or use] = a.ptr
        end
    end
    return one.c
end

local Batch = {}
Batch.__index = Batch

-- The blocks in order, each with the row it begins at.
function Batch:blocks()
    local given = false
    return function()
        if not given then
            given = true
            return self, 0
        end
    end
end

local function of_arrays(layout, arrays)
    layout.c, layout.arrays = M.fill(layout, arrays, layout.rows)
    return setmetatable(layout, Batch)
end

-- parts.logits [rows, cols]; either parts.target (dense 0/1 or soft, same shape) or parts.labels
-- [rows] with parts.base "zero_based" (default) or "one_based"; parts.weight nil, per sample or
-- per row. Tables of numbers are taken too. Throws fault "dump" where shapes do not fit.
function M.classification(parts)
    local arrays = { pred = as_array(parts.logits, "f4"), target = as_array(parts.target, "f4"),
        labels = as_array(parts.labels, "i8"), weight = as_array(parts.weight, "f4") }
    if not arrays.pred or (arrays.target == nil) == (arrays.labels == nil) then
        fault.raise("usage", "a classification batch needs logits and either target or labels")
    end
    return of_arrays(M.layout("classification", arrays, parts.base), arrays)
end

-- parts.pred and parts.target of one shape; parts.weight nil, per element or per row.
function M.regression(parts)
    local arrays = { pred = as_array(parts.pred, "f4"), target = as_array(parts.target, "f4"),
        weight = as_array(parts.weight, "f4") }
    if not arrays.pred or not arrays.target then
        fault.raise("usage", "a regression batch needs pred and target")
    end
    return of_arrays(M.layout("regression", arrays), arrays)
end

return M
