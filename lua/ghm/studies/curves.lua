-- Curves over the gradient norm g that several figures share: densities, and what losses make of g.

local sketches = require "ghm.sketches"

local M = {}

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

-- Share of the samples per unit of g, by the exact density of window eps. whole: a sketch; group:
-- "both" (default), "positives" or "negatives", of all samples.
function M.exact_density(whole, g, eps, mu, group)
    local N, values = whole:facts().valid, whole:density(g, eps, mu, group)
    for i, density in ipairs(values) do
        values[i] = density / N
    end
    return values
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

return M
