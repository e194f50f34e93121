-- The study of momentum: what each momentum, start, empty and sharing of the state makes of the
-- calls of a stream, and what to train with.

local bootstrap = require "ghm.studies.bootstrap"
local calls = require "ghm.studies.calls"
local json = require "ghm.json"
local metrics = require "ghm.studies.metrics"
local noise = require "ghm.studies.momentum_noise"
local sweep = require "ghm.studies.sweep"
local text = require "ghm.show.text"
local warnings = require "ghm.studies.warnings"

local M = {}

-- What is taken down of every call, and how it is put together over the steps.
M.kinds = {
    loss = "mean",
    jitter = "root", -- of the loss, from one step to the next, relative
    n = "mean",
    beta_largest = "most",
    beta_spread = "root", -- standard deviation of ln beta of a region over the calls
    lag = "mean", -- |ln S/R| of a region that holds samples
    ahead = "root", -- ln of S before a call over R in it
    inflation = "most", -- R/S at a region's first hit
    levels = "mean", -- largest mean beta of a step's calls over the smallest
}

-- The columns of results.csv, in order.
M.columns = metrics.columns({ "momentum", "start", "empty", "state", "steps", "calls", "loss",
    "jitter", "n", "n_least", "n_most", "beta_largest", "beta_spread", "lag", "ahead", "inflation",
    "levels", "error" }, M.kinds)

-- Mean of ln beta of each region of each call of a step: [call][j].
local function mean_logs(trace)
    local sums = {}
    for _, result in ipairs(trace) do
        local of = sums[result.call] or {}
        sums[result.call] = of
        for j = 0, trace.config.bins - 1 do
            if result.beta[j] > 0 then
                local one = of[j] or { 0, 0 }
                one[1], one[2], of[j] = one[1] + math.log(result.beta[j]), one[2] + 1, one
            end
        end
    end
    return sums
end

-- What one call adds to its step's part. seen: S of its state so far, by region.
local function add_call(part, trace, result, seen, logs)
    metrics.add(part, "loss", result.loss)
    metrics.add(part, "n", result.n)
    metrics.add(part, "beta_largest", result.beta_largest)
    for j = 0, trace.config.bins - 1 do
        local R = tonumber(result.R[j])
        if R > 0 then
            metrics.add(part, "lag", math.abs(math.log(result.used[j] / R)))
            if seen[j] then
                metrics.add(part, "ahead", math.log(seen[j] / R) ^ 2)
            else
                metrics.add(part, "inflation", R / result.used[j])
            end
            local mean = logs[result.call][j]
            if mean[2] > 1 then
                metrics.add(part, "beta_spread", (math.log(result.beta[j]) - mean[1] / mean[2]) ^ 2
                    * mean[2] / (mean[2] - 1))
            end
        end
        -- what the next call finds: an empty region's S, where it has one
        seen[j] = result.used[j] > 0 and result.used[j] or nil
    end
end

-- The largest mean beta among a step's calls over the smallest.
local function add_levels(part, trace, step_results)
    local least, most = math.huge, 0
    step_results.config = trace.config
    for _, level in ipairs(calls.levels(step_results)) do
        if level.beta then
            least, most = math.min(least, level.beta), math.max(most, level.beta)
        end
    end
    if most > 0 and least > 0 then
        metrics.add(part, "levels", most / least)
    end
end

-- What every step of a trace adds to the metrics, and the trace's least and largest n.
local function parts_of(trace)
    local parts, seen, logs, by_step = {}, {}, mean_logs(trace), {}
    local last, sum = {}, 0
    for _, result in ipairs(trace) do
        sum = sum + result.loss / #trace
    end
    local n_least, n_most = math.huge, 0
    for _, result in ipairs(trace) do
        local k = result.step
        parts[k], by_step[k] = parts[k] or {}, by_step[k] or {}
        seen[result.state] = seen[result.state] or {}
        add_call(parts[k], trace, result, seen[result.state], logs)
        table.insert(by_step[k], result)
        if last[result.call] and sum > 0 then -- half: two losses differ by twice the variance
            metrics.add(parts[k], "jitter", ((result.loss - last[result.call]) / sum) ^ 2 / 2)
        end
        last[result.call] = result.loss
        n_least, n_most = math.min(n_least, result.n), math.max(n_most, result.n)
    end
    for k, results in ipairs(by_step) do
        if #results > 1 or #results[1].parts > 1 then
            add_levels(parts[k], trace, results)
        end
    end
    return parts, n_least, n_most
end

-- Configurations that cannot differ: without momentum nothing is started or shared, and a step of
-- one call shares with itself alone.
local function twin_key(configuration, several)
    local c = configuration
    local state = several and c.state or "shared"
    if c.momentum == 0 then
        return state == "summed" and "summed" or "shared"
    end
    return table.concat({ c.momentum, c.start, c.empty, state }, " ")
end

-- The configurations that may differ, of each twins the first. several: whether a step has several
-- calls.
function M.distinct(configurations, several)
    local list, known = {}, {}
    for _, configuration in ipairs(configurations) do
        local key = twin_key(configuration, several)
        list[#list + 1] = not known[key] and configuration or nil
        known[key] = true
    end
    return list
end

-- Of a call; nil where it has no region in use.
function M.largest_beta(result)
    return result.n > 0 and result.beta_largest or nil
end

-- The largest beta in each step, null in one without samples.
local function beta_stream(trace)
    local values, list = calls.by_step(trace, M.largest_beta), json.array {}
    for k = 1, trace.steps do
        list[k] = values[k] or json.null
    end
    return list
end

-- steps: of calls.regions -> { rows, traces, parts, steps }: one row per configuration that is no
-- twin of an earlier one, its trace and what each step adds to its metrics. progress: as a study's.
function M.run(task, steps, configurations, progress)
    local run = { rows = {}, traces = {}, parts = {}, steps = steps }
    local several, noises = false, {}
    for _, step in ipairs(steps) do
        several = several or #step > 1
    end
    sweep.each(M.distinct(configurations, several), progress, function(at, configuration)
        local sharing = configuration.state
        noises[sharing] = noises[sharing] or noise.measure(steps, configuration.bins, sharing)
        local trace = calls.trace(task, configuration, steps, sharing)
        local row = { steps = #steps, calls = #trace, beta_stream = beta_stream(trace),
            error = noises[sharing] and noise.error(noises[sharing], configuration.momentum) }
        for name, value in pairs(configuration) do
            row[name] = value
        end
        run.rows[at], run.traces[at] = row, trace
        run.parts[at], row.n_least, row.n_most = parts_of(trace)
    end)
    metrics.fill(run.rows, run.parts, M.kinds)
    return run
end

-- How much nearer S must come to the counts it meets next before an earlier choice is left.
local SLACK = 0.1

-- The position, among these rows, of the one whose S is nearest to the counts it meets next.
local function nearest(run, among, order)
    local best, least
    for _, i in ipairs(among) do
        local ahead = metrics.of(run.parts[i], "ahead", M.kinds.ahead, order) or 0
        if not best or ahead < (1 - SLACK) * least then
            best, least = i, ahead
        end
    end
    return best
end

-- How many values of a column there are.
local function tried_of(rows, key)
    local seen, n = {}, 0
    for _, row in ipairs(rows) do
        n = n + (seen[row[key]] and 0 or 1)
        seen[row[key]] = true
    end
    return n
end

-- Of these rows those that no cold start is warned of, which the nearness of S to later counts says
-- nothing of; all, where that leaves none. Returns also whether some are left out.
local function warm(run, among)
    local list = {}
    for _, i in ipairs(among) do
        list[#list + 1] = not warnings.cold_start(run.traces[i]) and i or nil
    end
    if #list == 0 then
        return among, false
    end
    return list, #list < #among
end

-- What to train with: for each way to share the state its momentum by noise and drift; of these and
-- of the switches, those without a cold start whose S comes nearest to the next counts. Returns
--   best       position of the row       verdicts   of momentum, start, empty and state
--   noise      of momentum_noise, nil for a single step, as the verdicts are
function M.recommend(run, momenta)
    local among, verdicts, noises = {}, {}, {}
    for i, row in ipairs(run.rows) do
        local sharing = row.state
        if not noises[sharing] then
            verdicts[sharing], noises[sharing] = noise.recommend(run.steps, row.bins, sharing,
                momenta)
        end
        if not verdicts[sharing] or row.momentum == verdicts[sharing].value then
            among[#among + 1] = i
        end
    end
    local left_out
    among, left_out = warm(run, among)
    local best = nearest(run, among)
    local row = run.rows[best]
    if not verdicts[row.state] then
        return { best = best, verdicts = {} }
    end
    local measured, momentum = noises[row.state], verdicts[row.state]
    momentum.key = "momentum"
    momentum.reason = ("relative variance of a region's count: counting (1/R) %.3g, differences "
        .. "between batches %.3g, drift %.2g per %s"):format(measured.counting, measured.scatter,
        measured.drift, measured.every and "training step" or "step")
    local found, chosen = { best = best, noise = measured, verdicts = { momentum } }, {}
    for _, order in bootstrap.draws(#run.steps) do
        chosen[#chosen + 1] = nearest(run, among, order)
    end
    for _, key in ipairs { "start", "empty", "state" } do
        local words = {}
        for k, i in ipairs(chosen) do
            words[k] = run.rows[i][key]
        end
        local verdict = bootstrap.among(tried_of(run.rows, key), bootstrap.verdict(row[key], words))
        verdict.key, verdict.low, verdict.high = key, nil, nil -- words have no interval
        verdict.reason = ("S is off from the next counts by a factor of %.3g, the least of what "
            .. "was tried%s"):format(math.exp(row.ahead or 0), left_out
            and " without a cold start" or "")
        table.insert(found.verdicts, verdict)
    end
    return found
end

-- The answer in two sentences: what was measured, and what follows from it.
function M.answer(run, found)
    if not found.noise then
        return { "One step shows no drift: momentum needs a stream, a folder of steps in their "
            .. "order." }
    end
    local measured, row, verdict = found.noise, run.rows[found.best], found.verdicts[1]
    local words = row.momentum > 0 and (" start=%s empty=%s"):format(row.start, row.empty) or ""
    words = words .. (#run.steps[1] > 1 and " state=" .. row.state or "")
    return {
        ("Measured over %d steps: %s."):format(#run.steps, verdict.reason),
        ("momentum = %g%s: S is off by %s%s; %s."):format(row.momentum, words,
            text.percent((noise.error(measured, row.momentum))), row.momentum > 0
            and ", without momentum by " .. text.percent((noise.error(measured, 0))) or "",
            bootstrap.words(verdict)),
    }
end

-- Of the best row's trace, and of how far apart the steps are.
function M.warnings(run, found)
    local trace, best, tried = run.traces[found.best], run.rows[found.best], {}
    for _, row in ipairs(run.rows) do
        local differing = M.differing(row, best)
        if #differing == 1 then
            tried[row[differing[1]]] = true
        end
    end
    local list = warnings.of(trace, tried)
    list[#list + 1] = found.noise and warnings.sparse_stream(trace, found.noise.every)
    return list
end

-- The choices in which a row differs from another one: a list of keys. Without momentum a row has
-- no other choice, but for counts that are summed.
function M.differing(row, from)
    local list = {}
    for _, key in ipairs { "momentum", "start", "empty", "state" } do
        local means = row.momentum > 0 or key == "momentum"
            or key == "state" and (row.state == "summed") ~= (from.state == "summed")
        list[#list + 1] = means and row[key] ~= from[key] and key or nil
    end
    return list
end

-- The rows for a terminal: those that differ from the best one in one choice at most. Behind the
-- best row its interval.
function M.listed(run, best)
    local one, listed = run.rows[best], {}
    for _, row in ipairs(run.rows) do
        listed[#listed + 1] = #M.differing(row, one) <= 1 and row or nil
        if row == one and row.loss_low then
            listed[#listed + 1] = metrics.ends(row, M.kinds, "low", "start", "from")
            listed[#listed + 1] = metrics.ends(row, M.kinds, "high", "start", "to")
        end
    end
    return listed
end

return M
