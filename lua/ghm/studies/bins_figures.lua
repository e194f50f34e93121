-- The figures of the study of bins, as descriptions for ghm.show.gnuplot.

local curves = require "ghm.studies.curves"
local harmonise = require "ghm.harmonise"
local losses = require "ghm.losses"
local losses_study = require "ghm.studies.losses_study"
local sketches = require "ghm.sketches"
local sweep = require "ghm.studies.sweep"

local M = {}

local CURVES = 6 -- more step curves than this in one figure hide each other

-- At most CURVES of the bins, `best` among them.
local function chosen(bins_list, best)
    local place
    for k, bins in ipairs(bins_list) do
        place = bins == best and k or place
    end
    return curves.some(bins_list, CURVES, place)
end

-- Density of one stream in regions of 1/bins.
local function region_density(calls, bins, mu)
    local R, N = sweep.counts(calls, bins, mu)
    return curves.density(harmonise.list(R, bins), N)
end

-- Regions of every bins of x.configurations and the exact density, where there is one, as lines.
--   x       { calls, configurations }
--   whole   the calls in one sketch, or nil for soft targets, which have no exact density here
--   best    bins to draw in any case
--   eps     the exact density's window
function M.density_figure(x, whole, best, eps, mu)
    local series, bins_list = {}, chosen(curves.distinct(x.configurations, "bins"), best)
    for _, bins in ipairs(bins_list) do
        series[#series + 1] = { label = ("M = %d"):format(bins), style = "steps",
            x = curves.edges(bins), y = region_density(x.calls, bins, mu) }
    end
    if whole then
        series[#series + 1] = curves.exact_series(whole, eps, mu)
    end
    local figure = curves.density_figure("Gradient density by number of unit regions", series)
    figure.ordered = true
    return figure
end

-- The losses that are drawn: plain ones, GHM with a row's settings, and with the exact density.
local function losses_beside(x, row, eps)
    local keys, usual = {}, losses.defaults
    for _, source in ipairs { x.args.keys, row, { alpha = -1, gamma = usual.gamma,
        beta = usual.beta, mu = x.args.keys.mu, eps = eps } } do
        for key, value in pairs(source) do
            keys[key] = value
        end
    end
    return losses_study.list(x.task, keys)
end

-- What each region of 1/bins contributes to a loss's gradient over the stream.
local function by_region(x, loss, bins)
    return harmonise.list(sketches.fold(losses_study.contributions(x.calls, loss),
        x.calls[1].sketch:cut(bins, loss.mu), bins, "double"), bins)
end

-- The paper's Figure 3: reformulated gradient norm, beta * g. A region's beta over the stream is
-- what it contributes with that of every call over what it would with 1.
local function reformulated_figure(x, list, whole, bins, eps, mu)
    local g, series = curves.grid(300), {}
    for _, loss in ipairs(list) do
        local one = { label = loss.label, x = g, style = loss.eps and "reference" or nil }
        if loss.made then
            one.y = curves.plain(loss, g)
        elseif loss.eps then
            local exact = curves.exact_density(whole, g, eps, mu)
            one.y = curves.harmonised(g, function(i) return exact[i] end)
        else
            local weighted = by_region(x, loss, bins)
            local base = by_region(x, { task = loss.task, value = loss.value, norm = loss.norm,
                a = loss.a, mu = loss.mu }, bins)
            one.y = curves.harmonised(g, function(i)
                local j = math.min(math.floor(g[i] * bins) + 1, bins)
                return weighted[j] > 0 and base[j] / weighted[j] or 0
            end)
        end
        series[#series + 1] = one
    end
    return { title = "Reformulated gradient norm", xlabel = "gradient norm g",
        ylabel = "reformulated gradient norm, beta g", ylog = true, xrange = { 0, 1 },
        yrange = { 1e-4, nil }, series = series }
end

-- The share of the whole gradient that each region contributes.
local function contribution_figure(x, list, bins)
    local series = {}
    for _, loss in ipairs(list) do
        local y, total = not loss.eps and by_region(x, loss, bins) or {}, 0
        for _, value in ipairs(y) do
            total = total + value
        end
        for j, value in ipairs(y) do
            y[j] = value / total
        end
        series[#series + 1] = not loss.eps and { label = loss.label, style = "steps",
            x = curves.edges(bins), y = y } or nil
    end
    return { title = "Contribution to the gradient by region", xlabel = "gradient norm g",
        ylabel = "share of the gradient", ylog = true, xrange = { 0, 1 }, series = series }
end

local panels = {
    { key = "loss", title = "loss" },
    { key = "beta_error", title = "relative error of beta", choice = true },
    { key = "empty_share", title = "share of empty regions", yrange = { 0, 1 } },
    { key = "beta_largest", title = "largest beta", ylog = true },
    { key = "cosine", title = "cosine with the exact gradient" },
    { key = "entropy", title = "entropy of the contributions" },
}

-- One small panel per metric, one line per momentum; the choice is marked where it is made.
local function metrics_figure(rows, momenta, best)
    local figure = { title = "What the number of regions changes", columns = 2, panels = {},
        width = 840, height = 980 }
    local bins_list = curves.distinct(rows, "bins")
    local xstep = curves.whole_step(bins_list[1], bins_list[#bins_list])
    for _, panel in ipairs(panels) do
        local series = {}
        for _, momentum in ipairs(momenta) do
            local one = { label = ("momentum %g"):format(momentum), style = "linespoints",
                x = {}, y = {} }
            for _, row in ipairs(rows) do
                if row.momentum == momentum then
                    table.insert(one.x, row.bins)
                    one.y[#one.x] = row[panel.key]
                end
            end
            series[#series + 1] = one
        end
        if rows[1][panel.key] then
            table.insert(figure.panels, { title = panel.title, xlabel = "bins M", xstep = xstep,
                ylog = panel.ylog, yrange = panel.yrange,
                marks = panel.choice and { { x = best, label = ("M = %d"):format(best) } } or nil,
                key = #momenta > 1 and "below" or "none", series = series })
        end
    end
    return figure
end

-- The density of a stream in regions of 1/bins, beside the exact one, in letters.
-- Parameters: as of density_figure.
function M.terminal(calls, whole, bins, mu, eps)
    return curves.terminal(region_density(calls, bins, mu), bins, whole, eps, mu)
end

-- x: as a study gets it; rows: of bins_study; row: the recommended one; eps: window or nil for that
-- of its regions. Returns the list of { name, figure }, and the terminal's plot.
function M.draw(x, rows, row, eps)
    local best, mu = row.bins, x.args.keys.mu
    local window = eps or 1 / best
    local whole = not sweep.is_soft(x.calls) and sweep.merged(x.calls) or nil
    local figures = { { name = "density", figure = M.density_figure(x, whole, best, window, mu) } }
    if whole then
        local list = losses_beside(x, row, window)
        figures[2] = { name = "reformulated",
            figure = reformulated_figure(x, list, whole, best, window, mu) }
        figures[3] = { name = "contribution", figure = contribution_figure(x, list, best) }
    end
    if #curves.distinct(x.configurations, "bins") > 1 then -- a curve of one point shows nothing
        figures[#figures + 1] = { name = "metrics",
            figure = metrics_figure(rows, x.args.keys.momentum, best) }
    end
    return figures, M.terminal(x.calls, whole, best, mu, window)
end

return M
