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

-- The figure's title is text of the page, which breaks into lines.
local function narrow(figure)
    local copy = { title = "", width = WIDTH, columns = 1 }
    copy.height = HEIGHT * (figure.panels and #figure.panels or 1)
    if figure.series and not (figure.key or ""):find "inside" and figure.key ~= "none" then
        copy.key = "below"
    end
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
