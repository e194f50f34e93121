-- The study of mu: which errors |d| GHM-R tells apart, and the mu that puts a wanted quantile of
-- them where g still tells.

local bins_study = require "ghm.studies.bins_study"
local bootstrap = require "ghm.studies.bootstrap"
local ffi = require "ffi"
local json = require "ghm.json"
local number = require "ghm.number"
local sketches = require "ghm.sketches"
local sweep = require "ghm.studies.sweep"
local text = require "ghm.show.text"

local M = {}

-- g of the wanted quantile: where it is to lie, and from where to where is as good.
local TARGET, LEAST, MOST = 0.6, 0.5, 0.7

M.columns = { "mu", "g_quantile", "d_last", "last_share", "asl1", "smooth_l1" }
for _, column in ipairs(bins_study.columns) do
    table.insert(M.columns, column == "bins" and 2 or #M.columns + 1, column)
end

-- Where |d| is cut, so that its quantiles and contributions are exact there: 40 to a decade, from
-- LOWEST, below which an error is none, to HIGHEST, beyond which no box is.
local LOWEST, HIGHEST = 1e-6, 1e9
function M.knots()
    local list = {}
    for k = -240, 360 do
        list[#list + 1] = 10 ^ (k / 40)
    end
    return list
end

-- --quantile: a number between 0 and 1.
function M.share(word)
    local q = number(word)
    if q and q > 0 and q < 1 then
        return q
    end
    return nil, ("--quantile: '%s' is not a number between 0 and 1"):format(word)
end

-- The mu at which an error d has the gradient norm g = d / sqrt(d^2 + mu^2).
function M.mu_at(d, g)
    return d * math.sqrt((1 - g) * (1 + g)) / g
end

-- The q-quantile of |d| from counts between edges, in proportion to ln |d| inside an interval.
local function quantile(counts, edges, n, q)
    local total, below = 0, 0
    for i = 0, n - 1 do
        total = total + tonumber(counts[i])
    end
    for i = 0, n - 1 do
        local here = tonumber(counts[i])
        if here > 0 and below + here >= q * total then
            local low, high = i > 0 and edges[i - 1] or edges[0], edges[math.min(i, n - 2)]
            return low * (high / low) ^ math.max(0, (q * total - below) / here)
        end
        below = below + here
    end
end

-- Counts per interval of every step.
local function step_counts(calls)
    local steps, last = {}, nil
    for _, call in ipairs(calls) do
        local n = call.sketch:intervals()
        if call.step ~= last then
            steps[#steps + 1], last = ffi.new("int64_t[?]", n), call.step
        end
        local counts = call.sketch:counts()
        for i = 0, n - 1 do
            steps[#steps][i] = steps[#steps][i] + counts[i]
        end
    end
    return steps
end

local function sum_of(steps, n, order)
    local sum = ffi.new("int64_t[?]", n)
    for k = 1, order and #order or #steps do
        local counts = steps[order and order[k] or k]
        for i = 0, n - 1 do
            sum[i] = sum[i] + counts[i]
        end
    end
    return sum
end

-- The q-quantile of |d| over all calls, and those of resampled steps (of samples drawn anew, for a
-- single step): d, and a list, whose `steps` says how many were resampled.
function M.quantiles(calls, q)
    local steps, edges = step_counts(calls), calls[1].sketch:edges()
    local n, list = calls[1].sketch:intervals(), {}
    if #steps > 1 then
        list.steps = #steps
        for _, order in bootstrap.draws(#steps) do
            list[#list + 1] = quantile(sum_of(steps, n, order), edges, n, q)
        end
    else
        for draw = 0, bootstrap.DRAWS - 1 do
            local drawn = bootstrap.counts(steps[1], n, bootstrap.seed, draw)
            list[#list + 1] = quantile(drawn, edges, n, q)
        end
    end
    return quantile(sum_of(steps, n), edges, n, q), list
end

-- |d| where each region begins, from the core's own edges: a list of bins - 1 numbers.
function M.region_edges(sketch, bins, mu)
    local edges, cut, list = sketch:edges(), sketch:cut(bins, mu), {}
    for j = 1, bins - 1 do
        list[j] = edges[tonumber(cut[j]) - 1]
    end
    return list
end

-- The rows of every (mu, bins) and their resamplings: those of the study of bins, with g of the
-- wanted quantile d, where the last region begins and what lies in it, and mean losses.
function M.rows(calls, configurations, d, keys, progress)
    local rows, resamplings = bins_study.rows("regression", calls, configurations, keys.eps,
        progress)
    local whole = sweep.merged(calls)
    local function mean(name, a) -- over the calls, as the loss of GHM-R is
        local sum = 0
        for _, call in ipairs(calls) do
            local all = sketches.total(call.sketch:sums(name, a), call.sketch:intervals())
            sum = sum + all / math.max(call.facts.valid, 1)
        end
        return sum / #calls
    end
    local smooth_l1, asl1 = mean("smooth_l1", keys.beta), {}
    for _, row in ipairs(rows) do
        local R = whole:regions(row.bins, row.mu)
        row.g_quantile = d / math.sqrt(d * d + row.mu * row.mu)
        row.last_share = tonumber(R[row.bins - 1]) / whole:facts().valid
        row.d_last = row.bins > 1 and M.region_edges(whole, row.bins, row.mu)[row.bins - 1] or 0
        asl1[row.mu] = asl1[row.mu] or mean("asl1", row.mu)
        row.asl1, row.smooth_l1 = asl1[row.mu], smooth_l1
    end
    return rows, resamplings, whole
end

local function tidy(x) -- two digits, as a person would choose
    return tonumber(("%.2g"):format(x))
end

-- The mu to train with, as a recommendation (see experiment.lua). d, list: of M.quantiles.
function M.recommend(d, list, q)
    local value, mus, inside = tidy(M.mu_at(d, TARGET)), {}, 0
    for k, other in ipairs(list) do
        mus[k] = M.mu_at(other, TARGET)
        local least, most = M.mu_at(other, MOST), M.mu_at(other, LEAST)
        inside = inside + (value >= least and value <= most and 1 or 0)
    end
    local verdict = bootstrap.verdict(value, mus, list.steps)
    verdict.key, verdict.share = "mu", #list > 0 and inside / #list or nil
    verdict.as_good = json.array { tidy(M.mu_at(d, MOST)), tidy(M.mu_at(d, LEAST)) }
    verdict.reason = ("mu = %g puts the %g-quantile of |d|, %.3g, at g = %g"):format(value, q, d,
        TARGET)
    if d < 1.001 * LOWEST then -- the edge is a float
        verdict.reason = ("the %g-quantile of |d| is 0, so no mu puts it at g = %g: are boxes with "
            .. "no error, as of ignored ones, among the samples? A weight of 0 leaves them out, "
            .. "--quantile chooses another"):format(q, TARGET)
        verdict.as_good = json.array {}
    elseif d > 0.999 * HIGHEST then
        verdict.reason = ("the %g-quantile of |d| is beyond %g: no mu is told for boxes so far off")
            :format(q, HIGHEST)
        verdict.as_good = json.array {}
    end
    return verdict
end

-- The row to show: the tried mu nearest to the recommended one, with the bins to go with it.
function M.nearest(rows, resamplings, value)
    local nearest, among, places = nil, {}, {}
    for _, row in ipairs(rows) do
        local off = math.abs(math.log(row.mu / value))
        nearest = nearest and math.abs(math.log(nearest / value)) <= off and nearest or row.mu
    end
    for i, row in ipairs(rows) do
        if row.mu == nearest then
            among[#among + 1], places[#places + 1] = row, i
        end
    end
    local drawn = {}
    for k, one in ipairs(resamplings) do
        drawn[k] = { parts = {}, steps = one.steps }
        for p, i in ipairs(places) do
            drawn[k].parts[p] = one.parts[i]
        end
    end
    return bins_study.recommend(among, drawn)
end

-- The rows for a terminal: every mu with the best row's bins.
function M.listed(rows, best)
    local same = {}
    for _, row in ipairs(rows) do
        same[#same + 1] = row.bins == best.bins and row or nil
    end
    return bins_study.listed(same, best, "mu")
end

-- What is to be said where the recommended mu lies outside those that were tried.
local function outside(rows, value)
    local least, most = math.huge, 0
    for _, row in ipairs(rows) do
        least, most = math.min(least, row.mu), math.max(most, row.mu)
    end
    return (value < least or value > most) and (" Try mu=log:%.2g:%.2g:9 too."):format(
        value / 10, value * 10) or ""
end

function M.answer(verdict, advice, best, rows)
    if #verdict.as_good == 0 then
        return { verdict.reason:sub(1, 1):upper() .. verdict.reason:sub(2) .. "." }
    end
    local sure = verdict.low and ("The quantile's own uncertainty is mu = %.2g to %.2g"):format(
        verdict.low, verdict.high) or "Of so few steps the quantile's own uncertainty is not known"
    return {
        ("%s; %g to %g, with which it lies at g = %g to %g, are as good."):format(verdict.reason,
            verdict.as_good[1], verdict.as_good[2], MOST, LEAST),
        ("%s; at mu = %.3g, the nearest tried, the last of %d regions begins at |d| = %.3g and "
            .. "holds %.0f %%; M = %d, %s.%s"):format(sure, best.mu, best.bins, best.d_last,
            100 * best.last_share, best.bins, bootstrap.words(advice),
            outside(rows, verdict.value)),
    }
end

local LINES = 40 -- of the table of regions; of more regions, neighbours are added up

-- |d| at the edges of the best row's regions and what lies between them, as text.
function M.edges_table(whole, best)
    local R, rows = whole:regions(best.bins, best.mu), {}
    local edges, every = M.region_edges(whole, best.bins, best.mu), math.ceil(best.bins / LINES)
    for j = 1, best.bins do
        local k = math.ceil(j / every)
        rows[k] = rows[k] or { region = j, g = (j - 1) / best.bins, d = edges[j - 1] or 0,
            share = 0 }
        rows[k].share = rows[k].share + tonumber(R[j - 1]) / whole:facts().valid
        rows[k].bar = text.bar(rows[k].share, 30)
    end
    return ("regions of mu = %.3g, M = %d%s\n"):format(best.mu, best.bins, every > 1
        and (", %d in a line"):format(every) or "") .. text.table(rows, {
        "region", { key = "g", title = "from g", format = "%.3f" },
        { key = "d", title = "from |d|", format = "%.3g" },
        { key = "share", title = "samples", format = "%.3f" }, { key = "bar", title = "" } })
end

return M
