-- Softmax over rows of exclusive classes, as batches of margins that sketches and losses know.
--
--   one = softmax.margins(batch, "true_class")   a ghm.batch whose samples have the g of that form
--   softmax.gradient(batch, "true_class", beta, scale) -> d loss / d logits, an array
--
-- With p = softmax(x) and the one-hot y of a row, the published ports of GHM-C choose g as
--   true_class   1 - p_true: one sample for each row; the loss is beta * cross-entropy
--   each_class   |p_c - y_c|: one sample for each class of each row; the loss is the sum over
--                classes of beta_c * BCE(p_c, y_c), so that g is GHM-C's own, |d BCE / d margin|
--   l1           the L1 norm of p - y. It is 2 (1 - p_true), and regions that part [0, 2] are those
--                of true_class: the same loss
-- See ghm_softmax_margins in core/ghm.h.

local array = require "ghm.array"
local batches = require "ghm.batch"
local clib = require "ghm.clib"
local device = require "ghm.device"

local C = clib.C
local M = {}

M.forms = clib.words.form

-- Margins of a batch that is read block by block.
local Blocks = {}
Blocks.__index = Blocks

function Blocks:blocks()
    local next_block, one = self.logits:blocks(), nil
    return function()
        for _, a in pairs(one and one.arrays or {}) do
            a:free()
        end
        local block, row = next_block()
        local opts = { device = self.opts.device, where = self.opts.where }
        if row and row > 0 then -- the core counts from there
            opts.where = ("%s: after %.0f rows"):format(opts.where or "", row)
        end
        one = block and M.margins(block, self.logits_form, opts)
        return one, row
    end
end

local function blocks_of(batch, form, opts)
    local per_row = form ~= "each_class"
    local cols = per_row and 1 or batch.cols
    return setmetatable({ task = batch.task, rows = batch.rows, cols = cols, notes = batch.notes,
        n = batch.rows * cols, shape = { batch.rows, cols }, names = batch.names, logits = batch,
        logits_form = form, opts = opts or {}, form = per_row and C.GHM_ZERO_BASED or batch.form },
        Blocks)
end

-- The margins of a batch (ghm.batch), as another one. Fault "dump": a valid row has not exactly one
-- class, with `where` before the message; fault "usage": weights per class, fewer than two columns.
-- Both are thrown as its blocks are read, for a batch that is not in memory.
function M.margins(batch, form, opts)
    local per_row = form ~= "each_class"
    if not batch.c then
        return blocks_of(batch, form, opts)
    end
    local margins = array.new("f4", { batch.rows, per_row and 1 or batch.cols })
    local valid = array.new("u1", { batch.rows })
    clib.check(C.ghm_softmax_margins(opts and opts.device or device.default(), batches.here(batch),
        not per_row and margins.ptr or nil, per_row and margins.ptr or nil, valid.ptr),
        opts and opts.where)
    local parts = { logits = margins, weight = valid }
    if per_row then
        parts.labels = array.new("u1", { batch.rows }) -- zeros: the only column is the row's class
    else
        parts.target, parts.labels = batch.arrays.target, batch.arrays.labels
    end
    local one = batches.classification(parts)
    one.names, one.notes = batch.names, batch.notes
    return one
end

-- d loss / d logits, f4 of the batch's shape, for a coefficient per sample of M.margins, f4 too.
function M.gradient(batch, form, beta, scale, opts)
    local grad = array.new("f4", batch.shape)
    clib.check(C.ghm_softmax_gradient(opts and opts.device or device.default(),
        batches.here(batch), beta.ptr, form ~= "each_class" and 1 or 0, scale, grad.ptr))
    return grad
end

return M
