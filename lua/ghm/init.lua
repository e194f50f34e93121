-- require "ghm": everything a script or the prompt uses.

local losses = require "ghm.losses"

local M = {
    array = require "ghm.array",
    batch = require "ghm.batch",
    bins_figures = require "ghm.bins_figures",
    bins_study = require "ghm.bins_study",
    cli = require "ghm.cli",
    device = require "ghm.device",
    dump = require "ghm.dump",
    experiment = require "ghm.experiment",
    fault = require "ghm.fault",
    harmonise = require "ghm.harmonise",
    json = require "ghm.json",
    keys = require "ghm.keys",
    runs = require "ghm.runs",
    sketch = require "ghm.sketch",
    source = require "ghm.source",
    sweep = require "ghm.sweep",
    text = require "ghm.text",
    version = require("ghm.clib").version,
}

for _, name in ipairs(losses.names) do
    M[name] = losses[name]
end

return M
