-- Plots made of letters, for a terminal with any background.
--
--   termplot.steps { title, edges, values, log = true, ... } -> string (lines ended with \n)
--   termplot.heat { title, x, z, names, log = true, ... } -> string: a row of shades for each list
--   termplot.sparkline(values, { log, ascii }) -> one line, a letter for each value
--
-- Without a UTF-8 locale (or with ascii = true) bars are '#' and the frame '|', '-', '+'.

local axes = require "ghm.show.termaxes"
local text = require "ghm.show.text"

local M = {}

local MARGIN = 6 -- letters of a label beside the y axis

local ascii, signs_for, shown = axes.ascii, axes.signs_for, axes.shown
local extent, some_of = axes.extent, axes.some_of

-- The value of each of `width` columns: the mean over the column, by overlap, of the regions that
-- have one; nil where none has. Two regions never hide each other.
local function columns_of(edges, values, width, log)
    local first, span = edges[1], edges[#edges] - edges[1]
    local sums, weights, result = {}, {}, {}
    for j = 1, #edges - 1 do
        if shown(values[j], log) then
            local from = (edges[j] - first) / span * width
            local to = (edges[j + 1] - first) / span * width
            -- the small shift keeps an edge that falls on a column's side out of the next column
            for c = math.floor(from + 1e-9), math.min(width, math.ceil(to - 1e-9)) - 1 do
                local overlap = math.min(to, c + 1) - math.max(from, c)
                sums[c] = (sums[c] or 0) + overlap * values[j]
                weights[c] = (weights[c] or 0) + overlap
            end
        end
    end
    for c = 0, width - 1 do
        result[c + 1] = weights[c] and weights[c] > 0 and sums[c] / weights[c] or nil
    end
    return result
end

-- The ends of the y axis: on a logarithmic one (in powers of ten) a whole power below the data and
-- the largest value, at least one power on; on a linear one 0 and the next round number.
local function bounds(low, high, log)
    if log then
        local bottom = math.floor(math.log10(low) + 1e-9)
        if math.log10(low) - bottom < 0.02 then
            bottom = bottom - 1 -- the smallest value keeps a bar of its own
        end
        return bottom, math.max(bottom + 1, math.log10(high))
    end
    local bottom, top = math.min(0, low), math.max(0, high)
    if top == bottom then
        return 0, 1
    end
    local step = axes.round_step(top - bottom)
    return math.floor(bottom / step + 1e-9) * step, math.ceil(top / step - 1e-9) * step
end

local function bar_cell(level, signs)
    if level >= 1 then
        return signs.full
    elseif level <= 0 then
        return " "
    elseif signs == ascii then
        return level >= 0.5 and signs.full or " "
    end
    local eighth = math.floor(level * 8 + 0.5)
    return eighth >= 8 and signs.full or signs.eighths[eighth] or " "
end

-- One row of bars: row counted from the top; heights and marks in rows from the bottom.
local function bar_row(row, height, heights, marks, signs)
    local base, cells = height - row, {}
    for c = 1, heights.n do
        local h = heights[c]
        if marks and marks[c] and math.floor(math.min(marks[c], height - 0.01)) == base then
            cells[c] = signs.reference
        elseif h then
            -- every value shows: at least one eighth (a whole letter in ASCII) in the lowest row
            local level = row == height and math.max(h, signs == ascii and 1 or 0.125) or h - base
            cells[c] = bar_cell(level, signs)
        else
            cells[c] = row == height and signs.empty or " "
        end
    end
    return table.concat(cells)
end

-- The floor with a label at each fifth.
local function x_axis(edges, width, margin, signs)
    local ticks = {}
    for k = 0, 5 do
        local x = edges[1] + (edges[#edges] - edges[1]) * k / 5
        ticks[k + 1] = { column = math.floor(k / 5 * (width - 1) + 0.5),
            label = axes.tick_label(x) }
    end
    return axes.x_axis(ticks, width, margin, signs)
end

-- The same for columns that have names: as many of them as there is room for.
local function x_names(names, width, margin, signs)
    local widest = 1
    for _, name in ipairs(names) do
        widest = math.max(widest, text.width(name) + 1)
    end
    local floor, line = signs.floor:rep(width), ""
    for _, k in ipairs(some_of(#names, math.max(2, math.floor(width / widest)))) do
        local middle = margin + 1 + (k - 0.5) / #names * width
        line = text.pad(line, math.floor(middle - text.width(names[k]) / 2)) .. names[k]
    end
    return (" "):rep(margin) .. signs.corner .. floor, line
end

-- An end of a heat map's values.
local function short(x)
    return axes.tick_label(tonumber(("%.2g"):format(x)))
end

-- Bars over regions.
--   edges     n + 1 rising numbers; values: n numbers, anything that is no finite number (or, on
--             a log axis, not above zero) being an empty region, shown as a dot on the floor
--   log       logarithmic y axis, labelled at powers of ten
--   title, xlabel, ylabel    texts;  width (see axes.room), height (12): the bars, in letters
--   reference { edges, values }: drawn as a line over the bars;  ascii: see the top of the file
function M.steps(plot)
    local signs = signs_for(plot)
    local width, height, log = axes.room(plot, MARGIN), plot.height or 12, plot.log
    local values = columns_of(plot.edges, plot.values, width, log)
    local line = plot.reference
        and columns_of(plot.reference.edges, plot.reference.values, width, log)
    local low, high = extent({ values, line or nil }, width)
    local lines = {}
    if plot.title then
        lines[1] = text.one_line(plot.title)
    end
    if high == -math.huge then
        lines[#lines + 1] = "(every region is empty)"
        return table.concat(lines, "\n") .. "\n"
    end
    local bottom, top = bounds(low, high, log)
    local function rows_of(list)
        local rows = { n = width }
        for c = 1, width do
            local v = list[c] and (log and math.log10(list[c]) or list[c])
            rows[c] = v and (v - bottom) / (top - bottom) * height
        end
        return rows
    end
    local heights, marks = rows_of(values), line and rows_of(line)
    local labels, margin = axes.y_labels(bottom, top, height, log, signs), 3
    for row = 0, height do
        margin = math.max(margin, text.width(labels[row] or "") + 1)
    end
    if plot.ylabel then
        lines[#lines + 1] = (" "):rep(margin) .. text.one_line(plot.ylabel)
    end
    -- the row above the bars carries the topmost label, where there is one
    for row = labels[0] and 0 or 1, height do
        local label = labels[row]
        lines[#lines + 1] = text.pad((label or "") .. " ", margin, "right")
            .. (label and signs.side or signs.wall)
            .. bar_row(row, height, heights, marks, signs):gsub(" +$", "")
    end
    lines[#lines + 1], lines[#lines + 2] = x_axis(plot.edges, width, margin, signs)
    local notes = {}
    for c = 1, width do
        if not values[c] then
            notes[1] = signs.empty .. " empty region"
        end
    end
    if line then
        notes[#notes + 1] = signs.reference .. " " .. (plot.reference.label or "reference")
    end
    local foot = table.concat(notes, "   ")
    local xlabel, indent = text.one_line(plot.xlabel or ""), (" "):rep(margin + 1)
    local room = width - text.width(foot)
    if xlabel ~= "" and text.width(xlabel) + 2 > room and foot ~= "" then
        lines[#lines + 1], lines[#lines + 2] = indent .. xlabel, indent .. foot
    elseif xlabel .. foot ~= "" then
        lines[#lines + 1] = (indent .. text.pad(xlabel, room) .. foot):gsub(" +$", "")
    end
    return table.concat(lines, "\n") .. "\n"
end

-- Shades over a grid, the first list on top; darker on a light terminal, lighter on a dark one.
--   x      n + 1 rising numbers: the sides of the columns;  z: lists of n numbers
--   names  one for each list;  xnames   one for each column, in place of numbers at their sides
--   xlabel, title, label (what a shade says)    texts
--   log, width (72), ascii: as for steps;  height (24): rows at most, evenly chosen
--   range = {low, high}: of the shades, beyond which they do not change
function M.heat(plot)
    local signs, log, margin = signs_for(plot), plot.log, 3
    local low, high, rows = math.huge, -math.huge, {}
    for i, at in ipairs(some_of(#plot.z, plot.height or 24)) do
        rows[i] = { name = text.fit(text.one_line(plot.names[at]), 28, 4), at = at }
        margin = math.max(margin, text.width(rows[i].name) + 1)
    end
    local width = axes.room(plot, margin)
    for _, row in ipairs(rows) do
        row.values = columns_of(plot.x, plot.z[row.at], width, log)
        local least, most = extent({ row.values }, width)
        low, high = math.min(low, least), math.max(high, most)
    end
    local lines = { plot.title and text.one_line(plot.title) }
    if high == -math.huge then
        lines[#lines + 1] = "(every cell is empty)"
        return table.concat(lines, "\n") .. "\n"
    end
    low, high = unpack(plot.range or { low, high })
    local function place(v)
        v = math.min(math.max(v, low), high)
        return log and math.log10(v) or v
    end
    local span, empty = place(high) - place(low), false
    for _, row in ipairs(rows) do
        local cells = {}
        for c = 1, width do
            local v = row.values[c]
            local f = v and (span > 0 and (place(v) - place(low)) / span or 0.5)
            cells[c] = f and signs.shades[math.min(5, math.floor(f * 5) + 1)] or signs.empty
            empty = empty or not f
        end
        lines[#lines + 1] = text.pad(row.name .. " ", margin, "right") .. signs.wall
            .. table.concat(cells):gsub(" +$", "")
    end
    lines[#lines + 1], lines[#lines + 2] = (plot.xnames and x_names or x_axis)(
        plot.xnames or plot.x, width, margin, signs)
    local foot = ("'%s' %s  to  %s %s%s%s"):format(signs.shades[1], short(low),
        signs.shades[5], short(high), plot.label and "  " .. plot.label or "",
        empty and "   " .. signs.empty .. " empty region" or "")
    lines[#lines + 1] = ((" "):rep(margin + 1) .. text.pad(text.one_line(plot.xlabel or ""),
        width - text.width(foot) - 1) .. " " .. foot)
    return table.concat(lines, "\n") .. "\n"
end

-- One letter for each value, from its least to its largest; a blank where there is none.
function M.sparkline(values, opts)
    opts = opts or {}
    local signs = signs_for(opts)
    local levels = signs == ascii and { "_", ".", "-", "=", "#" }
        or { "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█" }
    local list, n = {}, opts.n or #values
    for i = 1, n do
        local v = values[i]
        list[i] = shown(v, opts.log) and (opts.log and math.log10(v) or v) or nil
    end
    local low, high = extent({ list }, n)
    local cells = {}
    for i = 1, n do
        local f = list[i] and (high > low and (list[i] - low) / (high - low) or 0.5)
        cells[i] = f and levels[math.min(#levels, math.floor(f * #levels) + 1)] or " "
    end
    return table.concat(cells)
end

return M
