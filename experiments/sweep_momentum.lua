#!/usr/bin/env luajit
-- Which momentum should GHM use on this stream, and what should its calls share?
local ffi = require "ffi"
ffi.cdef "char *realpath(const char *path, char *resolved);"
local root = ffi.string(ffi.C.realpath(arg[0], nil)):match "^(.*)/[^/]*/[^/]*$"
package.path = root .. "/lua/?.lua;" .. root .. "/lua/?/init.lua;" .. package.path
local ghm = require "ghm.runner.script"

local shown = {
    { key = "momentum", format = "%g" }, "start", "empty", { key = "error", format = "%.3f" },
    { key = "loss", format = "%.4g" }, { key = "jitter", format = "%.3f" },
    { key = "beta_stream", title = "beta(t)", format = ghm.momentum_figures.sparkline },
    { key = "beta_largest", title = "largest", format = ghm.text.plain },
    { key = "beta_spread", title = "spread", format = "%.3f" }, { key = "lag", format = "%.3f" },
    { key = "ahead", format = "%.3f" }, { key = "inflation", title = "cold", format = "%.3g" },
}

ghm.experiment.main {
    name = "sweep_momentum",
    question = "Which momentum should GHM use on this stream of steps, and what should the calls "
        .. "of a step share?",
    epilog = "Columns: error: of S, from noise and drift; levels: largest mean beta of a step's "
        .. "calls over the smallest; jitter of the loss between steps; beta(t) the largest beta of "
        .. "each step, and the largest of all; spread of ln beta of a region over the stream; lag "
        .. "|ln S/R|; ahead: ln of S over the next counts; cold: R/S at a region's first hit.",
    axes = { "momentum", "start", "empty", "state" },
    keys = ghm.keys { "momentum", "start", "empty", "state", "bins", "loss_weight", "mu",
        "beta_max", "divide", "labels", single = true, momentum = "0,0.5,0.75,0.9,0.95,0.99",
        start = "zero,first,uniform,corrected", empty = "keep,decay", state = "shared,own,summed" },
    options = function(parser)
        ghm.loss_option.add(parser, "ghmc")
        parser:option("--split", "cut each call into parts, drawn: 4 equal ones, or sizes "
            .. "256,64,16,4,1"):argname "PARTS":convert(ghm.calls.shares)
    end,
    distinct = function(configurations, n_calls, args)
        return ghm.momentum_study.distinct(configurations, n_calls > 1 or args.split ~= nil)
    end,
    study = function(x)
        local study, keys = ghm.momentum_study, x.args.keys
        local steps = ghm.calls.regions(x.calls, keys.bins, keys.mu)
        if x.args.split then
            steps = ghm.calls.split(steps, keys.bins, x.args.split)
        end
        local run = study.run(x.task, steps, x.configurations, x.progress)
        local found = study.recommend(run, keys.momentum)
        if #steps[1] > 1 then
            table.insert(shown, 4, "state")
            table.insert(shown, 6, { key = "levels", format = "%.3g" })
        end
        return { rows = run.rows, columns = study.columns, shown = shown,
            listed = study.listed(run, found.best), lines = study.answer(run, found),
            figures = ghm.momentum_figures.draw(run, found), recommendations = found.verdicts,
            warnings = study.warnings(run, found), mark = function(row)
                return row == run.rows[found.best] and "▸" or ""
            end }
    end,
}
