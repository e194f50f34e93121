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

-- The plain losses that GHM is held against.
local function plain_losses(task, mu)
    local plain, usual = {}, losses.defaults
    for _, loss in ipairs(losses_study.list(task, { bins = {}, alpha = -1, gamma = usual.gamma,
        mu = mu, beta = usual.beta })) do
        plain[#plain + 1] = loss.made and loss or nil
    end
    return plain
end

-- The paper's Figure 3: reformulated gradient norm, beta * g, of one stream.
local function reformulated_figure(x, whole, bins, eps, mu)
    local g, series = curves.grid(300), {}
    for _, loss in ipairs(plain_losses(x.task, mu)) do
        series[#series + 1] = { label = loss.label, x = g, y = curves.plain(loss, g) }
    end
    local density = region_density(x.calls, bins, mu)
    local exact = curves.exact_density(whole, g, eps, mu)
    local ours = curves.harmonised(g, function(i)
        return density[math.min(math.floor(g[i] * bins) + 1, bins)]
    end)
    local ideal = curves.harmonised(g, function(i) return exact[i] end)
    local ghm = x.task == "regression" and "GHM-R" or "GHM-C"
    series[#series + 1] = { label = ("%s, M = %d"):format(ghm, bins), x = g, y = ours }
    series[#series + 1] = { label = ghm .. ", exact density", x = g, y = ideal,
        style = "reference" }
    return { title = "Reformulated gradient norm", xlabel = "gradient norm g",
        ylabel = "reformulated gradient norm, beta g", ylog = true, xrange = { 0, 1 },
        yrange = { 1e-4, nil }, series = series }
end

-- The share of the whole gradient that each region contributes.
local function contribution_figure(task, whole, bins, mu)
    local series, cut = {}, whole:cut(bins, mu)
    local function add(label, values)
        local total, y = 0, {}
        for j = 1, bins do
            total = total + values[j]
        end
        for j = 1, bins do
            y[j] = values[j] / total
        end
        series[#series + 1] = { label = label, style = "steps", x = curves.edges(bins), y = y }
    end
    for _, loss in ipairs(plain_losses(task, mu)) do
        add(loss.label, harmonise.list(sketches.fold(whole:sums(loss.norm, loss.a, loss.b), cut,
            bins, "double"), bins))
    end
    local norms = sketches.fold(whole:sums("norm", mu), cut, bins, "double")
    local call = harmonise.new(task, { bins = bins, mu = mu }):step(whole)
    local weighted = {}
    for j = 1, bins do
        weighted[j] = call.beta[j - 1] * norms[j - 1]
    end
    add(("%s, M = %d"):format(task == "regression" and "GHM-R" or "GHM-C", bins), weighted)
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
        width = 840, height = 1000 }
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

-- x: as a study gets it; rows: of bins_study; best: the recommended bins; eps: window or nil for
-- 1/best. Returns the list of { name, figure }, and the terminal's plot.
function M.draw(x, rows, best, eps)
    local mu, window = x.args.keys.mu, eps or 1 / best
    local whole = not sweep.is_soft(x.calls) and sweep.merged(x.calls) or nil
    local figures = { { name = "density", figure = M.density_figure(x, whole, best, window, mu) } }
    if whole then
        figures[2] = { name = "reformulated",
            figure = reformulated_figure(x, whole, best, window, mu) }
        figures[3] = { name = "contribution",
            figure = contribution_figure(x.task, whole, best, mu) }
    end
    if #curves.distinct(x.configurations, "bins") > 1 then -- a curve of one point shows nothing
        figures[#figures + 1] = { name = "metrics",
            figure = metrics_figure(rows, x.args.keys.momentum, best) }
    end
    return figures, M.terminal(x.calls, whole, best, mu, window)
end

return M
