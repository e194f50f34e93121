-- The names that the prompt gives, each with its help.
--
--   names.of "sweep" -> function      names.list() -> list of names      names.help(value)

local asked = require "ghm.prompt.asked"
local commands = require "ghm.prompt.commands"
local display = require "ghm.prompt.display"
local nearest = require "ghm.nearest"
local options = require "ghm.runner.options"
local pictures = require "ghm.prompt.pictures"
local results = require "ghm.prompt.results"
local screen = require "ghm.show.screen"
local text = require "ghm.show.text"

local M = {}

local function width()
    return math.min(screen.width(), 80)
end

-- name -> { run, use (how it is called), brief and says (what it does), spec or study (what its
-- options are) }
local known = {
    load = { run = commands.load, spec = commands.load_spec, use = 'd = load "DUMP"',
        brief = "opens a dump, counts what is in it",
        says = "Opens a dump: a file, a folder or glob of steps, a list of them, or synth:NAME; "
            .. "without one, the bundled real dump. Reads it once and counts what is in it." },
    sketch = { run = commands.sketch, spec = commands.sketch_spec, use = "s = sketch(d)",
        brief = "reads a dump for all questions to come",
        says = "Reads a dump once, for all questions to come: exactly for the bins and mu that "
            .. "are given here. {loss = \"ghmr\"} reads the boxes." },
    density = { run = pictures.density, spec = pictures.density_spec,
        use = "density(s, {bins = 30})", brief = "how the gradient norms are distributed",
        says = "Draws the density of gradient norms in unit regions beside the exact one. "
            .. "{by = \"group,level,class\"} asks the script density: who has which." },
    sweep = { study = "sweep_bins", use = 'r = sweep(s, {bins = "5:50:5"})' },
    plot = { run = pictures.plot, spec = pictures.plot_spec, use = 'plot(r, "bins", "loss")',
        brief = "one column of a result against another",
        says = "Draws one column of a result against another, a line for each value of the other "
            .. "keys. plot(r, \"density\", {save = \"fig.svg\"}) draws a figure of the study." },
    compare = { run = results.compare, use = "compare(r[3], r[9])",
        brief = "what differs between rows, and by how much",
        says = "Sets rows side by side: what differs, and by how much from the first. "
            .. "compare(r[3], r[9], {all = true}) shows what does not differ, too, and intervals."
    },
    help = { use = "help(x)", brief = "what x is: a function, a name in quotes, a value",
        says = "Explains x: a function, a name in quotes, or a value." },
    save = { use = 'save "session.lua"', brief = "what was typed, as a script",
        says = "Writes what was typed as a script: luajit session.lua does it again." },
    show = { use = "show(x)", brief = "shows x, as the prompt does by itself",
        says = "Shows a value, as the prompt does by itself." },
    exit = { use = "exit()", brief = "leaves; so does Ctrl-D", says = "Leaves; Ctrl-D does too." },
}

local order = { "load", "sketch", "density", "sweep", "plot", "compare", "help", "save", "show",
    "exit" }

local function entry_of(name)
    if not known[name] and nearest.is_one_of(name, commands.studies()) then
        known[name] = { study = name, use = ("%s(s, {...})"):format(name) }
    end
    local entry = known[name]
    if entry and entry.study and not entry.run then
        entry.run = function(value, given)
            return commands.ask(entry.study, value, given)
        end
    end
    return entry
end

-- The function of that name, where it is always there; names.of knows the other studies too.
function M.always(name)
    return known[name] and M.of(name)
end

function M.of(name)
    local entry = entry_of(name)
    return entry and entry.run
end

-- The names that are always there, then the other studies.
function M.list()
    local list = {}
    for i, name in ipairs(order) do
        list[i] = name
    end
    for _, name in ipairs(commands.studies()) do
        list[#list + 1] = not nearest.is_one_of(name, list) and name or nil
    end
    return list
end

-- The spec whose options a command takes, or nil.
function M.spec(name)
    local entry = entry_of(name)
    return entry and (entry.spec or entry.study and commands.spec(entry.study))
end

local function wrapped(paragraph)
    return table.concat(text.wrap(paragraph, width()), "\n")
end

local function about(name)
    local entry, spec = entry_of(name), M.spec(name)
    local lines = { entry.use, wrapped(entry.says or spec.question) }
    if spec then
        local rows, names, keys, described = {}, asked.names(spec)
        for i, option in ipairs(names) do
            local key = keys[option]
            local default = key and key.default
            rows[i] = { name = "  " .. option, value = key and ("%s (%s)%s"):format(key.help or "",
                options.limits(key), default ~= nil and "; " .. tostring(default) or "")
                or described[option] }
        end
        lines[#lines + 1] = "\nOptions (a number, {5, 10} or \"5:50:5\", \"log:1e-3:1:7\", ...):"
        lines[#lines + 1] = display.fields(rows, width())
        lines[#lines + 1] = spec.epilog and "\n" .. wrapped(spec.epilog) or nil
    end
    return table.concat(lines, "\n")
end

local function overview()
    local rows = {}
    for i, name in ipairs(M.list()) do
        local entry = entry_of(name)
        rows[i] = { name = entry.use, value = entry.brief or M.spec(name).question }
    end
    return display.fields(rows, width()) .. "\n\n" .. wrapped("help(sweep) says more of one of "
        .. "them. Any Lua may be typed; what has a value shows it. Tab completes names, fields, "
        .. "options and files; Ctrl-C stops a computation.")
end

-- What help(value) says.
function M.help(...)
    if select("#", ...) == 0 then
        return overview()
    end
    local value = ...
    for _, name in ipairs(M.list()) do
        if value == name or value ~= nil and value == M.of(name) then
            return about(name)
        end
    end
    local told = commands.about(value) or results.about(value)
    if told then
        return wrapped(told)
    elseif type(value) == "string" then
        return ("nothing is known of '%s'%s"):format(value, nearest.hint(value, M.list()))
    end
    return "a " .. type(value) .. ":\n" .. display.text(value)
end

return M
