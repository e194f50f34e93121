-- The words of the command line that mean something to the core: limits, help, defaults.
--
--   keys { "bins", "momentum", single = true }   -> the `keys` of a cli spec
--
-- Defaults are the core's and those of ghm.losses. A script that sweeps a key gives its own,
-- { bins = "5:50:5" }, or true for the usual one; a number, { bins = 30 }, leaves the key single.

local calls = require "ghm.studies.calls"
local clib = require "ghm.clib"
local harmonise = require "ghm.harmonise"
local losses = require "ghm.losses"

local defaults = harmonise.defaults "regression"

local known = {
    bins = { help = "unit regions M", integer = true, min = 1,
        max = tonumber(clib.C.GHM_MAX_BINS) },
    momentum = { help = "momentum of the region counts", min = 0, below = 1 },
    loss_weight = { help = "factor of the loss" },
    mu = { help = "mu of GHM-R and ASL1, in the units of the boxes", above = 0 },
    beta_max = { help = "the most that a sample may weigh, 0 for no limit", min = 0 },
    divide = { help = "by the non-empty regions, or by all" },
    start = { help = "what the momentum state is before the first call" },
    empty = { help = "what an empty region's state does" },
    state = { help = "what the calls of one step share: one momentum state, each its own, or their "
        .. "summed counts", values = calls.states },
    reduction = { help = "of the loss" },
    alpha = { help = "alpha of focal", above = 0, below = 1 },
    gamma = { help = "gamma of focal", min = 0 },
    beta = { help = "beta of smooth L1, 1 in PyTorch", above = 0 },
    form = { help = "g of softmax: 1 - p_true, |p_c - y_c| of each class, "
        .. "or the L1 norm of p - y" },
    eps = { help = "window of the exact density; by default 1/bins", above = 0, max = 1 },
    labels = { help = "class k is k (background: the number of classes), or k + 1 (background: 0)",
        default = "zero_based" },
}

return function(wanted)
    local list = {}
    for i, name in ipairs(wanted) do
        local key = { name = name, single = wanted.single, values = clib.words[name],
            default = defaults[name] or losses.defaults[name] }
        for field, value in pairs(known[name]) do
            key[field] = value
        end
        if wanted[name] then
            key.default = wanted[name] ~= true and wanted[name] or key.default
            key.single = wanted.single and type(wanted[name]) == "number"
        end
        list[i] = key
    end
    return list
end
