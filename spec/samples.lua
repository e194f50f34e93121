-- Samples for the specs of the core, and what those specs do with them. Randomness comes from
-- math.random, which spec/run.lua seeds.

local lu = require "luaunit"
local array = require "ghm.array"
local batch = require "ghm.batch"
local fault = require "ghm.fault"
local sketch = require "ghm.sketches"

local M = {}

-- The sizes at which blocks of 512 samples and vectors begin and end.
M.sizes = { 0, 1, 31, 33, 511, 512, 513, 2000 }

function M.normal(mean, sd)
    local u = 1 - math.random() -- (0, 1]
    return mean + sd * math.sqrt(-2 * math.log(u)) * math.cos(2 * math.pi * math.random())
end

-- An array of `shape` (a number: a flat one) filled by a function of the flat position from 0.
function M.fill(shape, value, dtype)
    local a = array.new(dtype or "f4", type(shape) == "table" and shape or { shape })
    for i = 0, a.n - 1 do
        a:set(i, value(i))
    end
    return a
end

function M.normals(shape, mean, sd)
    return M.fill(shape, function() return M.normal(mean, sd) end)
end

-- Soft targets, even on [0, 1).
function M.shares(shape)
    return M.fill(shape, function() return math.random() end)
end

-- 1 with probability `share`, otherwise 0
function M.flags(shape, share, dtype)
    return M.fill(shape, function() return math.random() < share and 1 or 0 end, dtype)
end

-- Logits, targets and weights much like a detector's: easy negatives, some hard, few positives.
function M.detector(shape)
    local target = M.flags(shape, 0.05)
    local logits = M.fill(shape, function(i)
        local hard = math.random() < 0.1
        return M.normal(target:get(i) == 1 and 0 or hard and -1 or -5, hard and 2 or 1.5)
    end)
    return logits, target, M.flags(shape, 0.9)
end

-- Box targets, and predictions that miss them by a spread of errors.
function M.boxes(shape, spread)
    local target = M.normals(shape, 0, 1)
    local pred = M.fill(shape, function(i)
        return target:get(i) + M.normal(0, spread or 0.1) * math.exp(M.normal(0, 1.5))
    end)
    return pred, target, M.fill(shape, function()
        return math.random() < 0.3 and 0 or 2 ^ math.random(-2, 1)
    end)
end

-- Up to 256 boxes whose errors are 1 or 1/2 in float32, and no two alike.
function M.tied_boxes(n)
    return M.fill(n, function(i) return i % 5 == 0 and 0.5 or 1 end),
        M.fill(n, function(i) return i * 37 % 256 * 2 ^ -33 end)
end

function M.class_batch(logits, target, weight)
    return batch.classification { logits = logits, target = target, weight = weight }
end

function M.box_batch(pred, target, weight)
    return batch.regression { pred = pred, target = target, weight = weight }
end

-- A sketch of one batch. spec: as for sketch.new; opts: as for add.
function M.sketch_of(spec, one, opts)
    local s = sketch.new(spec)
    s:add(one, opts)
    return s
end

M.list = require("ghm.harmonise").list

function M.total(list)
    local sum = 0
    for _, value in ipairs(list) do
        sum = sum + value
    end
    return sum
end

-- Counts and loss sums of the regions as lists.
function M.regions(s, bins, mu)
    local R, L = s:regions(bins, mu)
    return M.list(R, bins), M.list(L, bins)
end

-- Asserts that call(...) throws a fault of this kind in one line that holds every text of `parts`.
function M.refused(kind, parts, call, ...)
    local ok, thrown = pcall(call, ...)
    lu.assertFalse(ok, "not refused; expected: " .. table.concat(parts, ", "))
    lu.assertTrue(fault.is(thrown), "no fault: " .. tostring(thrown))
    lu.assertNil(thrown.message:find "\n", "more than one line")
    for _, part in ipairs(parts) do
        lu.assertStrContains(thrown.message, part)
    end
    lu.assertEquals(thrown.kind, kind)
end

return M
