#!/usr/bin/env luajit
-- What does each loss make of the same samples: which of them carry its gradient?
local ffi = require "ffi"
ffi.cdef "char *realpath(const char *path, char *resolved);"
local root = ffi.string(ffi.C.realpath(arg[0], nil)):match "^(.*)/[^/]*/[^/]*$"
package.path = root .. "/lua/?.lua;" .. root .. "/lua/?/init.lua;" .. package.path
local ghm = require "ghm.runner.script"

local share = function(x) return ("%.1f %%"):format(100 * x) end
local shown = {
    { key = "loss" }, { key = "value", format = "%.3g" },
    { key = "easy_share", title = "easy", format = share },
    { key = "medium_share", title = "medium", format = share },
    { key = "hard_share", title = "hard", format = share },
    { key = "outlier_share", title = "outlier", format = share },
    { key = "entropy", format = "%.2f" },
    { key = "positive_share", title = "positive", format = share },
    { key = "effective", format = "%.0f" },
}

ghm.experiment.main {
    name = "compare_losses",
    question = "What does each loss make of the same samples: which of them carry its gradient?",
    epilog = "Columns: shares of the gradient, by g: easy below 0.1, medium below 0.5, hard below "
        .. "0.9, outliers from 0.9 on; entropy of the contributions over 40 regions of g, empty or "
        .. "not (1: flat); positive: share of the positives; effective: how many samples of a "
        .. "call carry the gradient, (sum)^2 / sum of squares. Rows of one class each are compared "
        .. "under softmax too. Figures: the paper's 1 to 3, for logits and for boxes.",
    axes = { "bins", "momentum" }, rows_by = { "loss" },
    keys = ghm.keys { "bins", "momentum", "alpha", "gamma", "beta", "mu", "eps", "loss_weight",
        "beta_max", "divide", "start", "empty", "labels", single = true, bins = "10,30",
        momentum = true, alpha = true, gamma = true, beta = true },
    options = function(parser)
        parser:option("--loss", "ghmc for logits, ghmr for boxes, or both (both)")
            :choices { "ghmc", "ghmr", "both" }:default "both":show_default(false)
    end,
    edges = function(args)
        return ghm.losses_study.edges(ghm.loss_option.task(args.loss), args.keys)
    end,
    views = ghm.losses_parts.views,
    study = function(x)
        local parts = ghm.losses_parts.of(x)
        local rows, figures, term = {}, {}, {}
        for i, part in ipairs(parts) do
            for _, row in ipairs(part.rows) do rows[#rows + 1] = row end
            for _, figure in ipairs(ghm.losses_figures.draw(part)) do
                figures[#figures + 1] = figure
            end
            term[i] = ghm.losses_figures.term(part)
        end
        return { rows = rows, columns = ghm.losses_study.columns, shown = shown,
            unreported = ghm.losses_study.labelled, figures = figures,
            term = table.concat(term, "\n"), warnings = ghm.losses_parts.warnings(parts),
            lines = ghm.losses_parts.answer(parts) }
    end,
}
