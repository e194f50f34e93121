-- The gradient pass: against the oracle, against finite differences with the weights frozen, and
-- within its outputs.

local lu = require "luaunit"
local array = require "ghm.array"
local clib = require "ghm.clib"
local close = require "close"
local device = require "ghm.device"
local ffi = require "ffi"
local ghm = require "ghm"
local oracle = require "oracle"
local samples = require "samples"

local TestCoreGradient = {}
_G.TestCoreGradient = TestCoreGradient

local C = clib.C

-- float32 outputs; what is below abs is below float32's normal numbers
local element = { rel = 1e-6, abs = 1e-37 }

-- -- against the oracle ---------------------------------------------------------------------------

-- loss: a loss object after forward; expected: its samples by the oracle.
local function check_elements(loss, expected, mu)
    local c = loss.config
    local R, L, tot = oracle.regions(expected, c.bins, mu)
    local call = oracle.step(c, {}, R, L, tot)
    local grads = oracle.gradients(expected, c, call, tot, mu)
    local grad, beta = loss:backward(), loss:elements "beta"
    local norm, losses = loss:elements "norm", loss:elements "loss"
    for i, sample in ipairs(expected) do
        local b = sample.valid and call.beta[oracle.region(sample, c.bins, mu)] or 0
        -- a soft target's slope is a difference of numbers below 1, each rounded once or twice
        local rounded = { rel = element.rel,
            abs = math.max(element.abs, 2 ^ -51 * loss.last.call.grad_scale * b) }
        close(grad.ptr[i - 1], grads[i], sample.key and element or rounded,
            "grad of sample %d, key %g", i, sample.key or sample.x)
        close(beta.ptr[i - 1], b, element, "beta of sample %d", i)
        close(norm.ptr[i - 1], sample.valid and sample.norm or 0,
            sample.key and element or { rel = element.rel, abs = 2 ^ -51 }, "g of sample %d", i)
        close(losses.ptr[i - 1], c.loss_weight * b * sample.loss, element, "loss of sample %d", i)
    end
end

function TestCoreGradient.test_elements_agree_with_the_oracle_at_every_size()
    for _, n in ipairs(samples.sizes) do
        for _, reduction in ipairs { "mean", "sum", "none" } do
            local x, t, w = samples.detector(n)
            local loss = ghm.GHMC { reduction = reduction, loss_weight = 0.7 }
            loss:forward(x, t, w)
            check_elements(loss, oracle.classes(x, t, w))
            local pred, target, weight = samples.boxes(n)
            local boxes = ghm.GHMR { reduction = reduction, loss_weight = 2 }
            boxes:forward(pred, target, weight)
            check_elements(boxes, oracle.boxes(pred, target, weight, 0.02), 0.02)
        end
    end
end

function TestCoreGradient.test_far_logits_lose_no_digit()
    local n = 4000
    local x = samples.fill(n, function(i) return (i - n / 2) / (n / 2) * 85 end)
    for share = 0, 1 do
        local t = samples.flags(n, share)
        local loss = ghm.GHMC { bins = 30 }
        loss:forward(x, t)
        check_elements(loss, oracle.classes(x, t))
    end
end

function TestCoreGradient.test_errors_of_any_size_lose_no_digit()
    for _, mu in ipairs { 0.001, 0.02, 1 } do
        local pred = samples.fill(3000, function(i)
            return (i % 2 * 2 - 1) * 10 ^ (math.random() * 22 - 18)
        end)
        local zeros = samples.fill(3000, function() return 0 end)
        local loss = ghm.GHMR { mu = mu }
        loss:forward(pred, zeros)
        check_elements(loss, oracle.boxes(pred, zeros, nil, mu), mu)
    end
end

-- The exponent multiplies what g^gamma is off by. Lin et al. 2017, its derivative in s.
function TestCoreGradient.test_focal_loses_no_digit_whatever_its_gamma()
    local n = 2000
    local x = samples.fill(n, function(i) return (i - n / 2) / (n / 2) * 30 end)
    for share = 0, 1 do
        local t, sign = samples.flags(n, share), 1 - 2 * share
        for _, gamma in ipairs { 0, 0.5, 1, 2, 3, 5 } do
            local loss = ghm.Focal { alpha = -1, gamma = gamma }
            loss:forward(x, t)
            local grad, value = loss:elements "grad", loss:elements "loss"
            for i = 0, n - 1 do
                local s = sign * x.ptr[i]
                local g, bce = oracle.sigmoid(s), oracle.bce(s, 0)
                local slope = g ^ gamma * (gamma * oracle.sigmoid(-s) * bce + g)
                close(grad.ptr[i], sign * loss.last.call.grad_scale * slope,
                    { rel = 5e-7, abs = 1e-37 }, "gradient, gamma %g, s = %g", gamma, s)
                close(value.ptr[i], g ^ gamma * bce, { rel = 5e-7, abs = 1e-37 },
                    "loss, gamma %g, s = %g", gamma, s)
            end
        end
    end
end

-- Parameters that are no floats: a gradient of |d|, which has none at 0, and one that is 0.
function TestCoreGradient.test_parameters_beyond_floats_give_numbers()
    local sharp = ghm.SmoothL1 { beta = 1e-50 }
    sharp:forward({ 1, 2, -3 }, { 1, 1, 1 })
    local grad = sharp:elements "grad"
    lu.assertEquals(grad.ptr[0], 0)
    lu.assertTrue(grad.ptr[1] > 0 and grad.ptr[2] == -grad.ptr[1])
    local focal = ghm.Focal { gamma = 1e39 }
    focal:forward({ 1, -2, 5 }, { 1, 0, 0 })
    for i = 0, 2 do
        lu.assertEquals(focal:elements("grad").ptr[i], 0)
    end
end

function TestCoreGradient.test_soft_targets_agree_with_the_oracle()
    local x, t = samples.normals(2001, 0, 3), samples.shares(2001)
    for i = 0, 99 do -- where the gradient all but vanishes
        x.ptr[i] = math.log(t.ptr[i] / (1 - t.ptr[i]))
    end
    local loss = ghm.GHMC { bins = 30 }
    loss:forward(x, t)
    check_elements(loss, oracle.classes(x, t))
end

-- -- against finite differences -------------------------------------------------------------------

-- The loss of one sample as a function of its prediction, times its frozen weight, differentiated.
local function check_difference(loss, x, t, value)
    local c = loss.config
    local beta, grad = loss:elements "beta", loss:backward()
    local scale = loss.last.call.grad_scale
    for i = 0, x.n - 1 do
        local h = 1e-4 * math.max(math.abs(x.ptr[i] - t.ptr[i]), 0.01)
        local slope = (value(x.ptr[i] + h, t.ptr[i]) - value(x.ptr[i] - h, t.ptr[i])) / (2 * h)
        close(grad.ptr[i], scale * beta.ptr[i] * slope, { rel = 1e-5, abs = 1e-9 * scale },
            "%s, bins %d: slope at %g (target %g)", loss.name, c.bins, x.ptr[i], t.ptr[i])
    end
end

local function no_knot_near(x, beta)
    return math.abs(math.abs(x) - beta) > 0.01 * beta
end

local differences = {
    { "BCE", {}, function() return oracle.bce end },
    { "GHMC", { bins = 30 }, function() return oracle.bce end },
    { "GHMC", { bins = 10, reduction = "sum" }, function() return oracle.bce end },
}
for _, p in ipairs { { 0.25, 2 }, { -1, 0 }, { -1, 1 }, { 0.6, 0.5 }, { 0.25, 5 } } do
    differences[#differences + 1] = { "Focal", { alpha = p[1], gamma = p[2] }, function()
        return function(x, t) return oracle.focal(x, t, p[1], p[2]) end
    end }
end

for k, case in ipairs(differences) do
    TestCoreGradient[("test_difference_of_%s_%d"):format(case[1], k)] = function()
        local x, t = samples.normals(600, 0, 3), samples.flags(600, 0.5)
        local loss = ghm[case[1]](case[2])
        loss:forward(x, t)
        check_difference(loss, x, t, case[3]())
    end
end

function TestCoreGradient.test_difference_of_soft_targets()
    local x, t = samples.normals(600, 0, 2), samples.shares(600)
    for _, name in ipairs { "BCE", "GHMC" } do
        local loss = ghm[name]()
        loss:forward(x, t)
        check_difference(loss, x, t, oracle.bce)
    end
end

function TestCoreGradient.test_difference_of_box_losses()
    for _, scale in ipairs { 0.02, 0.3, 1 } do
        local pred = samples.fill(600, function()
            local d
            repeat
                d = samples.normal(0, 2 * scale)
            until no_knot_near(d, scale)
            return d
        end)
        local target = samples.fill(600, function() return 0 end)
        for name, options in pairs { GHMR = { mu = scale }, ASL1 = { mu = scale } } do
            local loss = ghm[name](options)
            loss:forward(pred, target)
            check_difference(loss, pred, target, function(x) return oracle.asl1(x, scale) end)
        end
        local smooth = ghm.SmoothL1 { beta = scale }
        smooth:forward(pred, target)
        check_difference(smooth, pred, target, function(x)
            return oracle.smooth_l1(x, scale)
        end)
    end
end

-- -- outputs --------------------------------------------------------------------------------------

local names = { "grad", "beta", "norm", "loss" }
local GUARD = 19 -- odd, so that outputs are not aligned for vectors

-- The wanted outputs of one pass, each inside a larger array of NaN that must stay NaN.
local function guarded_pass(one, wanted)
    local places, wide, out = ffi.new "ghm_outputs", {}, {}
    for _, name in ipairs(wanted) do
        wide[name] = samples.fill(one.n + 2 * GUARD, function() return 0 / 0 end)
        out[name] = array.view(wide[name].ptr + GUARD, "f4", { one.n }, wide[name])
        places[name] = out[name].ptr
    end
    local boxes = one.task == "regression"
    local beta = ffi.new("double[10]", { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 })
    clib.check(C.ghm_gradient(device.default(), one.c, boxes and C.GHM_ASL1 or C.GHM_BCE,
        boxes and 0.02 or 0, 0, 10, 0.02, beta, 0.5, 2, places))
    for _, name in ipairs(wanted) do
        for i = 0, wide[name].n - 1 do
            local inside = i >= GUARD and i < GUARD + one.n
            local is_nan = wide[name].ptr[i] ~= wide[name].ptr[i]
            lu.assertEquals(is_nan, not inside, ("%s[%d] of %d"):format(name, i - GUARD, one.n))
        end
    end
    return out
end

local function check_outputs(one)
    local all = guarded_pass(one, names)
    for _, name in ipairs(names) do
        local alone = guarded_pass(one, { name })[name]
        lu.assertTrue(ffi.string(alone.ptr, one.n * 4) == ffi.string(all[name].ptr, one.n * 4),
            name .. " alone differs")
    end
    guarded_pass(one, {})
end

function TestCoreGradient.test_outputs_alone_and_together_write_their_own_places_only()
    for _, n in ipairs(samples.sizes) do
        check_outputs(samples.class_batch(samples.detector(n)))
        check_outputs(samples.box_batch(samples.boxes(n)))
        check_outputs(samples.class_batch(samples.normals(n, 0, 2), samples.shares(n)))
    end
end

local function call(one, f, a, b, bins, mu)
    return function()
        clib.check(C.ghm_gradient(device.default(), one.c, f, a, b, bins, mu,
            ffi.new "double[10]", 1, 1, ffi.new "ghm_outputs"))
    end
end

function TestCoreGradient.test_functions_that_do_not_fit_the_batch_are_refused()
    local one, boxes = samples.class_batch({ 1 }, { 0 }), samples.box_batch({ 1 }, { 0 })
    local soft = samples.class_batch({ 1 }, { 0.5 })
    samples.sketch_of({ bins = 10 }, soft) -- learns here that its targets are soft
    samples.refused("usage", { "function is 2" }, call(one, C.GHM_ASL1, 1, 0, 10, 1))
    samples.refused("usage", { "function is 0" }, call(boxes, C.GHM_BCE, 0, 0, 10, 1))
    samples.refused("usage", { "function is 1" }, call(soft, C.GHM_FOCAL, 0.25, 2, 10, 1))
    samples.refused("usage", { "function is 4" }, call(one, C.GHM_NORM, 0, 0, 10, 1))
    samples.refused("usage", { "expected one mu" }, call(boxes, C.GHM_ASL1, 0.1, 0, 10, 0.2))
    samples.refused("usage", { "bins is 0" }, call(one, C.GHM_BCE, 0, 0, 0, 1))
    samples.refused("usage", { "outside its range" }, call(one, C.GHM_FOCAL, 1, 2, 10, 1))
    samples.refused("usage", { "outside its range" }, call(boxes, C.GHM_SMOOTH_L1, 0, 0, 10, 1))
end
