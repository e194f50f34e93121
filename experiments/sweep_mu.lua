#!/usr/bin/env luajit
-- Which mu should GHM-R use on these boxes?
local ffi = require "ffi"
ffi.cdef "char *realpath(const char *path, char *resolved);"
local root = ffi.string(ffi.C.realpath(arg[0], nil)):match "^(.*)/[^/]*/[^/]*$"
package.path = root .. "/lua/?.lua;" .. root .. "/lua/?/init.lua;" .. package.path
local ghm = require "ghm.runner.script"

local shown = {
    { key = "mu", format = "%.3g" }, { key = "g_quantile", title = "g of |d|", format = "%.3f" },
    { key = "d_last", title = "last from", format = "%.3g" },
    { key = "last_share", title = "last", format = "%.3f" },
    { key = "loss", format = ghm.text.loss },
    { key = "asl1", title = "ASL1", format = ghm.text.loss },
    { key = "n", format = "%.1f" }, { key = "beta_error", title = "beta error", format = "%.3f" },
    { key = "beta_largest", title = "max beta", format = ghm.text.plain },
    { key = "cosine", format = "%.4f" }, { key = "entropy", format = "%.3f" },
    { key = "smooth_l1", title = "smooth L1", format = ghm.text.loss }, -- the same for each mu
}

ghm.experiment.main {
    name = "sweep_mu",
    question = "Which mu should GHM-R use: which errors |d| are to be told apart?",
    epilog = "Columns, for the bins that suit the mu of the answer: g of |d|: where the wanted "
        .. "quantile of |d| lies; last from: |d| where the last region begins, and the share of "
        .. "the samples in it; loss of GHM-R, mean ASL1 and smooth L1; the others as in "
        .. "sweep_bins.",
    axes = { "mu", "bins" },
    keys = ghm.keys { "mu", "bins", "momentum", "loss_weight", "beta_max", "divide", "start",
        "empty", "beta", "eps", single = true, mu = "log:1e-3:1:19", bins = "5,10,15,20,30,40" },
    edges = function(args)
        local knots = ghm.mu_study.knots()
        table.insert(knots, args.keys.beta)
        return { bins = args.keys.bins, mu = args.keys.mu, knots = knots }
    end,
    options = function(parser)
        parser:option("--loss", "ghmr: GHM-C has no mu"):choices { "ghmr" }:default "ghmr"
            :show_default(false)
        parser:option("--quantile", "the share of |d| below the error that is to lie at g = 0.6 "
            .. "(0.5)"):argname "Q":convert(ghm.mu_study.share):default "0.5":show_default(false)
    end,
    study = function(x)
        local study, keys, q = ghm.mu_study, x.args.keys, x.args.quantile
        local d, drawn = study.quantiles(x.calls, q)
        local verdict = study.recommend(d, drawn, q)
        local rows, resamplings, whole = study.rows(x.calls, x.configurations, d, keys, x.progress)
        local best, advice = study.nearest(rows, resamplings, verdict.value)
        return { rows = rows, columns = study.columns, shown = shown,
            listed = study.listed(rows, best), lines = study.answer(verdict, advice, best, rows),
            figures = ghm.mu_figures.draw(x.calls, keys, rows, whole, best, d, q,
                verdict.value),
            term = study.edges_table(whole, best),
            recommendations = #verdict.as_good > 0 and { verdict, advice } or { advice },
            warnings = ghm.bins_study.warnings(x.task, x.calls, best), mark = function(row)
                return row == best and "▸" or ""
            end }
    end,
}
