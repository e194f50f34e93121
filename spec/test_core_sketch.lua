-- The sketch against the oracle: counts exactly, sums to 1e-8 or better, unions, accuracy where few
-- samples share a cell, merging, threads, and what it refuses.

local lu = require "luaunit"
local close = require "close"
local oracle = require "oracle"
local samples = require "samples"
local sketch = require "ghm.sketches"

local TestCoreSketch = {}
_G.TestCoreSketch = TestCoreSketch

-- Counts exactly, loss sums within rel of the oracle's.
local function check_regions(s, expected, bins, mu, rel)
    local R, L = samples.regions(s, bins, mu)
    local wanted_R, wanted_L, tot = oracle.regions(expected, bins, mu)
    lu.assertEquals(R, wanted_R)
    close(s:tot(), tot, { rel = 1e-15 }, "tot")
    for j = 1, bins do
        close(L[j], wanted_L[j], { rel = rel or 1e-8 }, "loss of region %d of %d", j, bins)
    end
end

function TestCoreSketch.test_agrees_with_the_oracle_at_every_size()
    for _, n in ipairs(samples.sizes) do
        local x, t, w = samples.detector(n)
        local classes = samples.sketch_of({ bins = { 1, 10, 30 } }, samples.class_batch(x, t, w))
        local pred, target, weight = samples.boxes(n)
        local boxes = samples.sketch_of({ task = "regression", bins = { 1, 10, 30 }, mu = 0.02 },
            samples.box_batch(pred, target, weight))
        for _, bins in ipairs { 1, 10, 30 } do
            check_regions(classes, oracle.classes(x, t, w), bins)
            check_regions(boxes, oracle.boxes(pred, target, weight, 0.02), bins, 0.02)
        end
        local valid, positive = 0, 0
        for _, sample in ipairs(oracle.classes(x, t, w)) do
            valid = valid + (sample.valid and 1 or 0)
            positive = positive + (sample.valid and sample.t or 0)
        end
        lu.assertEquals(classes:facts(), { samples = n, valid = valid, positive = positive,
            weight_sum = valid, nonfinite = 0, first_nonfinite = -1, soft = 0, first_soft = -1,
            bad_labels = 0, first_bad_label = -1 })
        lu.assertEquals(boxes:facts().samples, n)
    end
end

function TestCoreSketch.test_a_million_samples_and_one_agree_with_the_oracle()
    local n = 2 ^ 20 + 1
    local x = samples.normals(n, -4, 2)
    local s = samples.sketch_of({ bins = 10 }, samples.class_batch(x, samples.flags(n, 0)))
    local R, L = samples.regions(s, 10)
    local wanted_R, wanted_L = {}, {}
    for j = 1, 10 do
        wanted_R[j], wanted_L[j] = 0, 0
    end
    for i = 0, n - 1 do
        local j = oracle.region({ key = x.ptr[i] }, 10)
        wanted_R[j] = wanted_R[j] + 1
        wanted_L[j] = wanted_L[j] + oracle.softplus(x.ptr[i])
    end
    lu.assertEquals(R, wanted_R)
    for j = 1, 10 do
        close(L[j], wanted_L[j], { rel = 1e-10 }, "loss of region %d", j)
    end
end

-- -- unions ---------------------------------------------------------------------------------------

local function check_union(all, one_of, n_configurations)
    for k = 1, n_configurations do
        local single, bins, mu = one_of(k)
        local R, L = samples.regions(all, bins, mu)
        local alone_R, alone_L = samples.regions(single, bins, mu)
        lu.assertEquals(R, alone_R)
        for j = 1, bins do
            close(L[j], alone_L[j], { rel = 1e-9 }, "loss of region %d of %d", j, bins)
        end
        close(samples.total(L), samples.total(alone_L), { rel = 1e-10 }, "loss of %d bins", bins)
        single:free()
    end
end

function TestCoreSketch.test_64_numbers_of_bins_together_equal_64_sketches()
    local x, t, w = samples.detector(20000)
    local one, bins = samples.class_batch(x, t, w), {}
    for k = 1, 64 do
        bins[k] = k
    end
    check_union(samples.sketch_of({ bins = bins }, one), function(k)
        return samples.sketch_of({ bins = k }, one), k
    end, 64)
end

function TestCoreSketch.test_many_mu_together_equal_sketches_of_one()
    local one = samples.box_batch(samples.boxes(20000))
    local mu = { 0.001, 0.005, 0.02, 0.1, 0.5, 1 }
    check_union(samples.sketch_of({ task = "regression", bins = { 10, 30 }, mu = mu }, one),
        function(k)
            local bins = k % 2 == 0 and 10 or 30
            return samples.sketch_of({ task = "regression", bins = bins, mu = mu[k] }, one),
                bins, mu[k]
        end, #mu)
end

-- 304,000 edges, dozens of them within one cell where g is near 0 and 1.
function TestCoreSketch.test_every_number_of_bins_up_to_1000_fits_one_sketch()
    local x, t, w = samples.detector(20000)
    local one, bins = samples.class_batch(x, t, w), {}
    for k = 1, 1000 do
        bins[k] = k
    end
    local some = { 2, 7, 85, 500, 991, 999, 1000 }
    check_union(samples.sketch_of({ bins = bins }, one), function(k)
        return samples.sketch_of({ bins = some[k] }, one), some[k]
    end, #some)
end

function TestCoreSketch.test_bins_that_were_not_declared_are_refused()
    local s = sketch.new { bins = { 5, 20 } }
    samples.refused("usage", { "bins = 7", "not declared" }, s.regions, s, 7)
    lu.assertEquals(#samples.regions(s, 10), 10, "every edge of 10 is one of 20")
    local r = sketch.new { task = "regression", bins = 10, mu = 0.02 }
    samples.refused("usage", { "this mu", "not declared" }, r.regions, r, 10, 0.03)
end

-- -- accuracy: the hard cases ---------------------------------------------------------------------

-- Logits of the case, all with target 0 (and, negated, with target 1: the same keys).
local function classes_of(keys, positive)
    local n = #keys
    local x = samples.fill(n, function(i) return positive and -keys[i + 1] or keys[i + 1] end)
    return x, samples.flags(n, positive and 1 or 0)
end

-- k samples spread over one cell, a relative width of 2^-10 from `start` on: most at its near end,
-- one at its far end, which is as skew as a cell can be.
local function clustered(start, k)
    local keys = {}
    for i = 1, k do
        keys[i] = oracle.float32(start * (i == k and 1 + 0.999 * 2 ^ -10 or 1))
    end
    return keys
end

local function of(n, value)
    local keys = {}
    for i = 1, n do
        keys[i] = oracle.float32(value(i))
    end
    return keys
end

-- name, function that makes the keys
local key_cases = {
    { "cells_far_out", function()
        return of(1000, function() return samples.normal(12, 3) end)
    end },
    { "a_hundred_thousand_normals", function()
        return of(1e5, function() return samples.normal(-4, 2) end)
    end },
    { "all_equal", function() return of(1000, function() return -3.7 end) end },
    { "from_tiny_to_huge", function()
        return of(2000, function()
            return (math.random(2) == 1 and -1 or 1) * 10 ^ (math.random() * 34 - 30)
        end)
    end },
}
for _, k in ipairs { 1, 2, 3, 5, 7 } do
    for _, start in ipairs { -15.984375, -8, -4, -1, -0.3, 0.3, 1, 4, 8 } do
        key_cases[#key_cases + 1] = { ("%d_samples_in_the_cell_at_%s%g"):format(k,
            start < 0 and "minus_" or "", math.abs(start)):gsub("%.", "_"),
            function() return clustered(start, k) end }
    end
end

for _, case in ipairs(key_cases) do
    TestCoreSketch["test_loss_of_" .. case[1]] = function()
        for _, positive in ipairs { false, true } do
            local x, t = classes_of(case[2](), positive)
            local s = samples.sketch_of({ bins = 10 }, samples.class_batch(x, t))
            check_regions(s, oracle.classes(x, t), 10)
        end
    end
end

-- -- other functions ------------------------------------------------------------------------------

-- { name, a, b, f(key, positive), how fast it grows: f ~ e^(growth s) for s far below 0 }
local functions = {
    { "bce", 0, 0, oracle.softplus, 1 },
    { "norm", 0, 0, oracle.sigmoid, 1 },
    { "norm_squared", 0, 0, function(s) return oracle.sigmoid(s) ^ 2 end, 2 },
}
for _, p in ipairs { { 0.25, 2 }, { -1, 0 }, { -1, 1 }, { 0.5, 0.5 }, { 0.9, 5 } } do
    local alpha, gamma = p[1], p[2]
    functions[#functions + 1] = { "focal", alpha, gamma, function(s, positive)
        return oracle.focal(positive and -s or s, positive and 1 or 0, alpha, gamma)
    end, 1 + gamma }
    local function norm(s, positive)
        local t, x, h = positive and 1 or 0, positive and -s or s, 1e-5
        return math.abs(oracle.focal(x + h, t, alpha, gamma)
            - oracle.focal(x - h, t, alpha, gamma)) / (2 * h)
    end
    -- the last: what a finite difference is good for
    functions[#functions + 1] = { "focal_norm", alpha, gamma, norm, 1 + gamma, 1e-6 }
    functions[#functions + 1] = { "focal_norm_squared", alpha, gamma, function(...)
        return norm(...) ^ 2
    end, 2 + 2 * gamma, 1e-6 }
end

function TestCoreSketch.test_sums_of_every_function_for_positives_and_negatives_apart()
    local x, t, w = samples.detector(20000)
    local s = samples.sketch_of({ bins = 10 }, samples.class_batch(x, t, w))
    local expected = oracle.classes(x, t, w)
    for _, f in ipairs(functions) do
        for _, group in ipairs { "both", "positives", "negatives" } do
            local function value(sample)
                local positive = sample.t == 1
                local counted = group == "both" or positive == (group == "positives")
                return counted and f[4](sample.key, positive) or 0
            end
            local _, wanted = oracle.regions(expected, 10, nil, value)
            local sums = s:sums(f[1], f[2], f[3], group)
            for j = 1, 10 do
                close(sums[j - 1], wanted[j], { rel = f[6] or 1e-8, abs = 1e-300 },
                    "%s(%g, %g) of %s in region %d", f[1], f[2], f[3], group, j)
            end
        end
    end
end

function TestCoreSketch.test_counts_positives_and_negatives_apart()
    local x, t, w = samples.detector(5000)
    local s = samples.sketch_of({ bins = 10 }, samples.class_batch(x, t, w))
    for _, group in ipairs { "positives", "negatives" } do
        local wanted = oracle.regions(oracle.classes(x, t, samples.fill(x.n, function(i)
            return t.ptr[i] == (group == "positives" and 1 or 0) and w.ptr[i] or 0
        end)), 10)
        lu.assertEquals(samples.list(s:counts(group), 10), wanted)
    end
end

-- What is left of the sum over a cell, of width w, as a share of it. Each function's k-th
-- derivative is at most growth^k of it, times e^(growth w) elsewhere in the cell. The third moment
-- is not kept: a Taylor step, as BCE takes it, misses all of it, at most sqrt(3)/18 w^3 (two
-- values, 21 % of the samples at one); two points with the cell's mean and variance miss 0.0567
-- w^3, as those that end beyond the cell are moved to its end, where the skewest samples are. The
-- variance is off by 2^-14 w^2, as squares are rounded to that, half each way, and so is what tells
-- equal samples. That passes 1e-8 only for losses below 2e-7 (s < -16), and for focal's where they
-- are below 1e-8 of the largest.
local function left_of_a_cell(name, growth, width)
    local skew, x = name == "bce" and math.sqrt(3) / 18 or 0.0567, growth * width
    return math.exp(x) * (skew * x ^ 3 / 6 + 2 ^ -14 * x ^ 2 / 2)
end

function TestCoreSketch.test_skewed_cells_leave_an_error_of_third_order_and_no_more()
    for _, f in ipairs(functions) do
        for exponent = -1, f[1]:find "^focal_norm" and -2 or 5 do
            local start, width = -2 ^ exponent, 2 ^ (exponent - 10)
            for k = 3, 12, 3 do
                local near, far = math.random(), math.random()
                local keys = of(k, function(i)
                    return start - 0.999 * width * (i == k and far or near)
                end)
                local x, t = classes_of(keys)
                local s = samples.sketch_of({ bins = 1 }, samples.class_batch(x, t))
                local wanted = 0
                for _, key in ipairs(keys) do
                    wanted = wanted + f[4](key, false)
                end
                close(s:sums(f[1], f[2], f[3])[0], wanted,
                    { rel = 1e-14 + left_of_a_cell(f[1], f[5], width) },
                    "%s(%g, %g) of %d at %g", f[1], f[2], f[3], k, start)
            end
        end
    end
end

function TestCoreSketch.test_keys_are_where_norms_are_reached()
    for _, g in ipairs { 1e-9, 0.1, 0.5, 0.9, 0.999 } do
        close(oracle.sigmoid(sketch.key("classification", g)), g, { rel = 1e-13 }, "s at %g", g)
        local d = sketch.key("regression", g, 0.02)
        close(d / math.sqrt(d * d + 0.02 ^ 2), g, { rel = 1e-13 }, "|d| at %g", g)
    end
    for g, expected in pairs { [0] = { -math.huge, 0 }, [1] = { math.huge, math.huge } } do
        lu.assertEquals({ sketch.key("classification", g), sketch.key("regression", g, 1) },
            expected)
    end
end

-- -- boxes ----------------------------------------------------------------------------------------

local function check_boxes(pred, target, mu, beta)
    local spec = { task = "regression", bins = { 1, 10 }, mu = mu, knots = beta }
    local s = samples.sketch_of(spec, samples.box_batch(pred, target))
    local expected = oracle.boxes(pred, target, nil, mu)
    check_regions(s, expected, 10, mu)
    local sums = { smooth_l1 = 0, smooth_l1_norm = 0, smooth_l1_norm_squared = 0, norm = 0,
        norm_squared = 0 }
    for _, sample in ipairs(expected) do
        sums.smooth_l1 = sums.smooth_l1 + oracle.smooth_l1(sample.d, beta)
        local slope = math.min(math.abs(sample.d) / beta, 1)
        sums.smooth_l1_norm = sums.smooth_l1_norm + slope
        sums.smooth_l1_norm_squared = sums.smooth_l1_norm_squared + slope ^ 2
        sums.norm = sums.norm + sample.norm
        sums.norm_squared = sums.norm_squared + sample.norm ^ 2
    end
    for name, wanted in pairs(sums) do
        local got = samples.total(samples.list(s:sums(name, name:find "^smooth" and beta or mu),
            s:intervals()))
        close(got, wanted, { rel = 1e-8 }, "%s, mu %g, beta %g", name, mu, beta)
    end
end

function TestCoreSketch.test_losses_of_boxes_for_every_mu_and_beta()
    for _, mu in ipairs { 0.001, 0.02, 0.3, 1 } do
        local pred, target = samples.boxes(3000, mu)
        for _, beta in ipairs { 1 / 9, 1, 0.02 } do
            check_boxes(pred, target, mu, beta)
        end
    end
end

function TestCoreSketch.test_errors_of_any_size_from_1e_minus_30_to_1e4()
    local pred = samples.fill(3000, function()
        return (math.random(2) == 1 and -1 or 1) * 10 ^ (math.random() * 34 - 30)
    end)
    check_boxes(pred, samples.fill(3000, function() return 0 end), 0.02, 1)
end

-- pred - target is no float32: its rounding error, 1e-8 of a small difference's loss and more, is
-- part of the sketch.
function TestCoreSketch.test_the_rounding_of_pred_minus_target_is_kept()
    for _, pair in ipairs { { 1.1, -0.37 }, { 4e-3, 1.2e-9 }, { -700.3, 1e-4 }, { 0.1, 0.7 } } do
        for n = 1, 5 do
            check_boxes(samples.fill(n, function() return pair[1] end),
                samples.fill(n, function() return pair[2] end), 0.02, 1)
        end
    end
    for _, n in ipairs { 1, 2, 3, 5 } do
        for _ = 1, 50 do
            check_boxes(samples.normals(n, 0, 1), samples.normals(n, 0, 1e-3), 0.5, 1)
        end
    end
end

function TestCoreSketch.test_samples_that_share_the_cell_at_a_knot()
    for k = 1, 12 do
        for _, start in ipairs { 0.4996, 0.49999, 0.5, 0.02, 1, 1e4, 3e-4 } do
            local keys = clustered(start, k)
            check_boxes(samples.fill(k, function(i) return keys[i + 1] end),
                samples.fill(k, function() return 0 end), 0.02, 0.5)
        end
    end
end
