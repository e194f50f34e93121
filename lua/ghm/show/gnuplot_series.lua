-- The series of a figure by gnuplot: their data, and how each is drawn.

local heats = require "ghm.show.gnuplot_heat"
local text = require "ghm.show.text"
local words = require "ghm.show.gnuplot_words"

local M = {}

-- Okabe and Ito's colours, told apart by colour-blind readers; without their yellow, which is
-- illegible on white, and black, which is kept for references.
local colours = { "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#777777" }

-- The colour at f (0 to 1) for series that are steps of one quantity: the heat maps' colours
-- without the lightest one, which is illegible on white.
local function on_scale(f)
    local at = f * (#heats.palette - 2)
    local k = math.min(math.floor(at), #heats.palette - 3)
    local low, high, hex = heats.palette[k + 1], heats.palette[k + 2], "#"
    for c = 2, 6, 2 do
        local from, to = tonumber(low:sub(c, c + 1), 16), tonumber(high:sub(c, c + 1), 16)
        hex = hex .. ("%02X"):format(from + (to - from) * (at - k))
    end
    return hex
end

-- The lines of one series for the data file (nil when nothing can be drawn), with the smallest
-- and largest y. An empty line makes gnuplot lift the pen.
local function data_block(series, figure)
    local lines, low, high = {}, math.huge, -math.huge
    local x, y = series.x, series.y
    local regions = series.style == "steps" or series.style == "boxes"
    local n = regions and #x - 1 or #x
    local pen = false
    local function add(...)
        lines[#lines + 1] = ("%.9g\t"):rep(select("#", ...) - 1):format(...)
            .. ("%.9g"):format((select(select("#", ...), ...)))
    end
    for i = 1, n do
        local v = y[i]
        local seen = words.drawable(v, figure.ylog)
        for k = i, regions and i + 1 or i do
            seen = seen and words.drawable(x[k], figure.xlog)
        end
        if not seen then
            if pen and series.style ~= "boxes" then
                lines[#lines + 1] = ""
            end
        elseif series.style == "steps" then
            add(x[i], v)
            add(x[i + 1], v)
        elseif series.style == "boxes" then
            add((x[i] + x[i + 1]) / 2, v, x[i + 1] - x[i])
        else
            add(x[i], v)
        end
        pen = seen
        if seen then
            low, high = math.min(low, v), math.max(high, v)
        end
    end
    if high == -math.huge then
        return nil
    end
    while lines[#lines] == "" do
        lines[#lines] = nil
    end
    return table.concat(lines, "\n"), low, high
end

-- How one series is drawn: the part of a plot command after its data. k of n is its place among
-- the series that are no references.
local function style_of(series, k, n, figure)
    if series.style == "reference" then
        return "with lines lc rgb '#000000' lw 1.6 dt (8,5)"
    end
    local again = not figure.ordered and (series.colour or k) > #colours -- dashes tell it apart
    local colour = figure.ordered and on_scale(n > 1 and (k - 1) / (n - 1) or 0)
        or colours[((series.colour or k) - 1) % #colours + 1]
    -- each later line is thinner, so that lines which coincide all show
    local width = n > 1 and 3.2 - math.min(0.7, 2 / (n - 1)) * (k - 1) or 2.2
    local dash = (series.dash or again) and " dt (6,4)" or ""
    if series.style == "boxes" then
        return ("with boxes fs solid 0.75 noborder lc rgb '%s'"):format(colour)
    elseif series.style == "points" then
        return ("with points pt 7 ps 0.9 lc rgb '%s'"):format(colour)
    elseif series.style == "linespoints" then
        return ("with linespoints pt 7 ps 0.55 lc rgb '%s' lw %.3g%s"):format(colour,
            math.min(width, 2.2), dash)
    end
    return ("with lines lc rgb '%s' lw %.3g%s"):format(colour, width, dash)
end

-- The series of a figure as parts of a plot command, their data added to `blocks`. Returns the
-- parts, and the ends of x and of y and the range of y that they ask for.
function M.parts(figure, blocks)
    local parts, yrange = {}, figure.yrange
    local x, y = { math.huge, -math.huge }, {}
    local n, k = 0, 0
    for _, series in ipairs(figure.series) do
        n = n + (series.style == "reference" and 0 or 1)
    end
    for _, series in ipairs(figure.series) do
        k = k + (series.style == "reference" and 0 or 1)
        local block, least, most = data_block(series, figure)
        if block then
            y = { math.min(y[1] or least, least), math.max(y[2] or most, most) }
            for _, at in ipairs(series.x) do
                if words.drawable(at, figure.xlog) then
                    x = { math.min(x[1], at), math.max(x[2], at) }
                end
            end
            parts[#parts + 1] = ("data index %d using %s %s title %s noenhanced"):format(#blocks,
                series.style == "boxes" and "1:2:3" or "1:2", style_of(series, k, n, figure),
                words.quoted(text.fit(text.one_line(series.label or ""), 40)))
            if series.style == "boxes" and not figure.ylog and least >= 0 then
                yrange = yrange or { 0 } -- a bar's length is its value
            end
            blocks[#blocks + 1] = "# " .. text.one_line(series.label or "") .. "\n" .. block
        end
    end
    return parts, x, y, yrange
end

return M
