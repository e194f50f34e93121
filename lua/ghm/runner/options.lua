-- The options of a script and its help, by lua-argparse; cli.lua is what scripts use.

local argparse = require "argparse"
local called = require "ghm.called"
local fault = require "ghm.fault"
local nearest = require "ghm.nearest"
local number = require "ghm.number"
local shards = require "ghm.runner.shards"
local text = require "ghm.show.text"

local M = {}

M.PLOT = "svg,png,term" -- default of --plot
M.HELP = {} -- thrown by -h; not a fault, because nothing is wrong

local WIDTH, MARGIN = 80, 27 -- of the help: its lines, and where descriptions begin

local function whole(least, what)
    return function(word)
        local x = number(word)
        local most = 2 ^ 53 - 1 -- beyond, not every number is told from the next
        if x and x >= least and x <= most and x == math.floor(x) then
            return x
        end
        return nil, ("%s: '%s' is not a whole number from %d%s"):format(what, word, least,
            x and x > most and (" to %.0f"):format(most) or "")
    end
end

local function device(word)
    if word == "auto" or word == "cpu" or word:find "^cuda$" or word:find "^cuda:%d+$" then
        return word
    end
    return nil, ("--device: expected auto, cpu, cuda or cuda:I, not '%s'"):format(word)
end

local function shard(word)
    local i, reason = shards.parse(word)
    return i and word or nil, reason
end

local formats = { "svg", "png", "pdf", "term", "none" }

-- "svg,term" -> { svg = true, term = true }; nil and the reason for an unknown format.
function M.plot_set(word)
    local set = {}
    for format in (word .. ","):gmatch "(.-)," do
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
            { "--fail-fast", "stop at the first step that is refused" },
            { "--resume", "go on with a run folder, or with the latest one", argname = "DIR" },
            { "--shard", "sketch the I-th of N parts of the steps (taken from "
                .. "SLURM_ARRAY_TASK_ID, where there is one); " .. (spec.resumes
                and "to add them up: " .. called.script "merge"
                or "other scripts take all the files together"), argname = "I/N",
                convert = shard },
        } },
        { "Arrays of the dump", {
            { "--logits", "the logits", argname = "KEY", names = true },
            { "--pred", "the predicted box offsets", argname = "KEY", names = true },
            { "--target", "the targets", argname = "KEY", names = true },
            { "--labels", "integer labels", argname = "KEY", names = true },
            { "--weight", "the label weights", argname = "KEY", names = true },
            { "--calls", "levels of a pyramid, a call of the loss each: P3,P4 takes P3_logits, "
                .. "P3_target, logits.P4, ... (those in the file, unless it has logits of none)",
                argname = "LIST", names = true },
        } },
        { "Output", {
            { "--out", "folder for run folders, also -o (runs)", short = "-o", argname = "DIR",
                default = "runs" },
            { "--name", "label of the run folder", argname = "TEXT", empty = true },
            { "--plot", ("figures: svg, png, pdf, term, with commas, or none (%s)"):format(
                spec.plot or M.PLOT), argname = "LIST", convert = M.plot_set },
            { "--report", "also report.html: all of it in one file, with figures and provenance" },
            { "--csv", "write the rows to a file, or to stdout for -", argname = "FILE" },
            { "--json", "print the result as JSON" },
            { "-q --quiet", "say nothing but the result" },
            { "-v --verbose", "say more" },
            { "--no-color", "plain text (so does the variable NO_COLOR)" },
        } },
    }
end

-- What a key takes, in words: "a whole number from 1 to 65536".
function M.limits(key)
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
    if spec.words then
        lines[#lines + 1] = ""
        entry(lines, spec.words[1], spec.words[2])
    elseif not spec.no_dump then
        lines[#lines + 1] = "\nDumps:"
        local fallback = spec.default_dump and "; without one, the bundled real dump" or ""
        entry(lines, "DUMP...", "files, globs or folders (.npy .npz .safetensors .pt .pth "
            .. ".sketch)" .. (spec.no_synth and "" or ", or synth:NAME[,key=value...]")
            .. fallback)
    end
    if spec.keys and #spec.keys > 0 then
        lines[#lines + 1] = "\nKeys (10, 5,10,20, 5:50:5, lin:0:1:5, log:1e-3:1:7, "
            .. "rand:0:1 or @FILE.csv):"
        for _, key in ipairs(spec.keys) do
            local label = key.name .. "=" .. tostring(key.default or "")
            entry(lines, label, ("%s (%s)"):format(key.help or "", M.limits(key)))
        end
    end
    return table.concat(lines, "\n")
end

local function add_option(parser, common)
    local option = common.argname and parser:option(common[1], common[2])
        or parser:flag(common[1], common[2])
    option:default(common.default):show_default(false)
    option._argname = common.argname
    if common.short then
        option:hidden_name(common.short) -- argparse would set the two names on two lines
    end
    if common.argname then
        option:convert(common.convert or function(word)
            if word ~= "" or common.empty then
                return word
            end
            return nil, ("%s: expected a %s, not an empty word"):format(common[1],
                common.names and "name" or "path")
        end)
    end
    if common.choices then
        option:choices(common.choices)
    end
    if common.names then
        option:action(append_names):count "*"
    end
    return option
end

-- What is wrong with an option that a script does not take, and what was meant, if that is near.
local function unknown(name, parser, spec)
    local known, keys = {}, {}
    for _, option in ipairs(parser._options) do
        for _, alias in ipairs(option._aliases) do
            known[#known + 1] = alias
        end
    end
    for k, key in ipairs(spec.keys or {}) do
        keys[k] = key.name
    end
    local near = #name > 2 and nearest.find(name, known)
    local key = not near and nearest.find(name:gsub("^%-+", ""), keys)
        or nearest.is_one_of(name:sub(3), keys) and name:sub(3)
    near = key and key .. "=SPEC" or near
    return ("unknown option '%s': %s"):format(name, near and ("did you mean '%s'?"):format(near)
        or "-h lists the options")
end

-- The lua-argparse parser of a script (spec: see cli.lua). It throws fault "usage" for what it
-- cannot take and M.HELP for -h; args.words holds the words that are no options.
function M.parser(spec)
    local words = spec.words and " " .. spec.words[1] or spec.no_dump and "" or " [DUMP...]"
    words = words .. (spec.keys and #spec.keys > 0 and " [key=SPEC...]" or "")
    local parser = argparse(spec.name, introduction(spec), spec.epilog)
        :usage(("Usage: %s%s [options]"):format(called.script(spec.name), words))
        :help_max_width(WIDTH):help_description_margin(MARGIN):add_help(false)
    parser:argument("words"):args("*"):hidden(true)
    if spec.options then
        spec.options(parser)
    end
    if #parser._options > 0 then
        parser:group("This script", unpack(parser._options))
    end
    local help = parser:flag("-h --help", "show this text"):action(function()
        error(M.HELP, 0)
    end)
    local left_out = { ["--report"] = not spec.report, ["--resume"] = not spec.resumes,
        ["--shard"] = not spec.shards }
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
        fault.raise("usage", "%s", text.one_line(name and unknown(name, parser, spec) or message))
    end
    return parser
end

-- The options that the words name, as a set of their names in args: not those that have their
-- default.
function M.typed(spec, words)
    local parser = M.parser(spec)
    for _, option in ipairs(parser._options) do
        option:defmode ""
    end
    local typed = {}
    for name, value in pairs(parser:parse(words)) do
        typed[name] = value ~= nil and name ~= "words" or nil
    end
    return typed
end

return M
