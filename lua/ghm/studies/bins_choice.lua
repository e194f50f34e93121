-- Which number of unit regions: what finer ones lose in noise, against what coarser ones lose in
-- unevenness.

local bootstrap = require "ghm.studies.bootstrap"
local json = require "ghm.json"
local metrics = require "ghm.studies.metrics"

local M = {}

-- What the betas of each row are off by, root of the mean square, relative: a list. The noise is
-- the row's own. Unevenness is measured coarsely, so all rows of one mu share one law for it: its
-- square falls as 1/M, as it does at the steep ends that the density of g has. A row counts in it
-- by how little noise it is measured in: the finest ones, of few samples a region, say next to
-- nothing. nil for soft targets.
local function errors_of(rows, parts, steps)
    local sums, errors = {}, {}
    local function noise_of(i)
        return metrics.of(parts[i], "beta_noise", "mean", steps)
    end
    for i, row in ipairs(rows) do
        local uneven = metrics.of(parts[i], "beta_uneven", "mean", steps)
        if uneven and (row.bins > 1 or #rows == 1) then
            local sum, weight = sums[row.mu or 0] or { 0, 0 }, 1 / noise_of(i)
            sum[1], sum[2] = sum[1] + weight * uneven * row.bins, sum[2] + weight
            sums[row.mu or 0] = sum
        end
    end
    for i, row in ipairs(rows) do
        local noise, sum = noise_of(i), sums[row.mu or 0]
        errors[i] = noise and sum and math.sqrt(noise + math.max(sum[1] / sum[2], 0) / row.bins)
            or math.huge
    end
    return next(sums) and errors or nil
end

local function empty_shares(rows, parts, steps)
    local shares = {}
    for i in ipairs(rows) do
        shares[i] = metrics.of(parts[i], "empty_share", "mean", steps)
    end
    return shares
end

-- Sets row.beta_error and its interval. parts, resamplings: of ghm.metrics.
function M.fill(rows, parts, resamplings)
    local errors, drawn = errors_of(rows, parts), {}
    for _, one in ipairs(resamplings) do
        drawn[#drawn + 1] = errors_of(rows, one.parts, one.steps)
    end
    for i, row in ipairs(errors and rows or {}) do
        local list = {}
        for k, values in ipairs(drawn) do
            list[k] = values[i]
        end
        row.beta_error = errors[i]
        local n = metrics.telling(parts[i], "beta_uneven", resamplings)
        local low, high = bootstrap.middle(list, n)
        if low and not n and low < math.huge then -- few samples drawn anew have more noise than
            local off = errors[i] / bootstrap.quantile(list, 0.5) -- these: that is no news of them
            low, high = low * off, high * off
        end
        row.beta_error_low, row.beta_error_high = low, high
    end
end

-- Coarser regions are as good while the error of beta is within this factor of the least.
local AS_GOOD = 1.1
-- The same of the share of empty regions, where that is all there is: a share that needs no excuse,
-- and how much above the least.
local ENOUGH, SLACK = 0.1, 0.02

-- Position of the row to train with: the coarsest regions whose betas are nearly as right as any.
-- Finer regions follow the density more closely, but their betas rest on fewer samples; where it
-- makes no difference, fewer are steadier. Soft targets, whose density is known in whole regions
-- alone, get the finest ones that are not empty too often. M = 1 weighs every sample alike, which
-- is no GHM: it is recommended only where nothing else was tried. values: an error of each row, or
-- (finest) its share of empty regions. Returns the position of the least of them too.
local function best_of(rows, values, finest)
    local least, least_at, best, eligible = math.huge, nil, nil, {}
    for i, row in ipairs(rows) do
        eligible[#eligible + 1] = row.bins > 1 and i or nil
    end
    if #eligible == 0 then
        eligible[1] = 1
    end
    for _, i in ipairs(eligible) do
        if values[i] < least then
            least, least_at = values[i], i
        end
    end
    local limit = finest and math.max(ENOUGH, least + SLACK) or AS_GOOD * least
    for _, i in ipairs(eligible) do
        local bins, than = rows[i].bins, best and rows[best].bins
        local better = not best or finest and bins > than or not finest and bins < than
        best = values[i] <= limit and better and i or best
    end
    return best, least_at or best
end

-- What is to be said where this row lies at an end of the bins tried: more may lie beyond it.
local function beyond(rows, at)
    local bins, fewest, most = rows[at].bins, math.huge, 0
    for _, row in ipairs(rows) do
        fewest, most = row.bins > 1 and math.min(fewest, row.bins) or fewest,
            math.max(most, row.bins)
    end
    return fewest < most and (bins == most and "; try finer ones than %d"
        or bins == fewest and bins > 2 and "; try coarser ones than %d" or ""):format(bins) or ""
end

local function field(rows, key)
    local values = {}
    for i, row in ipairs(rows) do
        values[i] = row[key]
    end
    return values
end

-- Whether it makes no difference which of these rows is taken, as where all samples lie in one
-- region of each; rows of M = 1 aside.
local function alike(rows)
    local first_of, several = {}, false
    for _, row in ipairs(rows) do
        if row.bins > 1 and row.n then
            local key = ("%s %s"):format(row.momentum or 0, row.mu or 0)
            local first = first_of[key] or row
            local one = row.n == 1 and first.n == 1
            if not one and (row.n ~= first.n or row.beta_largest ~= first.beta_largest
                or math.abs(row.loss - first.loss) > 1e-9 * math.abs(first.loss)) then
                return false
            end
            first_of[key], several = first, several or first.bins ~= row.bins
        end
    end
    return several
end

-- The same recommendation where it makes no difference: the coarsest regions.
local function any_of(rows)
    local best, as_good = nil, json.array {}
    for _, row in ipairs(rows) do
        best = row.bins > 1 and not (best and best.bins <= row.bins) and row or best
    end
    for _, row in ipairs(rows) do
        as_good[#as_good + 1] = row.bins > 1 and row.bins ~= best.bins
            and row.bins ~= as_good[#as_good] and row.bins or nil
    end
    local where = best.n == 1 and "all samples of a call lie in one region, with the same beta"
        or ("the samples of a call lie in %.3g regions, with the same betas"):format(best.n)
    return best, { key = "bins", value = best.bins, as_good = as_good, alike = true,
        reason = ("bins = %d: %s, whichever choice is taken: there is nothing to choose."):format(
        best.bins, where) }
end

-- The row to train with, and the recommendation of its bins (see experiment.lua), whose reason is
-- one sentence. rows: after M.fill.
function M.recommend(rows, resamplings)
    if alike(rows) then
        return any_of(rows)
    end
    local finest = rows[1].beta_error == nil
    local errors = field(rows, finest and "empty_share" or "beta_error")
    local at, least_at = best_of(rows, errors, finest)
    local best, chosen = rows[at], {}
    for _, drawn in ipairs(resamplings or {}) do
        local values = (finest and empty_shares or errors_of)(rows, drawn.parts, drawn.steps)
        -- steps of soft targets alone have no error
        chosen[#chosen + 1] = values and rows[best_of(rows, values, finest)].bins or nil
    end
    local tried, seen, momentum = 0, {}, ""
    for _, row in ipairs(rows) do -- the choice is of one of several
        local counts = not seen[row.bins] and (row.bins > 1 or best.bins == 1)
        seen[row.bins], tried = true, tried + (counts and 1 or 0)
        momentum = row.momentum ~= best.momentum and (", momentum = %g"):format(best.momentum)
            or momentum
    end
    local only = "only choice tried" .. (best.bins > 1 and seen[1] and " above 1" or "")
    local what
    if finest then
        what = ("%.1f %% of the regions are empty, and it is the %s"):format(100 * best.empty_share,
            tried == 1 and only or "finest choice with few of them" .. beyond(rows, at))
    else
        what = ("beta is off by %.0f %% (by counting noise alone %.0f %%), and it is the %s")
            :format(100 * best.beta_error, 100 * best.beta_noise, tried == 1 and only
            or ("coarsest choice within %.0f %% of the least error, %.0f %%%s"):format(
            100 * (AS_GOOD - 1), 100 * errors[least_at], beyond(rows, least_at)))
    end
    local steps = resamplings and resamplings[1] and resamplings[1].steps
    local verdict = bootstrap.among(tried, bootstrap.verdict(best.bins, chosen, steps and #steps))
    verdict.key, verdict.reason = "bins", ("bins = %d%s: %s."):format(best.bins, momentum, what)
    return best, verdict
end

return M
