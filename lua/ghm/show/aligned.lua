-- Numbers of a column: with as many decimals each where that costs few digits, else with their
-- points below one another.
--
--   aligned.numbers(cells, values, format, blanks) -> the cells, filled up on the right
--     cells    what is shown of each row; "" for nothing
--     values   the number behind each, or nil
--     format   how it was shown: of "%.4g" and the like, %g has taken the zeros at the end
--     blanks   what fills up: as wide as { a digit, a point }; blanks by default
-- A column in which some have units or words stays as it is, and so do nan and inf.

local M = {}

-- The letters behind a number's whole part, ".25" or "e-06"; nil where it is none.
local function tail_of(cell)
    local tail = cell:match "^%-?%d+(.*)$"
    return tail and (tail:find "^%.?%d*$" or tail:find "^%.?%d*e[-+]%d+$") and tail
        or not cell:find "%d" and cell:find "^%-?%l*$" and "" or nil
end

-- Of each cell, and the longest; nil where one has none.
local function tails_of(cells)
    local tails, longest = {}, ""
    for r, cell in ipairs(cells) do
        local tail = tail_of(cell)
        if not tail then
            return nil
        end
        tails[r], longest = tail, #tail > #longest and tail or longest
    end
    return tails, longest
end

-- With the decimals that "%.4g" has given to most of them, if these are at most 5.
local function evened(cells, values, tails, format)
    local most, digits = 0, type(format) == "string" and tonumber(format:match "^%%%.(%d+)g$")
    for _, tail in ipairs(tails) do
        most = tail:find "e" and math.huge or math.max(most, #tail - 1)
    end
    if not digits or most == 0 or most > digits + 1 then
        return cells
    end
    local list = {}
    for r, cell in ipairs(cells) do
        list[r] = cell:find "%d" and ("%%.%df"):format(most):format(values[r]) or cell
    end
    return list
end

function M.numbers(cells, values, format, blanks)
    local tails, longest = tails_of(cells)
    if not tails or longest == "" then
        return cells
    end
    cells = evened(cells, values, tails, format)
    tails, longest = tails_of(cells)
    local digit, point, filled = blanks and blanks[1] or " ", blanks and blanks[2] or " ", {}
    for r, cell in ipairs(cells) do
        local spare = #longest - #tails[r]
        local no_point = spare > 0 and longest:find "%." and not tails[r]:find "%."
        filled[r] = cell .. (cell:find "%d" and digit:rep(no_point and spare - 1 or spare)
            .. (no_point and point or "") or "")
    end
    return filled
end

return M
