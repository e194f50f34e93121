-- Momentum, beta and loss against the oracle over streams of calls, and the numbers that GHM's
-- quirks lead to.

local lu = require "luaunit"
local clib = require "ghm.clib"
local close = require "close"
local ffi = require "ffi"
local ghm = require "ghm"
local harmonise = require "ghm.harmonise"
local oracle = require "oracle"
local samples = require "samples"
local sketch = require "ghm.sketches"

local TestHarmonise = {}
_G.TestHarmonise = TestHarmonise

-- One call's regions: some empty, now and then all of them; as lists and as C wants them.
local function random_regions(bins)
    local R, L, tot = {}, {}, 0
    local share = ({ 0, 0.3, 0.8, 1 })[math.random(4)]
    for j = 1, bins do
        R[j] = math.random() < share and math.random(1, 1000) or 0
        L[j] = R[j] * math.random()
        tot = tot + R[j]
    end
    return R, L, math.max(tot, 1)
end

local function apply(h, R, L, tot)
    local bins = h.config.bins
    return h:apply(ffi.new("int64_t[?]", bins, R), ffi.new("double[?]", bins, L), tot)
end

local exact = { rel = 1e-13 }

local function check_stream(config, calls)
    local h, state = harmonise.new("classification", config), {}
    local bins = h.config.bins
    for call = 1, calls do
        local R, L, tot = random_regions(bins)
        local got, wanted = apply(h, R, L, tot), oracle.step(h.config, state, R, L, tot)
        close(got.loss, wanted.loss, exact, "loss of call %d", call)
        lu.assertEquals({ got.n, got.limited }, { wanted.n, wanted.limited })
        local most = 0
        for j = 1, bins do
            close(got.beta[j - 1], wanted.beta[j], exact, "beta[%d] of call %d", j, call)
            close(got.used[j - 1], wanted.used[j], exact, "density[%d] of call %d", j, call)
            close(h.S[j - 1], state.S and state.S[j] or 0, exact, "S[%d] of call %d", j, call)
            lu.assertEquals(tonumber(h.updates[j - 1]), state.k and state.k[j] or 0)
            most = math.max(most, wanted.beta[j])
        end
        close(got.beta_largest, most, exact, "beta_largest of call %d", call)
        close(got.grad_scale, h.config.loss_weight / (h.config.reduction == "mean" and tot or 1),
            exact, "grad_scale of call %d", call)
    end
    lu.assertEquals(h:state().calls, calls)
end

-- Every combination of the switches, over streams with empty regions and empty calls.
for _, divide in ipairs(clib.words.divide) do
    for _, start in ipairs(clib.words.start) do
        for _, empty in ipairs(clib.words.empty) do
            for _, reduction in ipairs(clib.words.reduction) do
                local name = table.concat({ divide, start, empty, reduction }, "_")
                TestHarmonise["test_stream_of_" .. name] = function()
                    for _, momentum in ipairs { 0, 0.1, 0.75, 0.99, 0.999999 } do
                        for bins, beta_max in pairs { [1] = 0, [2] = 1.5, [10] = 0, [11] = 2 } do
                            check_stream({ bins = bins, momentum = momentum, divide = divide,
                                start = start, empty = empty, reduction = reduction,
                                loss_weight = 0.3, beta_max = beta_max }, 12)
                        end
                    end
                end
            end
        end
    end
end

function TestHarmonise.test_defaults_are_those_of_mmdetection()
    lu.assertEquals(harmonise.defaults "classification", { bins = 10, momentum = 0,
        loss_weight = 1, beta_max = 0, divide = "nonempty", start = "zero", empty = "keep",
        reduction = "mean" })
    lu.assertEquals(harmonise.defaults("regression").mu, 0.02)
end

-- S starts at 0, so a first hit leaves S = (1 - m) R.
function TestHarmonise.test_a_first_hit_is_inflated_by_1_over_1_minus_m()
    for _, m in ipairs { 0.5, 0.75, 0.9 } do
        local plain = apply(harmonise.new("classification", {}), { 8, 0, 0, 0, 0, 0, 0, 0, 0, 2 },
            { 1, 0, 0, 0, 0, 0, 0, 0, 0, 3 }, 10)
        for start, factor in pairs { zero = 1 / (1 - m), first = 1, corrected = 1 } do
            local h = harmonise.new("classification", { momentum = m, start = start })
            local one = apply(h, { 8, 0, 0, 0, 0, 0, 0, 0, 0, 2 },
                { 1, 0, 0, 0, 0, 0, 0, 0, 0, 3 }, 10)
            close(one.loss, plain.loss * factor, exact, "loss with start = %s", start)
            close(one.beta_largest, plain.beta_largest * factor, exact, "beta of %s", start)
        end
    end
end

-- S counts samples: a weight of boxes, which moves tot, is none of them.
function TestHarmonise.test_a_uniform_start_has_the_first_calls_samples_whatever_they_weigh()
    local pred, target = { 0.01, -0.3, 0.002, 0.1 }, { 0, 0, 0, 0 }
    for _, weight in ipairs { 0.5, 1, 8 } do
        local loss = ghm.GHMR { bins = 2, momentum = 0.75, start = "uniform" }
        loss:forward(pred, target, { weight, weight, weight, weight })
        lu.assertEquals(loss:state().S, { 2, 2 })
    end
end

function TestHarmonise.test_a_singleton_region_weighs_as_much_as_the_easy_one()
    local r = apply(harmonise.new("classification", { bins = 2 }), { 999, 1 }, { 1, 1 }, 1000)
    close(r.beta[0] * 999, 500, exact, "weight of the easy region")
    close(r.beta[1], 500, exact, "weight of the stray sample")
end

-- RetinaNet: five levels of sizes 4:1 share one S, and g is spread alike in each. The mean beta of
-- a level settles at its size over S, S being what the geometric mixture of sizes leaves.
function TestHarmonise.test_five_pyramid_levels_that_share_one_state()
    local h = harmonise.new("classification", { bins = 4, momentum = 0.75 })
    local plain = harmonise.new("classification", { bins = 4 })
    local mean = {}
    for _ = 1, 60 do
        for level = 1, 5 do
            local size = 100 * 4 ^ (5 - level)
            local R, L = { size, size, size, size }, { 0, 0, 0, 0 }
            local r = apply(h, R, L, 4 * size)
            mean[level] = (r.beta[0] + r.beta[1] + r.beta[2] + r.beta[3]) / 4
            close(apply(plain, R, L, 4 * size).beta_largest, 1, exact, "beta without momentum")
        end
    end
    for level, wanted in ipairs { 2.73, 0.74, 0.23, 0.076, 0.025 } do
        close(mean[level], wanted, { abs = wanted < 0.1 and 0.0005 or 0.005 },
            "mean beta of P%d", level + 2)
    end
end

function TestHarmonise.test_beta_max_holds_down_the_stray_sample_alone()
    for beta_max, expected in pairs { [0] = 500, [500] = 500, [20] = 20, [0.25] = 0.25 } do
        local r = apply(harmonise.new("classification", { bins = 2, beta_max = beta_max }),
            { 999, 1 }, { 1, 3 }, 1000)
        local easy = beta_max == 0.25 and 0.25 or 500 / 999
        close(r.beta[0], easy, exact, "beta of the easy region, beta_max = %g", beta_max)
        close(r.beta[1], expected, exact, "beta of the stray sample, beta_max = %g", beta_max)
        close(r.loss, (easy + 3 * expected) / 1000, exact, "loss, beta_max = %g", beta_max)
        lu.assertEquals(r.limited, beta_max == 0.25 and 2 or beta_max == 20 and 1 or 0)
    end
    for _, wrong in ipairs { -1, 0 / 0, math.huge } do
        samples.refused("usage", { "beta_max is", "expected 0 (no limit)" }, harmonise.new,
            "classification", { beta_max = wrong })
    end
end

function TestHarmonise.test_a_stream_of_sketches_follows_the_oracle()
    local config = { bins = 10, momentum = 0.75 }
    for _, task in ipairs { "classification", "regression" } do
        local h, state = harmonise.new(task, config), {}
        local mu = task == "regression" and h.config.mu or nil
        local s = sketch.new { task = task, bins = 10, mu = mu }
        for _, n in ipairs { 1, 0, 500, 33, 0, 2000 } do
            local one, expected
            if mu then
                local pred, target, weight = samples.boxes(n)
                one = samples.box_batch(pred, target, weight)
                expected = oracle.boxes(pred, target, weight, mu)
            else
                local x, t, w = samples.detector(n)
                one, expected = samples.class_batch(x, t, w), oracle.classes(x, t, w)
            end
            local call = s:like()
            call:add(one)
            local got, R, L, tot = h:step(call), oracle.regions(expected, 10, mu)
            local wanted = oracle.step(h.config, state, R, L, tot)
            close(got.loss, wanted.loss, { rel = 1e-8 }, "loss of %d samples", n)
            close(got.tot, tot, { rel = 1e-15 }, "tot of %d samples", n)
            call:free()
        end
    end
end

function TestHarmonise.test_what_is_refused_changes_no_state()
    local h = harmonise.new("classification", { bins = 2, momentum = 0.5 })
    apply(h, { 3, 1 }, { 1, 1 }, 4)
    local before = h:state()
    for _, tot in ipairs { 0, -1, 0 / 0 } do
        samples.refused("usage", { "tot is", "expected at least 1" }, apply, h, { 3, 1 }, { 1, 1 },
            tot)
    end
    lu.assertEquals(h:state(), before)
    for key, value in pairs { divide = 2, start = 4, empty = -1, reduction = 3 } do
        local c = ffi.new("ghm_config", h.c)
        c[key] = value
        local R, D = ffi.new "int64_t[2]", ffi.new "double[2]"
        lu.assertEquals(clib.C.ghm_harmonise(c, R, D, 1, D, R, D, D, ffi.new "ghm_result"),
            tonumber(clib.C.GHM_E_ARGUMENT), key)
    end
end
