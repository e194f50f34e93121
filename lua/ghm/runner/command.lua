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

local function main(words)
    local paths, names = scripts()
    if words[1] == "help" and words[2] then -- ghm help sweep bins
        table.remove(words, 1)
        table.insert(words, "-h")
    end
    local first = (words[1] or "help"):gsub("_", " ")
    local both = words[2] and first .. " " .. words[2]
    if both and paths[both] then
        become(both, paths[both], 3, words)
    elseif paths[first] then
        become(first, paths[first], 2, words)
    elseif first == "help" or first == "-h" or first == "--help" then
        help(paths, names)
    elseif first == "version" or first == "--version" then
        print(("ghm %s (%s)"):format(clib.version, clib.build))
    else
        local asked = both and nearest.find(both, names) and both or first
        fault.raise("usage", "nothing is called '%s'%s", asked, nearest.hint(asked, names))
    end
end

local ok, problem = pcall(main, arg)
if not ok then
    io.stderr:write("error: ", text.one_line(tostring(problem)), "\n")
    os.exit(fault.exit_code(problem))
end
