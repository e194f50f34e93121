-- What the prompt adds to Lua: load a dump, sketch it, put questions to the sketch.
--
--   d = load "step.npz"        s = sketch(d)        r = sweep_bins(s, { bins = "5:50:5" })
--
-- Every script of experiments/ that is a study is a function of the same name.

local array = require "ghm.array"
local asked = require "ghm.prompt.asked"
local cli = require "ghm.runner.cli"
local declared = require "ghm.declared"
local dump = require "ghm.dumps.dump"
local experiment = require "ghm.runner.experiment"
local fault = require "ghm.fault"
local keys = require "ghm.runner.keys"
local loss_option = require "ghm.runner.loss_option"
local posix = require "ghm.posix"
local progress = require "ghm.runner.progress"
local reading = require "ghm.runner.reading"
local results = require "ghm.prompt.results"
local sketches = require "ghm.sketches"
local sources = require "ghm.dumps.source"
local sweep = require "ghm.studies.sweep"
local telling = require "ghm.runner.telling"
local text = require "ghm.show.text"

local M = {}
local Data, Stream = {}, {}
Data.__index, Stream.__index = Data, Stream

M.scripts = assert(posix.real_path(debug.getinfo(1, "S").source:match "^@(.*)/lua/ghm/prompt/")
    or posix.real_path ".") .. "/experiments"

-- What load and sketch take, as specs of ghm.cli.
M.load_spec = {
    name = "load", question = "Opens a dump and counts what is in it.",
    keys = keys { "labels", single = true }, options = loss_option.add,
    common = { "logits", "pred", "target", "labels", "weight", "calls", "seed" },
}
M.sketch_spec = {
    name = "sketch", question = "Reads a dump once, for all questions to come.",
    keys = keys { "bins", "mu", bins = "1:128:1" }, options = loss_option.add,
    common = { "nonfinite", "seed", "samples" },
}

-- -- data ----------------------------------------------------------------------------------------

-- Reads the steps that args mean. spec: as of sweep.read; what it does not say sketches answer as
-- sketch_spec has it, or as sketch files do.
local function read(args, task, spec)
    local source = sources.open(args, task)
    if not spec.bins and not source.saved then
        local default = asked.args(M.sketch_spec).keys
        spec.bins, spec.mu = default.bins, default.mu
    end
    return sweep.read(source, { bins = spec.bins, mu = task == "regression" and spec.mu or nil,
        knots = spec.knots, views = spec.views, collect = spec.collect,
        nonfinite = spec.nonfinite, progress = progress.of(args, "steps"),
        tell = telling.refusals() }), source.saved ~= nil
end

-- words: a DUMP word or a list of them; none: the bundled dump. options: of load_spec.
-- Reads everything once: what is not finite is counted, not refused; sketch refuses it.
-- Says on stdout what there is: d = load "x" would not, and a dump is best known early.
-- commands.announced is the data that was told of last, so that the prompt need not repeat it.
function M.load(words, options)
    words = type(words) == "string" and { words } or words or {}
    if type(words) ~= "table" then
        fault.raise("usage", "load takes a file, a folder, a glob or a list of them, not a %s",
            type(words))
    end
    local args = asked.args(M.load_spec, options, words)
    args.default_dump = M.scripts .. "/digits"
    local self = setmetatable({ args = args, task = loss_option.task(args.loss), samples = 0,
        nonfinite = 0 }, Data)
    self.calls, self.saved = read(args, self.task, { nonfinite = "ignore" })
    for _, call in ipairs(self.calls) do
        self.samples = self.samples + call.facts.samples
        self.nonfinite = self.nonfinite + call.facts.nonfinite
    end
    io.write(tostring(self), "\n")
    M.announced = self
    return self
end

-- The arrays of a call as "logits f2[155000,80]", and how they are stored.
local function arrays_of(call)
    local path = not call.step.saved and call.step.path
    local file = path and dump.open(path)
    local words = {}
    local stored = { [call.step.saved and "sketched" or not file and "synthetic"] = true }
    for _, part in ipairs { "pred", "target", "labels", "weight" } do
        local name = call.names[part]
        local entry = name and file and file.entries[name]
        if entry then
            words[#words + 1] = ("%s %s%s"):format(name, entry.dtype,
                array.shape_text(entry.shape))
            stored[entry.stored] = true
        elseif name then
            words[#words + 1] = name .. (part == "pred" and array.shape_text(call.shape) or "")
        end
    end
    if file then
        file:close()
    end
    stored[false] = nil
    local how = {}
    for word in pairs(stored) do
        how[#how + 1] = word
    end
    table.sort(how)
    return words, table.concat(how, ", ")
end

function Data:__tostring()
    local words, stored = arrays_of(self.calls[1])
    local steps, n, facts = {}, 0, {}
    for _, call in ipairs(self.calls) do
        n = n + (steps[call.step] and 0 or 1)
        steps[call.step] = true
    end
    if n > 1 then
        facts[1] = n .. " steps"
    end
    if #self.calls > n then
        facts[#facts + 1] = #self.calls .. " calls"
    end
    facts[#facts + 1] = text.count(self.samples, "sample")
    facts[#facts + 1] = text.number(self.nonfinite) .. " non-finite"
    facts[#facts + 1] = "(" .. stored .. ")"
    local arrays, sums = table.concat(words, "  "), table.concat(facts, "  ")
    return arrays .. (text.width(arrays .. sums) < 90 and "  " or "\n") .. sums
end

-- -- sketches ------------------------------------------------------------------------------------

-- data: of load, or words for it; options: of sketch_spec.
function M.sketch(data, options)
    if type(data) == "string" then
        data = M.load(data)
    elseif getmetatable(data) ~= Data then
        fault.raise("usage", "sketch takes what load gave, or a DUMP in quotes, not %s",
            data == nil and "nil" or "a " .. type(data))
    end
    local args = asked.args(M.sketch_spec, options)
    local task = args.loss and loss_option.task(args.loss) or data.task
    if task == "classification" and args.given.mu then
        fault.raise("usage", "mu: GHM-C has none; {loss = \"ghmr\"} has")
    end
    local self = setmetatable({ task = task, data = data, calls = data.calls }, Stream)
    local given = args.given.bins or args.given.mu
    if task ~= data.task or given or data.nonfinite > 0 and args.nonfinite ~= "ignore" then
        self.calls = read(data.args, task, { bins = given and args.keys.bins or nil,
            mu = given and args.keys.mu or nil, nonfinite = args.nonfinite })
    end
    self.nonfinite = args.nonfinite
    return self
end

-- A stream, or what a sketch can be made of.
function M.stream(value)
    if getmetatable(value) == Stream then
        return value
    elseif getmetatable(value) == Data then
        return M.sketch(value)
    end
    fault.raise("usage", "expected what sketch or load gave, not %s",
        value == nil and "nil" or "a " .. type(value))
end

function Stream:__tostring()
    local valid = 0
    for _, call in ipairs(self.calls) do
        valid = valid + call.facts.valid
    end
    local told = declared.of(self.calls[1].sketch)
    return ("sketch of %d call%s, %s valid samples, %s, for bins %s%s"):format(#self.calls,
        #self.calls == 1 and "" or "s", text.number(valid), self.task, text.ranges(told.bins),
        self.task == "regression" and ", mu " .. text.ranges(told.mu) or "")
end

local function union(a, b)
    local list, seen = {}, {}
    for _, from in ipairs { a, type(b) == "number" and { b } or b or {} } do
        for _, value in ipairs(from) do
            list[#list + 1] = not seen[value] and value or nil
            seen[value] = true
        end
    end
    table.sort(list)
    return list
end

-- The calls, of sketches that answer what is wanted: { bins, mu, knots, views, collect } as of
-- sweep.read. The dump is read again for further bins, mu or knots, which the stream then has too;
-- and for a study's own views of the data.
function Stream:calls_for(wanted)
    local probe = sketches.new { task = self.task, bins = wanted.bins, mu = wanted.mu,
        knots = wanted.knots }
    local first = self.calls[1].sketch
    local ok, problem = pcall(declared.must_answer, first, probe, "s")
    if ok and not wanted.views and not wanted.collect then
        return self.calls
    elseif self.data.saved and not ok then
        error(problem, 0)
    end
    local known = declared.of(first)
    local calls = read(self.data.args, self.task, { bins = union(known.bins, wanted.bins),
        mu = union(known.mu, wanted.mu), knots = union(known.knots, wanted.knots),
        nonfinite = self.nonfinite, views = wanted.views, collect = wanted.collect })
    if not wanted.collect then
        self.calls = calls
    end
    return calls
end

-- What help(value) says of data or a sketch; nil of anything else.
function M.about(value)
    if getmetatable(value) == Data then
        return "what load gave: sketch(d) reads it for questions, d alone says what is in it."
    elseif getmetatable(value) == Stream then
        return tostring(value) .. ": what sketch gave; density(s), sweep(s) and the other studies "
            .. "ask it. s.calls[1].sketch is the first call's own (ghm.sketches)."
    end
end

-- -- studies -------------------------------------------------------------------------------------

local found_studies

-- The names of the scripts that are studies, in order.
function M.studies()
    if not found_studies then
        local list = {}
        for path in posix.capture("ls " .. posix.quote(M.scripts)):gmatch "[^\n]+" do
            local name = path:match "^([%w_]+)%.lua$"
            local spec = name and cli.spec_of(("%s/%s"):format(M.scripts, path))
            list[#list + 1] = spec and spec.study and name or nil
        end
        found_studies = list
    end
    return found_studies
end

-- The spec of a study: read anew for each question, since studies may keep notes in it. How labels
-- are counted was said to load.
function M.spec(name)
    local spec = cli.spec_of(("%s/%s.lua"):format(M.scripts, name))
    local kept = {}
    for _, key in ipairs(spec.keys) do
        kept[#kept + 1] = key.name ~= "labels" and key or nil
    end
    spec.keys, spec.common = kept, { "seed", "samples" }
    return spec
end

function M.ask(name, value, options)
    local stream, spec = M.stream(value), M.spec(name)
    local given = {}
    for key, one in pairs(type(options) == "table" and options or {}) do
        given[key] = one
    end
    if stream.task == "regression" and asked.takes(spec, "loss") then
        given.loss = given.loss or loss_option.word(stream.task)
    end
    local args = asked.args(spec, (type(options) == "table" or options == nil) and given or options)
    args.nonfinite = stream.nonfinite -- what a study reads beside the sketch is read alike
    local task, configurations = experiment.plan(spec, args)
    if task ~= stream.task then
        fault.raise("usage", "the sketch is for %s: for %s it is sketch(d, {loss = \"%s\"})",
            stream.task, task, loss_option.word(task))
    end
    local found = experiment.ask(spec, { task = task, args = args, configurations = configurations,
        calls = stream:calls_for(reading.asked(spec, args)), dump = stream.data.args, failed = {},
        progress = progress.of(args, "configurations") })
    return results.new(name, found, spec.axes)
end

return M
