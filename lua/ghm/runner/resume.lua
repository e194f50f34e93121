-- Going on with a run: its settings are those of its run.json, and what the new command says beside
-- must agree with them.
--
--   resume.settings(args)      what run.json keeps of a command, for
--   resume.open(spec, args) -> the args of that run, with what the new command may choose; the run

local fault = require "ghm.fault"
local json = require "ghm.json"
local options = require "ghm.runner.options"
local runs = require "ghm.runner.runs"

local M = {}

-- Options that change no number: the new command chooses them. Those that are true here are taken
-- from the run where the new command does not name them.
local free = { csv = true, json = true, name = true, plot = true, report = true,
    device = false, dry_run = false, fail_fast = false, no_color = false, out = false,
    quiet = false, resume = false, threads = false, verbose = false }
-- of args, but no options
local other = { argv = true, default_dump = true, dumps = true, given = true, inputs = true,
    keys = true }

-- Whether an option has a say in the numbers.
function M.matters(name)
    return free[name] == nil and name ~= "shard"
end

function M.settings(args)
    local kept = {}
    for name, value in pairs(args) do
        if not other[name] and free[name] ~= false then
            kept[name] = value
        end
    end
    local given = json.array {}
    for key in pairs(args.given) do
        given[#given + 1] = key
    end
    table.sort(given)
    return { dumps = args.dumps, keys = args.keys, given = given, options = kept }
end

local function told(value)
    if type(value) ~= "table" then
        return value == nil and "nothing" or tostring(value)
    end
    local words = {}
    for k, one in ipairs(value) do
        words[k] = type(one) == "number" and ("%.15g"):format(one) or tostring(one)
    end
    return table.concat(words, ",")
end

-- One setting in which a run differs: the first, by its name; nil where two agree.
-- a, b: of M.settings; what_a and what_b name them in the message.
function M.difference(a, b, what_a, what_b)
    for _, part in ipairs { { "", a.keys, b.keys }, { "--", a.options, b.options },
        { "", { dumps = a.dumps }, { dumps = b.dumps } } } do
        local dashes, one, two = unpack(part)
        local names = {} -- one that both have comes twice
        for _, settings in ipairs { one, two } do
            for name in pairs(settings) do
                names[#names + 1] = name
            end
        end
        table.sort(names)
        for _, name in ipairs(names) do
            local counts = dashes == "" or M.matters(name)
            if counts and told(one[name]) ~= told(two[name]) then
                return ("%s%s is %s in %s, %s in %s"):format(dashes, (name:gsub("_", "-")),
                    told(one[name]), what_a, told(two[name]), what_b)
            end
        end
    end
end

-- Refuses a run whose run.json lacks what M.settings and reading.read put there. Fault "mismatch".
function M.check(run)
    for _, name in ipairs { "dumps", "given", "inputs", "keys", "options", "steps" } do
        if type(run.info[name]) ~= "table" then
            fault.raise("mismatch", "%s/run.json: %s is not there, or is no list or object",
                run.dir, name)
        end
    end
end

-- Throws fault "mismatch" where the command contradicts the run; see runs.open.
function M.open(spec, args)
    local run = runs.open(args.resume, args.out)
    local info = run.info
    if info.experiment ~= spec.name then
        fault.raise("mismatch", "%s is a run of %s, not of %s", run.dir,
            tostring(info.experiment), spec.name)
    end
    M.check(run)
    local typed = options.typed(spec, args.argv)
    local said = { keys = {}, options = {}, dumps = #args.dumps > 0 and args.dumps or info.dumps }
    local kept = { keys = {}, options = {}, dumps = info.dumps }
    for key in pairs(args.given) do
        said.keys[key], kept.keys[key] = args.keys[key], info.keys[key]
    end
    for name in pairs(typed) do
        said.options[name], kept.options[name] = args[name], info.options[name]
    end
    local difference = M.difference(kept, said, run.dir, "this command")
    if not difference and typed.shard and args.shard ~= info.options.shard then
        difference = ("--shard is %s in %s, %s in this command"):format(told(info.options.shard),
            run.dir, args.shard)
    end
    if difference then
        fault.raise("mismatch", "cannot go on: %s", difference)
    end
    for name, value in pairs(info.options) do
        if not (free[name] and typed[name]) then
            args[name] = value
        end
    end
    args.shard = info.options.shard
    args.dumps, args.keys, args.inputs, args.given = info.dumps, info.keys, info.inputs, {}
    for _, key in ipairs(info.given) do
        args.given[key] = true
    end
    return args, run
end

return M
