#!/usr/bin/env luajit
-- How many unit regions should GHM use on this data?
local ffi = require "ffi"
ffi.cdef "char *realpath(const char *path, char *resolved);"
local root = ffi.string(ffi.C.realpath(arg[0], nil)):match "^(.*)/[^/]*/[^/]*$"
package.path = root .. "/lua/?.lua;" .. root .. "/lua/?/init.lua;" .. package.path
local ghm = require "ghm.runner.script"

local shown = {
    { key = "bins" }, { key = "loss", format = ghm.text.loss }, { key = "n", format = "%.1f" },
    { key = "empty_share", title = "empty", format = "%.2f" },
    { key = "beta_largest", title = "max beta", format = ghm.text.plain },
    { key = "beta_error", title = "beta error", format = "%.3f" },
    { key = "scarce_share", title = "scarce", format = "%.3f" },
    { key = "density_error_mean", title = "GD error", format = "%.3f" },
    { key = "cosine", format = "%.4f" }, { key = "entropy", format = "%.3f" },
    { key = "rudemo", format = "%.4g" }, { key = "knuth", format = "%.6g" },
}

ghm.experiment.main {
    name = "sweep_bins",
    question = "How many unit regions (bins, M) should GHM use on this data?",
    epilog = "Columns: n regions in use; beta error: relative, of a region's beta, from counting "
        .. "noise and from a density that is uneven inside the region, by one law for all M tried, "
        .. "so it changes a little with these; scarce: share of the gradient from regions with "
        .. "fewer than 100 samples; GD error against the exact density, mean over samples; cosine "
        .. "with the exact density's gradient; entropy of the contributions of the n regions (1: "
        .. "flat); Rudemo's score (least is best); Knuth's log posterior (greatest is best). Of "
        .. "results.csv also effective: as how many samples of a call the weights count, "
        .. "(sum beta)^2 / sum beta^2.",
    axes = { "bins", "momentum" },
    keys = ghm.keys { "bins", "momentum", "loss_weight", "mu", "beta_max", "divide", "start",
        "empty", "eps", "labels", single = true, bins = "5:50:5", momentum = "0" },
    options = function(parser)
        ghm.loss_option.add(parser, "ghmc")
    end,
    study = function(x)
        local study = ghm.bins_study
        local rows, resamplings = study.rows(x.task, x.calls, x.configurations, x.args.keys.eps,
            x.progress)
        local best, advice = study.recommend(rows, resamplings)
        local figures, term = ghm.bins_figures.draw(x, rows, best, x.args.keys.eps)
        if #x.args.keys.momentum > 1 then
            table.insert(shown, 2, { key = "momentum", format = "%g" })
        end
        return { rows = rows, columns = study.columns, shown = shown, figures = figures,
            term = term, listed = study.listed(rows, best), recommendations = { advice },
            lines = { advice.reason, not advice.only and not advice.alike
                and ghm.bootstrap.sentence(advice) or nil },
            warnings = study.warnings(x.task, x.calls, best), mark = function(row)
                return row == best and "▸" or ""
            end }
    end,
}
