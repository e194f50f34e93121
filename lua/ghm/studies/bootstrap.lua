-- The bootstrap: how far a number would move had other steps, or other samples, been drawn.
--
--   bootstrap.steps(n, seed, draw)         n of the steps 1..n, drawn with replacement, as a list
--   bootstrap.counts(mean, n, seed, draw)  Poisson counts with these means: int64_t[n]
--   bootstrap.sketch(sketch, seed, draw)   a sketch of samples drawn anew
--   bootstrap.interval(n, statistic)       { low, high }: the statistic of resampled steps
--   bootstrap.fields(key)                  the names of its ends in a row: key_low, key_high
--   bootstrap.choose(n, choose)            how often each value is chosen from resampled steps
--
-- Every draw is a function of (seed, draw, place) alone, by the core's Philox: a result is the same
-- on every machine, whatever else was drawn before it.

local clib = require "ghm.clib"
local ffi = require "ffi"
local json = require "ghm.json"

local C = clib.C
local M = {}

M.seed = 0 -- of what studies draw, where they are not told another: --seed
M.DRAWS = 200
M.LEVEL = 0.9 -- of an interval: from the 5 % to the 95 % quantile of the draws
M.AS_GOOD = 0.1 -- a value chosen in this share of the draws is as good as the one recommended

function M.uniform(n, seed, draw)
    local out = ffi.new("double[?]", math.max(n, 1))
    clib.check(C.ghm_uniform(seed, draw, n, out))
    return out
end

-- Steps of a stream, resampled whole: what happens inside one, and between its calls, stays.
function M.steps(n, seed, draw)
    local u, list = M.uniform(n, seed, draw), {}
    for i = 1, n do
        list[i] = math.min(math.floor(u[i - 1] * n) + 1, n)
    end
    return list
end

-- A sketch's region counts, resampled: mean is cdata or a list from 1, of n numbers.
function M.counts(mean, n, seed, draw)
    local means, out = ffi.new("double[?]", math.max(n, 1)), ffi.new("int64_t[?]", math.max(n, 1))
    local first = type(mean) == "table" and 1 or 0
    for j = 0, n - 1 do
        means[j] = tonumber(mean[first + j])
    end
    clib.check(C.ghm_poisson(seed, draw, n, means, out))
    return out
end

-- A sketch of samples drawn anew from those of this one.
function M.sketch(sketch, seed, draw)
    local drawn = sketch:like()
    clib.check(C.ghm_sketch_resample(sketch.c, seed, draw, drawn.c))
    return drawn
end

-- The p-quantile of a list of numbers: always one of them.
function M.quantile(list, p)
    local sorted = {}
    for i, value in ipairs(list) do
        sorted[i] = value
    end
    table.sort(sorted)
    return sorted[math.max(1, math.ceil(p * #sorted - 1e-9))]
end

-- The middle M.LEVEL of a list: low, high. nil for an empty one.
function M.middle(list)
    if #list > 0 then
        return M.quantile(list, (1 - M.LEVEL) / 2), M.quantile(list, (1 + M.LEVEL) / 2)
    end
end

-- The fields of a row that hold the interval of one of its fields: low, high.
function M.fields(key)
    return key .. "_low", key .. "_high"
end

-- The field whose interval a field of this name is an end of; nil where it is none.
function M.field_of(name)
    return name:match "^(.+)_low$" or name:match "^(.+)_high$"
end

-- for draw, steps in bootstrap.draws(n): resampled steps, draw by draw. opts.seed, opts.draws.
function M.draws(n, opts)
    local count, seed = opts and opts.draws or M.DRAWS, opts and opts.seed or M.seed
    return function(_, draw)
        if draw + 1 < count then
            return draw + 1, M.steps(n, seed, draw + 1)
        end
    end, nil, -1
end

-- low, high of statistic(steps), steps being a list of step numbers as of M.steps. A draw for
-- which it is nil is left out.
function M.interval(n, statistic, opts)
    local values = {}
    for _, steps in M.draws(n, opts) do
        values[#values + 1] = statistic(steps)
    end
    return M.middle(values)
end

-- The mean of per-step values over resampled steps: low, high. values may have gaps (nil).
function M.mean_interval(values, n, opts)
    return M.interval(n, function(steps)
        local sum, counted = 0, 0
        for _, step in ipairs(steps) do
            if values[step] then
                sum, counted = sum + values[step], counted + 1
            end
        end
        return counted > 0 and sum / counted or nil
    end, opts)
end

-- How sure a choice is: a recommendation's fields from what resampled data would have chosen.
--   chosen   the values, one a draw
--   value    the one that is recommended
-- -> { value, low, high, share, as_good }: see experiment.lua
function M.verdict(value, chosen)
    local times, distinct, as_good = {}, {}, json.array {}
    for _, one in ipairs(chosen) do
        if not times[one] then
            distinct[#distinct + 1] = one
        end
        times[one] = (times[one] or 0) + 1
    end
    table.sort(distinct)
    for _, one in ipairs(distinct) do
        if one ~= value and times[one] >= M.AS_GOOD * #chosen then
            as_good[#as_good + 1] = one
        end
    end
    local low, high = M.middle(chosen)
    return { value = value, low = low, high = high, as_good = as_good,
        share = #chosen > 0 and (times[value] or 0) / #chosen or nil }
end

-- The verdict on `value` when choose(steps) answers for resampled steps.
function M.choice(value, n, choose, opts)
    local chosen = {}
    for _, steps in M.draws(n, opts) do
        chosen[#chosen + 1] = choose(steps)
    end
    return M.verdict(value, chosen)
end

-- A verdict in words: "chosen in 86 % of the resamplings; 25 and 35 are as good".
function M.words(verdict, format)
    if not verdict.share then
        return "one step tells nothing of how sure this is"
    end
    local list = {}
    for i, value in ipairs(verdict.as_good) do
        list[i] = (format or "%g"):format(value)
    end
    local last = table.remove(list)
    local others = last and (#list > 0 and table.concat(list, ", ") .. " and " .. last or last)
    return ("chosen in %.0f %% of the resamplings%s"):format(100 * verdict.share, others
        and ("; %s %s as good"):format(others, #list > 0 and "are" or "is") or "")
end

-- The same as a sentence of its own.
function M.sentence(verdict, format)
    local words = M.words(verdict, format)
    return words:sub(1, 1):upper() .. words:sub(2) .. "."
end

return M
