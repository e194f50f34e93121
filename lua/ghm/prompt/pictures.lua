-- Pictures at the prompt: in letters at once, and by gnuplot into a file where one is named.

local asked = require "ghm.prompt.asked"
local commands = require "ghm.prompt.commands"
local fault = require "ghm.fault"
local figures = require "ghm.studies.bins_figures"
local gnuplot = require "ghm.show.gnuplot"
local keys = require "ghm.runner.keys"
local results = require "ghm.prompt.results"
local sweep = require "ghm.studies.sweep"
local termpoints = require "ghm.show.termpoints"

local M = {}
local Picture = {}
Picture.__index = Picture

function Picture:__tostring()
    return self.letters .. (self.file and self.file .. "\n" or "")
end

-- Draws a figure into path, whose ending chooses the format; its data and script lie beside it.
local function save(path, figure)
    local base, format = path:match "^(.+)%.(%w+)$"
    if not base or #gnuplot.images { [format] = true } == 0 then
        fault.raise("usage", "save = \"%s\": expected a name that ends with .svg, .png or .pdf",
            path)
    end
    local made, reason = gnuplot.draw(base, figure, { [format] = true })
    if not made then
        fault.raise("failed", "%s", reason)
    end
    return path
end

local function picture(letters, figure, path)
    return setmetatable({ letters = letters, figure = figure, file = path and save(path, figure) },
        Picture)
end

local function save_option(parser)
    parser:option("--save", "draw it into this file too (.svg, .png, .pdf)"):argname "FILE"
end

M.density_spec = { name = "density", keys = keys { "bins", "mu", "eps", single = true },
    options = save_option }

-- value: a stream or data; options: of density_spec, or with `by` those of the script density,
-- which then is asked: it reads the dump again for classes.
function M.density(value, options)
    if type(options) == "table" and options.by then
        return commands.ask("density", value, options)
    end
    local stream, args = commands.stream(value), asked.args(M.density_spec, options)
    local bins, mu = args.keys.bins, stream.task == "regression" and args.keys.mu or nil
    local calls = stream:calls_for { bins = bins, mu = mu }
    local window = args.keys.eps or 1 / bins
    local whole = not sweep.is_soft(calls) and sweep.merged(calls) or nil
    return picture(figures.terminal(calls, whole, bins, mu, window),
        figures.density_figure({ calls = calls, configurations = { { bins = bins } } }, whole, bins,
            window, mu), args.save)
end

-- The lines of one column against another: one for each combination of the other keys.
local function series_of(result, x, y)
    local list, by_name = {}, {}
    for _, row in ipairs(result) do
        local words = {}
        for _, axis in ipairs(result.axes) do
            words[#words + 1] = axis ~= x and row[axis] ~= nil
                and ("%s %s"):format(axis, tostring(row[axis])) or nil
        end
        local name = table.concat(words, ", ")
        if not by_name[name] then
            by_name[name] = { label = name, style = "linespoints", x = {}, y = {} }
            list[#list + 1] = by_name[name]
        end
        local one = by_name[name]
        local n = #one.x + 1
        one.x[n] = type(row[x]) == "number" and row[x] or 0 / 0
        one.y[n] = type(row[y]) == "number" and row[y] or 0 / 0
    end
    return list
end

M.plot_spec = { name = "plot", keys = {}, options = function(parser)
    save_option(parser)
    parser:flag("--log", "a logarithmic y axis")
    parser:flag("--xlog", "a logarithmic x axis")
end }

-- A figure that the study made, into a file.
local function plot_figure(result, name, options)
    local names = {}
    for i, entry in ipairs(result.found.figures or {}) do
        names[i], names[entry.name] = entry.name, entry.figure
    end
    if type(name) ~= "string" or not names[name] then
        fault.raise("usage", "plot(r, X, Y) takes two columns; of figures, r has %s",
            #names > 0 and table.concat(names, ", ") or "none")
    end
    local args = asked.args(M.plot_spec, options)
    if not args.save then
        fault.raise("usage", "the figure '%s' needs a file: plot(r, \"%s\", {save = \"%s.svg\"})",
            name, name, name)
    end
    return picture("", names[name], args.save)
end

-- plot(result, x, y, options), or plot(result, name, options) for a figure that the study made.
function M.plot(result, x, y, options)
    if not results.is(result) then
        fault.raise("usage", "plot takes what a study found, plot(r, \"bins\", \"loss\"), not a %s",
            type(result))
    elseif type(y) == "table" or y == nil then
        return plot_figure(result, x, y)
    end
    local args = asked.args(M.plot_spec, options)
    x, y = results.column(result, x), results.column(result, y)
    local figure = { title = y .. " by " .. x, xlabel = x, ylabel = y, ylog = args.log,
        xlog = args.xlog, series = series_of(result, x, y) }
    figure.key = #figure.series == 1 and "none" or nil
    return picture(termpoints.draw(figure), figure, args.save)
end

return M
