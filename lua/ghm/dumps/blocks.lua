-- Batches that stay on disk: a call of the loss whose arrays are read a block of rows at a time, so
-- that memory is bounded by a block, however large the step. The exception is an array that is both
-- deflated and in Fortran order: its rows lie all over a stream that is read from front to end.

local array = require "ghm.array"
local batch = require "ghm.batch"

local M = {}

-- Bytes of a block, all arrays together. Longer ones gain nothing; with 2 MiB a pass over fp16
-- logits takes 1.1 times as long, with 0.5 MiB 1.4 times.
M.BYTES = 2 ^ 25

local Blocks = {}
Blocks.__index = Blocks

-- A batch as of ghm.batch over entries { pred, target or labels, weight } of an open dump. It can
-- be read until that is closed. base: of labels. Throws fault "dump" where shapes do not fit; what
-- is wrong with the data is thrown as its blocks are read.
function M.batch(task, entries, base)
    local self = batch.layout(task, entries, base)
    self.entries = entries
    local row_bytes = 0
    for _, entry in pairs(entries) do
        row_bytes = row_bytes + entry.n / math.max(self.rows, 1) * array.itemsize[entry.dtype]
    end
    self.block_rows = math.max(math.floor(M.BYTES / math.max(row_bytes, 1)), 1)
    return setmetatable(self, Blocks)
end

local function free(arrays)
    for _, a in pairs(arrays) do
        a:free()
    end
end

-- The blocks in order, each with the row it begins at. A block is good until the next one.
function Blocks:blocks()
    local next_piece, width = {}, {}
    local row, ended = 0, false
    local pieces, used = {}, {}
    for part, entry in pairs(self.entries) do
        next_piece[part] = entry.pieces()
        width[part] = self.rows > 0 and entry.n / self.rows or 0
    end
    return function()
        free(pieces)
        free(used)
        if ended then
            for _, next_of in pairs(next_piece) do
                next_of(0)
            end
            return nil
        end
        local first, rows = row, math.min(self.block_rows, self.rows - row)
        row = row + rows
        ended = row == self.rows
        for _, part in ipairs(batch.parts) do
            local piece = next_piece[part] and next_piece[part](rows * width[part])
            if piece then
                piece.shape = width[part] == self.cols and { rows, self.cols } or { rows }
            end
            pieces[part] = piece
        end
        local block = { rows = rows, cols = self.cols, notes = {} }
        block.c, block.arrays = batch.fill(self, pieces, rows)
        used = block.arrays
        return block, first
    end
end

return M
