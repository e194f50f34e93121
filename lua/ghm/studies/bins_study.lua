-- The study of bins: what each number of unit regions does to the data of a stream, and which one
-- to train with. Arithmetic on sketches.

local bootstrap = require "ghm.studies.bootstrap"
local calls = require "ghm.studies.calls"
local ffi = require "ffi"
local fault = require "ghm.fault"
local harmonise = require "ghm.harmonise"
local metrics = require "ghm.studies.metrics"
local sweep = require "ghm.studies.sweep"
local warnings = require "ghm.studies.warnings"

ffi.cdef "double lgamma(double x);"

local M = {}

M.SCARCE = 100 -- a region with fewer samples has a beta that is off by a tenth or more

-- How what is taken down of every call is put together over the steps.
M.kinds = { loss = "mean", n = "mean", empty_share = "mean", beta_largest = "most",
    beta_error = "root", beta_noise = "root", scarce_share = "mean",
    density_error_max = "most", density_error_mean = "mean", cosine = "mean", entropy = "mean",
    effective = "mean", rudemo = "mean", knuth = "mean" }

-- The columns of results.csv, in order.
M.columns = metrics.columns({ "bins", "momentum", "calls", "loss", "loss_sd", "n", "empty_share",
    "beta_largest", "beta_error", "beta_noise", "scarce_share", "density_error_max",
    "density_error_mean", "cosine", "entropy", "effective", "rudemo", "knuth" }, M.kinds)

-- Rudemo's leave-one-out score of a histogram of [0, 1]: an estimate of its squared error up to a
-- constant; the least is best. (Rudemo 1982.)
function M.rudemo(R, bins, N)
    local squares = 0
    for j = 0, bins - 1 do
        local p = tonumber(R[j]) / N
        squares = squares + p * p
    end
    return (2 - (N + 1) * squares) * bins / (N - 1)
end

-- Knuth's log posterior of the number of bins, up to a constant; the greatest is best. (Knuth.)
function M.knuth(R, bins, N)
    local sum = 0
    for j = 0, bins - 1 do
        sum = sum + ffi.C.lgamma(tonumber(R[j]) + 0.5)
    end
    return N * math.log(bins) + ffi.C.lgamma(bins / 2) - bins * ffi.C.lgamma(0.5)
        - ffi.C.lgamma(N + bins / 2) + sum
end

-- The squared relative error of each region's beta, added to a part: its counting noise, and how
-- unevenly the density lies inside the region. The two halves of a region with R samples and a
-- constant density differ by delta = (left - right) / R, whose square is 1/R on average; what is
-- above that comes from a slope, which spreads the density over the region by 4/3 of it.
local function add_beta_errors(part, result, sketch, configuration)
    local bins, m = configuration.bins, configuration.momentum or 0
    local at, where = {}, {}
    for j = 0, bins - 1 do
        if result.R[j] > 0 then
            at[#at + 1], where[#where + 1] = (j + 0.25) / bins, j
        end
    end
    -- the density over the left half alone
    for k, left in ipairs(sketch:density(at, 0.5 / bins, configuration.mu)) do
        local R = tonumber(result.R[where[k]])
        local delta = 2 * left * 0.5 / bins / R - 1
        local noise = (1 - m) / (1 + m) / R -- momentum averages
        metrics.add(part, "beta_noise", noise)
        metrics.add(part, "beta_error", noise + 4 / 3 * (delta * delta - 1 / R))
    end
end

-- What one call says of a configuration.
local function study_call(part, call, configuration, h, eps)
    local bins, sketch = configuration.bins, call.sketch
    local result = h:step(sketch)
    local N = call.facts.valid
    local row = { loss = result.loss, n = result.n, empty_share = 1 - result.n / bins,
        beta_largest = result.beta_largest }
    if N > 1 then
        row.rudemo, row.knuth = M.rudemo(result.R, bins, N), M.knuth(result.R, bins, N)
    end
    if N > 0 and not sketch:is_soft() then
        local density = ffi.new("double[?]", bins)
        for j = 0, bins - 1 do
            density[j] = result.used[j] * bins
        end
        local study = sketch:study(bins, configuration.mu, eps or 1 / bins, result.beta, density,
            M.SCARCE)
        for key, value in pairs(study) do
            row[key] = value
        end
        add_beta_errors(part, result, sketch, configuration)
    end
    for key, value in pairs(row) do
        metrics.add(part, key, value)
    end
    return result.loss
end

-- What every step adds to the rows: parts[i][step]; and the losses of every call of each row.
local function parts_of(task, list, configurations, eps, progress)
    local parts, losses = {}, {}
    for i, configuration in ipairs(configurations) do
        local h = harmonise.new(task, configuration)
        parts[i], losses[i] = {}, {}
        if sweep.interrupted() then
            fault.raise("interrupted", "stopped after %d of %d configurations", i - 1,
                #configurations)
        end
        for k, call in ipairs(list) do
            if k == 1 or call.step ~= list[k - 1].step then
                table.insert(parts[i], {})
            end
            losses[i][k] = study_call(parts[i][#parts[i]], call, configuration, h, eps)
        end
        if progress then
            progress(i, #configurations)
        end
    end
    return parts, losses
end

-- The calls with their samples drawn anew.
local function anew(list, draw)
    local drawn = {}
    for k, call in ipairs(list) do
        local sketch = bootstrap.sketch(call.sketch, k, draw)
        drawn[k] = { step = call.step, sketch = sketch, facts = sketch:facts() }
    end
    return drawn
end

-- One row per configuration: means over the calls, and largest values where the name says so; and
-- the resamplings (of ghm.metrics) behind their intervals. list: of sweep.read; eps: window of the
-- exact density, nil for 1/bins; progress: as a study's.
function M.rows(task, list, configurations, eps, progress)
    local parts, losses = parts_of(task, list, configurations, eps, progress)
    local resamplings = metrics.resamplings(parts, function(draw)
        local drawn = anew(list, draw)
        local result = parts_of(task, drawn, configurations, eps)
        for _, call in ipairs(drawn) do
            call.sketch:free()
        end
        return result
    end)
    local rows = {}
    for i, configuration in ipairs(configurations) do
        local row = { calls = #list }
        for key, value in pairs(configuration) do
            row[key] = value
        end
        rows[i] = row
    end
    metrics.fill(rows, parts, M.kinds, resamplings)
    for i, row in ipairs(rows) do
        local squares = 0
        for _, loss in ipairs(losses[i]) do
            squares = squares + (loss - row.loss) ^ 2
        end
        row.loss_sd = #list > 1 and math.sqrt(squares / (#list - 1)) or 0
    end
    return rows, resamplings
end

-- Coarser regions are as good while the error of beta is within this factor of the least.
M.AS_GOOD = 1.1
-- The same of the share of empty regions, where that is all there is: a share that needs no excuse,
-- and how much above the least.
M.ENOUGH, M.SLACK = 0.1, 0.02

-- Which of these rows to train with: the coarsest regions whose betas are nearly as right as any.
-- Finer regions follow the density more closely, but their betas rest on fewer samples; where it
-- makes no difference, fewer are steadier. Soft targets, whose density is known in whole regions
-- alone, get the finest ones that are not empty too often. M = 1 weighs every sample alike, which
-- is no GHM: it is recommended only where nothing else was tried. value(row, key): a metric.
-- Returns the row, the least of the key, and the key.
local function best_of(rows, value)
    local key = value(rows[1], "beta_error") and "beta_error" or "empty_share"
    local least, best, eligible = math.huge, nil, {}
    for _, row in ipairs(rows) do
        eligible[#eligible + 1] = row.bins > 1 and row or nil
    end
    eligible = #eligible > 0 and eligible or rows
    for _, row in ipairs(eligible) do
        least = math.min(least, value(row, key) or math.huge)
    end
    local coarse = key == "beta_error"
    local limit = coarse and M.AS_GOOD * least or math.max(M.ENOUGH, least + M.SLACK)
    for _, row in ipairs(eligible) do
        local better = not best or coarse and row.bins < best.bins
            or not coarse and row.bins > best.bins
        if better and (value(row, key) or math.huge) <= limit then
            best = row
        end
    end
    return best or eligible[1], least, key
end

local function own(row, key)
    return row[key]
end

-- The row to train with, and the recommendation of its bins (see experiment.lua), whose reason
-- is one sentence.
function M.recommend(rows, resamplings)
    local best, least, key = best_of(rows, own)
    local chosen, place = {}, {}
    for i, row in ipairs(rows) do
        place[row] = i
    end
    for k, drawn in ipairs(resamplings or {}) do
        chosen[k] = best_of(rows, function(row, metric)
            return metrics.of(drawn.parts[place[row]], metric, M.kinds[metric], drawn.steps)
        end).bins
    end
    local verdict = bootstrap.verdict(best.bins, chosen)
    verdict.key = "bins"
    local what
    if key == "beta_error" then
        local rule = ("coarsest choice within %.0f %% of the least error tried, %.0f %%"):format(
            100 * (M.AS_GOOD - 1), 100 * least)
        what = ("beta is off by %.0f %% (by counting noise alone %.0f %%), and it is the %s")
            :format(100 * best.beta_error, 100 * best.beta_noise,
            #rows == 1 and "only choice tried" or rule)
    else
        what = ("%.1f %% of the regions are empty, and it is the %s"):format(100 * best.empty_share,
            #rows == 1 and "only choice tried" or "finest choice with few of them")
    end
    verdict.reason = ("bins = %d: %s."):format(best.bins, what)
    return best, verdict
end

-- The rows for a terminal: all, and behind the best one its interval.
function M.listed(rows, best)
    local listed = {}
    for _, row in ipairs(rows) do
        listed[#listed + 1] = row
        if row == best and row.loss_low then
            listed[#listed + 1] = metrics.ends(row, M.kinds, "low", "bins", "from")
            listed[#listed + 1] = metrics.ends(row, M.kinds, "high", "bins", "to")
        end
    end
    return listed
end

-- What is to be said of training with the best row.
function M.warnings(task, list, best)
    return warnings.of(calls.trace(task, best, calls.regions(list, best.bins, best.mu)))
end

return M
