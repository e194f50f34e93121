-- The columns of a batch - the classes of logits, the coordinates of boxes - as batches.
--
--   for c, one in columns.each(batch) do ... end     one: a ghm.batch of [rows, 1], c from 0
--
-- A batch that is read block by block gives each column once for every block.

local array = require "ghm.array"
local batches = require "ghm.batch"
local clib = require "ghm.clib"

local C = clib.C
local M = {}

-- Column c of an array of [rows, cols]; one of [rows] is all columns'.
local function gather(a, rows, cols, c)
    if not a or a.n ~= rows * cols or cols == 1 then
        return a
    end
    local out = array.new(a.dtype, { rows, 1 })
    local from, to = a.ptr, out.ptr
    for i = 0, rows - 1 do
        to[i] = from[i * cols + c]
    end
    return out
end

-- 1 where a row's label is this one.
local function is_label(labels, rows, label)
    local out = array.new("u1", { rows, 1 })
    local from, to = labels.ptr, out.ptr
    for i = 0, rows - 1 do
        to[i] = from[i] == label and 1 or 0
    end
    return out
end

local function column(block, rows, cols, c, task)
    local form, a = block.c.target_form, block.arrays
    local labelled = form == C.GHM_ZERO_BASED or form == C.GHM_ONE_BASED
    local pred = gather(a.pred, rows, cols, c)
    local target = labelled and is_label(a.labels, rows, form == C.GHM_ONE_BASED and c + 1 or c)
        or gather(a.target, rows, cols, c)
    local weight = block.c.weight_per_row == 1 and a.weight or gather(a.weight, rows, cols, c)
    local one = batches[task] { logits = pred, pred = pred, target = target, weight = weight }
    one.form = form == C.GHM_SOFT and form or one.form
    return one
end

function M.each(batch)
    local next_block, block, c = batch:blocks(), nil, nil
    return function()
        c = c and c + 1 or batch.cols
        if c == batch.cols then
            block, c = next_block(), 0
        end
        if block then
            return c, column(block, block.rows, batch.cols, c, batch.task)
        end
    end
end

return M
