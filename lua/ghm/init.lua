-- require "ghm": everything a script or the prompt uses, each module loaded when it is first named.

local losses = require "ghm.losses"

local modules = {
    array = "ghm.array", batch = "ghm.batch", called = "ghm.called", device = "ghm.device",
    fault = "ghm.fault", harmonise = "ghm.harmonise", json = "ghm.json", losses = "ghm.losses",
    probabilities = "ghm.probabilities", sketch = "ghm.sketches", softmax = "ghm.softmax",
    -- dumps/
    dump = "ghm.dumps.dump", source = "ghm.dumps.source",
    -- studies/
    bins_figures = "ghm.studies.bins_figures", bins_study = "ghm.studies.bins_study",
    bootstrap = "ghm.studies.bootstrap", calls = "ghm.studies.calls",
    density_answer = "ghm.studies.density_answer",
    density_figures = "ghm.studies.density_figures", density_study = "ghm.studies.density_study",
    losses_figures = "ghm.studies.losses_figures", losses_parts = "ghm.studies.losses_parts",
    losses_study = "ghm.studies.losses_study", metrics = "ghm.studies.metrics",
    momentum_figures = "ghm.studies.momentum_figures",
    momentum_study = "ghm.studies.momentum_study", mu_figures = "ghm.studies.mu_figures",
    mu_study = "ghm.studies.mu_study", sweep = "ghm.studies.sweep",
    warnings = "ghm.studies.warnings",
    -- runner/
    cli = "ghm.runner.cli", comparing = "ghm.runner.comparing",
    experiment = "ghm.runner.experiment", keys = "ghm.runner.keys",
    loss_option = "ghm.runner.loss_option", merging = "ghm.runner.merging",
    sketching = "ghm.runner.sketching", telling = "ghm.runner.telling",
    -- show/
    compared = "ghm.show.compared", csv = "ghm.show.csv", text = "ghm.show.text",
}

local M = { version = require("ghm.clib").version, modules = modules }

for _, name in ipairs(losses.names) do
    M[name] = losses[name]
end

return setmetatable(M, { __index = function(self, name)
    local module = modules[name] and require(modules[name])
    rawset(self, name, module)
    return module
end })
