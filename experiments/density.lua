#!/usr/bin/env luajit
-- How are the gradient norms distributed, in whom, and how does that change over training?
local ffi = require "ffi"
ffi.cdef "char *realpath(const char *path, char *resolved);"
local root = ffi.string(ffi.C.realpath(arg[0], nil)):match "^(.*)/[^/]*/[^/]*$"
package.path = root .. "/lua/?.lua;" .. root .. "/lua/?/init.lua;" .. package.path
local ghm = require "ghm.runner.script"

local totals = { calls = 0, classes = {} }
local shown = {
    { key = "name" }, { key = "samples", format = ghm.text.number }, { key = "n" },
    { key = "first_share", title = "first region", format = "%.4f" },
    { key = "last_share", title = "last region", format = "%.5f" },
    { key = "mean_g", title = "mean g", format = "%.4f" },
    { key = "distance", title = "to all", format = "%.3f" },
    { key = "step_distance", title = "to before", format = "%.3f" },
    { key = "chance", title = "chance", format = "%.3f" },
    { key = "calibration", format = "%.4f" },
}

ghm.experiment.main {
    name = "density",
    question = "How are gradient norms distributed, in whom, and how does that change in training?",
    epilog = "Columns: n regions in use; shares of the samples in the first and the last region; "
        .. "Jensen-Shannon distances (0: alike, 1: nothing in common) to all samples and, of a "
        .. "step, to the one before; chance: what the last of a row's is by chance, in one case of "
        .. "twenty more, if samples are drawn one by one (those of an image are alike, so batches "
        .. "differ more; the answer allows for the number of rows too); "
        .. "calibration: mean distance of the predicted probability from the share of positives.",
    axes = { "bins" }, rows_by = { "name" },
    keys = ghm.keys { "bins", "mu", "eps", "labels", bins = 30, single = true },
    options = function(parser)
        ghm.loss_option.add(parser, "ghmc")
        parser:option("--by", "splits, with commas: group, level, class, or none (all three)")
            :argname "LIST":default "group,level,class":show_default(false)
            :convert(ghm.density_study.splits)
        parser:flag("--exact", "draw the exact density too, with window eps")
    end,
    views = ghm.density_study.views,
    collect = function(call) ghm.density_study.collect(call, totals) end,
    study = function(x)
        local found = ghm.density_study.of(x, totals)
        local eps = (x.args.exact or x.args.keys.eps) and (x.args.keys.eps or 1 / found.bins)
        local figures, term = ghm.density_figures.draw(found, eps)
        return { rows = found.rows, listed = found.listed, shown = shown,
            columns = ghm.density_study.columns, figures = figures, term = term,
            warnings = ghm.bins_study.warnings(x.task, x.calls, found),
            lines = ghm.density_answer.lines(found) }
    end,
}
