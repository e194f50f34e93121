-- Sweeps: every configuration of some keys, answered from one sketch per step.

local clib = require "ghm.clib"
local fault = require "ghm.fault"
local ffi = require "ffi"
local sketches = require "ghm.sketch"

local M = {}

-- { bins = {5, 10}, momentum = {0, 0.5} }, { "bins", "momentum" } -> the four combinations, the
-- last axis varying fastest. Keys with one bare value are the same in all of them.
function M.configurations(keys, axes)
    local list = { {} }
    for _, axis in ipairs(axes) do
        local values = type(keys[axis]) == "table" and keys[axis] or { keys[axis] }
        local longer = {}
        for _, configuration in ipairs(list) do
            for _, value in ipairs(values) do
                local extended = { [axis] = value }
                for key, given in pairs(configuration) do
                    extended[key] = given
                end
                longer[#longer + 1] = extended
            end
        end
        list = longer
    end
    return list
end

-- Splits a list of bins until the edges of each part fit one sketch: { {sketch, bins}, ... }.
local function templates(task, bins, mu, knots)
    local ok, made = pcall(sketches.new, { task = task, bins = bins, mu = mu, knots = knots })
    if ok then
        return { { sketch = made, bins = bins } }
    elseif #bins == 1 or not fault.is(made) or not made.message:find "too close" then
        error(made, 0)
    end
    local half, parts = math.floor(#bins / 2), {}
    local halves = { {}, {} }
    for i, m in ipairs(bins) do
        table.insert(halves[i <= half and 1 or 2], m)
    end
    for _, part in ipairs(halves) do
        for _, template in ipairs(templates(task, part, mu, knots)) do
            parts[#parts + 1] = template
        end
    end
    return parts
end

local Call = {}
Call.__index = Call

-- The sketch of this call that has the edges of `bins`.
function Call:sketch(bins)
    return self.by_bins[bins]
end

-- Reads a source once: a list of calls { step, facts, sketch(bins) }, one for each batch.
--   spec.bins, spec.mu, spec.knots   what must be answered exactly
--   spec.nonfinite                   "error" or "ignore"
--   spec.progress(done, total, valid)   called after each sound step; valid: samples so far
function M.read(source, spec)
    local parts = templates(source.task, spec.bins, spec.mu, spec.knots)
    local calls, done, valid = {}, 0, 0
    source:each(function(step, batches)
        local fresh = {}
        for _, batch in ipairs(batches) do
            local call = setmetatable({ step = step, batch = batch, by_bins = {} }, Call)
            for _, part in ipairs(parts) do
                local sketch = part.sketch:like()
                call.facts = sketch:add(batch, { nonfinite = spec.nonfinite, where = step.path })
                for _, m in ipairs(part.bins) do
                    call.by_bins[m] = sketch
                end
            end
            call.shape, call.notes, call.names = batch.shape, batch.notes, batch.names
            call.batch = nil -- the data is not needed again, and may be large
            fresh[#fresh + 1] = call
        end
        for _, call in ipairs(fresh) do -- all calls of a step, or none
            calls[#calls + 1] = call
            valid = valid + call.facts.valid
        end
        done = done + 1
        if spec.progress then
            spec.progress(done, #source.steps, valid)
        end
    end)
    if valid == 0 then
        fault.raise("dump", "%s: no valid samples: every weight is 0, or there are no rows",
            table.concat(source.words, ", "))
    end
    return calls
end

-- Region counts of all calls together, whatever their targets: int64_t[bins] and their sum.
function M.counts(calls, bins, mu)
    local R, N = ffi.new("int64_t[?]", bins), 0
    for _, call in ipairs(calls) do
        local own = call:sketch(bins):regions(bins, mu)
        for j = 0, bins - 1 do
            R[j] = R[j] + own[j]
        end
        N = N + call.facts.valid
    end
    return R, N
end

-- Whether some call has soft targets, which have no key.
function M.is_soft(calls)
    for _, call in ipairs(calls) do
        if call.facts.soft > 0 then
            return true
        end
    end
    return false
end

-- All calls, of hard targets, added into one sketch that has the edges of `bins`.
function M.merged(calls, bins)
    local whole = calls[1]:sketch(bins):like()
    for _, call in ipairs(calls) do
        whole:merge(call:sketch(bins))
    end
    return whole
end

M.interrupted = function()
    return clib.C.ghm_interrupted() ~= 0
end

return M
