-- The figures of the study of mu, as descriptions for ghm.show.gnuplot.

local batches = require "ghm.batch"
local curves = require "ghm.studies.curves"
local losses_study = require "ghm.studies.losses_study"
local sketches = require "ghm.sketches"

local M = {}

local CURVES, REGIONS, PER_DECADE = 5, 40, 10

local function names_of(list)
    local names = {}
    for k, value in ipairs(list) do
        names[k] = ("%.3g"):format(value)
    end
    return names
end

local function place(list, value)
    for k, one in ipairs(list) do
        if one == value then
            return k
        end
    end
end

-- How the samples lie over g for every mu.
local function density_figure(rows, whole, best)
    local mus, z, g = curves.distinct(rows, "mu"), {}, {}
    for j = 1, REGIONS do
        g[j] = (j - 0.5) / REGIONS
    end
    for k, mu in ipairs(mus) do
        z[k] = curves.exact_density(whole, g, 1 / REGIONS, mu)
    end
    return { title = ("Density of g by mu (nearest to the answer: %.3g)"):format(best.mu),
        xlabel = "gradient norm g", ylabel = "mu", heat = { x = curves.edges(REGIONS),
            y = curves.sides(#mus), z = z, log = true, ynames = names_of(mus),
            label = "gradient density GD(g) / N" } }
end

-- Which (bins, mu) leave betas most nearly right.
local function grid_figure(rows, best)
    local mus, bins, z = curves.distinct(rows, "mu"), curves.distinct(rows, "bins"), {}
    for k in ipairs(mus) do
        z[k] = {}
    end
    for _, row in ipairs(rows) do
        z[place(mus, row.mu)][place(bins, row.bins)] = row.beta_error
    end
    return { title = "Error of beta by bins and mu (framed: the choice)", xlabel = "bins M",
        ylabel = "mu", heat = { x = curves.sides(#bins), y = curves.sides(#mus), z = z,
            xnames = names_of(bins), ynames = names_of(mus), label = "relative error of beta",
            mark = { place(bins, best.bins), place(mus, best.mu) } } }
end

-- A loss and its gradient norm over |d|, asked of sketches of one sample each.
local function losses_figure(rows, beta, value)
    local mus = curves.some(curves.distinct(rows, "mu"), CURVES)
    local functions = {}
    for k, mu in ipairs(mus) do
        functions[k] = { label = ("ASL1, mu = %.3g"):format(mu), loss = "asl1", norm = "norm",
            a = mu }
    end
    table.insert(functions, { label = ("smooth L1, beta = %.3g"):format(beta), loss = "smooth_l1",
        norm = "smooth_l1_norm", a = beta, style = "reference" })
    local x, panels = {}, { {}, {} }
    for k = -40, 10 do
        x[#x + 1] = 10 ^ (k / 10)
    end
    for _, f in ipairs(functions) do
        local y = { {}, {} }
        for i, d in ipairs(x) do
            local one = sketches.new { task = "regression", bins = 1, mu = 1, knots = beta }
            one:add(batches.regression { pred = { d }, target = { 0 } })
            for p, name in ipairs { f.loss, f.norm } do
                y[p][i] = sketches.total(one:sums(name, f.a), one:intervals())
            end
            one:free()
        end
        for p = 1, 2 do
            table.insert(panels[p], { label = f.label, x = x, y = y[p], style = f.style })
        end
    end
    local marks = { { x = value } }
    return { title = ("ASL1 against smooth L1 (dotted: mu = %g)"):format(value), columns = 2,
        width = 860, height = 390, panels = {
        { title = "loss", xlabel = "|d|", xlog = true, ylog = true, ordered = true,
            series = panels[1], marks = marks, key = "below" },
        { title = "gradient norm", xlabel = "|d|", xlog = true, ordered = true,
            series = panels[2], marks = marks } } }
end

-- The share of the gradient that errors of each size give: the paper's contributions, over |d|.
local function contribution_figure(calls, whole, best, keys, d, q)
    local knots, edges = {}, whole:edges()
    for k = -6 * PER_DECADE, 3 * PER_DECADE do
        knots[#knots + 1] = 10 ^ (k / PER_DECADE)
    end
    local n = whole:intervals()
    local function shares(label, values)
        local y, total, k = {}, 0, 1
        for c = 1, #knots - 1 do
            y[c] = 0
        end
        for i = 0, n - 1 do
            local low = i > 0 and edges[i - 1] or 0
            while k < #knots - 1 and low >= knots[k + 1] * (1 - 1e-6) do
                k = k + 1
            end
            y[k], total = y[k] + tonumber(values[i]), total + tonumber(values[i])
        end
        for c = 1, #y do
            y[c] = y[c] / total
        end
        return { label = label, style = "steps", x = knots, y = y }
    end
    local series, own = { shares("samples", whole:counts()) }, {}
    for _, source in ipairs { keys, best } do
        for key, value in pairs(source) do
            own[key] = value
        end
    end
    for _, loss in ipairs(losses_study.list("regression", own)) do
        series[#series + 1] = not loss.eps
            and shares(loss.label, losses_study.contributions(calls, loss)) or nil
    end
    series[1].dash = true
    local first, last = nil, 1
    for _, one in ipairs(series) do
        for c, y in ipairs(one.y) do
            if y > 1e-4 then
                first, last = math.min(first or c, c), math.max(last, c)
            end
        end
    end
    return { title = "Share of the gradient by size of the error", xlabel = "error |d|",
        ylabel = "share in a tenth of a decade", xlog = true,
        xrange = { knots[first or 1], knots[last + 1] }, series = series,
        marks = { { x = d, label = q == 0.5 and "median" or ("%g-quantile"):format(q) } } }
end

-- calls, keys: as a study gets them; rows, whole: of mu_study.rows; best: the row to show; d: the
-- wanted quantile, q: which one it is; value: the mu that is recommended. Returns the list of
-- { name, figure }.
function M.draw(calls, keys, rows, whole, best, d, q, value)
    local figures = {
        { name = "density", figure = density_figure(rows, whole, best) },
        { name = "contribution", figure = contribution_figure(calls, whole, best, keys, d, q) },
        { name = "losses", figure = losses_figure(rows, keys.beta, value) },
    }
    if #curves.distinct(rows, "bins") > 1 and #curves.distinct(rows, "mu") > 1 then
        figures[4] = { name = "bins_mu", figure = grid_figure(rows, best) }
    end
    return figures
end

return M
