-- Figures by gnuplot: a data file, a script that draws it from any folder, and the images.
--
--   gnuplot.draw(path_base, figure, formats) -> { image paths }, or nil and a reason
--   gnuplot.images(formats)                  -> { "svg", ... }: which images that makes
--
-- Writes PATH_BASE.tsv and PATH_BASE.gp always and the images that `formats` has (a set, as of
-- --plot: svg, png, pdf; others are passed over); fault "failed" if one cannot be written. Without
-- gnuplot the first two remain and the reason tells how to install it.
--
-- figure = {
--   title, xlabel, ylabel, xlog, ylog, xrange = {low, high}, yrange (nil ends are automatic)
--   xstep                     from one tick of the x axis to the next, where it is not automatic
--   key = "outside right" (default, with room) | "below" | "inside" | "inside left" | "none"
--   width, height             in points, without the legend below; PNG has twice as many pixels
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

local axes = require "ghm.show.gnuplot_axes"
local gnuplot_series = require "ghm.show.gnuplot_series"
local heats = require "ghm.show.gnuplot_heat"
local keys = require "ghm.show.gnuplot_key"
local posix = require "ghm.posix"
local run = require "ghm.show.gnuplot_run"
local text = require "ghm.show.text"
local words = require "ghm.show.gnuplot_words"

local M = {}

-- ends: of the x axis; a label near the right one stands left of its line.
local function mark_lines(add, marks, ends, log)
    local function scale(v)
        return log and math.log(v) or v
    end
    for _, mark in ipairs(marks or {}) do
        local from, to, at
        if mark.x then
            local x = ("first %.15g"):format(mark.x)
            local right = scale(mark.x) - scale(ends[1]) > 0.85 * (scale(ends[2]) - scale(ends[1]))
            from, to, at = x .. ", graph 0", x .. ", graph 1", x .. ", graph 1 "
                .. (right and "right offset -0.5,-0.6" or "offset 0.5,-0.6")
        else
            local y = ("first %.15g"):format(mark.y)
            from, to, at = "graph 0, " .. y, "graph 1, " .. y,
                "graph 1, " .. y .. " right offset -0.5,0.6"
        end
        add("set arrow from %s to %s nohead lc rgb '#888888' lw 1 dt (3,4)", from, to)
        if mark.label then
            add("set label %s at %s tc rgb '#666666' noenhanced", words.quoted(mark.label), at)
        end
    end
end

-- A title stands left above its plot, smaller when it would not fit `points`.
local function title_line(add, title, points, largest)
    local size = math.floor(1.34 * points / math.max(1, text.width(title)))
    add("set label %s at graph 0, graph 1 left offset 0,0.9 font ',%d' noenhanced",
        words.quoted(title), math.max(9, math.min(largest, size)))
end

-- The same of a heat map, and the ends of its colours.
local function heat_parts(figure, blocks)
    local heat = figure.heat
    local block, low, high = heats.block(heat)
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
    local parts_of = figure.heat and heat_parts or gnuplot_series.parts
    local parts, x, y, yrange, colours = parts_of(figure, blocks)
    local drawn = #parts > 0
    add("unset label; unset arrow; unset object; set xtics %s enhanced; "
        .. "set ytics autofreq enhanced", figure.xstep or "autofreq")
    axes.lines(add, "x", figure.xlog, figure.xrange or figure.heat and x, x[1], x[2])
    axes.lines(add, "y", figure.ylog, yrange, y[1], y[2])
    add("set xlabel %s noenhanced", words.quoted(figure.xlabel or ""))
    add("set ylabel %s noenhanced", words.quoted(figure.ylabel or ""))
    title_line(add, text.one_line(figure.title or ""), points, font)
    local headroom = 0 -- for the labels of marks, which stand below the upper end
    for _, mark in ipairs(figure.marks or {}) do
        headroom = mark.x and mark.label and not figure.ylog and 0.08 or headroom
    end
    add("set offsets 0, 0, graph %g, 0", headroom)
    mark_lines(add, figure.marks, x, figure.xlog)
    add("%s", key)
    if key == keys.commands.below then
        add("set bmargin %.3g", 4.5 + 1.3 * keys.rows(figure.series, points))
    end
    if colours then
        heats.commands(add, figure.heat, colours[1], colours[2])
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
        local legend = keys.rows(figure.panels[1].series or {}, width)
        -- gnuplot leaves out what of a legend is higher than the plot that has it
        local more = math.max(0, 23 * legend - 120)
        height = (figure.height or 290 * rows) + keys.LINE * legend + more * rows
        local below = keys.commands.below:gsub("horizontal", "vertical maxrows " .. legend)
        commands[1] = ("    set multiplot layout %d,%d title %s font ',15' noenhanced \\\n"
            .. "        margins char 9, char 3, char %g, char %d spacing char 11, char 7"):format(
            rows, columns, words.quoted(figure.title or ""), 5 + 1.3 * legend, title and 5 or 2)
        for i, panel in ipairs(figure.panels) do
            local shared = i == 1 and panel.series and #panel.series > 1 and below
                or keys.commands.none
            local key = (panel.key or ""):find "^inside" and keys.commands[panel.key] or shared
            drawn = one_plot(panel, blocks, commands, key, width / columns - 100, 13) or drawn
        end
        commands[#commands + 1] = "    unset multiplot"
    else
        local place = keys.place(figure)
        height = height
            + (place == "below" and keys.LINE * keys.rows(figure.series, width - 70) or 0)
        drawn = one_plot(figure, blocks, commands, keys.commands[place], width - 70, 15)
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
]]):format(title and 3 or 1, words.quoted(table.concat(formats, " ")), width, height, 2 * width,
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
    local blocks = {}
    local program, drawn = script(figure, blocks, wanted)
    posix.write_file(path_base .. ".tsv", table.concat(blocks, "\n\n\n") .. "\n")
    posix.write_file(path_base .. ".gp", program)
    if not drawn then
        return nil, ("no point of '%s' can be drawn"):format(
            text.one_line(path_base:match "[^/]*$"))
    elseif #wanted == 0 then
        return {}
    end
    local images = {}
    for i, format in ipairs(wanted) do
        images[i] = path_base .. "." .. format
    end
    local drawn_all, reason = run(path_base, images)
    return drawn_all and images or nil, reason
end

return M
