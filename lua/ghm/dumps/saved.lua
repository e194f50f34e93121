-- Saved steps: the sketches of a dump's calls in a file, with what a study must know of each call
-- beside its numbers, so that a study of the file finds what one of the dump would.
--
--   saved.write(path, steps)     steps: list of { name, file, calls }
--   saved.read(path) -> steps    whose calls stand for batches: see Sketch:of
--   saved.claims(path)           whether the file begins like one
--
-- A call is { sketch, facts, shape, names, notes, level, views } when written, and has its sketch
-- in `saved` when read. views: name -> { sketch, facts }, further sketches of its data. file: what
-- the step was read from, { path, size, mtime, sha256 }, or nil.

local declared = require "ghm.declared"
local fault = require "ghm.fault"
local json = require "ghm.json"
local mapfile = require "ghm.dumps.mapfile"
local sketches = require "ghm.sketches"
local text = require "ghm.show.text"

local M = {}

M.EXTENSION = "sketch"
local MAGIC = "ghmskch"

function M.claims(path)
    local ok, file = pcall(mapfile.open, path)
    local head = ok and file.size >= #MAGIC and file:read(0, #MAGIC)
    if ok then
        file:close()
    end
    return head == MAGIC
end

-- Fault "failed" where the file cannot be written; it is there whole or not at all.
function M.write(path, steps)
    local list = {}
    for _, step in ipairs(steps) do
        for k, call in ipairs(step.calls) do
            list[#list + 1] = { sketch = call.sketch, note = json.encode { step = step.name,
                call = k, calls = #step.calls, file = step.file, level = call.level,
                shape = json.array(call.shape), names = call.names, facts = call.facts,
                notes = json.array(call.notes) } }
            local names = {}
            for name in pairs(call.views or {}) do
                names[#names + 1] = name
            end
            table.sort(names)
            for _, name in ipairs(names) do
                list[#list + 1] = { sketch = call.views[name].sketch,
                    note = json.encode { view = name, facts = call.views[name].facts } }
            end
        end
    end
    sketches.write(path, list)
end

-- What the fields of a note hold: a type, or a table whose values all are of one; "?": or nil.
local fields = {
    call = { step = "string", call = "number", calls = "number", ["file?"] = "table",
        ["level?"] = "string", shape = { "number" }, names = { "string" }, notes = { "string" },
        facts = { "number" } },
    view = { view = "string", facts = { "number" } },
}

-- The first field that is not what it should be, or nil.
local function odd_field(said, expected)
    for key, kind in pairs(expected) do
        local name = key:gsub("%?$", "")
        local value = said[name]
        local inner = type(kind) == "table"
        if type(value) ~= (inner and "table" or kind) and not (value == nil and name ~= key) then
            return name
        end
        for _, one in pairs(inner and value or {}) do
            if type(one) ~= kind[1] then
                return name
            end
        end
    end
    for _, name in ipairs(sketches.counted) do
        if not said.facts[name] then
            return "facts." .. name
        end
    end
end

-- A note of M.write -> what it says, or nil for other texts; and the name of a field that is odd.
local function parse(note)
    local said = note and note:find "^{" and json.decode(note)
    if type(said) ~= "table" or not (said.step or said.view) then
        return nil
    end
    return said, odd_field(said, said.view and fields.view or fields.call)
end

-- What is known of a sketch that another program saved.
local function plain(sketch, note, path)
    local facts = sketch:facts()
    facts.soft = sketch:is_soft() and facts.valid or 0
    return { step = text.one_line(note or path:match "[^/]+$"), call = 1, calls = 1,
        shape = { facts.samples }, names = { pred = "sketch" }, facts = facts, notes = {} }
end

-- What is in a file, for people and --json: { path, format, task, answers, calls = list of { step,
-- arrays, shape, samples, valid, positive, nonfinite, from } }. Fault "dump" as of read.
function M.inspect(path)
    local found = { path = path, format = "sketch", calls = json.array {} }
    for _, step in ipairs(M.read(path)) do
        for _, call in ipairs(step.calls) do
            found.task, found.answers = call.task, declared.text(call.saved)
            table.insert(found.calls, { step = step.name, arrays = call.names,
                shape = json.array(call.shape), samples = call.facts.samples,
                valid = call.facts.valid, positive = call.facts.positive,
                nonfinite = call.facts.nonfinite, from = step.file and step.file.path })
        end
    end
    return found
end

-- Fault "dump": the file is foreign, damaged, or its steps lack calls.
function M.read(path, like)
    local steps, step = {}, nil
    local function refuse(reason, ...)
        fault.raise("dump", "%s: %s", path, reason:format(...))
    end
    local function complete()
        if step and #step.calls ~= step.expected then
            refuse("step %s has %d of %d calls", step.name, #step.calls, step.expected)
        end
    end
    for k, entry in ipairs(sketches.read(path, like)) do
        local said, odd = parse(entry.note)
        if odd then
            refuse("the note of sketch %d is not possible: %s", k, odd)
        end
        said = said or plain(entry.sketch, entry.note, path)
        local call = step and step.calls[#step.calls]
        if said.view and not call then
            refuse("sketch %d is a view of no call", k)
        elseif said.view then
            call.views[said.view] = { sketch = entry.sketch, facts = said.facts }
        elseif said.call == 1 then
            complete()
            step = { name = text.one_line(said.step), file = said.file, calls = {},
                expected = said.calls }
            steps[#steps + 1] = step
        end
        if not said.view then
            if not step or said.call ~= #step.calls + 1 then
                refuse("sketch %d is out of order: it says to be call %s", k, said.call)
            end
            step.calls[said.call] = { saved = entry.sketch, task = entry.sketch.task,
                facts = said.facts, shape = said.shape, names = said.names, notes = said.notes,
                level = said.level, views = {} }
        end
    end
    complete()
    if #steps == 0 then
        refuse "holds no step"
    end
    return steps
end

return M
