-- The paper's exact density: by sorting against the oracle's look at every pair, and the sketch's
-- estimate of it against both.

local lu = require "luaunit"
local array = require "ghm.array"
local batch = require "ghm.batch"
local clib = require "ghm.clib"
local close = require "close"
local device = require "ghm.device"
local ffi = require "ffi"
local harmonise = require "ghm.harmonise"
local oracle = require "oracle"
local samples = require "samples"

local TestExactDensity = {}
_G.TestExactDensity = TestExactDensity

-- density (f8 array of the batch's shape), loss
local function exact_density(one, mu, eps)
    local density, loss = array.new("f8", one.shape), ffi.new "double[1]"
    clib.check(clib.C.ghm_exact_density(device.default(), one.c, mu or 1, eps, density.ptr, loss))
    return density, loss[0]
end

-- A density is a count, which is exact, over the length of the window, at least eps / 2. The
-- length's ends are rounded, and so is g where the window is cut at 1: by 2^-51 at most, here and
-- there.
local function check(one, expected, mu, eps)
    local density, loss = exact_density(one, mu, eps)
    local wanted, wanted_loss = oracle.exact_density(expected, eps)
    local rel = 1e-12 + 2 * 2 ^ -51 / (eps / 2)
    close(loss, wanted_loss, { rel = 1e-10 + rel }, "loss of %d samples", #expected)
    for i = 1, #expected do
        local got = density.ptr[i - 1]
        if wanted[i] then
            close(got, wanted[i], { rel = rel }, "density of sample %d, eps %g", i, eps)
        else
            lu.assertTrue(got ~= got, "an ignored sample has a density")
        end
    end
end

function TestExactDensity.test_agrees_with_every_pair_at_every_size()
    for _, n in ipairs { 0, 1, 31, 33, 511, 513, 1500 } do
        for _, eps in ipairs { 0.1, 1 / 30, 1, 1e-6 } do
            local x, t, w = samples.detector(n)
            check(samples.class_batch(x, t, w), oracle.classes(x, t, w), nil, eps)
            local pred, target, weight = samples.boxes(n)
            check(samples.box_batch(pred, target, weight),
                oracle.boxes(pred, target, weight, 0.02), 0.02, eps)
        end
    end
end

-- No window ends within its rounding error of a sample.
function TestExactDensity.test_boxes_whose_differences_round_to_one_float32()
    local pred, target = samples.tied_boxes(256)
    local one = samples.box_batch(pred, target)
    for _, eps in ipairs { 0.1, 1e-6, 1e-8, 1e-9 } do
        check(one, oracle.boxes(pred, target, nil, 0.5), 0.5, eps)
    end
end

function TestExactDensity.test_one_sample_and_equal_samples()
    local density, loss = exact_density(samples.class_batch({ 0 }, { 0 }), nil, 0.1)
    close(density.ptr[0], 10, { rel = 1e-12 }, "density of a sample alone")
    close(loss, math.log(2) / 10, { rel = 1e-12 }, "its loss")
    local same = samples.fill(1000, function() return -2 end)
    density = exact_density(samples.class_batch(same, samples.flags(1000, 0)), nil, 0.1)
    close(density.ptr[999], 10000, { rel = 1e-12 }, "density of a thousand equal ones")
end

function TestExactDensity.test_the_window_is_cut_at_0_and_1()
    local far = samples.class_batch({ -100, 100 }, { 0, 0 })
    local density = exact_density(far, nil, 0.1)
    close(density.ptr[0], 1 / 0.05, { rel = 1e-12 }, "density at g = 0")
    close(density.ptr[1], 1 / 0.05, { rel = 1e-12 }, "density at g = 1")
end

-- g is 0, 1/2 and 1 exactly; with eps = 1 each is at a border of the others' windows.
function TestExactDensity.test_the_window_holds_its_lower_border_and_not_its_upper_one()
    local density = exact_density(samples.class_batch({ -1e4, 0, 1e4 }, { 0, 0, 0 }), nil, 1)
    lu.assertEquals(samples.list(density.ptr, 3), { 1 / 0.5, 2 / 1, 2 / 0.5 })
end

function TestExactDensity.test_a_label_beyond_the_classes_is_named_by_its_row()
    local labels = samples.fill(700, function(i) return i >= 650 and 7 or 1 end, "i8")
    local one = batch.classification { logits = samples.normals({ 700, 2 }, 0, 1),
        labels = labels }
    samples.refused("dump", { "50 labels are beyond the 2 classes, the first in row 650" },
        exact_density, one, nil, 0.1)
end

function TestExactDensity.test_refuses_bad_windows_soft_targets_and_nonfinite_samples()
    local one = samples.class_batch({ 1, 2 }, { 0, 1 })
    for _, eps in ipairs { 0, -0.1, 1.5, 0 / 0, 1e-17 } do
        samples.refused("usage", { "eps is" }, exact_density, one, nil, eps)
    end
    samples.refused("dump", { "1 targets are not 0 or 1", "row 1" }, exact_density,
        samples.class_batch({ 1, 2 }, { 0, 0.5 }), nil, 0.1)
    samples.refused("dump", { "1 of 2 samples are not finite" }, exact_density,
        samples.class_batch({ 1, 0 / 0 }, { 0, 0 }), nil, 0.1)
    samples.refused("usage", { "mu is 0" }, exact_density, samples.box_batch({ 1 }, { 0 }), 0, 0.1)
end

-- -- the sketch's estimate ------------------------------------------------------------------------

-- The count in a window is off by at most what the two cells at its borders hold: cells are 2^-10
-- wide, relative to the key. Among samples of a smooth density that is a share of the window's.
local function estimate_error(s, one, expected, mu, eps)
    local density = exact_density(one, mu, eps)
    local norms, wanted = {}, {}
    for i = 1, #expected, 7 do
        if expected[i].valid then
            norms[#norms + 1] = expected[i].norm
            wanted[#wanted + 1] = density.ptr[i - 1]
        end
    end
    local worst, sum = 0, 0
    for k, got in ipairs(s:density(norms, eps, mu)) do
        local off = math.abs(got - wanted[k]) / wanted[k]
        worst, sum = math.max(worst, off), sum + off
    end
    return worst, sum / #norms
end

-- eps, limits of the largest and of the mean error: about twice the worst that was measured with
-- seeds 1 to 3, which was 0.005 and 1.5e-4, 0.014 and 4.3e-4, 0.0014 and 3.2e-5.
local limits = { { 0.1, 0.01, 3e-4 }, { 1 / 30, 0.03, 1e-3 }, { 0.5, 0.003, 7e-5 } }

function TestExactDensity.test_the_sketch_estimates_the_density_of_logits()
    local x, t, w = samples.detector(50000)
    local one = samples.class_batch(x, t, w)
    local s = samples.sketch_of({ bins = 10 }, one)
    local expected = oracle.classes(x, t, w)
    for _, limit in ipairs(limits) do
        local worst, mean = estimate_error(s, one, expected, nil, limit[1])
        close(worst, 0, { abs = limit[2] }, "largest error, eps %g", limit[1])
        close(mean, 0, { abs = limit[3] }, "mean error, eps %g", limit[1])
    end
end

function TestExactDensity.test_the_sketch_estimates_the_density_of_boxes()
    local pred, target, w = samples.boxes(50000)
    local one = samples.box_batch(pred, target, w)
    for _, mu in ipairs { 0.02, 0.3 } do
        local s = samples.sketch_of({ task = "regression", bins = 10, mu = mu }, one)
        local expected = oracle.boxes(pred, target, w, mu)
        for _, limit in ipairs(limits) do
            local worst, mean = estimate_error(s, one, expected, mu, limit[1])
            close(worst, 0, { abs = limit[2] }, "largest error, mu %g, eps %g", mu, limit[1])
            close(mean, 0, { abs = limit[3] }, "mean error, mu %g, eps %g", mu, limit[1])
        end
    end
end

-- With one sample to a cell and windows that end between samples, nothing is interpolated.
function TestExactDensity.test_the_estimate_is_exact_where_no_cell_is_cut()
    local x = samples.fill(200, function(i) return (i - 100) / 10 end)
    local t = samples.fill(200, function(i) return i % 2 end)
    local one = samples.class_batch(x, t)
    local s = samples.sketch_of({ bins = 10 }, one)
    for group, counted in pairs { both = { [0] = true, true }, positives = { true },
        negatives = { [0] = true } } do
        for _, g in ipairs { 0.05, 0.3, 0.5003, 0.77, 0.95 } do
            local count, low, high = 0, g - 0.05, g + 0.05
            for _, sample in ipairs(oracle.classes(x, t)) do
                local inside = sample.norm >= low and sample.norm < high
                count = count + (counted[sample.t] and inside and 1 or 0)
            end
            local wanted = count / (math.min(high, 1) - math.max(low, 0))
            close(s:density({ g }, 0.1, nil, group)[1], wanted, { rel = 1e-12 },
                "density of %s at %g", group, g)
        end
    end
end

-- Where a window's end cuts a cell of k samples, interpolation misses up to k, but sqrt(k)/2 as its
-- standard deviation, and nothing on average. Over 200 seeds the losses and sums below were off by
-- 0 with a standard deviation of at most 2.4e-5 (eps 0.1) and 6.5e-5 (1/30), to the power of 2 by
-- 6e-5 and 1.6e-4, as normal numbers are: these limits are six of those.
local limits_of_sums = { [0.1] = { 1.5e-4, 4e-4 }, [1 / 30] = { 4e-4, 1e-3 } }

-- Sums of single samples, each weighed by N / GD; the losses, over N, are the exact-density loss.
local function check_exact_sums(s, one, expected, mu, eps, names)
    local density, loss = exact_density(one, mu, eps)
    local N, intervals = s:facts().valid, s:intervals()
    local function total(...)
        return samples.total(samples.list(s:exact_sums(...), intervals))
    end
    close(total(names.loss, mu, 0, "both", { mu = mu, eps = eps }) / N, loss,
        { rel = limits_of_sums[eps][1] }, "the loss, eps %g", eps)
    for power = 1, 2 do
        local wanted = { both = 0, positives = 0, negatives = 0 }
        for i, sample in ipairs(expected) do
            if sample.valid then
                local value = (sample.norm * N / density.ptr[i - 1]) ^ power
                local group = sample.t == 1 and "positives" or "negatives"
                wanted.both, wanted[group] = wanted.both + value, wanted[group] + value
            end
        end
        for group, sum in pairs(wanted) do
            close(total(power == 1 and "norm" or "norm_squared", mu, 0, group,
                { mu = mu, eps = eps, power = power }), sum, { rel = limits_of_sums[eps][power] },
                "sum of %s to the power of %d, eps %g", group, power, eps)
        end
    end
end

function TestExactDensity.test_sums_weighed_by_the_exact_density()
    for _, eps in ipairs { 0.1, 1 / 30 } do
        local x, t, w = samples.detector(20000)
        local one = samples.class_batch(x, t, w)
        check_exact_sums(samples.sketch_of({ bins = 10 }, one), one, oracle.classes(x, t, w), nil,
            eps, { loss = "bce" })
        local pred, target, weight = samples.boxes(20000)
        one = samples.box_batch(pred, target, weight)
        check_exact_sums(samples.sketch_of({ task = "regression", bins = 10, mu = 0.02 }, one), one,
            oracle.boxes(pred, target, weight, 0.02), 0.02, eps, { loss = "asl1" })
    end
    local s = samples.sketch_of({ bins = 10 }, samples.class_batch({ 1, 2 }, { 0, 1 }))
    samples.refused("usage", { "power is 3" }, s.exact_sums, s, "norm", 0, 0, "both",
        { eps = 0.1, power = 3 })
    samples.refused("usage", { "eps is 0" }, s.exact_sums, s, "norm", 0, 0, "both", { eps = 0 })
    samples.refused("usage", { "function is" }, s.exact_sums, s, "asl1", 0, 0, "both",
        { eps = 0.1 })
end

-- What a study says of a configuration, from single samples and their exact density.
function TestExactDensity.test_a_study_agrees_with_single_samples()
    local bins, eps = 10, 0.1
    local x, t, w = samples.detector(20000)
    local one, expected = samples.class_batch(x, t, w), oracle.classes(x, t, w)
    local s = samples.sketch_of({ bins = bins }, one)
    local call = harmonise.new("classification", { bins = bins }):step(s)
    local GD = ffi.new("double[?]", bins)
    for j = 0, bins - 1 do
        GD[j] = call.used[j] * bins
    end
    local exact, R = exact_density(one, nil, eps), oracle.regions(expected, bins)
    local scarce = R[5] + 1 -- so that region 5 is, and the easy one is not
    local off, both, ours, other, sum, squares, share = 0, 0, 0, 0, 0, 0, {}
    for i, sample in ipairs(expected) do
        if sample.valid then
            local j, gd = oracle.region(sample, bins), exact.ptr[i - 1]
            local b, g = call.beta[j - 1], sample.norm
            off = off + math.abs(GD[j - 1] - gd) / gd
            both, ours = both + b * g * g * call.tot / gd, ours + (b * g) ^ 2
            other = other + (g * call.tot / gd) ^ 2
            sum, squares = sum + b, squares + b * b
            share[j] = (share[j] or 0) + b * g
        end
    end
    local whole, entropy, rare = samples.total(share), 0, 0
    for j = 1, bins do
        entropy = entropy - share[j] / whole * math.log(share[j] / whole)
        rare = rare + (R[j] < scarce and share[j] or 0)
    end
    local study = s:study(bins, nil, eps, call.beta, GD, scarce)
    close(study.density_error_mean, off / call.tot, { rel = 0.01 }, "mean density error")
    close(study.cosine, both / math.sqrt(ours * other), { rel = 1e-4 }, "cosine")
    close(study.entropy, entropy / math.log(bins), { rel = 1e-6 }, "entropy")
    close(study.effective, sum ^ 2 / squares, { rel = 1e-9 }, "effective size")
    close(study.scarce_share, rare / whole, { rel = 1e-6 }, "share of scarce regions")
    lu.assertTrue(study.density_error_max >= study.density_error_mean)
end
