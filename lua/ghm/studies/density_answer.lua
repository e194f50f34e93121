-- What the study of densities says of what it found: shape, drift, parts.

local text = require "ghm.show.text"

local M = {}

local shapes = { [-1] = { [-1] = "hump-shaped", [0] = "rising", "rising" },
    [0] = { [-1] = "falling", [0] = "flat", "rising" },
    { [-1] = "falling", [0] = "falling", "U-shaped" } }

-- What the density is shaped like: each end is higher than the middle half, on average, lower, or
-- within a factor of 2 of it.
function M.shape(R)
    local bins, sum = #R, 0
    local first, last = math.floor(bins / 4) + 1, math.ceil(3 * bins / 4)
    for j = first, last do
        sum = sum + R[j]
    end
    local middle = sum / (last - first + 1)
    local function against(count)
        return count > 2 * middle and 1 or count < middle / 2 and -1 or 0
    end
    return shapes[against(R[1])][against(R[bins])]
end

-- What is all there is to say of one or two regions: where they are; nil for more.
local function narrow(R)
    local used = {}
    for j = 1, #R do
        used[#used + 1] = R[j] > 0 and ("%.3g to %.3g"):format((j - 1) / #R, j / #R) or nil
    end
    return #used < math.min(3, #R) and table.concat(used, " or ") or nil
end

local function shape_line(found)
    local row, parts, few = found.rows[1], {}, narrow(found.all.R)
    for _, part in ipairs(found.groups) do
        if part.N > 0 then
            parts[#parts + 1] = few and ("%s: %s"):format(part.name, narrow(part.R))
                or ("of %s %s"):format(part.name, M.shape(part.R))
        end
    end
    local of_parts = #parts > 0 and "; " .. table.concat(parts, ", ") or ""
    if few then
        return ("All samples have g from %s%s."):format(few, few:find " or " and of_parts or "")
    end
    return ("The density is %s: %s of the samples have g < %.3g, %s have g >= %.3g%s."):format(
        M.shape(found.all.R), text.percent(row.first_share), 1 / found.bins,
        text.percent(row.last_share), 1 - 1 / found.bins, of_parts)
end

-- Where steps differ by more than chance; a drift that is too slow for two of them to differ shows
-- between the halves.
function M.drift_line(found)
    local moved = found.moved
    local n, worst, halves = #found.steps, moved.beyond[1], moved.halves
    if not moved.last then
        return n > 1 and "Steps without samples: nothing can be said of drift."
            or "One step: nothing can be said of drift."
    elseif n == 2 then
        return ("The two steps differ by %s."):format(worst and ("more than chance (Jensen-Shannon "
            .. "distance %.3g, by chance %.3g)"):format(worst.distance, worst.most)
            or "no more than chance")
    end
    local apart = halves and ("their second half lies %.3g from the first (by chance %.3g)")
        :format(halves.distance, halves.most)
    if not worst then
        return ("Of %d steps none differs from the one before by more than chance%s."):format(n,
            apart and ", but " .. apart .. ": they drift slowly" or "")
    end
    local several, still = #moved.beyond > 1, false
    for _, one in ipairs(moved.beyond) do
        still = still or one.row == moved.last
    end
    local line = ("Of %d steps %s from the one before by more than chance, %s%s (Jensen-Shannon "
        .. "distance %.3g, by chance %.3g)"):format(n, several and #moved.beyond .. " differ"
        or "one differs", several and "most of all " or "", worst.row.name, worst.distance,
        worst.most)
    line = line .. (several and (still and "; the last still does" or "; the last does not") or "")
    return line .. (apart and not still and "; " .. apart or "") .. "."
end

local function divergence(observed, predicted)
    local function part(a, p)
        return a > 0 and a * math.log(a / p) or 0
    end
    return part(observed, predicted) + part(1 - observed, 1 - predicted)
end

-- The region of p that is farthest off, among those that are off by more than chance: were a sample
-- positive as often as predicted, in less than one case of twenty there would be any. (A share of n
-- lies as far on its side with probability exp(-n divergence) at most: Hoeffding 1963.)
function M.worst_region(regions)
    local bound, worst, most = math.log(2 * #regions / 0.05), nil, 0
    for _, region in ipairs(regions) do
        local off = region.n > 0 and math.abs(region.predicted - region.observed) or 0
        if off > most and region.n * divergence(region.observed, region.predicted) > bound then
            worst, most = region, off
        end
    end
    return worst
end

local function parts_line(found)
    local lines = {}
    for _, kind in ipairs { "class", "level" } do
        local far = found.far[kind]
        local worst = far and far[1]
        if worst then
            lines[#lines + 1] = ("%s lies farthest from all (%.2g, by chance %.2g)"):format(
                worst.row.name, worst.distance, worst.most)
        elseif far then
            lines[#lines + 1] = ("no %s lies farther from all than by chance"):format(
                kind == "class" and found.task == "regression" and "column" or kind)
        end
    end
    local error = found.rows[1].calibration
    if error then
        local worst = M.worst_region(found.calibration)
        lines[#lines + 1] = ("probabilities are off by %.2g on average, %s"):format(error,
            worst and ("most at p = %.2g, where %s are positive"):format(worst.predicted,
            text.percent(worst.observed)) or "in no region of p by more than chance")
    end
    local line = table.concat(lines, "; ")
    return line ~= "" and line:sub(1, 1):upper() .. line:sub(2) .. "." or nil
end

-- Three sentences: shape, drift, parts; and what of it is not known.
function M.lines(found)
    local lines = { shape_line(found), M.drift_line(found) }
    lines[#lines + 1] = parts_line(found)
    lines[#lines + 1] = found.classes_unknown
        and "A sketch file says nothing of classes: for these, the dump itself." or nil
    return lines
end

return M
