-- The figures of the study of momentum, as descriptions for ghm.show.gnuplot.

local calls = require "ghm.studies.calls"
local curves = require "ghm.studies.curves"
local harmonise = require "ghm.harmonise"
local noise = require "ghm.studies.momentum_noise"
local study = require "ghm.studies.momentum_study"
local termplot = require "ghm.show.termplot"

local M = {}

local CURVES = 6 -- more curves than this in one figure hide each other
local LETTERS = 8 -- of a sparkline
local NAMED = 60 -- letters under a figure that name the calls of a step

-- Positions of the rows that differ from the best one in this key alone, with it among them; and
-- its place there.
local function varying(run, best, key)
    local list, place = {}, nil
    for i, row in ipairs(run.rows) do
        local differing = study.differing(row, run.rows[best])
        local fits = #differing == 0 or #differing == 1 and differing[1] == key
        list[#list + 1] = fits and i or nil
        place = i == best and #list or place
    end
    return list, place
end

-- Those of them that one figure holds.
local function drawn(run, best, key)
    local list, place = varying(run, best, key)
    return curves.some(list, CURVES, place)
end

local function loss(result)
    return result.loss
end

local function non_empty(result)
    return result.n
end

-- The mean weight of a sample: 1 where S are the counts of the call itself.
local function mean_weight(bins)
    return function(result)
        local sum = 0
        for j = 0, bins - 1 do
            sum = sum + result.beta[j] * tonumber(result.R[j])
        end
        return result.samples > 0 and sum / result.samples or nil
    end
end

local function steps_axis(n)
    local x = {}
    for k = 1, n do
        x[k] = k
    end
    return x
end

-- A value over the steps of the stream, a line for each of these rows.
local function streams(run, rows, label, value)
    local series = {}
    for _, i in ipairs(rows) do
        local trace = run.traces[i]
        series[#series + 1] = { label = label(run.rows[i]), style = trace.steps > 40 and "lines"
            or "linespoints", x = steps_axis(trace.steps), y = calls.by_step(trace, value) }
    end
    return series
end

local function momentum_label(row)
    return ("momentum %g"):format(row.momentum)
end

local function stream_figure(run, best)
    local rows, bins = drawn(run, best, "momentum"), run.rows[best].bins
    local xstep = curves.whole_step(1, #run.steps)
    local function panel(title, value, also)
        local one = { title = title, xlabel = "step of the stream", xstep = xstep, ordered = true,
            series = streams(run, rows, momentum_label, value), key = "below" }
        for key, v in pairs(also or {}) do
            one[key] = v
        end
        return one
    end
    return { title = "What momentum makes of the stream", columns = 2, panels = {
        panel("largest beta", study.largest_beta, { ylog = true }),
        panel("mean weight of a sample", mean_weight(bins), { ylog = true }),
        panel("loss", loss),
        { title = "non-empty regions n", xlabel = "step of the stream", xstep = xstep,
            yrange = { 0 },
            series = streams(run, { best }, momentum_label, non_empty) },
    } }
end

-- Error against memory: its parts, and what was tried.
local function noise_figure(run, found)
    local grid, parts = {}, { noise = {}, drift = {}, both = {} }
    local tried, errors = {}, {}
    for k = 0, 120 do
        local memory = 10 ^ (k / 40) -- 1 to 1000 calls
        local error, from_noise, from_drift = noise.error(found.noise, 1 - 1 / memory)
        grid[#grid + 1] = memory
        parts.both[#grid], parts.noise[#grid] = error, math.sqrt(from_noise)
        parts.drift[#grid] = math.sqrt(from_drift)
    end
    for _, i in ipairs(varying(run, found.best, "momentum")) do
        tried[#tried + 1] = 1 / (1 - run.rows[i].momentum)
        errors[#tried] = noise.error(found.noise, run.rows[i].momentum)
    end
    local momentum = run.rows[found.best].momentum
    return { title = "Error of S: noise that is averaged away, drift that is missed",
        xlabel = "memory 1 / (1 - momentum), in calls", ylabel = "relative error of S", xlog = true,
        ylog = true, series = {
            { label = "noise", x = grid, y = parts.noise },
            { label = "drift", x = grid, y = parts.drift },
            { label = "both", x = grid, y = parts.both, colour = 3 },
            { label = "momentum tried", x = tried, y = errors, style = "points", colour = 4 },
        }, marks = { { x = 1 / (1 - momentum), label = ("momentum %g"):format(momentum) } } }
end

-- The first call of the last step.
local function last_call(trace)
    local at = #trace
    while at > 1 and trace[at - 1].step == trace[at].step do
        at = at - 1
    end
    return trace[at]
end

-- S of a late call for each momentum, against what that call counted.
local function lag_figure(run, best)
    local rows, bins = drawn(run, best, "momentum"), run.rows[best].bins
    local last = last_call(run.traces[best])
    local series, R, x = {}, {}, {}
    for _, i in ipairs(rows) do
        if run.rows[i].momentum > 0 then
            local result = last_call(run.traces[i])
            series[#series + 1] = { label = ("S, momentum %g"):format(run.rows[i].momentum),
                style = "steps", x = curves.edges(bins), y = harmonise.list(result.used, bins) }
        end
    end
    -- a reference is a line: two points for each region
    for j, r in ipairs(harmonise.list(last.R, bins)) do
        R[#R + 1], R[#R + 2] = r, r
        x[#x + 1], x[#x + 2] = (j - 1) / bins, j / bins
    end
    series[#series + 1] = { label = "R, the counts", style = "reference", x = x, y = R }
    return { title = ("S against the counts R, %s"):format(last.name),
        xlabel = "gradient norm g", ylabel = "samples in a region", ylog = true, ordered = true,
        xrange = { 0, 1 }, series = series }
end

local function start_figure(run, best)
    local row = run.rows[best]
    return { title = ("Cold start: mean weight of a sample, momentum %g"):format(row.momentum),
        xlabel = "step of the stream", xstep = curves.whole_step(1, #run.steps),
        ylabel = "mean beta", ylog = true,
        series = streams(run, varying(run, best, "start"), function(one)
            return "start = " .. one.start
        end, mean_weight(row.bins)), marks = { { y = 1 } } }
end

-- "1: P3, 2: P4, 3: P5" while that fits under a figure, else the first and the last.
local function calls_text(names)
    local words = {}
    for c, name in ipairs(names) do
        words[c] = ("%d: %s"):format(c, name)
    end
    local all = table.concat(words, ", ")
    return #all <= NAMED and all or #words > 2 and words[1] .. ", ..., " .. words[#words]
        or words[1] .. ", " .. words[#words]
end

local function levels_figure(run, best)
    local series, names = {}, {}
    for _, i in ipairs(varying(run, best, "state")) do
        local x, y = {}, {}
        for c, level in ipairs(calls.levels(run.traces[i])) do
            x[c], y[c], names[c] = c, level.beta, level.name
        end
        series[#series + 1] = { label = "state = " .. run.rows[i].state, style = "linespoints",
            x = x, y = y }
    end
    return { title = ("What the calls of a step weigh, momentum %g"):format(
            run.rows[best].momentum),
        xlabel = ("call of the step (%s)"):format(calls_text(names)),
        xstep = 1, ylabel = "mean beta of its samples", ylog = true, series = series,
        marks = { { y = 1 } } }
end

-- run and found: of momentum_study.run and recommend. Returns the list of { name, figure }.
function M.draw(run, found)
    local figures, best = {}, found.best
    local function add(name, figure)
        figures[#figures + 1] = { name = name, figure = figure }
    end
    if found.noise then
        add("noise", noise_figure(run, found))
        add("stream", stream_figure(run, best))
    end
    add("lag", lag_figure(run, best))
    if #varying(run, best, "start") > 1 and run.traces[best].steps > 1 then
        add("start", start_figure(run, best))
    end
    if #run.steps[1] > 1 then
        add("levels", levels_figure(run, best))
    end
    return figures
end

-- A row's beta_stream as a line of letters; of a long stream every so many steps, and the last.
function M.sparkline(stream)
    local n, list = math.min(#stream, LETTERS), {}
    for k = 1, n do
        list[k] = stream[math.ceil(k * #stream / n)]
    end
    return termplot.sparkline(list, { log = true, n = n })
end

return M
