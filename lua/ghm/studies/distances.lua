-- How far histograms lie apart, and what of that is chance: of one distance, and of the largest of
-- several.
--
--   distances.of(R, S)                     Jensen-Shannon distance of two histograms, or nil
--   distances.drawn(R, all, opts)          what draws make of the distance of R: a list
--   distances.chance(drawn)                what is exceeded by chance in one case of twenty
--   distances.beyond(list)                 those of several distances that are more than chance
--
-- The samples are drawn blindly, one by one: those of an image are alike, so batches of few images
-- lie farther apart.

local bootstrap = require "ghm.studies.bootstrap"

local M = {}

local DRAWS = 99 -- the 95th of them has 5 of the 100 places for one more beyond it
local LEVEL = 0.95

-- The root of the divergence in bits, 0 (the same shares) to 1 (no region in common). R and S are
-- lists of counts. (Lin 1991; Endres and Schindelin 2003: a metric.)
function M.of(R, S)
    local n, m, divergence = 0, 0, 0
    for j = 1, #R do
        n, m = n + R[j], m + S[j]
    end
    if n == 0 or m == 0 then
        return nil
    end
    for j = 1, #R do
        local p, q = R[j] / n, S[j] / m
        local middle = (p + q) / 2
        divergence = divergence + (p > 0 and p * math.log(p / middle) or 0)
            + (q > 0 and q * math.log(q / middle) or 0)
    end
    return math.sqrt(math.max(divergence, 0) / 2 / math.log(2))
end

-- The distances that these samples would have from others, were they any of all: what they have
-- when as many of all are drawn blindly (a permutation test). R, all: counts of these samples, and
-- of these and the others together. opts.from_all: from all, not from the others alone; opts.k:
-- which of several distances it is, as each has draws of its own.
function M.drawn(R, all, opts)
    local n, values = 0, {}
    for _, count in ipairs(R) do
        n = n + count
    end
    for draw = 1, DRAWS do
        local drawn, others = bootstrap.divide(all, n, bootstrap.seed,
            (opts and opts.k or 0) * DRAWS + draw), {}
        for j, count in ipairs(drawn) do
            others[j] = all[j] - count
        end
        values[draw] = M.of(drawn, opts and opts.from_all and all or others)
    end
    return values
end

function M.chance(drawn)
    return bootstrap.quantile(drawn, LEVEL)
end

local function ratio(distance, chance)
    return chance > 0 and distance / chance or distance > 0 and math.huge or 0
end

-- list: { distance, drawn } each. Of twenty distances one exceeds its own chance by chance; so each
-- ratio to it is held against the largest of such ratios in each draw (Westfall and Young 1993).
-- Where all is chance, some distance is beyond it in one case of twenty, however many there are.
-- -> those that are beyond, the largest distance first, each with `most`: what it would have to
-- exceed.
function M.beyond(list)
    local chance, largest, found = {}, {}, {}
    for k, one in ipairs(list) do
        chance[k] = M.chance(one.drawn)
        for draw, distance in ipairs(one.drawn) do
            largest[draw] = math.max(largest[draw] or 0, ratio(distance, chance[k]))
        end
    end
    local level = list[1] and M.chance(largest)
    for k, one in ipairs(list) do
        one.most = chance[k] > 0 and level * chance[k] or 0
        found[#found + 1] = ratio(one.distance, chance[k]) > level and one or nil
    end
    table.sort(found, function(a, b)
        return a.distance > b.distance
    end)
    return found
end

return M
