#!/usr/bin/env luajit
-- The shards of a run, each sketched by a job of its own, as the one run that they are.
local ffi = require "ffi"
ffi.cdef "char *realpath(const char *path, char *resolved);"
local root = ffi.string(ffi.C.realpath(arg[0], nil)):match "^(.*)/[^/]*/[^/]*$"
package.path = root .. "/lua/?.lua;" .. root .. "/lua/?/init.lua;" .. package.path
local ghm = require "ghm.runner.script"

local spec = {
    name = "merge",
    question = "The run that shards (--shard I/N) are parts of: its rows, figures and answer, to "
        .. "the byte those of a single run. Missing shards are named.",
    words = { "RUN...", "the run folders of all shards, in any order" },
    report = true,
    without = { "--dry-run", "--seed", "--samples", "--nonfinite", "--fail-fast", "--logits",
        "--pred", "--target", "--labels", "--weight", "--calls" },
}
ghm.cli.main(spec, function(args)
    return ghm.merging.finish(ghm.merging.merge(args.dumps, args.out, args.name), spec, args)
end)
