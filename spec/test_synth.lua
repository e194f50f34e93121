-- Synthetic batches: Philox and the layout of its counters bit by bit, shares and moments of the
-- presets, and that a sample depends on its position alone.

local lu = require "luaunit"
local array = require "ghm.array"
local bit = require "bit"
local clib = require "ghm.clib"
local close = require "close"
local device = require "ghm.device"
local ffi = require "ffi"
local oracle = require "oracle"
local samples = require "samples"

ffi.cdef "double erfc(double x);"

local TestSynth = {}
_G.TestSynth = TestSynth

local C = clib.C
local CLASSES, BOXES = C.GHM_CLASSIFICATION, C.GHM_REGRESSION

local function preset(name, drift)
    local mixture = ffi.new "ghm_mixture"
    clib.check(C.ghm_mixture_preset(name, drift or -1, mixture))
    return mixture
end

-- pred, target, weight of [rows, cols]
local function synth(task, mixture, rows, cols, opts)
    opts = opts or {}
    local a = {}
    for k = 1, 3 do
        a[k] = array.new("f4", { rows, cols })
    end
    clib.check(C.ghm_synth(opts.device or device.default(), task, mixture, opts.seed or 1,
        opts.step or 0, rows, cols, a[1].ptr, a[2].ptr, a[3].ptr))
    return a[1], a[2], a[3]
end

local function bytes(a, n)
    return ffi.string(a.ptr, n * 4)
end

-- -- Philox, after Salmon et al. 2011 -------------------------------------------------------------

local function halves(a, b) -- high and low word of a 64-bit product
    local product = ffi.cast("uint64_t", a) * b
    return tonumber(product / 2 ^ 32), tonumber(product % 2 ^ 32)
end

local function xor(a, b, c)
    return bit.bxor(a, b, c) % 2 ^ 32
end

local function philox(c, k)
    local c0, c1, c2, c3, k0, k1 = c[1], c[2], c[3], c[4], k[1], k[2]
    for _ = 1, 10 do
        local a_high, a_low = halves(0xD2511F53, c0)
        local b_high, b_low = halves(0xCD9E8D57, c2)
        c0, c1, c2, c3 = xor(b_high, c1, k0), b_low, xor(a_high, c3, k1), a_low
        k0, k1 = (k0 + 0x9E3779B9) % 2 ^ 32, (k1 + 0xBB67AE85) % 2 ^ 32
    end
    return { c0, c1, c2, c3 }
end

-- Random123's known answers for philox4x32-10.
function TestSynth.test_the_philox_of_this_spec_knows_the_known_answers()
    local f = 0xffffffff
    lu.assertEquals(philox({ 0, 0, 0, 0 }, { 0, 0 }),
        { 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 })
    lu.assertEquals(philox({ f, f, f, f }, { f, f }),
        { 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd })
    lu.assertEquals(philox({ 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344 },
        { 0xa4093822, 0x299f31d0 }), { 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1 })
end

local function unit(word)
    return (word + 0.5) / 2 ^ 32
end

local function fine(high, low)
    return (high * 2 ^ 20 + math.floor(low / 2 ^ 12) + 0.5) / 2 ^ 52
end

local SEED = 0x0123456789abcdefULL
local KEY = { 0x89abcdef, 0x01234567 }

-- The draw of a sample: counter (sample, sample's high word, step, stream).
local function draw(i, step, stream)
    return philox({ i, 0, step, stream }, KEY)
end

local near = { rel = 1e-7, abs = 1e-7 } -- outputs are float32

function TestSynth.test_uniform_logits_come_from_these_words()
    local mixture, n = preset "uniform", 1000
    for _, step in ipairs { 0, 1, 2 ^ 32 - 1 } do
        local pred, target, weight = synth(CLASSES, mixture, n, 1, { seed = SEED, step = step })
        for i = 0, n - 1 do
            local word = draw(i, step, 0)
            local g, positive = fine(word[2], word[3]), unit(word[1]) < 0.5
            lu.assertEquals(target.ptr[i], positive and 1 or 0)
            lu.assertEquals(weight.ptr[i], 1)
            local sample = oracle.class_sample(pred.ptr[i], target.ptr[i])
            close(sample.key, math.log(g / (1 - g)), near, "key of sample %d", i)
        end
    end
end

function TestSynth.test_ignored_samples_come_from_the_fourth_word()
    local mixture = preset "uniform"
    mixture.ignored_share = 0.3
    local _, _, weight = synth(CLASSES, mixture, 1000, 1, { seed = SEED })
    for i = 0, 999 do
        lu.assertEquals(weight.ptr[i], unit(draw(i, 0, 0)[4]) < 0.3 and 0 or 1)
    end
end

-- The normal's quantile is checked by the inverse: its distribution function, from libm.
local function check_normal(z, u, what)
    local tail = math.min(u, 1 - u)
    close(ffi.C.erfc(math.abs(z) / math.sqrt(2)) / 2, tail, { rel = 1e-5 }, what)
    lu.assertEquals(z > 0, u > 0.5)
end

function TestSynth.test_normal_logits_are_quantiles_of_these_words()
    local mixture, n = ffi.new "ghm_mixture", 20000
    mixture.easy_sd = 1
    local pred = synth(CLASSES, mixture, n, 1, { seed = SEED })
    for i = 0, n - 1 do
        local word = draw(i, 0, 0)
        check_normal(pred.ptr[i], fine(word[2], word[3]), "a normal logit's tail")
    end
end

function TestSynth.test_box_errors_and_targets_come_from_two_streams()
    local mixture, n = ffi.new "ghm_mixture", 2000
    mixture.laplace_scale, mixture.box_outlier_share, mixture.box_outlier_sd = 0.25, 0.1, 3
    local pred, target = synth(BOXES, mixture, n, 4, { seed = SEED, step = 5 })
    for i = 0, 4 * n - 1 do
        local word, other = draw(i, 5, 1), draw(i, 5, 2)
        check_normal(target.ptr[i], fine(other[1], other[2]), "a target's tail")
        local u, d = fine(word[2], word[3]), pred.ptr[i] - target.ptr[i]
        if unit(word[1]) < 0.1 then
            if math.abs(d) > 0.1 then -- else float32 leaves too few digits of d
                check_normal(d / 3, u, "an outlier's tail")
            end
        else
            local laplace = u < 0.5 and math.log(2 * u) or -math.log(2 * (1 - u))
            close(d, 0.25 * laplace, { abs = 1e-6 }, "error of sample %d", i)
        end
    end
end

-- -- a sample depends on its position alone -------------------------------------------------------

function TestSynth.test_threads_and_size_change_no_bit()
    local mixture = preset "detector"
    for _, task in ipairs { CLASSES, BOXES } do
        local first = { synth(task, mixture, 3000, 3, { device = device.open("cpu", 1) }) }
        local same = { synth(task, mixture, 3000, 3, { device = device.open("cpu", 3) }) }
        local larger = { synth(task, mixture, 4100, 3) }
        for k, a in ipairs(first) do
            local wanted = bytes(a, a.n)
            lu.assertTrue(bytes(same[k], a.n) == wanted, "threads changed array " .. k)
            lu.assertTrue(bytes(larger[k], a.n) == wanted, "the size changed array " .. k)
        end
    end
end

function TestSynth.test_seed_and_step_change_samples()
    local mixture = preset "detector"
    local function logits(opts)
        return bytes(synth(CLASSES, mixture, 100, 1, opts), 100)
    end
    local first = logits()
    lu.assertTrue(first == logits { seed = 1, step = 0 })
    for k, opts in ipairs { { seed = 2 }, { seed = 1 + 2 ^ 32 }, { step = 1 } } do
        lu.assertFalse(first == logits(opts), "change " .. k .. " changes nothing")
    end
end

-- -- what the presets are -------------------------------------------------------------------------

local N = 200000

-- Within 5 standard deviations of a share of n samples.
local function close_share(count, n, share, what)
    close(count / n, share, { abs = 5 * math.sqrt(share * (1 - share) / n) + 1e-12 }, what)
end

function TestSynth.test_uniform_fills_every_region_alike()
    local pred, target = synth(CLASSES, preset "uniform", N, 1)
    local s = samples.sketch_of({ bins = 20 }, samples.class_batch(pred, target))
    for j, count in ipairs((samples.regions(s, 20))) do
        close_share(count, N, 1 / 20, "share of region " .. j)
    end
    for _, density in ipairs(s:density({ 0.05, 0.1, 0.5, 0.9, 0.99 }, 0.1)) do
        close(density, N, { rel = 5 / math.sqrt(N * 0.06) }, "density")
    end
end

local function moments(values)
    local mean = samples.total(values) / #values
    local sum = 0
    for _, value in ipairs(values) do
        sum = sum + (value - mean) ^ 2
    end
    return mean, math.sqrt(sum / #values)
end

for _, name in ipairs { "fresh", "detector", "converged" } do
    TestSynth["test_shares_and_moments_of_" .. name] = function()
        local m = preset(name)
        local pred, target, weight = synth(CLASSES, m, N, 1)
        local positives, ignored, outside, all = {}, 0, 0, {}
        for i = 0, N - 1 do
            all[#all + 1] = pred.ptr[i]
            ignored = ignored + (1 - weight.ptr[i])
            if target.ptr[i] == 1 then
                positives[#positives + 1] = pred.ptr[i]
            elseif target.ptr[i] ~= 0 then
                outside = outside + 1
            end
        end
        lu.assertEquals(outside, 0)
        close_share(ignored, N, m.ignored_share, "share of ignored samples")
        close_share(#positives, N, m.positive_share + m.outlier_share / 2, "share of positives")
        local easy = 1 - m.hard_share - m.positive_share - m.outlier_share
        local wanted = easy * m.easy_mean + m.hard_share * m.hard_mean
            + m.positive_share * m.positive_mean -- half the outliers are the other half's negatives
        local mean, sd = moments(all)
        close(mean, wanted, { abs = 5 * sd / math.sqrt(N) }, "mean logit")
        m.positive_share, m.hard_share, m.outlier_share = 1, 0, 0
        mean, sd = moments(samples.list(synth(CLASSES, m, N, 1).ptr, N))
        close(mean, m.positive_mean, { abs = 5 * sd / math.sqrt(N) }, "mean of positives")
        close(sd, m.positive_sd, { rel = 5 / math.sqrt(2 * N) }, "deviation of positives")
    end
end

function TestSynth.test_moments_of_boxes()
    local m = preset "detector"
    m.box_outlier_share = 0
    local pred, target = synth(BOXES, m, N / 4, 4)
    local sizes = {}
    for i = 0, N - 1 do
        sizes[i + 1] = math.abs(pred.ptr[i] - target.ptr[i])
    end
    -- |Laplace(b)| is exponential with mean and deviation b
    local mean, sd = moments(sizes)
    close(mean, m.laplace_scale, { rel = 5 / math.sqrt(N) }, "mean error")
    close(sd, m.laplace_scale, { rel = 15 / math.sqrt(N) }, "deviation of errors")
end

function TestSynth.test_drift_leads_from_fresh_to_converged()
    local size = ffi.sizeof "ghm_mixture"
    for _, name in ipairs { "detector", "uniform" } do
        lu.assertEquals(ffi.string(preset(name, 0), size), ffi.string(preset "fresh", size))
        lu.assertEquals(ffi.string(preset(name, 1), size), ffi.string(preset "converged", size))
    end
    local fresh, converged, half = preset "fresh", preset "converged", preset("fresh", 0.5)
    close(half.easy_mean, (fresh.easy_mean + converged.easy_mean) / 2, { rel = 1e-15 }, "half way")
end

function TestSynth.test_refuses_bad_parameters()
    samples.refused("usage", { "no preset 'old', expected detector" }, preset, "old")
    samples.refused("usage", { "drift is 1.5" }, preset, "fresh", 1.5)
    samples.refused("usage", { "drift is" }, preset, "fresh", 0 / 0)
    for key, value in pairs { hard_share = -0.1, positive_share = 1.1, ignored_share = 2,
        outlier_share = 1, box_outlier_share = -1, easy_mean = 1 / 0, easy_sd = 0 / 0 } do
        local m = preset "detector"
        m[key] = value
        samples.refused("usage", { "mixture" }, synth, CLASSES, m, 1, 1)
    end
    for _, opts in ipairs { { step = -1 }, { step = 2 ^ 32 } } do
        samples.refused("usage", { "0 <= step < 2^32" }, synth, CLASSES, preset "fresh", 1, 1,
            opts)
    end
    samples.refused("usage", { "task is 7" }, synth, 7, preset "fresh", 1, 1)
end
