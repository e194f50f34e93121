-- Options as the prompt takes them, { bins = "5:50:5", momentum = { 0, 0.75 }, loss = "ghmr" }, are
-- the words of a command line in another dress. They go through ghm.cli, so that a script and the
-- prompt take the same keys within the same limits, have the same defaults and refuse alike.

local argparse = require "argparse"
local cli = require "ghm.runner.cli"
local fault = require "ghm.fault"
local nearest = require "ghm.nearest"
local options = require "ghm.runner.options"

local M = {}

local function word_of(name, value)
    if type(value) == "table" then
        local words = {}
        for i, one in ipairs(value) do
            words[i] = word_of(name, one)
        end
        return table.concat(words, ",")
    elseif type(value) == "number" then
        local short = ("%.15g"):format(value) -- as it was typed, unless digits would be lost
        return tonumber(short) == value and short or ("%.17g"):format(value)
    elseif type(value) ~= "string" then
        fault.raise("usage", "%s is a %s, expected a number, a list or a text such as \"5:50:5\"",
            name, type(value))
    end
    return value
end

-- The options of a spec that are no keys: its own and those common ones that spec.common lists.
-- -> names in that order, and what the command line's help says of each.
local function options_of(spec)
    local parser, own, names, said = options.parser(spec), argparse "own", {}, {}
    if spec.options then
        spec.options(own)
    end
    for _, from in ipairs { own, parser } do
        for _, option in ipairs(from._options) do
            local name = option._aliases[#option._aliases]:match "^%-%-(.*)$"
            if name ~= "help" and (from == own or nearest.is_one_of(name, spec.common or {})) then
                names[#names + 1] = not said[name] and name or nil
                said[name] = option._description
            end
        end
    end
    return names, said
end

-- What may stand in the options of a spec: names, keys first; the key of each that is one; what is
-- said of each that is none.
function M.names(spec)
    local names, keys, own, said = {}, {}, options_of(spec)
    for _, key in ipairs(spec.keys or {}) do
        names[#names + 1], keys[key.name] = key.name, key
    end
    for _, name in ipairs(own) do
        names[#names + 1] = not keys[name] and name or nil
    end
    return names, keys, said
end

function M.takes(spec, name)
    return nearest.is_one_of(name, (M.names(spec)))
end

-- Whether a value is meant for the key of that name, where an option has it too: labels is the
-- base of labels, or the array that holds them.
local function is_for(key, value)
    return key and not (key.values and type(value) == "string"
        and not nearest.is_one_of(value, key.values))
end

-- spec: of ghm.cli; given: a table or nil; dumps: words. -> args as cli.parse gives them.
-- Fault "usage".
function M.args(spec, given, dumps)
    if given ~= nil and type(given) ~= "table" then
        fault.raise("usage", "%s: expected options such as {bins = 30}, not a %s", spec.name,
            type(given))
    end
    local words, known, keys = {}, M.names(spec)
    for name, value in pairs(given or {}) do
        name = tostring(name)
        if not nearest.is_one_of(name, known) then
            fault.raise("usage", "unknown key '%s'%s", name, nearest.hint(name, known))
        end
        local also_option = nearest.is_one_of(name, spec.common or {})
        if keys[name] and (is_for(keys[name], value) or not also_option) then
            words[#words + 1] = name .. "=" .. word_of(name, value)
        elseif value == true then
            words[#words + 1] = "--" .. name
        elseif value ~= false then
            words[#words + 1] = ("--%s=%s"):format(name, word_of(name, value))
        end
    end
    local args = cli.parse(spec, words)
    for _, word in ipairs(dumps or {}) do -- they may hold "=", which cli would take for a key
        table.insert(args.dumps, word)
    end
    return args
end

return M
