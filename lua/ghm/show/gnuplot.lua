-- Figures by gnuplot: a data file, a script that draws it from any folder, and the images.
--
--   gnuplot.draw(path_base, figure, formats) -> { image paths }, or nil and a reason
--   gnuplot.images(formats)                  -> { "svg", ... }: which images that makes
--
-- Writes PATH_BASE.tsv and PATH_BASE.gp always (fault "failed" if that cannot be) and the images
-- that `formats` has (a set, as of --plot: svg, png, pdf; others are passed over). Without gnuplot
-- the first two remain and the reason tells how to install it.
--
-- figure = {
--   title, xlabel, ylabel, xlog, ylog, xrange = {low, high}, yrange (nil ends are automatic)
--   xstep                     from one tick of the x axis to the next, where it is not automatic
--   key = "outside right" (default) | "below" | "inside" | "inside left" | "none"
--   width, height             in points; PNG has twice as many pixels
--   ordered = true            the series are steps of one quantity: dark to light colours
--   series = { { label, x = {...}, y = {...}, style, dash = bool, colour = index }, ... }
--     style: "lines" (default), "points", "linespoints", "steps", "boxes", or "reference" (a
--     dashed black line). steps and boxes stand on region edges: x has one more entry than y.
--   heat                      cells coloured by a value instead of series: see gnuplot_heat.lua
--   marks = { { x = 0.5 | y = 1, label }, ... }              reference lines
--   panels = { figure, ... }, columns = 2                    small figures in one image, with
--                             the legend of the first one below them all
-- }
-- nil, NaN, infinities and, on a logarithmic axis, numbers not above zero are gaps.

local heats = require "ghm.show.gnuplot_heat"
local posix = require "ghm.posix"
local text = require "ghm.show.text"

local M = {}

-- Okabe and Ito's colours, told apart by colour-blind readers; without their yellow, which is
-- illegible on white, and black, which is kept for references.
M.colours = { "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#777777" }

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

-- A gnuplot string. Single quotes, because double ones run what stands in backticks; control
-- characters would end the line and begin a command; gnuplot reads a doubled quote as an escape
-- only inside a string, not at its start, so a quote becomes an apostrophe.
local function quoted(s)
    return "'" .. text.one_line(tostring(s)):gsub("'", "’") .. "'"
end

local function drawable(v, log)
    return type(v) == "number" and v == v and math.abs(v) < math.huge and (not log or v > 0)
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
        local seen = drawable(v, figure.ylog)
        if regions then
            seen = seen and drawable(x[i], figure.xlog) and drawable(x[i + 1], figure.xlog)
        else
            seen = seen and drawable(x[i], figure.xlog)
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

local function number_or_star(v)
    return v and ("%.15g"):format(v) or "*"
end

-- 1, 2 and 5 times powers of ten, from the last one not above `low` to the first not below `high`.
local function log_tics(low, high)
    local tics = {}
    for power = math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) do
        for _, digit in ipairs { 1, 2, 5 } do
            local at = digit * 10 ^ power
            if at <= low * (1 + 1e-9) then
                tics[1] = at
            elseif #tics < 2 or tics[#tics] < high * (1 - 1e-9) then
                tics[#tics + 1] = at
            end
        end
    end
    return tics
end

local function axis_lines(add, name, log, range, low, high)
    low, high = low or 0, high or 1
    -- powers of ten once a logarithmic axis spans two of them, else plain numbers, 2 and 5 too
    local wide = log and high / low >= 100
    local tics = log and not wide
        and log_tics(range and range[1] or low, range and range[2] or high)
    if tics and tics[1] and not range then -- a tick at the very end is lost by rounding
        range = { tics[1] * (1 - 1e-6), tics[#tics] * (1 + 1e-6) }
    end
    add("set %srange [%s:%s]", name, number_or_star(range and range[1]),
        number_or_star(range and range[2]))
    if not log then
        local format = "%.10g"
        if high >= 1e5 and high < 1e18 and low <= high / 2 then -- "350 k", "1.5 M"
            local leading = high / 1000 ^ math.floor(math.log10(high) / 3)
            format = leading >= 10 and "%.0s %c" or "%.1s %c"
        end
        add("unset logscale %s; set format %s '%s'; unset m%stics", name, name, format, name)
        return
    end
    add("set logscale %s; set format %s %s; set m%stics 10", name, name,
        wide and "'10^{%T}'" or "'%g'", name)
    for k = 1, tics and #tics or 0 do
        tics[k] = ("%.9g"):format(tics[k])
    end
    if tics then
        add("set %stics (%s)", name, table.concat(tics, ", "))
    end
end

-- How one series is drawn: the part of a plot command after its data. k of n is its place among
-- the series that are no references.
local function style_of(series, k, n, figure)
    if series.style == "reference" then
        return "with lines lc rgb '#000000' lw 1.6 dt (8,5)"
    end
    local again = not figure.ordered and (series.colour or k) > #M.colours -- dashes tell it apart
    local colour = figure.ordered and on_scale(n > 1 and (k - 1) / (n - 1) or 0)
        or M.colours[((series.colour or k) - 1) % #M.colours + 1]
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

local function mark_lines(add, marks)
    for _, mark in ipairs(marks or {}) do
        local from, to, at
        if mark.x then
            local x = ("first %.15g"):format(mark.x)
            from, to, at = x .. ", graph 0", x .. ", graph 1", x .. ", graph 1 offset 0.5,-0.6"
        else
            local y = ("first %.15g"):format(mark.y)
            from, to, at = "graph 0, " .. y, "graph 1, " .. y,
                "graph 1, " .. y .. " right offset -0.5,0.6"
        end
        add("set arrow from %s to %s nohead lc rgb '#888888' lw 1 dt (3,4)", from, to)
        if mark.label then
            add("set label %s at %s tc rgb '#666666' noenhanced", quoted(mark.label), at)
        end
    end
end

local keys = {
    ["outside right"] = "set key outside right top vertical",
    below = "set key at screen 0.5, char 1 center bottom horizontal",
    inside = "set key inside right top vertical maxrows auto",
    ["inside left"] = "set key inside left top vertical maxrows auto",
    none = "unset key",
}

-- A title stands left above its plot, smaller when it would not fit `points`.
local function title_line(add, title, points, largest)
    local size = math.floor(1.34 * points / math.max(1, text.width(title)))
    add("set label %s at graph 0, graph 1 left offset 0,0.9 font ',%d' noenhanced", quoted(title),
        math.max(9, math.min(largest, size)))
end

-- Lines that a legend below the plot takes, whose columns are all as wide as the longest label, by
-- the size of a usual letter.
function M.legend_rows(series, points)
    local letters = 0
    for _, one in ipairs(series) do
        letters = math.max(letters, text.width(one.label or "") + 8)
    end
    return math.ceil(#series / math.max(1, math.floor(points / (8 * letters))))
end

-- The series of a figure as parts of a plot command, their data added to `blocks`. Returns the
-- parts, and the ends of x and of y and the range of y that they ask for.
local function series_parts(figure, blocks)
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
                if drawable(at, figure.xlog) then
                    x = { math.min(x[1], at), math.max(x[2], at) }
                end
            end
            parts[#parts + 1] = ("data index %d using %s %s title %s noenhanced"):format(#blocks,
                series.style == "boxes" and "1:2:3" or "1:2", style_of(series, k, n, figure),
                quoted(text.fit(text.one_line(series.label or ""), 40)))
            if series.style == "boxes" and not figure.ylog and least >= 0 then
                yrange = yrange or { 0 } -- a bar's length is its value
            end
            blocks[#blocks + 1] = "# " .. text.one_line(series.label or "") .. "\n" .. block
        end
    end
    return parts, x, y, yrange
end

-- The same of a heat map, and the ends of its colours.
local function heat_parts(figure, blocks)
    local heat = figure.heat
    local block, low, high = heats.block(heat, drawable)
    local x, y = { heat.x[1], heat.x[#heat.x] }, { heat.y[1], heat.y[#heat.y] }
    if not block then
        return {}, x, y, nil
    end
    blocks[#blocks + 1] = "# " .. text.one_line(heat.label or "") .. "\n" .. block
    return { ("data index %d %s"):format(#blocks - 1, heats.style) }, x, y, y, { low, high }
end

-- Adds the commands of one plot to `commands` and its data to `blocks`. key: the command for its
-- legend; points: its width; font: its title's size. Whether anything is drawn.
local function one_plot(figure, blocks, commands, key, points, font)
    local function add(...)
        commands[#commands + 1] = "    " .. (...):format(select(2, ...))
    end
    local parts, x, y, yrange, colours = (figure.heat and heat_parts or series_parts)(figure,
        blocks)
    local drawn = #parts > 0
    add("unset label; unset arrow; unset object; set xtics %s enhanced; "
        .. "set ytics autofreq enhanced", figure.xstep or "autofreq")
    axis_lines(add, "x", figure.xlog, figure.xrange or figure.heat and x, x[1], x[2])
    axis_lines(add, "y", figure.ylog, yrange, y[1], y[2])
    add("set xlabel %s noenhanced", quoted(figure.xlabel or ""))
    add("set ylabel %s noenhanced", quoted(figure.ylabel or ""))
    title_line(add, text.one_line(figure.title or ""), points, font)
    mark_lines(add, figure.marks)
    add("%s", key)
    if key == keys.below then
        add("set bmargin %.3g", 4.5 + 1.3 * M.legend_rows(figure.series, points))
    end
    if colours then
        heats.commands(add, figure.heat, colours[1], colours[2], quoted)
    end
    if not drawn then
        add "unset logscale; set xrange [0:1]; set yrange [0:1]"
        add "set label 'nothing to draw' at graph 0.5, 0.5 center"
        parts[1] = "NaN notitle"
    end
    add("plot %s", table.concat(parts, ", \\\n        "))
    return drawn
end

-- The .gp file -> its text, whether anything is drawn.
local function script(figure, blocks, formats)
    local width, height = figure.width or 860, figure.height or 460
    local commands, drawn = {}, false
    local title = (figure.title or "") ~= ""
    if figure.panels then
        local columns = figure.columns or math.ceil(math.sqrt(#figure.panels))
        local rows = math.ceil(#figure.panels / columns)
        width = figure.width or 430 * columns
        local legend = M.legend_rows(figure.panels[1].series or {}, width)
        height = figure.height or 290 * rows + 20 * legend
        local below = keys.below:gsub("horizontal", "vertical maxrows " .. legend)
        commands[1] = ("    set multiplot layout %d,%d title %s font ',15' noenhanced \\\n"
            .. "        margins char 9, char 3, char %g, char %d spacing char 11, char 7"):format(
            rows, columns, quoted(figure.title or ""), 5 + 1.3 * legend, title and 5 or 2)
        for i, panel in ipairs(figure.panels) do
            local shared = i == 1 and panel.series and #panel.series > 1 and below or keys.none
            local key = (panel.key or ""):find "^inside" and keys[panel.key] or shared
            drawn = one_plot(panel, blocks, commands, key, width / columns - 100, 13) or drawn
        end
        commands[#commands + 1] = "    unset multiplot"
    else
        local key = keys[figure.heat and "none" or figure.key or "outside right"]
        drawn = one_plot(figure, blocks, commands, key, width - 70, 15)
    end
    return ([[
# Draws the .tsv file beside this script: gnuplot THIS_FILE.gp, from any folder.
reset
set encoding utf8
base = ARG0[1:strlen(ARG0) - 3] # no name stands here, so the files can be moved and renamed
data = base . '.tsv'
set border 3 lc rgb '#444444' lw 1
set tics nomirror out scale 0.5, 0.25 tc rgb '#333333'
set grid ytics lt 1 lc rgb '#E0E0E0' lw 0.7
set xlabel offset 0, 0.3
set key Left reverse samplen 2.2 spacing 1.25 noenhanced
set tmargin %d
do for [format in %s] {
    if (format eq 'svg') {
        set terminal svg size %d,%d font 'sans-serif,13' background '#FFFFFF' dynamic
    }
    if (format eq 'png') { # twice the size, for screens of high density
        set terminal pngcairo size %d,%d font 'sans,10' fontscale 2 linewidth 2 pointscale 2
    }
    if (format eq 'pdf') {
        set terminal pdfcairo size %.3gin,%.3gin font 'sans,10' linewidth 1 pointscale 0.6
    }
    set output base . '.' . format
%s
    unset output
}
]]):format(title and 3 or 1, quoted(table.concat(formats, " ")), width, height, 2 * width,
        2 * height, width / 96, height / 96, table.concat(commands, "\n")), drawn
end

function M.images(formats)
    local list = {}
    for _, format in ipairs { "svg", "png", "pdf" } do
        list[#list + 1] = formats[format] and format or nil
    end
    return list
end

-- See the top of the file.
function M.draw(path_base, figure, formats)
    local wanted = M.images(formats)
    local name = text.one_line(path_base:match "[^/]*$")
    local blocks = {}
    local program, drawn = script(figure, blocks, wanted)
    posix.write_file(path_base .. ".tsv", table.concat(blocks, "\n\n\n") .. "\n")
    posix.write_file(path_base .. ".gp", program)
    if not drawn then
        return nil, "no point of '" .. name .. "' can be drawn"
    elseif #wanted == 0 then
        return {}
    end
    local _, missing = posix.capture "command -v gnuplot"
    if missing ~= 0 then
        return nil, "gnuplot is not installed: apt-get install gnuplot-nox"
    end
    local images = {}
    for i, format in ipairs(wanted) do
        images[i] = path_base .. "." .. format
    end
    -- -d: the user's own gnuplot settings would change the figure. A path that begins with a
    -- minus sign would be an option.
    local path = path_base:find "^/" and path_base or "./" .. path_base
    local said, status = posix.capture("gnuplot -d " .. posix.quote(path .. ".gp") .. " 2>&1")
    if status ~= 0 then
        for _, image in ipairs(images) do
            os.remove(image)
        end
        return nil, ("gnuplot could not draw '%s': %s"):format(name,
            text.one_line(said:match "[^\n]*$" or ""))
    end
    return images
end

return M
