-- The command line: the whole life of a script, from its words to its exit code.
--
--   cli.main(spec, body)      parses `arg`, runs body(args), exits
--   cli.parse(spec, words)    words -> args; throws fault "usage"
--   cli.script_dir()          absolute folder of the running script
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
--   no_dump = bool                takes no DUMP words
--   default_dump = "digits"       beside the script; what the body falls back on
--   plot = "svg,png,term"         default of --plot
--   epilog                        examples, the end of the help
-- }
-- args = {
--   dumps = {words}           empty when none is given      default_dump = absolute path or nil
--   keys = {bins = {5, 10}}   one bare value for `single` keys; defaults filled in
--   given = {bins = true}     keys that were typed
--   device, threads, out, name, seed, samples, nonfinite,   nil where nothing was said and the
--   csv, json, quiet, verbose, dry_run, color,              default is not the command line's
--   plot = {svg = true}       logits, pred, target, labels, weight = lists of names
--   argv                      the words as typed
-- }

local argparse = require "argparse"
local axis = require "ghm.axis"
local csv = require "ghm.csv"
local fault = require "ghm.fault"
local nearest = require "ghm.nearest"
local posix = require "ghm.posix"
local text = require "ghm.text"

local M = {}

local WIDTH, MARGIN = 80, 27 -- of the help: its lines, and where descriptions begin
local PLOT = "svg,png,term"

local function whole(least, what)
    return function(word)
        local x = axis.number(word)
        if x and x >= least and x <= 2 ^ 53 and x == math.floor(x) then
            return x
        end
        return nil, ("%s: '%s' is not a whole number from %d"):format(what, word, least)
    end
end

local function device(word)
    if word == "auto" or word == "cpu" or word:find "^cuda$" or word:find "^cuda:%d+$" then
        return word
    end
    return nil, ("--device: expected auto, cpu, cuda or cuda:I, not '%s'"):format(word)
end

local formats = { "svg", "png", "pdf", "term", "none" }

local function plot_set(word)
    local set = {}
    for format in word:gmatch "[^,]+" do
        if not nearest.is_one_of(format, formats) then
            return nil, ("--plot: unknown format '%s'%s"):format(format,
                nearest.hint(format, formats))
        end
        set[format] = true
    end
    if set.none and next(set, next(set)) then
        return nil, "--plot: 'none' stands alone"
    end
    set.none = nil
    return set
end

-- "a,b" given once or more, as one flat list
local function append_names(result, target, word)
    result[target] = result[target] or {}
    for name in word:gmatch "[^,]+" do
        table.insert(result[target], name)
    end
end

-- The options every script has, under the headings of the help and in its order.
local function common_options(spec)
    return {
        { "Run", {
            { "-n --dry-run", "print the configurations and what they need; touch nothing" },
            { "--device", "auto, cpu, cuda or cuda:I (auto)", argname = "D", convert = device,
                default = "auto" },
            { "--threads", "CPU threads (all)", argname = "N", convert = whole(1, "--threads") },
            { "--seed", "seed of everything drawn", argname = "S", convert = whole(0, "--seed") },
            { "--samples", "how many values rand:LOW:HIGH draws", argname = "N",
                convert = whole(1, "--samples") },
            { "--nonfinite", "NaN or infinity in valid samples: error or ignore (error)",
                argname = "WHAT", choices = { "error", "ignore" }, default = "error" },
        } },
        { "Arrays of the dump", {
            { "--logits", "the logits", argname = "KEY", names = true },
            { "--pred", "the predicted box offsets", argname = "KEY", names = true },
            { "--target", "the targets", argname = "KEY", names = true },
            { "--labels", "integer labels", argname = "KEY", names = true },
            { "--weight", "the label weights", argname = "KEY", names = true },
        } },
        { "Output", {
            { "--out", "folder for run folders, also -o (runs)", short = "-o", argname = "DIR",
                default = "runs" },
            { "--name", "label of the run folder", argname = "TEXT" },
            { "--plot", ("figures: svg, png, pdf, term, with commas, or none (%s)"):format(
                spec.plot or PLOT), argname = "LIST", convert = plot_set },
            { "--csv", "write the rows to a file, or to stdout for -", argname = "FILE" },
            { "--json", "print the result as JSON" },
            { "-q --quiet", "say nothing but the result" },
            { "-v --verbose", "say more" },
            { "--no-color", "plain text (so does the variable NO_COLOR)" },
        } },
    }
end

local function limits_of(key)
    local kind = key.integer and "a whole number" or "a number"
    if key.values then
        return "one of " .. table.concat(key.values, ", ")
    elseif key.min and key.max then
        return ("%s from %g to %g"):format(kind, key.min, key.max)
    end
    local parts = {}
    for _, limit in ipairs { { "min", "of at least" }, { "above", "above" },
        { "max", "of at most" }, { "below", "below" } } do
        if key[limit[1]] then
            parts[#parts + 1] = ("%s %g"):format(limit[2], key[limit[1]])
        end
    end
    return kind .. (#parts > 0 and " " or "") .. table.concat(parts, " and ")
end

local function entry(lines, label, description)
    local body = text.wrap(description, WIDTH - MARGIN)
    if #label + 3 > MARGIN - 1 then
        lines[#lines + 1] = "   " .. label
    else
        lines[#lines + 1] = text.pad("   " .. label, MARGIN) .. table.remove(body, 1)
    end
    for _, line in ipairs(body) do
        lines[#lines + 1] = (" "):rep(MARGIN) .. line
    end
end

-- The help up to the options, which argparse lists by itself.
local function introduction(spec)
    local lines = text.wrap(spec.question or "", WIDTH)
    if not spec.no_dump then
        lines[#lines + 1] = "\nDumps:"
        local fallback = spec.default_dump and "; without one, the bundled real dump" or ""
        entry(lines, "DUMP...", "files, globs or folders (.npy .npz .safetensors .pt), or "
            .. "synth:NAME[,key=value...]" .. fallback)
    end
    if spec.keys and #spec.keys > 0 then
        lines[#lines + 1] = "\nKeys (10, 5,10,20, 5:50:5, lin:0:1:5, log:1e-3:1:7, "
            .. "rand:0:1 or @FILE.csv):"
        for _, key in ipairs(spec.keys) do
            local label = key.name .. "=" .. tostring(key.default or "")
            entry(lines, label, ("%s (%s)"):format(key.help or "", limits_of(key)))
        end
    end
    return table.concat(lines, "\n")
end

-- Raised by -h; not a fault, because nothing is wrong.
local Help = {}

local function add_option(parser, common)
    local option = common.argname and parser:option(common[1], common[2])
        or parser:flag(common[1], common[2])
    option:default(common.default):show_default(false)
    option._argname = common.argname
    if common.short then
        option:hidden_name(common.short) -- argparse would set the two names on two lines
    end
    if common.convert then
        option:convert(common.convert)
    end
    if common.choices then
        option:choices(common.choices)
    end
    if common.names then
        option:action(append_names):count "*"
    end
    return option
end

local function make_parser(spec)
    local words = spec.no_dump and "" or " [DUMP...]"
    words = words .. (spec.keys and #spec.keys > 0 and " [key=SPEC...]" or "")
    local parser = argparse(spec.name, introduction(spec), spec.epilog)
        :usage(("Usage: luajit %s.lua%s [options]"):format(spec.name, words))
        :help_max_width(WIDTH):help_description_margin(MARGIN):add_help(false)
    parser:argument("words"):args("*"):hidden(true)
    if spec.options then
        spec.options(parser)
    end
    if #parser._options > 0 then
        parser:group("This script", unpack(parser._options))
    end
    local help = parser:flag("-h --help", "show this text"):action(function()
        error(Help, 0)
    end)
    local left_out = {}
    for _, name in ipairs(spec.without or {}) do
        left_out[name] = true
    end
    for g, group in ipairs(common_options(spec)) do
        local options = { g == 1 and help or nil }
        for _, common in ipairs(group[2]) do
            if not left_out[common[1]:match "%-%-.*"] then
                options[#options + 1] = add_option(parser, common)
            end
        end
        parser:group(group[1], unpack(options))
    end
    -- argparse prints its own usage text and exits; one line and our exit code are wanted
    parser.error = function(_, message)
        local name = message:match "^unknown option '(.-)'"
        if name then
            local known = {}
            for _, option in ipairs(parser._options) do
                for _, alias in ipairs(option._aliases) do
                    known[#known + 1] = alias
                end
            end
            local near = #name > 2 and nearest.find(name, known)
            message = ("unknown option '%s': %s"):format(name,
                near and ("did you mean '%s'?"):format(near) or "-h lists the options")
        end
        fault.raise("usage", "%s", text.one_line(message))
    end
    return parser
end

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
    local rows, names = csv.read(path)
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
                fault.raise("usage", "%s=%.15g: expected %s", key.name, x, limits_of(key))
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
    local args = make_parser(spec):parse(words)
    local names, typed = key_names(spec), {}
    args.argv, args.dumps, args.keys, args.given = words, {}, {}, {}
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
    args.plot = args.plot or plot_set(spec.plot or PLOT)
    args.color = not args.no_color and not os.getenv "NO_COLOR" and posix.is_terminal(1)
    args.default_dump = spec.default_dump and M.script_dir() .. "/" .. spec.default_dump
    return args
end

-- What was thrown -> the line for stderr and the exit code.
local function verdict(problem, trace)
    if fault.is(problem) then
        local told = problem.kind == "interrupted" and "interrupted" or "error"
        return told .. ": " .. text.one_line(problem.message), fault.exit_code(problem)
    elseif type(problem) == "string" and problem:find "interrupted!$" then
        return "interrupted", fault.exit_codes.interrupted
    end
    return ("bug: %s\n%s"):format(tostring(problem), trace), fault.exit_codes.bug
end

-- Runs a script: parses the command line, calls body(args), tells what went wrong in one line on
-- stderr and leaves with the exit code of RUNNER's table. body returns that code, or nil for 0.
-- Never returns.
function M.main(spec, body)
    local trace
    local ok, result = xpcall(function()
        return body(M.parse(spec, { unpack(arg or {}) }))
    end, function(problem)
        trace = debug.traceback("", 2)
        return problem
    end)
    local code = ok and result or 0
    if result == Help then
        print(make_parser(spec):get_help())
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
        io.stderr:write(line, "\n")
    end
    io.stderr:flush()
    os.exit(code)
end

return M
