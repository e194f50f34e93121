-- The calls of a stream: a step is one call of the loss, or several (pyramid levels, micro-batches,
-- ranks), and what its calls share of the momentum state decides what they weigh.
--
--   steps = calls.regions(list, bins, mu)     list: of sweep.read
--   trace = calls.trace(task, configuration, steps, "shared")
--
-- steps = { { name, time, { R, L, tot, samples, name }, ... }, ... }: each step's calls in order,
-- with counts R (int64_t[bins]) and loss sums L (double[bins]) of their regions.

local bootstrap = require "ghm.studies.bootstrap"
local ffi = require "ffi"
local harmonise = require "ghm.harmonise"
local number = require "ghm.number"

local M = {}

-- What the calls of one step share:
--   shared   one state, moved on by each call in turn: mmdetection on pyramid levels, and on the
--            micro-batches of an accumulated gradient
--   own      the k-th call of every step has a state of its own: a loss for each level, or ranks
--            that do not sum their histograms
--   summed   the counts of a step are added up and are one call: ranks that sum their histograms,
--            or levels that are concatenated
M.states = { "shared", "own", "summed" }

-- The training step that a step's name ends in: step_000500.npz -> 500; nil where it has none.
local function time(name)
    return tonumber((name:gsub("%.%a[%w]*$", ""):match "(%d+)$"))
end

function M.regions(list, bins, mu)
    local steps = {}
    for _, call in ipairs(list) do
        local step = steps[#steps]
        if not step or step.of ~= call.step then
            step = { of = call.step, name = call.step.name, time = time(call.step.name) }
            steps[#steps + 1] = step
        end
        local R, L = call.sketch:regions(bins, mu)
        step[#step + 1] = { R = R, L = L, tot = call.sketch:tot(), samples = call.facts.valid,
            name = call.level or "call " .. #step + 1 }
    end
    return steps
end

-- "4" -> { 0.25, 0.25, 0.25, 0.25 }; "3,1" -> { 0.75, 0.25 }; nil and what is wrong otherwise.
function M.shares(word)
    local parts, total = {}, 0
    for field in (word .. ","):gmatch "(.-)," do
        local x = number(field)
        if not x or x <= 0 then
            return nil, ("--split: '%s' is not a number above 0"):format(field)
        end
        parts[#parts + 1], total = x, total + x
    end
    if #parts == 1 then
        if total ~= math.floor(total) or total > 1000 then
            return nil, ("--split: '%s': expected a number of equal parts up to 1000, or the size "
                .. "of each"):format(word)
        end
        for k = 1, total do
            parts[k] = 1
        end
    end
    for k, part in ipairs(parts) do
        parts[k] = part / total
    end
    return parts
end

-- The same steps with every call cut into parts, one for each share (a share of 1: as large as the
-- call). A model, for dumps that hold whole steps: the counts of a part are Poisson, those of the
-- call times the share being their means; a sample's loss is the mean of its region.
function M.split(steps, bins, shares)
    local cut, draw = {}, 0
    for k, step in ipairs(steps) do
        cut[k] = { of = step.of, name = step.name, time = step.time }
        for _, call in ipairs(step) do
            for p, share in ipairs(shares) do
                local mean, L, samples = {}, ffi.new("double[?]", bins), 0
                for j = 1, bins do
                    mean[j] = tonumber(call.R[j - 1]) * share
                end
                local R = bootstrap.counts(mean, bins, bootstrap.seed, draw)
                draw = draw + 1
                for j = 0, bins - 1 do
                    samples = samples + tonumber(R[j])
                    L[j] = R[j] > 0 and call.L[j] / tonumber(call.R[j]) * tonumber(R[j]) or 0
                end
                table.insert(cut[k], { R = R, L = L, samples = samples,
                    name = ("%spart %d"):format(#step > 1 and call.name .. " " or "", p),
                    tot = math.max(call.tot * samples / math.max(call.samples, 1), 1) })
            end
        end
    end
    return cut
end

-- A step's calls added up to one.
function M.sum(step, bins)
    local whole = { R = ffi.new("int64_t[?]", bins), L = ffi.new("double[?]", bins), tot = 0,
        samples = 0 }
    for _, call in ipairs(step) do
        for j = 0, bins - 1 do
            whole.R[j], whole.L[j] = whole.R[j] + call.R[j], whole.L[j] + call.L[j]
        end
        whole.samples = whole.samples + call.samples
        -- an empty call has a tot of 1, which is no sample
        whole.tot = whole.tot + (call.samples > 0 and call.tot or 0)
    end
    whole.tot = math.max(whole.tot, 1)
    return whole
end

-- What harmonise makes of every call in order, a list of its results, each with
--   step, call      which step, and which call of it (1 when they are summed)
--   name, samples   of the step, and of the call where it is one of several; valid samples
--   state           which of the states it moved: 1, or the call's number when each has its own
--   parts           the step's calls that it stands for
-- and, of the whole: config (all keys of harmonise), task, sharing, steps (their number).
function M.trace(task, configuration, steps, sharing)
    local config = {}
    for _, key in ipairs(harmonise.keys) do
        config[key] = configuration[key]
    end
    local states = {}
    local trace = { task = task, sharing = sharing or M.states[1], steps = #steps }
    local function apply(k, call, c, state, parts)
        states[state] = states[state] or harmonise.new(task, config)
        local result = states[state]:apply(call.R, call.L, call.tot)
        result.step, result.call, result.state = k, c, state
        result.name = steps[k].name .. (#steps[k] > #parts and " " .. call.name or "")
        result.samples, result.parts = call.samples, parts
        trace[#trace + 1] = result
    end
    for k, step in ipairs(steps) do
        if trace.sharing == "summed" then
            apply(k, M.sum(step, config.bins), 1, 1, step)
        else
            for c, call in ipairs(step) do
                apply(k, call, c, trace.sharing == "own" and c or 1, { call })
            end
        end
    end
    trace.config = harmonise.config(task, config)
    return trace
end

-- A value of every step: the mean of value(result) over its calls, where it has one.
function M.by_step(trace, value)
    local sums, counts, list = {}, {}, {}
    for _, result in ipairs(trace) do
        local v, k = value(result), result.step
        if v then
            sums[k], counts[k] = (sums[k] or 0) + v, (counts[k] or 0) + 1
        end
    end
    for k = 1, trace.steps do
        list[k] = sums[k] and sums[k] / counts[k] or nil
    end
    return list
end

-- The mean weight of the samples of each call of a step (each level), over the steps: a list of
-- { name, beta }. Without momentum all are 1, unless the counts are summed.
function M.levels(trace)
    local levels = {}
    for _, result in ipairs(trace) do
        for p, part in ipairs(result.parts) do
            local k = #result.parts > 1 and p or result.call
            local level = levels[k] or { name = part.name, sum = 0, n = 0 }
            local weight = 0
            for j = 0, trace.config.bins - 1 do
                weight = weight + result.beta[j] * tonumber(part.R[j])
            end
            if part.samples > 0 then
                level.sum, level.n = level.sum + weight / part.samples, level.n + 1
            end
            levels[k] = level
        end
    end
    for _, level in ipairs(levels) do
        level.beta = level.n > 0 and level.sum / level.n or nil
    end
    return levels
end

return M
