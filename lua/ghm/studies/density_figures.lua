-- The figures of the study of densities, as descriptions for ghm.show.gnuplot.

local curves = require "ghm.studies.curves"
local termplot = require "ghm.show.termplot"

local M = {}

local EXTREME = 4 -- classes drawn: those whose densities lie farthest from that of all
local ROWS = 48 -- of a heat map: of more steps, neighbours are added up

local function steps_of(part, bins, also)
    local series = { label = part.name, style = "steps", x = curves.edges(bins),
        y = curves.density(part.R, part.N) }
    for key, value in pairs(also or {}) do
        series[key] = value
    end
    return series
end

-- All samples and the groups, each by its own number of samples; the exact density where asked for.
local function density_figure(found, eps)
    local series = { steps_of(found.all, found.bins, { colour = 7 }) }
    for k, part in ipairs(found.groups) do
        series[k + 1] = steps_of(part, found.bins, { colour = k })
    end
    if eps and found.whole then
        series[#series + 1] = curves.exact_series(found.whole, eps, found.mu)
    end
    return curves.density_figure(#found.groups > 0 and "Gradient density, each group for itself"
        or "Gradient density", series)
end

-- Steps as rows of at most ROWS sums of neighbours -> lists of densities, and their names.
local function heat_rows(found)
    local z, names = {}, {}
    local every = math.ceil(#found.steps / ROWS)
    for first = 1, #found.steps, every do
        local R, N = {}, 0
        for k = first, math.min(first + every - 1, #found.steps) do
            for j, count in ipairs(found.steps[k].R) do
                R[j], N = (R[j] or 0) + count, N + count
            end
        end
        z[#z + 1], names[#names + 1] = curves.density(R, N), found.steps[first].name
    end
    return z, names
end

local function heat_figure(found, z, names)
    return { title = "Gradient density over the steps", ylabel = "step",
        xlabel = "gradient norm g (grey: no sample)",
        heat = { x = curves.edges(found.bins), y = curves.sides(#z), z = z, ynames = names,
            log = true, label = "gradient density GD(g) / N" } }
end

-- How far the spread over regions lies from that of the step before, and of all.
local function distances_figure(found)
    local style = #found.steps > 40 and "lines" or "linespoints"
    local before = { label = "to the step before", style = style, x = {}, y = {} }
    local chance = { label = "the same, by chance (95 %)", style = "lines", dash = true, colour = 7,
        x = {}, y = {} }
    local all = { label = "to all steps together", style = style, x = {}, y = {} }
    for _, row in ipairs(found.rows) do
        if row.kind == "step" then
            local k = #all.x + 1
            all.x[k], before.x[k], chance.x[k] = k, k, k
            all.y[k], before.y[k], chance.y[k] = row.distance, row.step_distance, row.chance
        end
    end
    return { title = "Distance between the densities of steps", xlabel = "dumped step, in order",
        xstep = curves.whole_step(1, #all.x), ylabel = "Jensen-Shannon distance",
        yrange = { 0, nil }, series = { all, before, chance } }
end

local function classes_figure(found)
    local rows = {}
    for _, row in ipairs(found.rows) do
        rows[#rows + 1] = row.kind == "class" and row or nil
    end
    table.sort(rows, function(a, b)
        return a.distance > b.distance
    end)
    local series = { steps_of(found.all, found.bins, { colour = 7, label = "all" }) }
    for k = 1, math.min(EXTREME, #rows) do
        series[k + 1] = steps_of(found.part_of[rows[k]], found.bins, { colour = k })
    end
    local what = found.task == "regression" and "columns" or "classes"
    return curves.density_figure(("Gradient density of the %s%s"):format(what, #rows > EXTREME
        and " farthest from all" or ""), series)
end

local function levels_figure(found)
    local series = {}
    for k, part in ipairs(found.levels) do
        series[k] = part.N > 0 and steps_of(part, found.bins) or nil
    end
    local figure = curves.density_figure("Gradient density of the calls of a step", series)
    figure.ordered = true
    return figure
end

local ENOUGH = 10 -- samples of a region that make a point of the calibration

local function calibration_figure(found)
    local points = { label = "regions of p", style = "linespoints", x = {}, y = {} }
    for _, region in ipairs(found.calibration) do
        if region.n >= ENOUGH then
            points.x[#points.x + 1], points.y[#points.y + 1] = region.predicted, region.observed
        end
    end
    return { title = "Predicted probability against observed share", width = 620,
        xlabel = "mean predicted probability", ylabel = "share of positives", xrange = { 0, 1 },
        yrange = { 0, 1 }, key = "below", series = { points,
            { label = "calibrated", style = "reference", x = { 0, 1 }, y = { 0, 1 } } } }
end

-- found: of density_study.of; eps: window of the exact density, nil for none. Returns a list of
-- { name, figure }, and the terminal's plot.
function M.draw(found, eps)
    local figures = { { name = "density", figure = density_figure(found, eps) } }
    local z, names = heat_rows(found)
    local function add(name, wanted, draw)
        if wanted then
            figures[#figures + 1] = { name = name, figure = draw(found, z, names) }
        end
    end
    add("steps", #found.steps > 1, heat_figure)
    add("distances", #found.steps > 2, distances_figure)
    add("classes", #found.classes > 0, classes_figure)
    add("levels", #found.levels > 0, levels_figure)
    add("calibration", found.calibration, calibration_figure)
    if #found.steps > 1 then
        return figures, termplot.heat { title = "gradient density GD/N by step",
            x = curves.edges(found.bins), z = z, names = names, log = true, width = 64,
            xlabel = "gradient norm g", label = "GD/N" }
    end
    return figures, curves.terminal(curves.density(found.all.R, found.all.N), found.bins,
        eps and found.whole, eps, found.mu)
end

return M
