-- Which momentum: what averaging takes from the noise of the counts, against what it lets slip of
-- their drift.
--
-- A region's count at call t is taken as R_t = rate_t (1 + noise_t), with a rate that wanders: the
-- relative variance of noise is 1/R (counting) + scatter (batches differ), and that of the rate
-- from one training step to the next is drift. S is then off from the rate by the relative variance
--
--   error(m) = ((1/R + scatter) (1 - m)^2 + drift m^2) / (1 - m^2)
--
-- the first term falling with m, the second rising: exponential smoothing of a local level (Muth
-- 1960). Scatter and drift come from pairs of calls: their squared relative difference is expected
-- to be 4 / (R_a + R_b) + 2 scatter + drift * (training steps between them).

local bootstrap = require "ghm.studies.bootstrap"
local calls = require "ghm.studies.calls"
local nearest = require "ghm.nearest"

local M = {}

M.REACH = 6 -- pairs up to so many calls apart: beyond, a rate has wandered off for good
local ROUNDS = 4 -- of weighing pairs by what the round before expects of them
local AS_GOOD = 1.1 -- an error this much larger than the least is as good

-- When each step was taken: the training steps in their names where all have one and they rise,
-- else 1, 2, 3, ... Returns the list, and training steps from one to the next, nil where unknown.
function M.times(steps)
    local times, rising = {}, #steps > 1
    for k, step in ipairs(steps) do
        times[k] = step.time
        rising = rising and step.time ~= nil and (k == 1 or step.time > steps[k - 1].time)
    end
    if rising then
        return times, (times[#times] - times[1]) / (#times - 1)
    end
    for k in ipairs(steps) do
        times[k] = k
    end
    return times
end

-- The counts that share a state, as series in time: a call of a step with the same call of the
-- other steps, or whole steps where they are summed. -> { { [step] = R, ... }, ... }
local function series_of(steps, bins, sharing)
    local series = {}
    for k, step in ipairs(steps) do
        local list = sharing == "summed" and { calls.sum(step, bins) } or step
        for c, call in ipairs(list) do
            for j = 0, bins - 1 do
                local at = (c - 1) * bins + j + 1
                series[at] = series[at] or {}
                series[at][k] = tonumber(call.R[j])
            end
        end
    end
    return series
end

-- Pairs of calls of one region, by the step of the earlier: { { excess, counting, gap }, ... }.
-- A pair with R_a + R_b = T has the squared relative difference 4 / T from counting alone, exactly.
local function pairs_by_step(counts, times)
    local list = {}
    for a = 1, #times do
        list[a] = {}
        for b = a + 1, math.min(a + M.REACH, #times) do
            local both = (counts[a] or 0) + (counts[b] or 0)
            if counts[a] and counts[b] and both > 0 then
                local square = ((counts[a] - counts[b]) * 2 / both) ^ 2
                table.insert(list[a], { excess = square - 4 / both, counting = 4 / both,
                    gap = times[b] - times[a] })
            end
        end
    end
    return list
end

-- What fits the excess best, each pair weighed by the inverse of its expected size squared:
--   scatter, drift    the two together; either may come out below 0 where it is small
--   scatter_alone     without drift          drift_alone     without scatter
-- order: steps whose pairs count, all where nil.
local function fit(by_step, order)
    local found = { scatter = 0, drift = 0, scatter_alone = 0, drift_alone = 0 }
    for _ = 1, ROUNDS do
        local w, wg, wgg, we, wge = 0, 0, 0, 0, 0
        local scatter, drift = math.max(found.scatter, 0), math.max(found.drift, 0)
        for k = 1, order and #order or #by_step do
            for _, pair in ipairs(by_step[order and order[k] or k]) do
                local g = pair.gap
                local weight = (pair.counting + 2 * scatter + drift * g) ^ -2
                w, wg, wgg = w + weight, wg + weight * g, wgg + weight * g * g
                we, wge = we + weight * pair.excess, wge + weight * g * pair.excess
            end
        end
        if w == 0 then
            break
        end
        found.scatter_alone, found.drift_alone = we / w / 2, wge / wgg
        local determinant = w * wgg - wg * wg
        if determinant > 1e-12 * w * wgg then
            found.scatter = (wgg * we - wg * wge) / determinant / 2
            found.drift = (w * wge - wg * we) / determinant
        else -- all gaps alike: the two cannot be told apart, and drift is the worse
            found.scatter, found.drift = 0, found.drift_alone
        end
    end
    return found
end

-- Means over the regions, which GHM weighs alike. Only the means are kept from falling below 0:
-- clipped one by one, the regions would add up to a noise that is not there.
local function summary(regions, order)
    local mean = { counting = 0, scatter = 0, drift = 0, scatter_alone = 0, drift_alone = 0 }
    for _, region in ipairs(regions) do
        local found = fit(region.by_step, order)
        found.counting = region.counting
        for key, value in pairs(found) do
            mean[key] = mean[key] + value / #regions
        end
    end
    if mean.scatter < 0 then
        mean.scatter, mean.drift = 0, math.max(mean.drift_alone, 0)
    elseif mean.drift < 0 then
        mean.scatter, mean.drift = math.max(mean.scatter_alone, 0), 0
    end
    return mean
end

local function regions_of(steps, bins, sharing, times)
    local regions = {}
    for _, counts in ipairs(series_of(steps, bins, sharing)) do
        local sum, hits = 0, 0
        for _, R in pairs(counts) do
            sum, hits = sum + R, hits + (R > 0 and 1 or 0)
        end
        if hits > 0 then -- 1/R of a call that holds samples, for the others leave S alone
            regions[#regions + 1] = { counting = hits / sum,
                by_step = pairs_by_step(counts, times) }
        end
    end
    return regions
end

-- The relative error of S, root of the mean over the regions; and what of its square is noise and
-- what is drift.
function M.error(noise, m)
    local from_noise = (noise.counting + noise.scatter) * (1 - m) / (1 + m)
    local from_drift = noise.drift * m * m / (1 - m * m)
    return math.sqrt(from_noise + from_drift), from_noise, from_drift
end

-- The momentum of the list with the least error.
function M.best(noise, momenta)
    local best
    for _, m in ipairs(momenta) do
        if not best or M.error(noise, m) < M.error(noise, best) then
            best = m
        end
    end
    return best
end

-- Noise and drift of a stream: { counting, scatter, drift, every }: means over the regions, and
-- training steps from one step to the next, nil where unknown. nil for a single step. Also what
-- measures resampled steps.
function M.measure(steps, bins, sharing)
    if #steps < 2 then
        return nil
    end
    local times, every = M.times(steps)
    local regions = regions_of(steps, bins, sharing, times)
    local noise = summary(regions)
    noise.every = every
    return noise, function(order)
        return summary(regions, order)
    end
end

-- The momentum to train with, of the list: a verdict (of bootstrap; as_good are also those whose
-- error is nearly the least), and the noise. Steps are resampled with the pairs that begin at them.
function M.recommend(steps, bins, sharing, momenta)
    local noise, resampled = M.measure(steps, bins, sharing)
    if not noise then
        return nil
    end
    local value = M.best(noise, momenta)
    local verdict = bootstrap.among(#momenta, bootstrap.choice(value, #steps, function(order)
        return M.best(resampled(order), momenta)
    end))
    local limit = AS_GOOD * M.error(noise, value)
    for _, m in ipairs(momenta) do
        if m ~= value and M.error(noise, m) <= limit and not nearest.is_one_of(m, verdict.as_good)
        then
            table.insert(verdict.as_good, m)
        end
    end
    table.sort(verdict.as_good)
    return verdict, noise
end

return M
