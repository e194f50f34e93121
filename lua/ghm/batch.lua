-- Batches: one call of a loss, as the core wants it. Arrays are checked against each other and
-- converted only where the core has no reader for their dtype; the rest is used where it lies.
--
-- A batch has  c (ghm_batch), task, rows, cols, shape, n, notes (list of what was converted),
-- and keeps its arrays alive.

local array = require "ghm.array"
local clib = require "ghm.clib"
local fault = require "ghm.fault"
local ffi = require "ffi"

local C = clib.C
local M = {}

-- array dtype -> the core's, per use; anything else is converted to the dtype under "otherwise"
local readable = {
    pred = { f4 = C.GHM_F32, f2 = C.GHM_F16, bf16 = C.GHM_BF16, otherwise = "f4" },
    target = { f4 = C.GHM_F32, f2 = C.GHM_F16, bf16 = C.GHM_BF16, u1 = C.GHM_U8, b1 = C.GHM_U8,
        otherwise = "f4" },
    labels = { u1 = C.GHM_U8, i4 = C.GHM_I32, i8 = C.GHM_I64, otherwise = "i8" },
    weight = { f4 = C.GHM_F32, u1 = C.GHM_U8, b1 = C.GHM_U8, otherwise = "f4" },
}

local integers = { i1 = true, i2 = true, i4 = true, i8 = true, u1 = true, b1 = true, u2 = true }

local function as_array(value, dtype)
    if value == nil or array.is(value) then
        return value
    end
    if type(value) ~= "table" then
        fault.raise("usage", "expected an array or a table of numbers, not a %s", type(value))
    end
    return array.from(value, dtype)
end

-- The array as the core can read it, and the core's dtype.
local function prepare(self, use, a)
    local dtypes = readable[use]
    if not dtypes[a.dtype] then
        if use == "labels" and not integers[a.dtype] then
            fault.raise("dump", "labels are %s, expected integers", tostring(a))
        end
        self.notes[#self.notes + 1] = ("%s %s is converted to %s"):format(use, tostring(a),
            dtypes.otherwise)
        a = a:convert(dtypes.otherwise)
    end
    self.arrays[use] = a
    return a, dtypes[a.dtype]
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

local function begin(task, pred)
    local self = { task = task, notes = {}, arrays = {}, c = ffi.new "ghm_batch" }
    local use, dtype = prepare(self, "pred", pred)
    self.rows, self.cols = rows_and_cols(use.shape, use.n)
    self.n, self.shape = use.n, use.shape
    if use.n == 0 then
        self.rows = 0
    end
    local c = self.c
    c.task = task == "regression" and C.GHM_REGRESSION or C.GHM_CLASSIFICATION
    c.rows, c.cols = self.rows, self.cols
    c.pred, c.pred_dtype = use.ptr, dtype
    return self
end

local function add_dense(self, pred, target, form)
    if not same_shape(pred, target) then
        fault.raise("dump", "target is %s, expected the shape of the logits or predictions, %s",
            tostring(target), tostring(pred))
    end
    local use, dtype = prepare(self, "target", target)
    self.c.target, self.c.target_dtype, self.c.target_form = use.ptr, dtype, form
end

local function add_weight(self, pred, weight)
    if not weight then
        return
    end
    local per_row = not same_shape(pred, weight)
    if per_row and weight.n ~= self.rows then
        fault.raise("dump", "label_weight is %s, expected one per sample (%s) or one per row (%d)",
            tostring(weight), tostring(pred), self.rows)
    end
    local use, dtype = prepare(self, "weight", weight)
    self.c.weight, self.c.weight_dtype = use.ptr, dtype
    self.c.weight_per_row = per_row and 1 or 0
end

-- parts.logits [rows, cols]; either parts.target (dense 0/1 or soft, same shape) or parts.labels
-- [rows] with parts.base "zero_based" (default) or "one_based"; parts.weight nil, per sample or
-- per row. Tables of numbers are taken too. Throws fault "dump" where shapes do not fit.
function M.classification(parts)
    local logits = as_array(parts.logits, "f4")
    local target, labels = as_array(parts.target, "f4"), as_array(parts.labels, "i8")
    if not logits or (target == nil) == (labels == nil) then
        fault.raise("usage", "a classification batch needs logits and either target or labels")
    end
    local self = begin("classification", logits)
    if target then
        add_dense(self, logits, target, C.GHM_DENSE)
    else
        if #logits.shape < 2 then -- 0 and 1 would be taken for classes, 0 for the only one
            fault.raise("dump", "logits %s have no axis of classes, which labels need: 0 and 1 are "
                .. "targets (--target)", tostring(logits))
        elseif labels.n ~= self.rows then
            fault.raise("dump", "labels are %s, expected one for each of %d rows of logits %s",
                tostring(labels), self.rows, tostring(logits))
        end
        local use, dtype = prepare(self, "labels", labels)
        self.c.target, self.c.target_dtype = use.ptr, dtype
        self.c.target_form = clib.enum("GHM_", "labels", parts.base or "zero_based",
            clib.words.labels)
    end
    add_weight(self, logits, as_array(parts.weight, "f4"))
    return self
end

-- parts.pred and parts.target of one shape; parts.weight nil, per element or per row.
function M.regression(parts)
    local pred, target = as_array(parts.pred, "f4"), as_array(parts.target, "f4")
    if not pred or not target then
        fault.raise("usage", "a regression batch needs pred and target")
    end
    local self = begin("regression", pred)
    add_dense(self, pred, target, C.GHM_DENSE)
    add_weight(self, pred, as_array(parts.weight, "f4"))
    return self
end

return M
