-- require "ghm": everything a script or the prompt uses, each module loaded when it is first named.

local losses = require "ghm.losses"

local modules = {
    array = "ghm.array", batch = "ghm.batch", device = "ghm.device", fault = "ghm.fault",
    harmonise = "ghm.harmonise", json = "ghm.json", sketch = "ghm.sketches",
    softmax = "ghm.softmax",
    dump = "ghm.dumps.dump", source = "ghm.dumps.source",
    sweep = "ghm.studies.sweep", calls = "ghm.studies.calls",
    momentum_study = "ghm.studies.momentum_study",
    mu_study = "ghm.studies.mu_study", mu_figures = "ghm.studies.mu_figures",
    momentum_figures = "ghm.studies.momentum_figures", metrics = "ghm.studies.metrics",
    warnings = "ghm.studies.warnings", bootstrap = "ghm.studies.bootstrap",
    bins_study = "ghm.studies.bins_study",
    losses_study = "ghm.studies.losses_study", losses_parts = "ghm.studies.losses_parts",
    density_study = "ghm.studies.density_study", density_figures = "ghm.studies.density_figures",
    losses_figures = "ghm.studies.losses_figures",
    bins_figures = "ghm.studies.bins_figures",
    called = "ghm.runner.called", cli = "ghm.runner.cli",
    experiment = "ghm.runner.experiment", keys = "ghm.runner.keys", runs = "ghm.runner.runs",
    merging = "ghm.runner.merging", sketching = "ghm.runner.sketching",
    comparing = "ghm.runner.comparing", telling = "ghm.runner.telling",
    csv = "ghm.show.csv", text = "ghm.show.text",
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
