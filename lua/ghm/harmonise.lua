-- Harmonise: one configuration's momentum state, and what a call of the loss makes of its regions.
--
--   h = harmonise.new("classification", { bins = 10, momentum = 0.75 })
--   r = h:step(sketch)   r.loss, r.n, r.tot, r.R, r.beta, ...: see apply

local clib = require "ghm.clib"
local fault = require "ghm.fault"
local ffi = require "ffi"
local nearest = require "ghm.nearest"

local C = clib.C
local M = {}
local Harmonise = {}
Harmonise.__index = Harmonise

-- key -> {prefix of the C enum} for words, true for numbers
local switches = {
    bins = true, momentum = true, loss_weight = true, mu = true, beta_max = true,
    divide = "GHM_DIVIDE_", start = "GHM_START_", empty = "GHM_EMPTY_", reduction = "GHM_",
}
M.keys = { "bins", "momentum", "loss_weight", "mu", "beta_max", "divide", "start", "empty",
    "reduction" }

-- The core's defaults: { bins = 10, momentum = 0, ..., start = "zero" }.
function M.defaults(task)
    local c = ffi.new "ghm_config"
    clib.check(C.ghm_config_default(clib.task(task), c))
    local values = {}
    for key, prefix in pairs(switches) do
        if prefix == true then
            values[key] = tonumber(c[key])
        else
            for _, word in ipairs(clib.words[key]) do
                if tonumber(C[prefix .. word:upper()]) == c[key] then
                    values[key] = word
                end
            end
        end
    end
    if task ~= "regression" then
        values.mu = nil
    end
    return values
end

-- Defaults overlaid with what is given. Unknown keys: "did you mean".
function M.config(task, given)
    local values = M.defaults(task)
    for key, value in pairs(given or {}) do
        if switches[key] == nil or (key == "mu" and task ~= "regression") then
            fault.raise("usage", "unknown key '%s'%s", tostring(key),
                nearest.hint(tostring(key), M.keys))
        end
        if switches[key] == true and type(value) ~= "number" then
            fault.raise("usage", "%s is '%s', expected a number", key, tostring(value))
        end
        values[key] = value
    end
    if values.bins ~= math.floor(values.bins) then
        fault.raise("usage", "bins is %g, expected an integer", values.bins)
    end
    return values
end

-- task: "classification" or "regression"; config: any of M.keys. Throws fault "usage".
function M.new(task, config)
    local values = M.config(task, config)
    local c = ffi.new "ghm_config"
    for key, prefix in pairs(switches) do
        if prefix ~= true then
            c[key] = clib.enum(prefix, key, values[key])
        elseif values[key] then
            c[key] = values[key]
        end
    end
    if values.bins < 1 or values.bins > tonumber(C.GHM_MAX_BINS) then
        fault.raise("usage", "bins is %.17g, expected 1 to %d", values.bins,
            tonumber(C.GHM_MAX_BINS))
    end
    local self = setmetatable({ task = task, config = values, c = c, calls = 0 }, Harmonise)
    self.S = ffi.new("double[?]", values.bins)
    self.updates = ffi.new("int64_t[?]", values.bins)
    -- a call without samples checks the other values and changes nothing
    self:apply(ffi.new("int64_t[?]", values.bins), ffi.new("double[?]", values.bins), 1)
    self.calls = 0
    return self
end

-- One call of the loss from counts R (int64_t[bins]), loss sums L (double[bins]) and tot.
-- Returns { loss, n, tot, limited, beta_largest, grad_scale, R, L, used, beta } with cdata arrays.
function Harmonise:apply(R, L, tot)
    local bins = self.config.bins
    local result = ffi.new "ghm_result"
    local used, beta = ffi.new("double[?]", bins), ffi.new("double[?]", bins)
    clib.check(C.ghm_harmonise(self.c, R, L, tot, self.S, self.updates, used, beta, result))
    self.calls = self.calls + 1
    return { loss = result.loss, n = tonumber(result.n), tot = result.tot,
        limited = tonumber(result.limited), beta_largest = result.beta_largest,
        grad_scale = result.grad_scale, R = R, L = L, used = used, beta = beta }
end

-- One call of the loss on the samples of a sketch.
function Harmonise:step(sketch)
    local R, L = sketch:regions(self.config.bins, self.config.mu)
    return self:apply(R, L, sketch:tot())
end

-- cdata array -> list of plain numbers
function M.list(values, n)
    local out = {}
    for i = 1, n do
        out[i] = tonumber(values[i - 1])
    end
    return out
end

-- { S, updates, calls }: lists of `bins` numbers.
function Harmonise:state()
    return { S = M.list(self.S, self.config.bins), updates = M.list(self.updates, self.config.bins),
        calls = self.calls }
end

return M
