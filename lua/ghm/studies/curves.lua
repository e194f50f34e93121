-- What figures of several studies share: curves over the gradient norm g, densities and what losses
-- make of g; and which of many values are drawn.

local axes = require "ghm.show.termaxes"
local sketches = require "ghm.sketches"
local termplot = require "ghm.show.termplot"

local M = {}

-- The different values of a column, rising.
function M.distinct(rows, key)
    local list, seen = {}, {}
    for _, row in ipairs(rows) do
        if not seen[row[key]] then
            seen[row[key]], list[#list + 1] = true, row[key]
        end
    end
    table.sort(list)
    return list
end

-- At most `most` values of a list, evenly chosen, first and last among them. The one at `kept`,
-- where it is not among them, takes the place of the nearest but for these two.
function M.some(list, most, kept)
    local places, nearest = axes.some_of(#list, most), nil
    for k = 2, kept and kept > 1 and kept < #list and #places - 1 or 0 do
        nearest = nearest and math.abs(places[nearest] - kept) <= math.abs(places[k] - kept)
            and nearest or k
    end
    local picked = {}
    for k, place in ipairs(places) do
        picked[k] = list[k == nearest and kept or place]
    end
    return picked
end

-- From tick to tick of an axis of whole numbers: few of them would get ticks between them.
function M.whole_step(low, high)
    return high - low < 10 and 1 or nil
end

-- The sides of n cells of width 1.
function M.sides(n)
    local list = {}
    for k = 0, n do
        list[k + 1] = k
    end
    return list
end

-- The sides of `bins` unit regions.
function M.edges(bins)
    local edges = {}
    for j = 0, bins do
        edges[j + 1] = j / bins
    end
    return edges
end

-- n values of g, dense near both ends, where densities move.
function M.grid(n)
    local g = {}
    for i = 1, n do
        local u = (i - 0.5) / n
        g[i] = u * u * (3 - 2 * u)
    end
    return g
end

-- Share of the samples per unit of g in regions with these counts (a list), of N samples.
function M.density(R, N)
    local values = {}
    for j, count in ipairs(R) do
        values[j] = count * #R / N
    end
    return values
end

-- Share of the samples per unit of g, by the exact density of window eps. whole: a sketch; group:
-- "both" (default), "positives" or "negatives", of all samples.
function M.exact_density(whole, g, eps, mu, group)
    local N, values = whole:facts().valid, whole:density(g, eps, mu, group)
    for i, density in ipairs(values) do
        values[i] = density / N
    end
    return values
end

-- The same as a figure's series.
function M.exact_series(whole, eps, mu)
    local g = M.grid(400)
    return { label = ("exact, window %.3g"):format(eps), style = "reference", x = g,
        y = M.exact_density(whole, g, eps, mu) }
end

-- A figure of such series.
function M.density_figure(title, series)
    return { title = title, xlabel = "gradient norm g", ylabel = "gradient density GD(g) / N",
        ylog = true, xrange = { 0, 1 }, series = series }
end

-- |d loss / d pred| of a plain loss (of ghm.losses_study) at gradient norms g, for negatives or
-- positives: its own gradient pass over samples that have these g.
function M.plain(loss, g, positive)
    local pred, target = {}, {}
    for i, norm in ipairs(g) do
        local key = sketches.key(loss.task, norm, loss.mu)
        pred[i], target[i] = positive and -key or key, positive and 1 or 0
    end
    loss.made:forward(pred, target)
    local grad = loss.made:backward()
    for i = 1, #g do
        pred[i] = math.abs(grad:get(i - 1))
    end
    return pred
end

-- beta g of GHM, beta being 1 over the density (share per unit of g) that `density(i)` gives for
-- g[i]; a gap where that is 0.
function M.harmonised(g, density)
    local values = {}
    for i, norm in ipairs(g) do
        local own = density(i)
        values[i] = own > 0 and norm / own or nil
    end
    return values
end

-- A density in letters: values per unit of g of `bins` regions; beside the exact one of window eps,
-- where there is a sketch of the whole.
function M.terminal(values, bins, whole, eps, mu)
    local reference
    if whole then
        local fine, g = 2 * bins, {}
        for i = 1, fine do
            g[i] = (i - 0.5) / fine
        end
        reference = { edges = M.edges(fine), values = M.exact_density(whole, g, eps, mu),
            label = "exact density" }
    end
    return termplot.steps { title = ("gradient density GD/N at M = %d"):format(bins), log = true,
        edges = M.edges(bins), values = values, xlabel = "gradient norm g", reference = reference }
end

return M
