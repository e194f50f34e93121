-- The study of bins: what each number of unit regions does to the data of a stream, and which one
-- to train with. Arithmetic on sketches.

local bootstrap = require "ghm.studies.bootstrap"
local calls = require "ghm.studies.calls"
local choice = require "ghm.studies.bins_choice"
local ffi = require "ffi"
local harmonise = require "ghm.harmonise"
local metrics = require "ghm.studies.metrics"
local sweep = require "ghm.studies.sweep"
local warnings = require "ghm.studies.warnings"

ffi.cdef "double lgamma(double x);"

local M = {}

M.SCARCE = 100 -- a region with fewer samples has a beta that is off by a tenth or more

-- How what is taken down of every call is put together over the steps.
M.kinds = { loss = "mean", n = "mean", empty_share = "mean", beta_largest = "most",
    beta_noise = "root", beta_uneven = "root", scarce_share = "mean",
    density_error_max = "most", density_error_mean = "mean", cosine = "mean", entropy = "mean",
    effective = "mean", rudemo = "mean", knuth = "mean" }

-- The columns of results.csv, in order.
M.columns = metrics.columns({ "bins", "momentum", "calls", "loss", "loss_sd", "n", "empty_share",
    "beta_largest", "beta_error", "beta_error_low", "beta_error_high", "beta_noise", "beta_uneven",
    "scarce_share", "density_error_max", "density_error_mean", "cosine", "entropy",
    "effective", "rudemo", "knuth" }, M.kinds)

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

-- What each region's beta is off by, squared and relative, added to a part: its counting noise, and
-- how unevenly the density lies inside the region. The two halves of a region with R samples and a
-- constant density differ by delta = (left - right) / R, whose square is 1/R on average; what is
-- above that comes from a slope, which spreads the density over the region by 4/3 of it. Samples
-- drawn anew have the noise of those that they are drawn from too, and their own about that delta.
local function add_beta_errors(part, result, call, configuration)
    local bins, m, sketch = configuration.bins, configuration.momentum or 0, call.sketch
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
        metrics.add(part, "beta_noise", (1 - m) / (1 + m) / R) -- momentum averages
        local noise = (call.anew and 2 - delta * delta or 1) / R
        metrics.add(part, "beta_uneven", 4 / 3 * (delta * delta - noise))
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
        add_beta_errors(part, result, call, configuration)
    end
    for key, value in pairs(row) do
        metrics.add(part, key, value)
    end
    return result.loss
end

-- What every step adds to the rows: parts[i][step]; and the losses of every call of each row.
local function parts_of(task, list, configurations, eps, progress)
    local parts, losses = {}, {}
    sweep.each(configurations, progress, function(i, configuration)
        local h = harmonise.new(task, configuration)
        parts[i], losses[i] = {}, {}
        for k, call in ipairs(list) do
            if k == 1 or call.step ~= list[k - 1].step then
                table.insert(parts[i], {})
            end
            losses[i][k] = study_call(parts[i][#parts[i]], call, configuration, h, eps)
        end
    end)
    return parts, losses
end

-- The calls with their samples drawn anew.
local function anew(list, draw)
    local drawn = {}
    for k, call in ipairs(list) do
        local sketch = bootstrap.sketch(call.sketch, bootstrap.seed + k, draw)
        drawn[k] = { step = call.step, sketch = sketch, facts = sketch:facts(), anew = true }
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
    metrics.fill(rows, parts, M.kinds, { resamplings = resamplings })
    choice.fill(rows, parts, resamplings)
    for i, row in ipairs(rows) do
        local squares = 0
        for _, loss in ipairs(losses[i]) do
            squares = squares + (loss - row.loss) ^ 2
        end
        row.loss_sd = #list > 1 and math.sqrt(squares / (#list - 1)) or nil -- of one: unknown
    end
    return rows, resamplings
end

M.recommend = choice.recommend

-- The rows for a terminal: all, and behind the best one its interval, with a label under this key.
function M.listed(rows, best, label_key)
    local listed = {}
    for _, row in ipairs(rows) do
        listed[#listed + 1] = row
        if row == best and row.loss_low then
            for _, which in ipairs { "low", "high" } do
                local ends = metrics.ends(row, M.kinds, which, label_key or "bins",
                    which == "low" and "from" or "to")
                ends.beta_error = row["beta_error_" .. which]
                listed[#listed + 1] = ends
            end
        end
    end
    return listed
end

-- What is to be said of training with the best row.
function M.warnings(task, list, best)
    return warnings.of(calls.trace(task, best, calls.regions(list, best.bins, best.mu)))
end

return M
