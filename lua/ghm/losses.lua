-- Losses as a training loop knows them: forward, backward, state.
--
--   local loss = ghm.GHMC { bins = 30, momentum = 0.75 }
--   local value, call = loss:forward(logits, target, label_weight)
--   local grad = loss:backward()
--
-- pred, target and weight are arrays (ghm.array) or tables of numbers. A target of the shape of the
-- logits is dense, 0/1 or soft; one of [rows] integers is labels (labels = "zero_based" or
-- "one_based"). forward returns the loss, and what the call made of its regions; with
-- reduction = "none" the loss is an array of the elements. backward returns d loss / d pred.
--
-- SoftmaxGHMC { form = "true_class" } is GHM-C for rows of exclusive classes; its forms are told in
-- ghm.softmax. Labels are columns (negative: the row is ignored), label_weight is one per row.

local array = require "ghm.array"
local batches = require "ghm.batch"
local clib = require "ghm.clib"
local device = require "ghm.device"
local fault = require "ghm.fault"
local ffi = require "ffi"
local harmonise = require "ghm.harmonise"
local nearest = require "ghm.nearest"
local sketches = require "ghm.sketches"
local softmax = require "ghm.softmax"

local C = clib.C
local M = {}
local Loss = {}
Loss.__index = Loss

-- What losses take beside the switches of harmonise, by default: mmdetection's, and the core's mu.
-- Its beta is that of its RetinaNet: with 1, as in PyTorch, nearly all boxes would have an L2 loss.
M.defaults = { form = "true_class", alpha = 0.25, gamma = 2, beta = 0.11,
    mu = harmonise.defaults("regression").mu }

-- own: what a sketch sums; keys: those of M.defaults that the loss takes.
local kinds = {
    GHMC = { task = "classification", ghm = true, own = "bce", keys = {} },
    SoftmaxGHMC = { task = "classification", ghm = true, own = "bce", softmax = true,
        keys = { "form" } },
    GHMR = { task = "regression", ghm = true, own = "asl1", keys = {} },
    BCE = { task = "classification", own = "bce", keys = {} },
    Focal = { task = "classification", own = "focal", keys = { "alpha", "gamma" } },
    ASL1 = { task = "regression", own = "asl1", keys = { "mu" } },
    SmoothL1 = { task = "regression", own = "smooth_l1", keys = { "beta" } },
}
local common = { "loss_weight", "reduction" }
local about_data = { "labels", "nonfinite", "device" }

local function known_keys(kind)
    local known = {}
    for _, list in ipairs { kind.ghm and harmonise.keys or common, about_data } do
        for _, key in ipairs(list) do
            local fits = key ~= "mu" or kind.task == "regression"
            if fits and not (key == "labels" and kind.softmax) then
                known[#known + 1] = key
            end
        end
    end
    for _, key in ipairs(kind.keys) do
        table.insert(known, 1, key)
    end
    return known
end

local function make(name, given)
    local kind = kinds[name]
    local self = setmetatable({ name = name, kind = kind, task = kind.task, options = {} }, Loss)
    local config, known = {}, known_keys(kind)
    for key, value in pairs(given or {}) do
        if not nearest.is_one_of(key, known) then
            fault.raise("usage", "%s: unknown key '%s'%s", name, tostring(key),
                nearest.hint(tostring(key), known))
        end
        if nearest.is_one_of(key, about_data) or nearest.is_one_of(key, kind.keys) then
            self.options[key] = value
        else
            config[key] = value
        end
    end
    for _, key in ipairs(kind.keys) do
        self.options[key] = self.options[key] or M.defaults[key]
    end
    local form = self.options.form
    if form and not nearest.is_one_of(form, softmax.forms) then
        fault.raise("usage", "%s: form is '%s'%s", name, tostring(form),
            nearest.hint(tostring(form), softmax.forms))
    end
    if not kind.ghm then
        -- one region and no momentum: every beta is 1, which is the plain loss
        config.bins, config.mu = 1, self.options.mu
    end
    self.harmonise = harmonise.new(kind.task, config)
    self.config = self.harmonise.config
    self.a = self.options.alpha or self.options.beta or self.config.mu or 0
    self.b = self.options.gamma or 0
    self.sketch = sketches.new { task = kind.task, bins = self.config.bins, mu = self.config.mu,
        knots = self.options.beta }
    return self
end

for name in pairs(kinds) do
    M[name] = function(given)
        return make(name, given)
    end
end
M.names = { "GHMC", "SoftmaxGHMC", "GHMR", "BCE", "Focal", "ASL1", "SmoothL1" }

-- Integers of one column are labels only where they lack the axis of classes that the logits have.
local function is_labels(pred, target)
    local dtype = array.is(target) and target.dtype
    local integral = dtype and dtype:match "^[iu]" and dtype ~= "u1"
    local columns = #pred.shape >= 2 and pred.shape[#pred.shape] or 1
    return columns > 1 and target.n * columns == pred.n
        or integral and columns == 1 and #target.shape < #pred.shape
end

function Loss:batch(pred, target, weight)
    pred = array.is(pred) and pred or array.from(pred, "f4")
    target = array.is(target) and target or array.from(target, "f4")
    if self.task == "regression" then
        return batches.regression { pred = pred, target = target, weight = weight }
    end
    if is_labels(pred, target) then
        local labels = target.dtype == "f4" and target:convert "i8" or target
        return batches.classification { logits = pred, labels = labels, weight = weight,
            base = self.options.labels }
    end
    return batches.classification { logits = pred, target = target, weight = weight }
end

-- Loss of a batch (ghm.batch): value, call. See the top of the file.
function Loss:forward_batch(batch, where)
    local logits = batch
    if self.kind.softmax then
        if batch.saved then
            fault.raise("usage", "%s: softmax needs the logits of each row, a sketch has none left",
                where or self.name)
        end
        batch = softmax.margins(batch, self.options.form, { device = self.options.device,
            where = where })
    end
    local sketch, facts = self.sketch:of(batch, { nonfinite = self.options.nonfinite, where = where,
        device = self.options.device })
    local call
    if self.kind.ghm then
        call = self.harmonise:step(sketch)
    else
        local cut = sketch:cut(1, self.config.mu)
        local sums = sketch:sums(self.kind.own, self.a, self.b)
        local R = sketches.fold(sketch:counts(), cut, 1, "int64_t")
        -- label_weight is a mask: tot is the number of valid samples here, so that beta is 1
        call = self.harmonise:apply(R, sketches.fold(sums, cut, 1, "double"),
            math.max(tonumber(R[0]), 1))
    end
    if not batch.saved then
        sketch:free()
    end
    call.facts = facts
    self.last = { batch = batch, call = call, logits = logits }
    if self.config.reduction == "none" then
        return self:elements "loss", call
    end
    return call.loss, call
end

function Loss:forward(pred, target, weight)
    return self:forward_batch(self:batch(pred, target, weight))
end

local outputs = { grad = true, beta = true, norm = true, loss = true }

-- One array per sample, of the shape of the predictions, of the last forward: "grad", "beta" (the
-- weight of a sample), "norm" (its gradient norm g) or "loss" (loss_weight * beta * l).
-- Ignored samples hold 0. Where a softmax row is one sample, all but "grad" are [rows, 1].
function Loss:elements(what)
    if not self.last then
        fault.raise("usage", "%s: forward comes first", self.name)
    end
    if not outputs[what] then
        fault.raise("usage", "%s: no elements '%s', expected grad, beta, norm or loss", self.name,
            tostring(what))
    end
    local batch, call = self.last.batch, self.last.call
    if batch.saved then
        fault.raise("usage", "%s: a sketch has no samples left, and %s is one number for each",
            self.name, what)
    elseif not batch.c then
        fault.raise("usage", "%s: elements need a batch of arrays, and the last was read block by "
            .. "block", self.name)
    elseif self.kind.softmax and what == "grad" then
        return softmax.gradient(self.last.logits, self.options.form, self:elements "beta",
            call.grad_scale, self.options)
    end
    local out = array.new("f4", batch.shape)
    local places = ffi.new "ghm_outputs"
    places[what] = out.ptr
    local where = self.options.device or device.default()
    local c = device.is_here(where) and batches.here(batch) or batch.c
    clib.check(C.ghm_gradient(where, c,
        sketches.functions[self.kind.own], self.a, self.b, self.config.bins, self.config.mu or 1,
        call.beta, call.grad_scale, self.config.loss_weight, places))
    return out
end

-- d loss / d pred, f4 of the predictions' shape; beta is constant, as in the paper.
function Loss:backward()
    return self:elements "grad"
end

-- The momentum state: { S, updates, calls }.
function Loss:state()
    return self.harmonise:state()
end

return M
