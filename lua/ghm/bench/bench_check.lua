-- Whether what the bench times is right: GHM in float64 straight from its definitions (Li et al.,
-- AAAI 2019; mmdetection's ghm_loss.py), sample by sample, sharing nothing with the core. A wrong
-- result is the fault "failed": its time means nothing.

local fault = require "ghm.fault"
local ffi = require "ffi"

ffi.cdef "double log1p(double x);"

local C = ffi.C
local M = {}

M.LOSS, M.GRADIENT, M.PEER = 1e-8, 1e-6, 1e-3 -- relative; peers count in float32

-- Fails unless got is within `limit` of the wanted value, relatively. what: for the message.
function M.near(got, wanted, limit, what)
    local near = math.abs(got - wanted) <= limit * math.abs(wanted)
    if not near then -- also NaN, which is near nothing
        fault.raise("failed", "%s is %.12g, expected %.12g within %g: not timed", what, got, wanted,
            limit)
    end
end

local function sigmoid(s)
    return s >= 0 and 1 / (1 + math.exp(-s)) or math.exp(s) / (1 + math.exp(s))
end

local function softplus(s)
    return math.max(s, 0) + C.log1p(math.exp(-math.abs(s)))
end

local single = ffi.new "float[1]"

-- One sample: the key that decides its region, g, loss and d loss / d pred.
local function class_sample(x, t)
    local s = (1 - 2 * t) * x
    local g = sigmoid(s)
    return s, g, softplus(s), (1 - 2 * t) * g
end

local function box_sample(pred, target, mu)
    local d = pred - target
    local root = math.sqrt(d * d + mu * mu)
    single[0] = math.abs(d) -- the region is decided on a float32
    return single[0], math.abs(d) / root, d * d / (root + mu), d / root
end

-- Keys at which the regions 1..bins-1 begin.
local function thresholds(bins, mu)
    local list = {}
    for j = 1, bins - 1 do
        list[j] = mu and mu * j / math.sqrt((bins - j) * (bins + j)) or math.log(j / (bins - j))
    end
    list[0], list[bins] = -math.huge, math.huge
    return list
end

local function region(key, g, bins, edges)
    local j = math.min(math.floor(g * bins), bins - 1)
    while key >= edges[j + 1] do
        j = j + 1
    end
    while key < edges[j] do
        j = j - 1
    end
    return j
end

-- What the data's samples come to. configurations: list of { bins, mu } (mu nil: classification).
-- -> { tot, bce, focal (sums over all samples), [k] = { bins, mu, edges, R, L, n, loss } }.
function M.reference(data, configurations)
    local out = { tot = 0, bce = 0, focal = 0 }
    for k, c in ipairs(configurations) do
        out[k] = { bins = c.bins, mu = c.mu, edges = thresholds(c.bins, c.mu),
            R = ffi.new("double[?]", c.bins), L = ffi.new("double[?]", c.bins) }
    end
    local at = data.at
    for i = 0, data.n - 1 do
        local x, t, w = at(i)
        local key, g, l
        if not out[1].mu then
            key, g, l = class_sample(x, t)
            out.bce = out.bce + l
            out.focal = out.focal + (t == 1 and 0.25 or 0.75) * g * g * l
        end
        if w > 0 then
            out.tot = out.tot + (out[1].mu and w or 1)
            for k = 1, #out do
                local c = out[k]
                if c.mu then
                    key, g, l = box_sample(x, t, c.mu)
                end
                local j = region(key, g, c.bins, c.edges)
                c.R[j], c.L[j] = c.R[j] + 1, c.L[j] + l
            end
        end
    end
    for _, c in ipairs(out) do
        c.n, c.loss = 0, 0
        for j = 0, c.bins - 1 do
            if c.R[j] > 0 then
                c.n, c.loss = c.n + 1, c.loss + c.L[j] / c.R[j]
            end
        end
        c.loss = c.loss / c.n
    end
    return out
end

-- Fails unless grad (float *) is right at a thousand places. c: an entry of the reference.
function M.gradient(data, c, grad, what)
    local step = math.max(1, math.floor(data.n / 1000))
    for i = 0, data.n - 1, step do
        local x, t, w = data.at(i)
        local key, g, _, slope
        if c.mu then
            key, g, _, slope = box_sample(x, t, c.mu)
        else
            key, g, _, slope = class_sample(x, t)
        end
        local wanted = w > 0 and slope / (c.R[region(key, g, c.bins, c.edges)] * c.n) or 0
        M.near(grad[i], wanted, M.GRADIENT, ("%s of sample %d"):format(what, i))
    end
end

-- Fails unless density (double *) has, at 16 places, the number of samples in the window of eps
-- over its length; two samples may fall on the other side of a window's end.
function M.density(data, eps, density, what)
    local step = math.max(1, math.floor(data.n / 16))
    local function logit(g)
        return g <= 0 and -math.huge or g > 1 and math.huge or math.log(g / (1 - g))
    end
    for i = 0, data.n - 1, step do
        local x, t, w = data.at(i)
        if w > 0 then
            local _, g = class_sample(x, t)
            local from, to, count = logit(g - eps / 2), logit(g + eps / 2), 0
            for k = 0, data.n - 1 do
                local other, target, weight = data.at(k)
                local s = (1 - 2 * target) * other
                if weight > 0 and s >= from and s < to then
                    count = count + 1
                end
            end
            local wanted = count / (math.min(g + eps / 2, 1) - math.max(g - eps / 2, 0))
            M.near(density[i], wanted, 2 / count + 1e-9, ("%s of sample %d"):format(what, i))
        end
    end
end

return M
