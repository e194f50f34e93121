-- Lines through points, made of letters: what gnuplot draws as "linespoints", for a terminal.
--
--   termpoints.draw(figure) -> string (lines ended with \n)
--
-- figure: as of ghm.show.gnuplot: title, xlabel, ylabel, xlog, ylog, series of { label, x, y };
-- and width (72), height (14) of the field, in letters; ascii. Each series has a sign of its own;
-- of two points in one place the later one shows.

local axes = require "ghm.show.termaxes"
local text = require "ghm.show.text"

local M = {}

local MARGIN = 8 -- letters of a label beside the y axis
local TICKS = 12 -- labels under the x axis, at most: those of the points

local function place_of(v, log)
    return log and math.log10(v) or v
end

-- The points of a series that can be drawn: list of { x, y }, places on the axes, false for a gap.
local function points_of(series, figure)
    local points = {}
    for i, x in ipairs(series.x) do
        local y = series.y[i]
        points[i] = axes.shown(x, figure.xlog) and axes.shown(y, figure.ylog)
            and { x = place_of(x, figure.xlog), y = place_of(y, figure.ylog), label = x }
    end
    return points
end

-- Calls visit(point) for each point of all lines that can be drawn.
local function each(lines, visit)
    for _, points in ipairs(lines) do
        for _, point in ipairs(points) do
            if point then
                visit(point)
            end
        end
    end
end

local function extents(lines)
    local x, y = { math.huge, -math.huge }, { math.huge, -math.huge }
    each(lines, function(point)
        x[1], x[2] = math.min(x[1], point.x), math.max(x[2], point.x)
        y[1], y[2] = math.min(y[1], point.y), math.max(y[2], point.y)
    end)
    return x, y
end

-- The ends of the y axis: round numbers, or whole powers of ten, around what there is.
local function around(range, log)
    local step = log and 1 or range[2] > range[1] and axes.round_step(range[2] - range[1])
        or math.max(math.abs(range[1]), 1) / 2
    local bottom = math.floor(range[1] / step + 1e-9) * step
    return bottom, math.max(math.ceil(range[2] / step - 1e-9) * step, bottom + step)
end

-- Where each point lies among width x height cells, and the way between neighbours.
local function fill(cells, points, sign, way, column, row)
    for i = 2, #points do
        local a, b = points[i - 1], points[i]
        if a and b then
            local from, to = column(a.x), column(b.x)
            for c = math.min(from, to) + 1, math.max(from, to) - 1 do
                local f = (c - from) / (to - from)
                local r = row(a.y + (b.y - a.y) * f)
                cells[r][c] = cells[r][c] or way
            end
        end
    end
    for _, point in ipairs(points) do
        if point then
            cells[row(point.y)][column(point.x)] = sign
        end
    end
end

local function ticks_of(lines, column)
    local labels, seen, ticks = {}, {}, {}
    each(lines, function(point)
        if not seen[point.label] then
            seen[point.label] = true
            labels[#labels + 1] = point
        end
    end)
    table.sort(labels, function(a, b)
        return a.x < b.x
    end)
    for i, at in ipairs(axes.some_of(#labels, TICKS)) do
        ticks[i] = { column = column(labels[at].x), label = axes.tick_label(labels[at].label) }
    end
    return ticks
end

local function legend(figure, signs)
    local words = {}
    for k, series in ipairs(#figure.series > 1 and figure.series or {}) do
        words[k] = signs.points[(k - 1) % #signs.points + 1] .. " " .. text.one_line(series.label)
    end
    return table.concat(words, "   ")
end

function M.draw(figure)
    local signs = axes.signs_for(figure)
    local width, height = axes.room(figure, MARGIN), figure.height or 14
    local lines, out = {}, { figure.title and text.one_line(figure.title) }
    for k, series in ipairs(figure.series) do
        lines[k] = points_of(series, figure)
    end
    local xs, ys = extents(lines)
    if xs[1] > xs[2] then
        out[#out + 1] = "(no point can be drawn)"
        return table.concat(out, "\n") .. "\n"
    end
    local bottom, top = around(ys, figure.ylog)
    local span = xs[2] - xs[1]
    local function column(x)
        return math.floor((span > 0 and (x - xs[1]) / span or 0.5) * (width - 1) + 0.5)
    end
    local function row(y)
        return math.min(height, math.max(1,
            height - math.floor((y - bottom) / (top - bottom) * (height - 1) + 0.5)))
    end
    local cells = {}
    for r = 1, height do
        cells[r] = {}
    end
    for k, points in ipairs(lines) do
        fill(cells, points, signs.points[(k - 1) % #signs.points + 1], signs.way, column, row)
    end
    local labels, margin = axes.y_labels(bottom, top, height - 1, figure.ylog, signs), 3
    for r = 0, height - 1 do
        margin = math.max(margin, text.width(labels[r] or "") + 1)
    end
    out[#out + 1] = figure.ylabel and (" "):rep(margin) .. text.one_line(figure.ylabel)
    for r = 1, height do
        local letters, label = {}, labels[r - 1]
        for c = 0, width - 1 do
            letters[c + 1] = cells[r][c] or " "
        end
        out[#out + 1] = text.pad((label or "") .. " ", margin, "right")
            .. (label and signs.side or signs.wall) .. table.concat(letters):gsub(" +$", "")
    end
    out[#out + 1], out[#out + 2] = axes.x_axis(ticks_of(lines, column), width, margin, signs)
    local named = legend(figure, signs)
    out[#out + 1] = (" "):rep(margin + 1) .. text.pad(text.one_line(figure.xlabel or "") .. "  ",
        width - text.width(named)) .. named
    return table.concat(out, "\n"):gsub(" +\n", "\n"):gsub(" +$", "") .. "\n"
end

return M
