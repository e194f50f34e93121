-- Warnings: what in a stream of calls will surprise whoever trains with GHM on it. Each has one
-- definition here, the number behind it, and what to do.
--
--   warnings.of(trace, tried) -> list of { name, text }
--
-- trace: of ghm.calls. tried: a set of values that were tried in place of its own and are not
-- better, { decay = true }, or nil.
-- Every function below returns such a warning, or nil; it takes these two, if it does not say else.

local called = require "ghm.called"
local calls = require "ghm.studies.calls"
local probabilities = require "ghm.probabilities"
local text = require "ghm.show.text"

local M = {}

local INFLATED = 1.1 -- a first hit's beta, over what its own count would make it
local FLICKER = 1.1 -- n of a call over that of the call before
local SATURATED = 0.5 -- share of the samples in the last region
local DROWNED = 3 -- mean beta of one level over another's
local CROWDED = 0.5 -- share of the rows that have a class
local SPARSE = 2 -- training steps from one dumped step to the next

local function region_text(trace, j)
    return ("region %d (g from %.3g)"):format(j + 1, j / trace.config.bins)
end

local function warning(name, ...)
    return { name = name, text = name:gsub("_", " ") .. ": " .. (...):format(select(2, ...)) }
end

-- A beta in three digits that can be typed: 0.0251, 12.3, 2260.
local function weight_text(x)
    return (x < 1000 and "%.3g" or "%.0f"):format(x)
end

-- What of these keys may still help, in words: of those given the trace has the effect already.
local function untried(trace, keys)
    local list = {}
    for _, key in ipairs(keys) do
        list[#list + 1] = key == "bins" and "fewer bins" or trace.config[key] == 0 and key or nil
    end
    local last = table.remove(list)
    local words = #list > 0 and table.concat(list, ", ") .. " or " .. last or last
    return words:sub(1, 1):upper() .. words:sub(2)
end

-- Calls visit(result, j, R, since) for every region of every call that holds samples; since is
-- nil at its first hit, else the number of calls of this state since the last one.
local function each_hit(trace, visit)
    local last, clock = {}, {}
    for _, result in ipairs(trace) do
        local seen = last[result.state] or {}
        local now = (clock[result.state] or 0) + 1
        last[result.state], clock[result.state] = seen, now
        for j = 0, trace.config.bins - 1 do
            local R = tonumber(result.R[j])
            if R > 0 then
                visit(result, j, R, seen[j] and now - seen[j])
                seen[j] = now
            end
        end
    end
end

-- A state that starts at 0 moves only by 1 - m at a region's first hit. Corrected, it is the mean
-- of the calls so far.
function M.cold_start(trace)
    local m, worst, hits, firsts = trace.config.momentum, INFLATED, 0, 0
    each_hit(trace, function(result, j, R, since)
        local inflation = R / result.used[j]
        if not since then
            firsts = firsts + 1
            hits = hits + (inflation > INFLATED and 1 or 0)
            worst = math.max(worst, inflation)
        end
    end)
    if m > 0 and trace.config.start ~= "corrected" and hits > 0 then
        return warning("cold_start", "%d of %d regions' first hits weigh up to %.3g times too much "
            .. "(start=%s, momentum %g); it takes %s until less than 10 %% is left of that. "
            .. "start=corrected divides it out.", hits, firsts, worst, trace.config.start, m,
            text.count(math.ceil(math.log(0.1) / math.log(m)), "hit", true))
    end
end

-- Regions that are hit again after momentum's memory of 1 / (1 - m) calls is over.
function M.stale_region(trace, tried)
    local m, longest, stale, where = trace.config.momentum, 0, 0, nil
    local memory = 1 / (1 - m)
    each_hit(trace, function(result, j, R, since)
        if since and since - 1 > memory then
            stale = stale + 1
            if since > longest then
                longest, where = since, { result = result, j = j, R = R }
            end
        end
    end)
    if m > 0 and trace.config.empty == "keep" and where then
        return warning("stale_region", "%s after more than %.3g empty calls (the memory of "
            .. "momentum %g); %s was empty for %d before %s and is weighed by S = %.3g there, "
            .. "with R = %d. %s fewer bins leave fewer gaps.",
            text.count(stale, "hit", true) .. (stale == 1 and " comes" or " come"), memory, m,
            region_text(trace, where.j), longest - 1, where.result.name,
            where.result.used[where.j], where.R, tried and tried.decay
            and "empty=decay was tried and is not clearly better;"
            or "empty=decay lets go of old counts;")
    end
end

-- One sample that is a region weighs as much as any other region.
function M.singleton_region(trace)
    local with, worst, last = 0, nil, nil
    each_hit(trace, function(result, j, R)
        if R == 1 then
            with = with + (last ~= result and 1 or 0)
            last = result
            if not worst or result.beta[j] > worst.beta then
                worst = { result = result, j = j, beta = result.beta[j] }
            end
        end
    end)
    if worst then
        local fullest, most = 0, 0
        for j = 0, trace.config.bins - 1 do
            if worst.result.R[j] > most then
                fullest, most = j, tonumber(worst.result.R[j])
            end
        end
        if most > 1 then -- else all regions are alike
            return warning("singleton_region", "in %d of %d calls a region holds a single sample; "
                .. "in %s the one in %s weighs %s, all %s of region %d together %s. %s.", with,
                #trace, worst.result.name, region_text(trace, worst.j), weight_text(worst.beta),
                text.count(most, "sample"), fullest + 1,
                weight_text(worst.result.beta[fullest] * most),
                untried(trace, { "bins", "momentum", "beta_max" }))
        end
    end
end

-- Every beta of a call is divided by n, so a stray sample rescales all the others.
function M.flickering_n(trace)
    local last, changed, pairs_of, worst = {}, 0, 0, { ratio = 1 }
    for _, result in ipairs(trace) do
        local key = result.call -- a level is held against itself
        local before = last[key]
        if before and before.n > 0 and result.n > 0 then
            pairs_of = pairs_of + 1
            changed = changed + (before.n ~= result.n and 1 or 0)
            local ratio = math.max(before.n / result.n, result.n / before.n)
            if ratio > worst.ratio then
                worst = { ratio = ratio, from = before.n, to = result.n, name = result.name }
            end
        end
        last[key] = result
    end
    if trace.config.divide == "nonempty" and worst.ratio > FLICKER then
        return warning("flickering_n", "the number of non-empty regions changes in %d of %d "
            .. "successive calls, at %s from %d to %d, which alone rescales every beta by %.3g. "
            .. "divide=all or fewer bins.", changed, pairs_of, worst.name, worst.from, worst.to,
            worst.from / worst.to)
    end
end

-- GHM-R tells errors apart only where they lie below the last region.
function M.saturated_last_region(trace)
    local bins, mu, last, all = trace.config.bins, trace.config.mu, 0, 0
    for _, result in ipairs(trace) do
        last, all = last + tonumber(result.R[bins - 1]), all + result.samples
    end
    if trace.task == "regression" and bins > 1 and last > SATURATED * all then
        return warning("saturated_last_region", "%.0f %% of the samples lie in the last region, "
            .. "|d| from %.3g: with mu = %g their errors are not told apart. A larger mu; "
            .. "%s finds one.", 100 * last / all,
            mu * (bins - 1) / math.sqrt(2 * bins - 1), mu, called.script "sweep_mu")
    end
end

-- Without a limit: a sample weighs more than a whole region's share, tot / n, which takes S_j < 1.
-- With one: how much it holds down.
function M.beta_limit(trace)
    local limit, worst, held, samples, hits = trace.config.beta_max, nil, 0, 0, 0
    each_hit(trace, function(result, j, R)
        hits = hits + 1
        if limit > 0 and result.beta[j] == limit then
            held, samples = held + 1, samples + R
        elseif limit == 0 and result.used[j] < 1 - 1e-9 -- S = 1 may be rounded
            and (not worst or result.beta[j] > worst.result.beta[worst.j]) then
            worst = { result = result, j = j }
        end
    end)
    if held > 0 then
        return warning("beta_limit", "beta_max = %s holds down %d of %d betas, those of %s. "
            .. "Fewer bins would need it less.", weight_text(limit), held, hits,
            text.count(samples, "sample"))
    elseif worst then
        local r = worst.result
        local share = r.tot / (trace.config.divide == "all" and trace.config.bins or r.n)
        return warning("beta_limit", "in %s a sample of %s weighs %s, more than a whole region's "
            .. "share of %s, as S = %.2g there. beta_max=%s would hold it down.", r.name,
            region_text(trace, worst.j), weight_text(r.beta[worst.j]), weight_text(share),
            r.used[worst.j], weight_text(share))
    end
end

-- Calls of one step that share a state and differ in size: the large one sets S for all.
function M.drowned_level(trace, tried)
    local least, most
    for _, level in ipairs(calls.levels(trace)) do
        if level.beta then
            least = (not least or level.beta < least.beta) and level or least
            most = (not most or level.beta > most.beta) and level or most
        end
    end
    if least and most.beta > DROWNED * least.beta then
        local own = trace.sharing ~= "own" and not (tried and tried.own)
            and (" or a state for each (state=own of %s)"):format(called.script "sweep_momentum")
        return warning("drowned_level", "samples of %s weigh %.3g on average, those of %s %.3g "
            .. "(%.3g times less), as the calls of a step are %s. momentum=0%s weighs them alike.",
            most.name, most.beta, least.name, least.beta, most.beta / least.beta,
            trace.sharing == "shared" and "weighed by one state" or trace.sharing, own or "")
    end
end

-- The steps of a dump are further apart than the calls of a training run: what is between them
-- looks like drift of one call. every: training steps from one to the next, on average.
function M.sparse_stream(trace, every)
    if trace.config.momentum > 0 and every and every > SPARSE then
        return warning("sparse_stream", "the dumped steps are %.3g training steps apart, on "
            .. "average; one dumped step is one call here, so lag and spread are those of a run "
            .. "that drifts as much faster. Dump successive steps to see yours.", every)
    end
end

-- calls: of sweep.read. All of them, because a level may by chance look as if.
function M.probabilities(list)
    local some = false
    for _, call in ipairs(list) do
        if call.facts.valid > 0 and not probabilities.in_sketch(call.sketch) then
            return nil
        end
        some = some or call.facts.valid > 0
    end
    return some and M.are_probabilities(list[1].names.pred) or nil
end

-- name: of the array that probabilities.lua found to look so.
function M.are_probabilities(name)
    return warning("probabilities", "'%s': %s.", name, probabilities.said)
end

-- calls: of sweep.read, or { names, facts, shape } of as many.
function M.labels(list)
    local rows, positive = 0, 0
    for _, call in ipairs(list) do
        if call.names.base ~= "zero_based" then
            return nil
        end
        rows = rows + call.facts.valid / call.shape[#call.shape]
        positive = positive + call.facts.positive
    end
    return M.crowded(positive, rows, list[1].names.labels)
end

-- So many of the rows that count have a class, if labels are zero_based. In a detector most rows
-- are background; where none is, all being of some class, there is nothing to mistake.
function M.crowded(positive, rows, name)
    if positive > CROWDED * rows and positive < rows then
        return warning("labels", "%.1f %% of the rows have a class. If 0 is the background in "
            .. "'%s', say labels=one_based.", 100 * positive / rows, name)
    end
end

M.list = { "cold_start", "stale_region", "singleton_region", "flickering_n",
    "saturated_last_region", "beta_limit", "drowned_level" }

-- All that apply to a trace, in the order of M.list.
function M.of(trace, tried)
    local found = {}
    for _, name in ipairs(M.list) do
        found[#found + 1] = M[name](trace, tried)
    end
    return found
end

return M
