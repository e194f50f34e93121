-- A figure as a phone shows it: one column of it, no wider than the letters need, and the legend
-- below.
--
--   narrow.svg(path_base, figure) -> the text of an SVG without title, or nil
--
-- figure: of gnuplot.lua. PATH_BASE.* are written, read and removed again.

local gnuplot = require "ghm.show.gnuplot"
local posix = require "ghm.posix"

local M = {}

local WIDTH, HEIGHT = 400, 290 -- of one plot, without what its legend takes
local LINE = 21 -- of a legend

-- The figure's title is text of the page, which breaks into lines.
local function narrow(figure)
    local copy = { title = "", width = WIDTH, columns = 1 }
    local plots, legend = figure.panels and #figure.panels or 1, 0
    if figure.panels then
        legend = gnuplot.legend_rows(figure.panels[1].series or {}, WIDTH)
    elseif figure.series and not (figure.key or ""):find "inside" and figure.key ~= "none" then
        copy.key = "below"
        legend = gnuplot.legend_rows(figure.series, WIDTH - 70)
    end
    copy.height = HEIGHT * plots + LINE * legend
    return setmetatable(copy, { __index = figure })
end

function M.svg(path_base, figure)
    gnuplot.draw(path_base, narrow(figure), { svg = true })
    local drawn = posix.read_file(path_base .. ".svg")
    for _, extension in ipairs { ".svg", ".gp", ".tsv" } do
        os.remove(path_base .. extension)
    end
    return drawn
end

return M
