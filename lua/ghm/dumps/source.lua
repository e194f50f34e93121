-- Sources: the steps that a command's DUMP words mean, each a list of batches (calls of the loss).
--
--   local source = source.open(args, "classification")
--   source:each(function(step, batches) ... end, tell)
--
-- A word is a file, a glob, a folder, or synth:NAME[,key=value...] (ghm.dumps.synthetic). A batch
-- has, beside what ghm.batch gives it, names (of its arrays) and level (of a feature pyramid, or
-- nil).

local blocks = require "ghm.dumps.blocks"
local clib = require "ghm.clib"
local declared = require "ghm.declared"
local dump = require "ghm.dumps.dump"
local fault = require "ghm.fault"
local json = require "ghm.json"
local mapfile = require "ghm.dumps.mapfile"
local nearest = require "ghm.nearest"
local posix = require "ghm.posix"
local roles = require "ghm.dumps.roles"
local saved = require "ghm.dumps.saved"
local synthetic = require "ghm.dumps.synthetic"

local C = clib.C
local M = {}
local Source = {}
Source.__index = Source

-- -- files ---------------------------------------------------------------------------------------

-- What the user chose for each call of the loss, as roles.calls wants it: { { pred = "step0.pred",
-- ... }, ... }. With --calls, one name serves every level.
local function typed_calls(args, task)
    local lists = { pred = args.pred or args.logits, target = args.target, labels = args.labels,
        weight = args.weight }
    if args.pred and args.logits then
        fault.raise("usage", "--logits and --pred name the same array: give one of them")
    elseif args.target and args.labels then
        fault.raise("usage", "--target and --labels both name the targets: give one of them")
    elseif task == "regression" and (args.labels or args.given and args.given.labels) then
        fault.raise("usage", "labels: boxes have none, expected --target")
    end
    local levels = args.calls or {}
    local calls, longest = {}, math.max(#levels, 1)
    for _, list in pairs(lists) do
        longest = math.max(longest, #list)
    end
    for part, list in pairs(lists) do
        local option = part == "pred" and args.logits and "logits" or part
        if #levels > 0 and #list ~= 1 then
            fault.raise("usage", "--%s names %d arrays: expected one name, which --calls completes",
                option, #list)
        elseif #levels == 0 and #list ~= longest then
            fault.raise("usage", "--%s names %d arrays, another option names %d: expected as many",
                option, #list, longest)
        end
    end
    for k = 1, longest do
        calls[k] = { level = levels[k] }
        for part, list in pairs(lists) do
            calls[k][part] = list[#levels > 0 and 1 or k]
        end
        if levels[k] and nearest.is_one_of(levels[k], { unpack(levels, 1, k - 1) }) then
            fault.raise("usage", "--calls: level %s is named twice", levels[k])
        end
    end
    return calls
end

local function file_step(path, calls, task, base)
    local step = { name = path:match "[^/]+$", path = path }
    local file
    function step.load()
        file = dump.open(path)
        step.warnings = file.warnings
        local batches = {}
        for k, names in ipairs(roles.calls(file, task, calls)) do
            local ok, made = pcall(blocks.batch, task, roles.entries(file, names), base)
            if not ok then
                local where = path .. (names.level and ": level " .. names.level or "")
                error(fault.is(made) and fault.new(made.kind, "%s: %s", where, made.message)
                    or made, 0)
            end
            names.base = names.labels and base
            made.names, made.level = names, names.level
            batches[k] = made
        end
        return batches
    end
    function step.close()
        if file then
            file:close()
        end
    end
    return step
end

-- The steps of a sketch file. One that is refused is one step, told when its turn comes.
local function saved_steps(self, path, calls, args)
    local typed = #calls > 1 and "calls" or next(calls[1])
    if typed or args.given and args.given.labels then
        fault.raise("usage", "%s: %s chooses from a dump, and this is a sketch", path,
            typed and "--" .. typed or "labels")
    end
    local ok, found = pcall(saved.read, path, self.saved)
    if not ok then
        return { { name = path:match "[^/]+$", path = path, close = function() end,
            load = function()
                error(found, 0)
            end } }
    end
    if not self.saved then
        self.saved, self.saved_path = found[1].calls[1].saved, path
        if self.saved.task ~= self.task then
            fault.raise("dump", "%s: a sketch of %s, expected one of %s (see --loss, of sketch.lua "
                .. "too)", path, self.saved.task, self.task)
        end
    end
    for _, step in ipairs(found) do
        step.path, step.saved, step.close = path, true, function() end
        step.load = function()
            return step.calls
        end
        for _, call in ipairs(step.calls) do -- a study merges them
            if not declared.alike(call.saved, self.saved) then
                fault.raise("usage", "%s was sketched for %s; %s for %s: sketch one of them again",
                    path, declared.text(call.saved), self.saved_path, declared.text(self.saved))
            end
        end
    end
    return found
end

-- -- the source ----------------------------------------------------------------------------------

-- args as of ghm.cli: dumps, default_dump, names of arrays, calls, seed, keys.labels, given. Files
-- are listed, and sketch files read; the others are not opened. source.saved: the first sketch of a
-- sketch file, if there is one; source.saved_path: that file. args.inputs: what source.inputs was,
-- to mean the same again, also where files have come or gone since. Throws faults "dump" (nothing
-- there) and "usage".
function M.open(args, task)
    local words = args.inputs or #args.dumps > 0 and args.dumps or { args.default_dump }
    local calls = typed_calls(args, task)
    local self = setmetatable({ task = task, steps = {}, failed = {}, words = words,
        fail_fast = args.fail_fast, inputs = json.array {} }, Source)
    local known, files = {}, {}
    for _, word in ipairs(words) do
        if word:find "^synth:" then
            table.insert(self.inputs, word)
            local chosen = next(calls[1])
            if chosen then
                fault.raise("usage", "%s: --%s chooses an array of a dump, and this is none", word,
                    chosen == "level" and "calls" or chosen)
            end
            for _, step in ipairs(synthetic.steps(word, task, args.seed)) do
                table.insert(self.steps, step)
            end
        else
            for _, path in ipairs(args.inputs and { word } or dump.list({ word }, known)) do
                table.insert(files, path)
                table.insert(self.inputs, posix.real_path(path) or path)
                local steps = saved.claims(path) and saved_steps(self, path, calls, args)
                    or { file_step(path, calls, task, args.keys.labels) }
                for _, step in ipairs(steps) do
                    table.insert(self.steps, step)
                end
            end
        end
    end
    dump.check_each_once(files)
    if #self.steps == 0 then
        fault.raise("dump", "%s: no steps in it", table.concat(words, ", "))
    end
    return self
end

local LISTED = 6 -- steps that are named where many are refused for the same

-- Of the names of steps that were refused for the same: those after the first, in words; or nil.
local function others_text(names)
    local others = { unpack(names, 2, 1 + LISTED) }
    local left = #names - 1 - #others
    return #others > 0 and ("as with %s, so with %s%s"):format(names[1], table.concat(others, ", "),
        left > 0 and (" and %d more"):format(left) or "") or nil
end

-- Calls visit(step, batches) for every step in order; the batches are good until it returns. A step
-- that is refused is left out, the rest goes on; when all are refused, that is thrown. Why is told
-- at once, by tell(message, fault); where it holds for many steps only once, and which they are at
-- the end, by tell(message). Without tell the first refusal is thrown. While a step is visited the
-- system reads the beginning of the next.
function Source:each(visit, tell)
    clib.check(C.ghm_interrupt_catch())
    local told, first_told = {}, {}
    for k, step in ipairs(self.steps) do
        local ok, problem = pcall(function()
            local batches = step.load()
            local following = self.steps[k + 1]
            if following and following.path and not (following.saved or following.kept) then
                mapfile.ask_for_file(following.path)
            end
            visit(step, batches)
        end)
        step.close()
        if clib.interrupted() then
            fault.raise("interrupted", "stopped at %s, step %d of %d", step.name, k, #self.steps)
        elseif not ok then
            if not fault.is(problem) or problem.kind ~= "dump" or #self.steps == 1
                or self.fail_fast or not tell then
                error(problem, 0)
            end
            table.insert(self.failed, { step = step.name, reason = problem.message })
            local reason = fault.reason(problem, step.path or step.name)
            if told[reason] then
                table.insert(told[reason], step.name)
            else
                tell(problem.message, problem)
                told[reason] = { step.name }
                first_told[#first_told + 1] = reason
            end
        end
    end
    if #self.failed == #self.steps then
        fault.raise("dump", "%s: none of the %d steps can be used", table.concat(self.words, ", "),
            #self.steps)
    end
    for _, reason in ipairs(first_told) do
        local others = others_text(told[reason])
        if others then
            tell(others)
        end
    end
end

-- Refuses to write what `option` asks for over a file that is read. path: nil for none.
function Source:spare(path, option)
    local real = path and posix.real_path(path)
    if real and nearest.is_one_of(real, self.inputs) then
        fault.raise("usage", "%s %s: that is a dump which is read here", option, path)
    end
end

-- 0, or 1 when some steps were refused: what a script returns.
function Source:exit_code()
    return #self.failed > 0 and fault.exit_codes.failed or 0
end

return M
