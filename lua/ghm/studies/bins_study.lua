-- The study of bins: what each number of unit regions does to the data of a stream, and which one
-- to train with. Arithmetic on sketches.

local ffi = require "ffi"
local fault = require "ghm.fault"
local harmonise = require "ghm.harmonise"
local sweep = require "ghm.studies.sweep"

ffi.cdef "double lgamma(double x);"

local M = {}

M.SCARCE = 100 -- a region with fewer samples has a beta that is off by a tenth or more

-- The columns of results.csv, in order.
M.columns = { "bins", "momentum", "calls", "loss", "loss_sd", "n", "empty_share", "beta_largest",
    "scarce_share", "density_error_max", "density_error_mean", "cosine", "entropy", "effective",
    "rudemo", "knuth" }

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

-- What one call says of a configuration.
local function study_call(call, configuration, h, eps)
    local bins, sketch = configuration.bins, call.sketch
    local result = h:step(sketch)
    local N = call.facts.valid
    local row = { loss = result.loss, n = result.n, empty_share = 1 - result.n / bins,
        beta_largest = result.beta_largest, samples = N }
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
    end
    return row
end

local worst = { beta_largest = true, density_error_max = true }

-- One row per configuration: means over the calls, and largest values where the name says so.
-- calls: of sweep.read; eps: window of the exact density, nil for 1/bins; progress: as a study's.
function M.rows(task, calls, configurations, eps, progress)
    local rows = {}
    for i, configuration in ipairs(configurations) do
        local h = harmonise.new(task, configuration)
        local row, counted, losses = { calls = #calls }, {}, {}
        for key, value in pairs(configuration) do
            row[key] = value
        end
        if sweep.interrupted() then
            fault.raise("interrupted", "stopped after %d of %d configurations", i - 1,
                #configurations)
        end
        for _, call in ipairs(calls) do
            local one = study_call(call, configuration, h, eps)
            losses[#losses + 1] = one.loss
            for key, value in pairs(one) do
                counted[key] = (counted[key] or 0) + 1
                row[key] = worst[key] and math.max(row[key] or 0, value) or (row[key] or 0) + value
            end
        end
        for key, count in pairs(counted) do
            row[key] = worst[key] and row[key] or row[key] / count
        end
        local squares = 0
        for _, loss in ipairs(losses) do
            squares = squares + (loss - row.loss) ^ 2
        end
        row.loss_sd = #losses > 1 and math.sqrt(squares / (#losses - 1)) or 0
        rows[i] = row
        if progress then
            progress(i, #configurations)
        end
    end
    return rows
end

-- How much more of the gradient than the least possible may come from scarce regions, and the
-- share that needs no excuse.
M.SLACK, M.ENOUGH = 0.02, 0.1

-- The row to train with, and the reason in one sentence: the finest regions that leave (almost) no
-- more of the gradient to scarce regions than data like this must. Finer regions follow the density
-- more closely; what they cost is betas resting on a handful of samples. Soft targets, which have
-- no gradient share, are judged by their empty regions. M = 1 weighs every sample alike, which is
-- no GHM: it is recommended only where nothing else was tried.
function M.recommend(rows)
    local key = rows[1].scarce_share and "scarce_share" or "empty_share"
    local least, best, eligible = math.huge, nil, {}
    for _, row in ipairs(rows) do
        eligible[#eligible + 1] = row.bins > 1 and row or nil
    end
    eligible = #eligible > 0 and eligible or rows
    for _, row in ipairs(eligible) do
        least = math.min(least, row[key])
    end
    local limit = math.max(M.ENOUGH, least + M.SLACK)
    for _, row in ipairs(eligible) do
        if row[key] <= limit and (not best or row.bins > best.bins) then
            best = row
        end
    end
    local finer
    for _, row in ipairs(rows) do
        if row.bins > best.bins and (not finer or row.bins < finer.bins) then
            finer = row
        end
    end
    local rule = #rows == 1 and "only choice tried"
        or limit == M.ENOUGH and ("finest choice below %g %%"):format(100 * limit)
        or ("finest choice within %g %% of the least tried, %.1f %%"):format(100 * M.SLACK,
            100 * least)
    local what = key == "empty_share" and "of the regions empty"
        or ("of the gradient to regions of fewer than %d samples"):format(M.SCARCE)
    return best, ("bins = %d leaves %.1f %% %s and is the %s%s."):format(best.bins,
        100 * best[key], what, rule,
        finer and (" (M = %d: %.1f %%)"):format(finer.bins, 100 * finer[key]) or "")
end

return M
