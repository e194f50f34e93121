-- Synthetic steps, drawn by the core.
--
--   synthetic.steps("synth:detector,rows=1000,hard_share=0.1", "classification", seed)
--
-- The name is a preset of the core (detector, converged, fresh, uniform), or drift: fresh to
-- converged over its steps. Keys are sizes, or fields of the core's ghm_mixture.

local batch = require "ghm.batch"
local clib = require "ghm.clib"
local device = require "ghm.device"
local fault = require "ghm.fault"
local ffi = require "ffi"
local nearest = require "ghm.nearest"
local number = require "ghm.number"

local C = clib.C
local M = {}

local presets = { "detector", "converged", "fresh", "uniform", "drift" }
local known = { "rows", "cols", "steps", "seed", "drift", "hard_share", "hard_mean", "hard_sd",
    "positive_share", "positive_mean", "positive_sd", "outlier_share", "outlier_mean",
    "outlier_sd", "easy_mean", "easy_sd", "ignored_share", "uniform", "laplace_scale",
    "box_outlier_share", "box_outlier_sd" }
-- the keys that are no fields of ghm_mixture, with their defaults
local sizes = { rows = 6144, cols = 10, steps = 1, seed = 0, drift = -1 }
-- whole numbers, and the largest of each: a size beyond is a slip of the finger
local integral = { rows = 2 ^ 40, cols = 2 ^ 20, steps = 1e6, seed = 2 ^ 53 }

-- "synth:detector,rows=1000,hard_share=0.1" -> name, settings, overrides of the mixture
local function parse(word)
    local name, rest = word:match "^synth:([%w_]+),?(.*)$"
    if not name then
        fault.raise("usage", "'%s': expected synth:NAME[,key=value...]", word)
    end
    local settings, overrides = { steps = name == "drift" and 16 or nil }, {}
    local typed = {}
    for pair in rest:gmatch "[^,]+" do
        local key, value = pair:match "^([%w_]+)=(.*)$"
        local x = value and number(value)
        if not key then
            fault.raise("usage", "%s: expected key=value, not '%s'", word, pair)
        elseif not nearest.is_one_of(key, known) then
            fault.raise("usage", "%s: unknown key '%s'%s", word, key, nearest.hint(key, known))
        elseif typed[key] then
            fault.raise("usage", "%s: key '%s' is given twice", word, key)
        elseif not x or (integral[key] and (x ~= math.floor(x) or x < 0 or x > integral[key])) then
            fault.raise("usage", "%s: %s is '%s', expected %s", word, key, value,
                integral[key] and ("a whole number from 0 to %.0f"):format(integral[key])
                or "a number")
        end
        typed[key] = true;
        (sizes[key] and settings or overrides)[key] = x
    end
    return name, setmetatable(settings, { __index = sizes }), overrides
end

local function mixture_at(word, name, drift, overrides)
    local mixture = ffi.new "ghm_mixture"
    if not nearest.is_one_of(name, presets) then
        fault.raise("usage", "%s: no preset '%s'%s", word, name, nearest.hint(name, presets))
    end
    clib.check(C.ghm_mixture_preset(name == "drift" and "fresh" or name, drift, mixture), word)
    for key, value in pairs(overrides) do
        mixture[key] = value
    end
    return mixture
end

-- The steps that a word means, as of ghm.dumps.source. seed: of --seed, where the word has none.
function M.steps(word, task, seed)
    local name, settings, overrides = parse(word)
    local shape = { settings.rows, settings.cols }
    local steps = {}
    if settings.cols < 1 then
        fault.raise("usage", "%s: cols is 0, expected at least 1", word)
    end
    for k = 1, settings.steps do
        local drift = settings.drift
        if name == "drift" then
            drift = settings.steps > 1 and (k - 1) / (settings.steps - 1) or 0
        end
        local mixture = mixture_at(word, name, drift, overrides)
        steps[k] = {
            name = ("%s step %d"):format(word:match "^[^,]+", k - 1),
            load = function()
                local pred, target = device.array("f4", shape), device.array("f4", shape)
                local weight = device.array("f4", shape)
                clib.check(C.ghm_synth(device.default(), clib.task(task), mixture,
                    rawget(settings, "seed") or seed or sizes.seed, k - 1, settings.rows,
                    settings.cols, pred.remote or pred.ptr, target.remote or target.ptr,
                    weight.remote or weight.ptr), word)
                local names = { pred = "pred", target = "target", weight = "weight" }
                local arrays = { pred = pred, logits = pred, target = target, weight = weight }
                local made = task == "regression" and batch.regression(arrays)
                    or batch.classification(arrays)
                made.names = names
                return { made }
            end,
            close = function() end,
        }
    end
    return steps
end

return M
