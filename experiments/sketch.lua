#!/usr/bin/env luajit
-- What of a dump do all later questions need? Its sketches, in one small file.
local ffi = require "ffi"
ffi.cdef "char *realpath(const char *path, char *resolved);"
local root = ffi.string(ffi.C.realpath(arg[0], nil)):match "^(.*)/[^/]*/[^/]*$"
package.path = root .. "/lua/?.lua;" .. root .. "/lua/?/init.lua;" .. package.path
local ghm = require "ghm.runner.script"

ghm.cli.main({
    name = "sketch",
    question = "The sketches of a dump in one small file, which other scripts take for the dump.",
    epilog = "The file answers exactly for the bins, mu and beta named here; others are refused. "
        .. ("On a cluster: %s dump -o run.sketch; at home: %s run.sketch."):format(
            ghm.called.script "sketch", ghm.called.script "sweep_bins"),
    default_dump = "digits",
    shards = true,
    without = { "--out", "--name", "--plot", "--csv", "--json" },
    keys = ghm.keys { "bins", "mu", "beta", "labels", single = true, bins = "1:100:1,200",
        mu = "0.02,log:1e-3:1:19", beta = ghm.losses.defaults.beta .. ",1" },
    options = function(parser)
        ghm.loss_option.add(parser, "ghmc")
        parser:option("--file", "the file to write, also -o (DUMP.sketch)"):hidden_name "-o"
            :argname "FILE"
    end,
}, function(args)
    return ghm.sketching.main(args)
end)
