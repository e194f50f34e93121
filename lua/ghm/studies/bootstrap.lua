-- The bootstrap: how far a number would move had other steps, or other samples, been drawn.
--
--   bootstrap.steps(n, seed, draw)         n of the steps 1..n, drawn with replacement, as a list
--   bootstrap.counts(mean, n, seed, draw)  Poisson counts with these means: int64_t[n]
--   bootstrap.divide(counts, take, seed, draw)  of each, how many are among `take` of all: a list
--   bootstrap.sketch(sketch, seed, draw)   a sketch of samples drawn anew
--   bootstrap.middle(list, n)              low, high: of what draws gave, of n steps
--   bootstrap.fields(key)                  the names of its ends in a row: key_low, key_high
--   bootstrap.choice(value, n, choose)     how often each value is chosen from resampled steps
--
-- Every draw is a function of (seed, draw, place) alone, by the core's Philox: a result is the same
-- on every machine, whatever else was drawn before it.

local clib = require "ghm.clib"
local ffi = require "ffi"
local harmonise = require "ghm.harmonise"
local json = require "ghm.json"

local C = clib.C
local M = {}

M.seed = 0 -- of what studies draw, where they are not told another: --seed
M.DRAWS = 200 -- at least: of few steps, so many that BEYOND of them lie outside each end
local BEYOND = 5
M.LEVEL = 0.9 -- of an interval
local FEWEST = 4 -- steps of which it can be told: no resampled mean lies outside its steps
local AS_GOOD = 0.1 -- a value chosen in this share of the draws is as good as the one recommended

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

-- Of each of these counts (a list), how many are among `take` of all of them, drawn blindly.
function M.divide(counts, take, seed, draw)
    local n = #counts
    local list, out = ffi.new("int64_t[?]", math.max(n, 1), counts), ffi.new("int64_t[?]", n)
    clib.check(C.ghm_divide(seed, draw, n, list, take, out))
    return harmonise.list(out, n)
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

-- The share of draws beyond each end of an interval: 5 %, but less where n steps are resampled.
-- Their mean varies less from draw to draw than from stream to stream, by (n - 1) / n, and how much
-- it varies is itself a guess from n steps. So it is the normal share beyond t sqrt(n / (n - 1)), t
-- being Student's quantile: the expanded percentile interval (Hesterberg 2015, "What teachers
-- should know about the bootstrap"). t within 0.1 %: Gaver and Kafadar 1984, "A retrievable recipe
-- for inverse t".
local NORMAL = 1.6448536269514722 -- the normal quantile of (1 + M.LEVEL) / 2

function M.beyond(n)
    if not n then
        return (1 - M.LEVEL) / 2
    end
    local v = n - 1
    local t = math.sqrt(v * (math.exp(NORMAL ^ 2 * (v - 5 / 6) / (v - 2 / 3 + 0.1 / v) ^ 2) - 1))
    local x = t * math.sqrt(n / v)
    local sum, term, k = x, x, 1 -- of the normal share between 0 and x (Marsaglia 2004)
    while term > 1e-16 * sum do
        k = k + 2
        term = term * x * x / k
        sum = sum + term
    end
    return 0.5 - sum * math.exp(-x * x / 2) / math.sqrt(2 * math.pi)
end

-- The interval of a number from a list of what draws made of it: low, high; nil for none. n: the
-- number of steps that were resampled, where these tell of the number; nil where samples were drawn
-- anew, of which there are enough. Of less than FEWEST steps there is none.
function M.middle(list, n)
    if #list > 0 and (not n or n >= FEWEST) then
        local p = M.beyond(n)
        return M.quantile(list, p), M.quantile(list, 1 - p)
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
    local count, seed = opts and opts.draws, opts and opts.seed or M.seed
    if not count then
        count = n < FEWEST and M.DRAWS or math.max(M.DRAWS, math.ceil(BEYOND / M.beyond(n)))
    end
    return function(_, draw)
        if draw + 1 < count then
            return draw + 1, M.steps(n, seed, draw + 1)
        end
    end, nil, -1
end

-- How sure a choice is: a recommendation's fields from what resampled data would have chosen.
--   chosen   the values, one a draw
--   value    the one that is recommended
--   n        as of M.middle
-- -> { value, low, high, share, as_good }: see experiment.lua
function M.verdict(value, chosen, n)
    local times, distinct, as_good = {}, {}, json.array {}
    for _, one in ipairs(chosen) do
        if not times[one] then
            distinct[#distinct + 1] = one
        end
        times[one] = (times[one] or 0) + 1
    end
    table.sort(distinct)
    for _, one in ipairs(distinct) do
        if one ~= value and times[one] >= AS_GOOD * #chosen then
            as_good[#as_good + 1] = one
        end
    end
    local low, high = M.middle(chosen, n)
    return { value = value, low = low, high = high, as_good = as_good,
        share = #chosen > 0 and (times[value] or 0) / #chosen or nil }
end

-- The same verdict, where `tried` values could have been chosen: of an only one nobody is unsure.
function M.among(tried, verdict)
    if tried == 1 then
        verdict.only, verdict.share, verdict.low, verdict.high = true, nil, nil, nil
    end
    return verdict
end

-- The verdict on `value` when choose(steps) answers for resampled steps.
function M.choice(value, n, choose, opts)
    local chosen = {}
    for _, steps in M.draws(n, opts) do
        chosen[#chosen + 1] = choose(steps)
    end
    return M.verdict(value, chosen, n)
end

-- A verdict in words: "chosen in 86 % of the resamplings; 25 and 35 are as good".
function M.words(verdict)
    if verdict.only then
        return "the only choice tried"
    elseif verdict.alike then
        return "as good as any other tried"
    elseif not verdict.share then
        return "one step tells nothing of how sure this is"
    end
    local list = {}
    for i, value in ipairs(verdict.as_good) do
        list[i] = ("%g"):format(value)
    end
    local last = table.remove(list)
    local others = last and (#list > 0 and table.concat(list, ", ") .. " and " .. last or last)
    return ("chosen in %.0f %% of the resamplings%s"):format(100 * verdict.share, others
        and ("; %s %s as good"):format(others, #list > 0 and "are" or "is") or "")
end

-- The same as a sentence of its own.
function M.sentence(verdict)
    local words = M.words(verdict)
    return words:sub(1, 1):upper() .. words:sub(2) .. "."
end

return M
