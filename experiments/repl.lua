#!/usr/bin/env luajit
-- Questions to a dump, one after the other: the prompt.
local ffi = require "ffi"
ffi.cdef "char *realpath(const char *path, char *resolved);"
local root = ffi.string(ffi.C.realpath(arg[0], nil)):match "^(.*)/[^/]*/[^/]*$"
package.path = root .. "/lua/?.lua;" .. root .. "/lua/?/init.lua;" .. package.path
local ghm = require "ghm.runner.script"
local interactive = require "ghm.prompt.interactive"

ghm.cli.main({
    name = "repl",
    question = "A prompt: load a dump, sketch it once, put questions to the sketch.",
    without = { "--dry-run", "--seed", "--samples", "--nonfinite", "--fail-fast", "--out", "--name",
        "--plot", "--csv", "--json", "--quiet", "--verbose", "--no-color" },
    epilog = "DUMPs are loaded as d. help() at the prompt says what there is. With lua-readline "
        .. "lines are edited, completed by Tab and kept in ~/.ghm_history; rlwrap does too. "
        .. "Lines from a pipe are run without a prompt; the exit code is 1 where one failed.",
}, interactive.run)
