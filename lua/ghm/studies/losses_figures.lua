-- The figures of the study of losses: the paper's Figures 1 to 3, and the like for boxes.

local curves = require "ghm.studies.curves"
local study = require "ghm.studies.losses_study"
local sweep = require "ghm.studies.sweep"
local termplot = require "ghm.show.termplot"

local M = {}

local CURVES = 8 -- losses in one figure, plain ones and the exact density among them

-- Sums of FINE regions, over the DRAWN ones.
local function drawn(fine)
    local values, per = {}, study.FINE / study.DRAWN
    for j = 1, study.DRAWN do
        values[j] = 0
        for k = (j - 1) * per + 1, j * per do
            values[j] = values[j] + fine[k]
        end
    end
    return values
end

local function total(list)
    local sum = 0
    for _, value in ipairs(list) do
        sum = sum + value
    end
    return sum
end

local function scaled(list, factor)
    local values = {}
    for i, value in ipairs(list) do
        values[i] = value * factor
    end
    return values
end

-- Figures 1 (left) and 2: how many samples have which g.
local function density_figure(part, whole)
    local counts = part.details[part.rows[1]].counts
    local regions = drawn(counts)
    local figure = curves.density_figure("Gradient density of " .. part.what, {
        { label = "all samples", style = "steps", colour = 7, x = curves.edges(study.DRAWN),
            y = scaled(regions, study.DRAWN / total(counts)) } })
    figure.key = regions[1] < regions[study.DRAWN] and "inside left" or "inside"
    if whole then
        local facts = whole:facts()
        if facts.positive > 0 and facts.positive < facts.valid then
            local g = curves.grid(400)
            table.insert(figure.series, { label = "positives", x = g, colour = 4,
                y = curves.exact_density(whole, g, part.eps, part.mu, "positives") })
        end
        table.insert(figure.series, curves.exact_series(whole, part.eps, part.mu))
    end
    return figure
end

-- A loss's own curve: its series for the figure of reformulated norms, of one colour.
local function norm_series(part, row, k, whole)
    local detail, g = part.details[row], curves.grid(300)
    local loss = detail.loss
    if loss.made then
        local series = { { label = row.loss, x = g, y = curves.plain(loss, g), colour = k } }
        if row.alpha and row.alpha >= 0 and row.alpha ~= 0.5 then
            series[1].label = row.loss .. ", negatives"
            series[2] = { label = "the same, positives", x = g, y = curves.plain(loss, g, true),
                colour = k, dash = true }
        end
        return series
    elseif loss.eps then
        local density = curves.exact_density(whole, g, loss.eps, part.mu)
        return { { label = row.loss, x = g, style = "reference",
            y = curves.harmonised(g, function(i) return density[i] end) } }
    end
    local bins = loss.config.bins
    return { { label = row.loss, x = g, colour = k, y = curves.harmonised(g, function(i)
        local j = math.min(math.floor(g[i] * bins) + 1, bins)
        return detail.weighted[j] > 0 and detail.base[j] / detail.weighted[j] or 0
    end) } }
end

-- Figures 1 (middle) and 3.
local function reformulated_figure(part, whole)
    local series = {}
    for k, row in ipairs(part.rows) do
        for _, one in ipairs(norm_series(part, row, k, whole)) do
            series[#series + 1] = one
        end
    end
    return { title = "Reformulated gradient norm, " .. part.what, xlabel = "gradient norm g",
        ylabel = "reformulated gradient norm", ylog = true, xrange = { 0, 1 },
        yrange = { 1e-4, nil }, series = series }
end

-- Figure 1 (right): the share of the whole gradient that each region contributes.
local function contribution_figure(part)
    local series, middles = {}, {}
    for j = 1, study.DRAWN do
        middles[j] = (j - 0.5) / study.DRAWN
    end
    for k, row in ipairs(part.rows) do
        local fine = part.details[row].fine
        series[k] = { label = row.loss, style = row.eps and "reference" or "steps", colour = k,
            x = row.eps and middles or curves.edges(study.DRAWN),
            y = scaled(drawn(fine), 1 / total(fine)) }
    end
    return { title = "Contribution to the gradient, " .. part.what, xlabel = "gradient norm g",
        ylabel = "share of the gradient", ylog = true, xrange = { 0, 1 }, yrange = { 1e-4, 1 },
        series = series }
end

-- The share of the whole gradient that comes from samples up to g.
local function cumulative_figure(part)
    local series = {}
    for k, row in ipairs(part.rows) do
        local fine = part.details[row].fine
        local y, sum, whole = { 0 }, 0, total(fine)
        for j, value in ipairs(fine) do
            sum = sum + value
            y[j + 1] = sum / whole
        end
        series[k] = { label = row.loss, x = curves.edges(study.FINE), y = y, colour = k,
            style = row.eps and "reference" or "lines" }
    end
    return { title = "Gradient from samples up to g, " .. part.what, xlabel = "gradient norm g",
        ylabel = "share of the gradient", xrange = { 0, 1 }, yrange = { 0, 1 }, series = series }
end

-- The figures of one part (of losses_parts.of): a list of { name, figure }; `overview` holds
-- them all in small.
function M.draw(part)
    if #part.rows > CURVES then
        part = setmetatable({ rows = curves.some(part.rows, CURVES) }, { __index = part })
    end
    local whole = not sweep.is_soft(part.calls) and sweep.merged(part.calls) or nil
    local figures = {
        { name = "reformulated", figure = reformulated_figure(part, whole) },
        { name = "contribution", figure = contribution_figure(part) },
        { name = "cumulative", figure = cumulative_figure(part) },
        { name = "density", figure = density_figure(part, whole) },
    }
    local overview = { title = "What the losses make of " .. part.what, columns = 2,
        width = 1000, height = 700, panels = {} }
    for i, entry in ipairs(figures) do
        overview.panels[i] = entry.figure
        entry.name = part.prefix .. entry.name
    end
    table.insert(figures, 1, { name = part.prefix .. "overview", figure = overview })
    return figures
end

-- Where each loss takes its gradient from, in letters.
function M.term(part)
    local z, names = {}, {}
    for i, row in ipairs(part.rows) do
        local fine = part.details[row].fine
        z[i], names[i] = scaled(drawn(fine), 1 / total(fine)), row.loss
    end
    return termplot.heat { title = "Share of the gradient by g, " .. part.what,
        x = curves.edges(study.DRAWN), z = z, names = names, log = true, width = 52,
        range = { 1e-3, 1 },
        xlabel = "gradient norm g", label = "of the gradient" }
end

return M
