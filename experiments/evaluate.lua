#!/usr/bin/env luajit
-- What does one loss make of these steps? In order, sharing the momentum state.
local ffi = require "ffi"
ffi.cdef "char *realpath(const char *path, char *resolved);"
local root = ffi.string(ffi.C.realpath(arg[0], nil)):match "^(.*)/[^/]*/[^/]*$"
package.path = root .. "/lua/?.lua;" .. root .. "/lua/?/init.lua;" .. package.path
local ghm = require "ghm.runner.script"

local losses = { ghmc = "GHMC", ghmr = "GHMR", bce = "BCE", focal = "Focal", asl1 = "ASL1",
    smooth_l1 = "SmoothL1", softmax_ghmc = "SoftmaxGHMC" }

local keys = ghm.keys { "bins", "momentum", "loss_weight", "mu", "beta_max", "divide", "start",
    "empty", "reduction", "alpha", "gamma", "beta", "form", "labels", single = true }
for _, key in ipairs(keys) do -- one loss a step is printed
    key.values = key.name == "reduction" and { "mean", "sum" } or key.values
end

-- The rows, and the mean of their losses as one more.
local function with_mean(rows)
    local list, sum = {}, 0
    for r, row in ipairs(rows) do
        list[r], sum = row, sum + row.loss
    end
    list[#rows + 1] = #rows > 1 and { step = "mean", loss = sum / #rows } or nil
    return list
end

ghm.cli.main({
    name = "evaluate",
    question = "One loss on the steps given, in order, sharing the momentum state.",
    epilog = "--json prints an object for each call of the loss, one a line.",
    default_dump = "digits",
    without = { "--out", "--name", "--plot", "--csv", "--dry-run", "--samples", "--verbose" },
    keys = keys,
    options = function(parser)
        parser:option("--loss", "which loss (ghmc)"):choices { "ghmc", "softmax_ghmc", "ghmr",
            "bce", "focal", "asl1", "smooth_l1" }:default "ghmc":show_default(false)
    end,
}, function(args)
    local options = { nonfinite = args.nonfinite, device = ghm.device.open(args.device,
        args.threads) }
    ghm.device.default(options.device)
    for key in pairs(args.given) do
        options[key] = args.keys[key]
    end
    local loss = ghm[losses[args.loss]](options)
    local source = ghm.source.open(args, loss.task)
    local rows, ignored, soft, calls = {}, 0, 0, {}
    local squashed -- whether all logits seen look like probabilities; nil: none are seen
    source:each(function(step, batches)
        for _, batch in ipairs(batches) do
            local value, call = loss:forward_batch(batch, step.name)
            local bins = loss.config.bins
            local row = { step = step.name, level = batch.level, pred = batch.names.pred,
                loss = call and value, n = call.n, tot = call.tot,
                beta_largest = call.beta_largest,
                samples = call.facts.samples, valid = call.facts.valid,
                positive = call.facts.positive, nonfinite = call.facts.nonfinite,
                soft = call.facts.soft, counts = ghm.harmonise.list(call.R, bins),
                beta = ghm.harmonise.list(call.beta, bins), acc_sum = loss:state().S }
            rows[#rows + 1] = row
            calls[#calls + 1] = { names = batch.names, facts = call.facts, shape = batch.shape }
            if loss.task == "classification" and row.valid > 0 and squashed ~= false then
                squashed = ghm.probabilities.in_batch(batch)
            end
            ignored, soft = ignored + row.nonfinite, soft + (row.soft > 0 and 1 or 0)
            if args.json then
                print(ghm.json.encode(row))
            end
        end
    end, ghm.telling.refusals())
    local warnings = { squashed and ghm.warnings.are_probabilities(rows[1].pred) or nil }
    warnings[#warnings + 1] = rows[1] and ghm.warnings.labels(calls)
    if args.json then
        io.stderr:write(ghm.telling.warnings(warnings))
    else
        local shown = { { key = "step", tail = ghm.text.TAIL }, { key = "valid" },
            { key = "loss", format = "%.6g" }, { key = "n" },
            { key = "beta_largest", title = "largest beta", format = ghm.text.plain } }
        if loss.task == "classification" and soft < #rows then
            table.insert(shown, 3, "positive")
        end
        if rows[1] and rows[1].level then
            table.insert(shown, 2, "level")
        end
        io.write(ghm.telling.table(with_mean(rows), shown, "--json prints all"))
        if ignored > 0 then
            print(ghm.telling.ignored(ignored))
        end
        io.write(ghm.telling.warnings(warnings))
        if not args.quiet then
            print(("%s on %s"):format(loss.name, ghm.device.name()))
        end
    end
    return source:exit_code()
end)
