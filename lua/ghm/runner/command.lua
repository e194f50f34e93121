#!/usr/bin/env luajit
-- The command `ghm`, which make install links to this file: "ghm sweep bins ..." is the script
-- experiments/sweep_bins.lua with the words that follow. "ghm help" lists the scripts.

local ffi = require "ffi"
ffi.cdef "char *realpath(const char *path, char *resolved);"
local root = ffi.string(ffi.C.realpath(arg[0], nil)):match "^(.*)/lua/ghm/runner/[^/]*$"
package.path = root .. "/lua/?.lua;" .. root .. "/lua/?/init.lua;" .. package.path

local cli = require "ghm.runner.cli"
local clib = require "ghm.clib"
local fault = require "ghm.fault"
local nearest = require "ghm.nearest"
local options = require "ghm.runner.options"
local posix = require "ghm.posix"
local text = require "ghm.show.text"

-- "sweep bins" -> the path of its script, for every script there is; and those names, sorted.
local function scripts()
    local paths, names = {}, {}
    local listing = posix.capture("cd " .. posix.quote(root .. "/experiments") .. " && ls")
    for file in listing:gmatch "([%w_]+)%.lua" do
        local name = file:gsub("_", " ")
        paths[name] = ("%s/experiments/%s.lua"):format(root, file)
        names[#names + 1] = name
    end
    return paths, names
end

local function help(paths, names)
    print "Usage: ghm NAME [DUMP...] [key=SPEC...] [options]\n"
    for _, name in ipairs(names) do
        local lines = text.wrap(cli.spec_of(paths[name]).question, 56)
        for i, line in ipairs(lines) do
            print(text.pad(i == 1 and "  " .. name or "", 20) .. line)
        end
    end
    print "\nghm NAME -h tells what it takes; ghm version, which ghm this is."
end

-- Becomes the script: its arguments are what follows its name.
local function become(name, path, from, words)
    local own = { [0] = path, command = "ghm " .. name }
    for i = from, #words do
        own[#own + 1] = words[i]
    end
    arg = own -- luacheck: ignore
    assert(loadfile(path))()
end

-- The script that the first words name, and how many words that takes; nil where there is none.
local function named(paths, words)
    local first = (words[1] or ""):gsub("_", " ")
    local both = words[2] and first .. " " .. words[2]
    if both and paths[both] then
        return both, 2
    end
    return paths[first] and first, 1
end

-- What the last of the words can become, a line each: for the shell's completion (ghm.bash).
local function complete(paths, names, words)
    local last, list = table.remove(words) or "", {}
    local name = named(paths, words)
    for _, known in ipairs(names) do
        local head, tail = known:match "^(%S+) ?(.*)$"
        list[#list + 1] = #words == 0 and head or #words == 1 and head == words[1] and tail or nil
    end
    local spec = name and cli.spec_of(paths[name]) or {}
    for _, key in ipairs(spec.keys or {}) do
        list[#list + 1] = key.name .. "="
    end
    for _, option in ipairs(name and options.parser(spec)._options or {}) do
        for _, alias in ipairs(last:find "^%-" and option._aliases or {}) do
            list[#list + 1] = alias
        end
    end
    for k, word in ipairs(list) do
        if word ~= "" and word:sub(1, #last) == last and word ~= list[k - 1] then
            print(word)
        end
    end
end

local function main(words)
    local paths, names = scripts()
    if words[1] == "complete" then
        table.remove(words, 1)
        return complete(paths, names, words)
    elseif words[1] == "help" and words[2] then -- ghm help sweep bins
        table.remove(words, 1)
        table.insert(words, "-h")
    end
    local name, taken = named(paths, words)
    local first = words[1] or "help"
    if name then
        become(name, paths[name], taken + 1, words)
    elseif first == "help" or first == "-h" or first == "--help" then
        help(paths, names)
    elseif first == "version" or first == "--version" then
        print(("ghm %s (%s)"):format(clib.version, clib.build))
    else
        local both = words[2] and first .. " " .. words[2] or first
        local asked = nearest.find(both, names) and both or first
        fault.raise("usage", "nothing is called '%s'%s", asked, nearest.hint(asked, names))
    end
end

local ok, problem = pcall(main, arg)
if not ok then
    io.stderr:write("error: ", text.one_line(tostring(problem)), "\n")
    os.exit(fault.exit_code(problem))
end
