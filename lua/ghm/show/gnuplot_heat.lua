-- Heat maps by gnuplot: a rectangle for each cell, coloured by its value. gnuplot.lua draws them.
--
-- figure.heat = {
--   x, y       n + 1 and m + 1 rising numbers: the sides of the columns and rows
--   z          m lists of n numbers, the lowest row first; what cannot be drawn is a grey cell
--   log        the colours follow the logarithm;  range = {low, high} of the colours
--   label      what the colours say
--   xnames, ynames     names of the columns and rows instead of numbers at their sides
--   mark = {column, row}   a cell to be framed, counted from 1
-- }

local text = require "ghm.show.text"
local words = require "ghm.show.gnuplot_words"

local M = {}

-- viridis, which is as good in grey and for colour-blind readers
M.palette = { "#440154", "#414487", "#2A788E", "#22A884", "#7AD151", "#FDE725" }

-- The data block of a heat map -> lines "x y low_x high_x low_y high_y z", smallest and largest z;
-- nil when no cell can be drawn.
function M.block(heat)
    local lines, low, high = {}, math.huge, -math.huge
    for r, row in ipairs(heat.z) do
        local bottom, top = heat.y[r], heat.y[r + 1]
        for c = 1, #heat.x - 1 do
            local v, left, right = row[c], heat.x[c], heat.x[c + 1]
            if words.drawable(v, heat.log) then
                lines[#lines + 1] = ("%.9g\t%.9g\t%.9g\t%.9g\t%.9g\t%.9g\t%.9g"):format(
                    (left + right) / 2, (bottom + top) / 2, left, right, bottom, top, v)
                low, high = math.min(low, v), math.max(high, v)
            end
        end
    end
    if #lines == 0 then
        return nil
    end
    return table.concat(lines, "\n"), low, high
end

-- At most `most` names, evenly chosen, each at the middle of its cell.
local function named_tics(add, axis, names, sides, most)
    local every, tics = math.ceil(#names / most), {}
    for k = 1, #names, every do
        tics[#tics + 1] = ("%s %.9g"):format(words.quoted(text.fit(text.one_line(names[k]), 16)),
            (sides[k] + sides[k + 1]) / 2)
    end
    add("set %stics (%s) noenhanced", axis, table.concat(tics, ", "))
end

-- Adds the commands that lay out the axes and colours, after those of the axes.
function M.commands(add, heat, low, high)
    local stops = {}
    for k, colour in ipairs(M.palette) do
        stops[k] = ("%d '%s'"):format(k - 1, colour)
    end
    add("set palette defined (%s)", table.concat(stops, ", "))
    local range = heat.range or {}
    low, high = range[1] or low, range[2] or high
    if low == high then -- one colour says nothing, but must be drawable
        low, high = heat.log and low / 2 or low - 0.5, heat.log and high * 2 or high + 0.5
    end
    local powers = heat.log and high / low >= 100
    add("set cbrange [%.9g:%.9g]; %s logscale cb; set format cb '%s'", low, high,
        heat.log and "set" or "unset", powers and "10^{%T}" or "%g")
    add("set cblabel %s noenhanced", words.quoted(heat.label or ""))
    add "set colorbox noborder"
    add "set object 1 rectangle from graph 0, 0 to graph 1, 1 fc rgb '#DDDDDD' fs noborder behind"
    if heat.xnames then
        named_tics(add, "x", heat.xnames, heat.x, 24)
    end
    if heat.ynames then
        named_tics(add, "y", heat.ynames, heat.y, 20)
    end
    if heat.mark then
        local c, r = heat.mark[1], heat.mark[2]
        add("set object 2 rectangle from first %.9g, %.9g to first %.9g, %.9g front fs empty "
            .. "border lc rgb '#D55E00' lw 2.5", heat.x[c], heat.y[r], heat.x[c + 1], heat.y[r + 1])
    end
end

-- What follows the data's name in the plot command. The border hides the seams between cells.
M.style = "using 1:2:3:4:5:6:7 with boxxyerror lc palette lw 0.6 fs solid border notitle"

return M
