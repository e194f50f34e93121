-- Legends of figures by gnuplot: where one stands, and the lines that it takes.

local text = require "ghm.show.text"

local M = {}

M.LINE = 20 -- points of height that a line of a legend below takes

-- Beside a plot a legend leaves it too little width where its labels are longer than this, or where
-- there are more than stand in one column.
local LONGEST, MOST = 30, 14

M.commands = {
    ["outside right"] = "set key outside right top vertical",
    below = "set key at screen 0.5, char 1 center bottom horizontal",
    inside = "set key inside right top vertical maxrows auto",
    ["inside left"] = "set key inside left top vertical maxrows auto",
    none = "unset key",
}

local function longest(series)
    local letters = 0
    for _, one in ipairs(series) do
        letters = math.max(letters, text.width(one.label or ""))
    end
    return letters
end

-- Lines that a legend below the plot takes, whose columns are all as wide as the longest label, by
-- the size of a usual letter.
function M.rows(series, points)
    return math.ceil(#series / math.max(1, math.floor(points / (8 * (longest(series) + 8)))))
end

-- Where the legend of a figure of one plot stands: a name of M.commands.
function M.place(figure)
    return figure.heat and "none" or figure.key or (#figure.series > MOST
        or longest(figure.series) > LONGEST) and "below" or "outside right"
end

return M
