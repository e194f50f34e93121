-- The command line: the whole life of a script, from its words to its exit code.
--
--   cli.main(spec, body)      parses `arg`, runs body(args), exits
--   cli.parse(spec, words)    words -> args; throws fault "usage"
--   cli.script_dir()          absolute folder of the running script
--   cli.spec_of(path)         the spec of a script, which is not run
--
-- spec = {
--   name, question            "sweep_bins"; the first line of the help: what the script answers
--   keys = { {                the key=SPEC words, in the order of the help
--       name, help, default,  default: text of a SPEC, or a number
--       integer, min, max,    limits, included
--       above, below,         limits, not included
--       values = {"zero"},    words instead of numbers
--       single = bool }, ... },   exactly one value, given bare instead of in a list
--   options = function(parser)    adds the script's own options (lua-argparse); args has them too
--   without = {"--csv", ...}      common options this script does not take
--   report = bool             takes --report
--   no_dump, no_synth = bool      takes no DUMP words; no synth:NAME among them
--   words = { "RUN...", "..." }   takes these instead of DUMP words; args.dumps has them
--   resumes, shards = bool        takes --resume, --shard
--   default_dump = "digits"       beside the script; what the body falls back on
--   plot = "svg,png,term"         default of --plot
--   epilog                        examples, the end of the help
-- }
-- args = {
--   dumps = {words}           empty when none is given      default_dump = absolute path or nil
--   keys = {bins = {5, 10}}   one bare value for `single` keys; defaults filled in
--   given = {bins = true}     keys that were typed
--   device, threads, out, name, seed, samples, nonfinite,   nil where nothing was said and the
--   csv, json, quiet, verbose, dry_run, report,             default is not the command line's
--   plot = {svg = true}       logits, pred, target, labels, weight,
--                             calls = lists of names
--   argv                      the words as typed
-- }

local axis = require "ghm.runner.axis"
local called = require "ghm.called"
local csv = require "ghm.show.csv"
local fault = require "ghm.fault"
local json = require "ghm.json"
local nearest = require "ghm.nearest"
local number = require "ghm.number"
local options = require "ghm.runner.options"
local posix = require "ghm.posix"
local screen = require "ghm.show.screen"
local text = require "ghm.show.text"

local M = {}

local function key_names(spec)
    local names = {}
    for i, key in ipairs(spec.keys or {}) do
        names[i] = key.name
        names[key.name] = key
    end
    return names
end

-- The values under a key's name in a CSV file (or in its only column).
local function from_file(key, path)
    local ok, rows, names = pcall(csv.read, path)
    if not ok and fault.is(rows) then
        fault.raise("usage", "%s=@%s: %s", key.name, path, rows.message)
    elseif not ok then
        error(rows, 0)
    end
    if #names == 1 and number(names[1]) then -- the first value, and silently lost
        fault.raise("usage", "%s=@%s: the first line is %s, expected a name, such as %s", key.name,
            path, names[1], key.name)
    elseif #rows == 0 then
        fault.raise("usage", "%s=@%s: no values below the header", key.name, path)
    end
    local column = #names == 1 and names[1] or nearest.is_one_of(key.name, names) and key.name
    if not column then
        fault.raise("usage", "%s=@%s: the file has no column '%s', only %s", key.name, path,
            key.name, table.concat(names, ", "))
    end
    local words = {}
    for r, row in ipairs(rows) do
        words[r] = type(row[column]) == "number" and ("%.17g"):format(row[column]) or row[column]
    end
    return table.concat(words, ",")
end

local function outside(key, x)
    return key.min and x < key.min or key.max and x > key.max
        or key.above and x <= key.above or key.below and x >= key.below
end

local function word_values(key, spec_text)
    local list = {}
    for word in (spec_text .. ","):gmatch "(.-)," do
        if not nearest.is_one_of(word, key.values) then
            fault.raise("usage", "%s=%s: unknown value '%s'%s", key.name, spec_text, word,
                nearest.hint(word, key.values))
        end
        list[#list + 1] = word
    end
    return list
end

-- What stands after key= -> list of values, or the one value of a `single` key.
local function key_values(key, spec_text, args)
    if spec_text:sub(1, 1) == "@" then
        spec_text = from_file(key, spec_text:sub(2))
    end
    local list
    if key.values then
        list = word_values(key, spec_text)
    else
        list = axis.parse(spec_text, { name = key.name, integer = key.integer,
            samples = args.samples, seed = args.seed })
        for _, x in ipairs(list) do
            if outside(key, x) then
                fault.raise("usage", "%s=%.15g: expected %s", key.name, x, options.limits(key))
            end
        end
    end
    if key.single then
        if #list ~= 1 then
            fault.raise("usage", "%s=%s: expected one value, not %d", key.name, spec_text, #list)
        end
        return list[1]
    end
    return list
end

-- The absolute folder of the running script, links resolved.
function M.script_dir()
    local script = arg and arg[0] or "."
    local path = posix.real_path(script)
    return path and path:match "^(.*)/[^/]*$" or posix.real_path(".") or "."
end

-- words (list of strings) -> args, as described above. Throws fault "usage".
function M.parse(spec, words)
    local args = options.parser(spec):parse(words)
    local names, typed = key_names(spec), {}
    args.argv, args.dumps = json.array(words), json.array {}
    args.keys, args.given = {}, {}
    for _, word in ipairs(args.words) do
        local name, value = word:match "^([%a_][%w_]*)=(.*)$"
        if name then
            if #names == 0 then
                fault.raise("usage", "unexpected '%s': %s takes no keys", word, spec.name)
            elseif not names[name] then
                fault.raise("usage", "unknown key '%s'%s", name, nearest.hint(name, names))
            elseif typed[name] then
                fault.raise("usage", "key '%s' is given twice: put its values in one list, %s=%s",
                    name, name, typed[name] .. "," .. value)
            end
            typed[name], args.given[name] = value, true
        elseif names[word] and not posix.stamp(word) then
            fault.raise("usage", "unexpected '%s': expected %s=SPEC, without blanks", word, word)
        elseif spec.no_synth and word:find "^synth:" then
            fault.raise("usage", "unexpected '%s': %s reads files", word, spec.name)
        elseif spec.no_dump then
            fault.raise("usage", "unexpected '%s': %s takes no dump", word, spec.name)
        else
            table.insert(args.dumps, word)
        end
    end
    args.words = nil
    for _, key in ipairs(names) do
        local default = names[key].default
        local value = typed[key] or default ~= nil and tostring(default)
        if value then
            args.keys[key] = key_values(names[key], value, args)
        end
    end
    args.plot = args.plot or options.plot_set(spec.plot or options.PLOT)
    screen.plain = screen.plain or args.no_color
    args.default_dump = spec.default_dump and M.script_dir() .. "/" .. spec.default_dump
    return args
end

-- What was thrown -> the line for stderr and the exit code.
local function verdict(problem, trace)
    if fault.is(problem) then
        local told = problem.kind == "interrupted" and "interrupted" or "error"
        return told .. ": " .. text.one_line(problem.message) .. called.advice(problem),
            fault.exit_code(problem)
    elseif type(problem) == "string" and problem:find "interrupted!$" then
        return "interrupted", fault.exit_codes.interrupted
    end
    return ("bug: %s\n%s"):format(tostring(problem), trace), fault.exit_codes.bug
end

local asked -- while spec_of reads a script: what main puts the script's spec into

-- The spec and the body that a script gives to main, which does not run it: so the prompt calls
-- the studies of experiments/. nil where the file cannot be read.
function M.spec_of(path)
    local script = loadfile(path)
    if not script then
        return nil
    end
    local own = { arg = { [0] = path } } -- the script finds its folder by arg[0]
    asked = {}
    local ok, problem = pcall(setfenv(script, setmetatable(own, { __index = _G })))
    local spec, body = asked.spec, asked.body
    asked = nil
    if not ok then
        error(problem, 0)
    end
    return spec, body
end

-- Runs a script: parses the command line, calls body(args), tells what went wrong in one line on
-- stderr and leaves with fault.lua's exit code. body returns that code, or nil for 0.
-- Returns only to spec_of.
function M.main(spec, body)
    if asked then
        asked.spec, asked.body = spec, body
        return
    end
    local words, trace = {}, nil
    for i, word in ipairs(arg or {}) do -- a copy: unpack fails beyond some thousand words
        words[i] = word
    end
    local ok, result = xpcall(function()
        posix.hold_interrupts(false) -- see script.lua
        return body(M.parse(spec, words))
    end, function(problem)
        trace = debug.traceback("", 2)
        return problem
    end)
    local code = ok and result or 0
    if result == options.HELP then
        print(options.parser(spec):get_help())
        ok, code = true, 0
    end
    -- results that never reached the disk are a failure too: sweep.lua > /dev/full
    local flushed, reason = io.stdout:flush()
    if ok and not flushed then
        ok, result = false, fault.new("failed", "cannot write to stdout: %s", reason)
    end
    if not ok then
        local line
        line, code = verdict(result, trace)
        screen.tell(line) -- over ^C too
    end
    io.stderr:flush()
    os.exit(code)
end

return M
