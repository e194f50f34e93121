#!/usr/bin/env luajit
-- How fast is ghm here, beside what else there is?
local ffi = require "ffi"
ffi.cdef "char *realpath(const char *path, char *resolved);"
local root = ffi.string(ffi.C.realpath(arg[0], nil)):match "^(.*)/[^/]*/[^/]*$"
package.path = root .. "/lua/?.lua;" .. root .. "/lua/?/init.lua;" .. package.path
local ghm = require "ghm.runner.script"
local bench = require "ghm.bench.bench_run"

ghm.cli.main({
    name = "bench",
    question = "How fast is ghm on this machine, beside PyTorch, numpy and the machine itself?",
    no_dump = true,
    plot = "svg,png",
    without = { "--seed", "--samples", "--nonfinite", "--fail-fast", "--logits", "--pred",
        "--target", "--labels", "--weight", "--calls", "--no-color" },
    options = function(parser)
        parser:option("--sizes", "samples of a call, in a list (1e5,1e6,1e7, and 1e8 for the "
            .. "passes alone)"):argname "LIST"
        parser:option("--python", "with torch and numpy (build/peers, by make bench-peers)")
            :argname "FILE"
        parser:flag("--no-peers", "time ghm alone")
        parser:flag("--quick", "under a minute: 1e6 samples, fewer rounds and peers")
    end,
    epilog = "Each result is checked against the definitions in float64 before it is timed.\n"
        .. "Times are medians of rounds in which all things take turns; ratios are medians\n"
        .. "of the rounds' own ratios. Without --threads: one thread, then all. --device\n"
        .. "cuda: a table of its own, of passes over data that lies on the GPU, by its clock\n"
        .. "and beside the copy that bounds them (1e6,1e7,1e8).",
}, function(args)
    return bench.run(args, { python = root .. "/build/peers/bin/python",
        script = root .. "/experiments/bench_peers.py" })
end)
