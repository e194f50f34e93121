-- Frames of plots made of letters: signs, ends of axes, ticks and their labels. For termplot and
-- termpoints.

local screen = require "ghm.show.screen"
local text = require "ghm.show.text"

local M = {}

local unicode = {
    eighths = { "▁", "▂", "▃", "▄", "▅", "▆", "▇" }, full = "█", empty = "·", reference = "━",
    side = "┤", wall = "│", floor = "─", corner = "└", tick = "┴",
    shades = { " ", "░", "▒", "▓", "█" }, points = { "●", "○", "▲", "△", "■", "□" }, way = "·",
}
M.ascii = {
    eighths = {}, full = "#", empty = ".", reference = "=",
    side = "+", wall = "|", floor = "-", corner = "+", tick = "+",
    shades = { " ", ".", ":", "+", "#" }, points = { "o", "x", "+", "*", "#", "@" }, way = ".",
}

-- The signs to draw with: opts.ascii true or false, else by the locale.
function M.signs_for(opts)
    local plain = opts.ascii
    if plain == nil then
        plain = not screen.is_utf8()
    end
    return plain and M.ascii or unicode
end

local WIDTH = 72 -- of a plot, in letters, where the terminal has room for it

-- The letters that a plot has beside a margin of this width.
function M.room(plot, margin)
    local columns = screen.columns()
    local wanted = plot.width or WIDTH
    return columns and math.min(wanted, columns - margin - 2) or wanted
end

-- Whether a value has a place: finite and, on a logarithmic axis, above zero.
function M.shown(v, log)
    return type(v) == "number" and v == v and math.abs(v) < math.huge and (not log or v > 0)
end

-- The least and the greatest of lists with gaps.
function M.extent(lists, width)
    local low, high = math.huge, -math.huge
    for _, list in ipairs(lists) do
        for c = 1, width do
            if list[c] then
                low, high = math.min(low, list[c]), math.max(high, list[c])
            end
        end
    end
    return low, high
end

-- The round number (1, 2 or 5 times a power of ten) that parts a span into at most five.
function M.round_step(span)
    local unit = 10 ^ math.floor(math.log10(span / 5) + 1e-9)
    for _, factor in ipairs { 1, 2, 5 } do
        if span <= 5 * factor * unit * (1 + 1e-9) then
            return factor * unit
        end
    end
    return 10 * unit
end

-- A number under or beside an axis: 25 k, not 25.0 k, and 0.2, not 0.20000000000000001.
function M.tick_label(x)
    local label = text.number(tonumber(("%.12g"):format(x)))
    return (label:gsub("(%.%d-)0+ ", "%1 "):gsub("%. ", " "))
end

local superscript = { ["0"] = "⁰", ["1"] = "¹", ["2"] = "²", ["3"] = "³", ["4"] = "⁴",
    ["5"] = "⁵", ["6"] = "⁶", ["7"] = "⁷", ["8"] = "⁸", ["9"] = "⁹", ["-"] = "⁻" }

local function power_of_ten(k, signs)
    if signs == M.ascii then
        return ("1e%d"):format(k)
    end
    return "10" .. tostring(k):gsub(".", superscript)
end

-- Labels of the y axis by row, each in the row whose lower side is nearest to its value. Rows
-- count from the top of the bars, 1 to height; row 0 lies above them, for the end of the axis.
function M.y_labels(bottom, top, height, log, signs)
    local labels = {}
    local step = log and math.ceil((top - bottom) / (height / 2)) or M.round_step(top - bottom)
    for k = 0, math.floor((top - bottom) / step + 1e-9) do
        local value = bottom + k * step
        local row = height - math.floor((value - bottom) / (top - bottom) * height + 0.5)
        labels[row] = labels[row] or log and power_of_ten(value, signs)
            or M.tick_label(value)
    end
    return labels
end

-- At most `most` of n places, evenly chosen, first and last among them.
function M.some_of(n, most)
    local places = {}
    for k = 1, math.min(n, most) do
        places[k] = n <= most and k or math.floor((k - 1) * (n - 1) / (most - 1) + 1.5)
    end
    return places
end

-- The floor of the frame with its ticks, and the labels under them.
--   ticks   list of { column (from 0), label }, rising; a label without room is left out
function M.x_axis(ticks, width, margin, signs)
    local floor, line, taken = {}, "", 0
    for c = 1, width do
        floor[c] = signs.floor
    end
    for _, tick in ipairs(ticks) do
        floor[tick.column + 1] = signs.tick
        local from = math.max(0, margin + 1 + tick.column - math.floor(text.width(tick.label) / 2))
        if from >= taken then
            line = text.pad(line, from) .. tick.label
            taken = from + text.width(tick.label) + 1
        end
    end
    return (" "):rep(margin) .. signs.corner .. table.concat(floor), line
end

return M
