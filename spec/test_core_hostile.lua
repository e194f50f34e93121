-- What the core refuses, in what words, and that a sketch is the same before and after.

local lu = require "luaunit"
local array = require "ghm.array"
local clib = require "ghm.clib"
local device = require "ghm.device"
local ffi = require "ffi"
local ghm = require "ghm"
local posix = require "ghm.posix"
local samples = require "samples"
local scripts = require "scripts"
local sketch = require "ghm.sketches"

local TestCoreHostile = {}
_G.TestCoreHostile = TestCoreHostile

local C = clib.C
local NAN, INF = 0 / 0, math.huge
local ROWS, COLS = 300, 3

-- A sketch that holds something, and a check that it still holds just that.
local function guarded(spec, one)
    local s = samples.sketch_of(spec, one)
    local digest = s:digest()
    return s, function()
        lu.assertEquals(s:digest(), digest, "the sketch has changed")
    end
end

local function classes()
    local x, t = samples.detector { ROWS, COLS }
    return x, t, samples.fill({ ROWS, COLS }, function() return 1 end)
end

local box_spec = { task = "regression", bins = 10, mu = 0.02 }

function TestCoreHostile.test_nonfinite_logits_are_counted_and_placed()
    for _, bad in ipairs { NAN, INF, -INF } do
        local x, t, w = classes()
        local s, unchanged = guarded({ bins = 10 }, samples.class_batch(x, t, w))
        x.ptr[601], x.ptr[700], x.ptr[899] = bad, bad, bad
        samples.refused("dump", { "3 of 900 samples are not finite", "row 200, column 1" }, s.add,
            s, samples.class_batch(x, t, w))
        samples.refused("dump", { "here: 3 of" }, s.add, s, samples.class_batch(x, t, w),
            { where = "here" })
        unchanged()
        local facts = s:add(samples.class_batch(x, t, w), { nonfinite = "ignore" })
        lu.assertEquals(facts.nonfinite, 3)
        lu.assertEquals(facts.first_nonfinite, 601)
        lu.assertEquals(facts.valid, ROWS * COLS - 3)
        lu.assertEquals(s:facts().nonfinite, 3)
    end
end

function TestCoreHostile.test_nonfinite_targets_and_weights_are_refused()
    for _, bad in ipairs { NAN, INF, -INF } do
        for _, field in ipairs { "target", "weight" } do
            local x, t, w = classes()
            local s, unchanged = guarded({ bins = 10 }, samples.class_batch(x, t, w))
            local spoilt = field == "target" and t or w
            spoilt.ptr[5] = bad
            samples.refused("dump", { "1 of 900 samples are not finite", "row 1, column 2" },
                s.add, s, samples.class_batch(x, t, w))
            unchanged()
            lu.assertEquals(s:add(samples.class_batch(x, t, w), { nonfinite = "ignore" }).valid,
                ROWS * COLS - 1)
        end
    end
end

function TestCoreHostile.test_nonfinite_row_weights_count_for_each_sample_of_the_row()
    local x, t = classes()
    local w = samples.fill(ROWS, function() return 1 end)
    w.ptr[7] = NAN
    local s = sketch.new { bins = 10 }
    samples.refused("dump", { "3 of 900 samples", "row 7, column 0" }, s.add, s,
        samples.class_batch(x, t, w))
end

function TestCoreHostile.test_what_ignored_samples_hold_does_not_matter()
    local x, t, w = classes()
    local clean = samples.fill(x.n, function() return 0 end)
    for i = 0, x.n - 1 do
        w.ptr[i] = i % 3 == 0 and (i % 2 == 0 and 0 or -1) or 1
        clean.ptr[i] = w.ptr[i] > 0 and x.ptr[i] or 0
    end
    local wanted = samples.sketch_of({ bins = 10 },
        samples.class_batch(clean:reshape(x.shape), t, w))
    for _, bad in ipairs { NAN, INF, -INF } do
        for i = 0, x.n - 1, 3 do
            x.ptr[i], t.ptr[i] = bad, i % 2 == 0 and bad or 17
        end
        local one = samples.class_batch(x, t, w)
        lu.assertEquals(samples.sketch_of({ bins = 10 }, one):digest(), wanted:digest())
        local loss = ghm.GHMC()
        loss:forward_batch(one)
        for _, what in ipairs { "grad", "beta", "norm", "loss" } do
            local out = loss:elements(what)
            for i = 0, x.n - 1, 3 do
                lu.assertEquals(out.ptr[i], 0)
            end
        end
    end
end

function TestCoreHostile.test_differences_that_overflow_are_not_finite()
    local pred = array.from({ 0, 3e38, 1, -3e38 }, "f4")
    local target = array.from({ 0, -3e38, 1, 3e38 }, "f4")
    local s, unchanged = guarded(box_spec, samples.box_batch({ 1 }, { 0 }))
    samples.refused("dump", { "2 of 4 samples are not finite, the first at row 1" }, s.add, s,
        samples.box_batch(pred, target))
    unchanged()
    lu.assertEquals(s:add(samples.box_batch(pred, target, { 1, 0, 1, 0 })).valid, 2)
end

function TestCoreHostile.test_gradients_of_ignored_nonfinite_samples_are_zero()
    local loss = ghm.GHMC { nonfinite = "ignore" }
    local value = loss:forward({ NAN, 1, -INF, INF }, { 0, 0, 1, 0 })
    lu.assertEquals(value, ghm.GHMC():forward({ 1 }, { 0 }))
    local grad = loss:backward()
    lu.assertEquals({ grad.ptr[0], grad.ptr[2], grad.ptr[3] }, { 0, 0, 0 })
    lu.assertTrue(grad.ptr[1] > 0)
    local boxes = ghm.GHMR { nonfinite = "ignore" }
    boxes:forward({ NAN, 1, 3e38, 1 }, { 0, 0, -3e38, NAN })
    local d = boxes:backward()
    lu.assertEquals({ d.ptr[0], d.ptr[2], d.ptr[3] }, { 0, 0, 0 })
    lu.assertTrue(d.ptr[1] > 0)
end

-- In every place of a vector, for few regions and for many, of hard and soft targets and of boxes.
function TestCoreHostile.test_gradients_of_nonfinite_targets_and_weights_are_zero()
    local n = 200
    local odd = { { NAN, 1 }, { INF, 1 }, { -INF, 1 }, { 0, INF }, { 1, NAN }, { 0, -INF } }
    local cases = { { "GHMC", 10, 1 }, { "GHMC", 300, 1 }, { "GHMC", 10, 0.5 }, { "Focal", nil, 1 },
        { "GHMR", 10, 1 }, { "SmoothL1", nil, 1 } }
    for _, case in ipairs(cases) do
        local name, bins, one = case[1], case[2], case[3]
        local loss = ghm[name] { nonfinite = "ignore", bins = bins }
        local x = samples.fill(n, function(i) return (i + 1) / (3 * n) end)
        local t = samples.fill(n, function(i) return i % 3 == 0 and one or 0 end)
        local w = samples.fill(n, function() return 1 end)
        for i = 0, n - 1, 2 do
            t.ptr[i], w.ptr[i] = unpack(odd[i / 2 % #odd + 1])
        end
        loss:forward(x, t, w)
        for _, what in ipairs { "grad", "beta", "norm", "loss" } do
            local out = loss:elements(what)
            for i = 0, n - 1 do
                lu.assertEquals(out.ptr[i] ~= 0, i % 2 == 1, ("%s: %s of %d"):format(name, what, i))
            end
        end
    end
end

function TestCoreHostile.test_targets_outside_0_to_1_are_refused()
    local x, t, w = classes()
    local s, unchanged = guarded({ bins = 10 }, samples.class_batch(x, t, w))
    for _, bad in ipairs { -0.001, 1.001, 17, -1 } do
        t.ptr[899] = bad
        samples.refused("dump", { "1 targets are not in [0, 1]", "row 299, column 2" },
            sketch.new({ bins = 10 }).add, sketch.new { bins = 10 }, samples.class_batch(x, t, w))
    end
    t.ptr[899] = 0.5
    samples.refused("mismatch", { "hard targets", "soft" }, s.add, s,
        samples.class_batch(x, t, w))
    unchanged()
end

function TestCoreHostile.test_soft_targets_know_fewer_questions()
    local s = samples.sketch_of({ bins = 10 }, samples.class_batch({ 1, 2 }, { 0.5, 0 }))
    lu.assertTrue(s:is_soft())
    for _, ask in ipairs { function() s:sums("focal", 0.25, 2) end,
        function() s:sums("bce", 0, 0, "positives") end, function() s:counts "negatives" end,
        function() s:density({ 0.5 }, 0.1) end } do
        samples.refused("dump", { "soft targets have no single key" }, ask)
    end
end

function TestCoreHostile.test_a_batch_of_another_task_is_refused()
    local s, unchanged = guarded({ bins = 10 }, samples.class_batch({ 1 }, { 0 }))
    samples.refused("mismatch", { "task 1", "task 0" }, s.add, s, samples.box_batch({ 1 }, { 0 }))
    unchanged()
end

-- -- values ---------------------------------------------------------------------------------------

local bad_values = {
    { "GHMC", { bins = 0 }, "bins is 0" }, { "GHMC", { bins = 65537 }, "bins is 65537" },
    { "GHMC", { bins = -1 }, "bins is -1" }, { "GHMC", { bins = 2.5 }, "bins is 2.5" },
    { "GHMC", { bins = NAN }, "bins is" }, { "GHMC", { bins = INF }, "bins is inf" },
    { "GHMC", { momentum = 1 }, "momentum is 1" },
    { "GHMC", { momentum = -0.1 }, "momentum is -0.1" },
    { "GHMC", { momentum = NAN }, "momentum is" },
    { "GHMC", { loss_weight = INF }, "loss_weight is inf" },
    { "GHMC", { divide = "half" }, "divide is 'half', expected nonempty, all" },
    { "GHMC", { bins = "ten" }, "bins is 'ten', expected a number" },
    { "GHMC", { binz = 10 }, "unknown key 'binz': did you mean 'bins'?" },
    { "GHMR", { mu = 0 }, "mu is 0" }, { "GHMR", { mu = -1 }, "mu is -1" },
    { "GHMR", { mu = NAN }, "mu is" }, { "GHMR", { mu = INF }, "mu is inf" },
    { "SmoothL1", { beta = NAN }, "knot 0 is" },
    { "SmoothL1", { beta = 0 }, "knot 0 is 0, expected a finite number above 0" },
    { "SmoothL1", { beta = -1 }, "knot 0 is -1" },
}

for _, case in ipairs(bad_values) do
    local key, value = next(case[2])
    local name = ("test_%s_refuses_%s_of_%s"):format(case[1], key, tostring(value))
    TestCoreHostile[name:gsub("[^%w_]", "_")] = function()
        samples.refused("usage", { case[3] }, ghm[case[1]], case[2])
    end
end

function TestCoreHostile.test_parameters_of_focal_and_smooth_l1_are_checked()
    local logits, target = { 1, -1 }, { 0, 1 }
    for _, options in ipairs { { alpha = 1 }, { gamma = -1 }, { gamma = NAN },
        { alpha = NAN } } do
        local loss = ghm.Focal(options)
        samples.refused("usage", { "alpha" }, loss.forward, loss, logits, target)
    end
    local s = samples.sketch_of(box_spec, samples.box_batch({ 1 }, { 0 }))
    for _, beta in ipairs { 0, -1, INF } do
        samples.refused("usage", { "beta is" }, s.sums, s, "smooth_l1", beta)
        samples.refused("usage", { "mu is" }, s.sums, s, "asl1", beta)
    end
    samples.refused("usage", { "function is 0" }, s.sums, s, "bce")
end

function TestCoreHostile.test_devices_that_are_not_there_are_refused()
    samples.refused("usage", { "device 'gpu': expected auto, cpu, cuda or cuda:N" }, device.open,
        "gpu")
    for _, name in ipairs { "cpu:x", "cpu:", "cpu:-0", "cpu: 0", "cpu:0 ", "cpu:4294967296" } do
        samples.refused("usage", { "a number after the colon" }, device.open, name)
    end
    samples.refused("device", { "cpu:3" }, device.open, "cpu:3")
    samples.refused("usage", { "threads is -1" }, device.open, "cpu", -1)
    samples.refused("usage", { "threads is 1025" }, device.open, "cpu", 1025)
end

-- -- NULL -----------------------------------------------------------------------------------------

-- Every function that takes a pointer, called with NULLs: a status, never a crash.
function TestCoreHostile.test_groups_and_lengths_out_of_range_are_refused()
    local s = samples.sketch_of({ bins = 10 }, samples.class_batch({ 1 }, { 0 }))
    local R, L = ffi.new "int64_t[10]", ffi.new "double[10]"
    local study = ffi.new "ghm_study"
    for _, group in ipairs { -2, 2 } do
        for _, status in ipairs { C.ghm_sketch_counts(s.c, group, R),
            C.ghm_sketch_sums(s.c, C.GHM_BCE, 0, 0, group, L),
            C.ghm_sketch_sums(s.c, C.GHM_FOCAL, 0.25, 2, group, L),
            C.ghm_sketch_density(s.c, 1, 0.1, group, L, 1, L),
            C.ghm_sketch_exact_sums(s.c, C.GHM_BCE, 0, 0, group, 1, 0.1, 1, L) } do
            lu.assertEquals(status, tonumber(C.GHM_E_ARGUMENT))
            lu.assertStrContains(ffi.string(C.ghm_last_error()), "group is " .. group)
        end
    end
    lu.assertEquals(C.ghm_sketch_density(s.c, 1, 0.1, -1, L, -1, L), tonumber(C.GHM_E_ARGUMENT))
    for _, bins in ipairs { 0LL, -1LL, 65537LL, 0x7fffffffffffffffLL } do
        lu.assertEquals(C.ghm_sketch_study(s.c, bins, 1, 0.1, L, L, 1, study),
            tonumber(C.GHM_E_ARGUMENT))
    end
end

function TestCoreHostile.test_null_is_refused_everywhere()
    local s = samples.sketch_of({ bins = 10 }, samples.class_batch({ 1 }, { 0 }))
    local digest = s:digest()
    local holder = samples.class_batch({ 1 }, { 0 }) -- keeps the arrays of `one` alive
    local on, one = device.default(), holder.c
    local beta = ffi.new "double[10]"
    local R, L, S, updates = ffi.new "int64_t[10]", beta, beta, ffi.new "int64_t[10]"
    local config, result = ffi.new "ghm_config", ffi.new "ghm_result"
    C.ghm_config_default(0, config)
    local empty = ffi.new "ghm_batch"
    empty.rows, empty.cols = 1, 1
    local bins, place = ffi.new("int64_t[1]", 10), ffi.new "ghm_sketch *[1]"
    local outputs = ffi.new "ghm_outputs"
    local mixture = ffi.new "ghm_mixture"
    local calls = {
        { C.ghm_config_default(0, nil) }, { C.ghm_device_open(nil, 0, nil) },
        { C.ghm_device_open("cpu", 0, nil) },
        { C.ghm_sketch_new(0, nil, 1, nil, 0, nil, 0, place) },
        { C.ghm_sketch_new(0, bins, 1, nil, 0, nil, 0, nil) },
        { C.ghm_sketch_new(0, bins, -1, nil, 0, nil, 0, place) },
        { C.ghm_sketch_new(1, bins, 1, nil, 1, nil, 0, place) },
        { C.ghm_sketch_new(0, bins, 1, nil, 0, nil, 1, place) },
        { C.ghm_sketch_like(nil, place) }, { C.ghm_sketch_like(s.c, nil) },
        { C.ghm_sketch_add(nil, s.c, one, 0, nil) }, { C.ghm_sketch_add(on, nil, one, 0, nil) },
        { C.ghm_sketch_add(on, s.c, nil, 0, nil) }, { C.ghm_sketch_add(on, s.c, empty, 0, nil) },
        { C.ghm_sketch_merge(nil, s.c) }, { C.ghm_sketch_merge(s.c, nil) },
        { C.ghm_sketch_save(nil, "x") }, { C.ghm_sketch_save(s.c, nil) },
        { C.ghm_sketch_load(nil, place) }, { C.ghm_sketch_load("x", nil) },
        { C.ghm_sketch_facts(nil, nil) }, { C.ghm_sketch_facts(s.c, nil) },
        { C.ghm_sketch_counts(nil, -1, R) }, { C.ghm_sketch_counts(s.c, -1, nil) },
        { C.ghm_sketch_sums(nil, 0, 0, 0, -1, L) }, { C.ghm_sketch_sums(s.c, 0, 0, 0, -1, nil) },
        { C.ghm_sketch_cut(nil, 10, 1, R) }, { C.ghm_sketch_cut(s.c, 10, 1, nil) },
        { C.ghm_sketch_density(nil, 1, 0.1, -1, L, 1, L) },
        { C.ghm_sketch_density(s.c, 1, 0.1, -1, nil, 1, L) },
        { C.ghm_sketch_density(s.c, 1, 0.1, -1, L, 1, nil) },
        { C.ghm_sketch_study(s.c, 10, 1, 0.1, nil, L, 1, ffi.new "ghm_study") },
        { C.ghm_sketch_study(s.c, 10, 1, 0.1, L, nil, 1, ffi.new "ghm_study") },
        { C.ghm_sketch_study(s.c, 10, 1, 0.1, L, L, 1, nil) },
        { C.ghm_harmonise(nil, R, L, 1, S, updates, L, beta, result) },
        { C.ghm_harmonise(config, nil, L, 1, S, updates, L, beta, result) },
        { C.ghm_harmonise(config, R, nil, 1, S, updates, L, beta, result) },
        { C.ghm_harmonise(config, R, L, 1, nil, updates, L, beta, result) },
        { C.ghm_harmonise(config, R, L, 1, S, nil, L, beta, result) },
        { C.ghm_harmonise(config, R, L, 1, S, updates, nil, beta, result) },
        { C.ghm_harmonise(config, R, L, 1, S, updates, L, nil, result) },
        { C.ghm_harmonise(config, R, L, 1, S, updates, L, beta, nil) },
        { C.ghm_gradient(nil, one, 0, 0, 0, 10, 1, beta, 1, 1, outputs) },
        { C.ghm_gradient(on, nil, 0, 0, 0, 10, 1, beta, 1, 1, outputs) },
        { C.ghm_gradient(on, one, 0, 0, 0, 10, 1, nil, 1, 1, outputs) },
        { C.ghm_gradient(on, one, 0, 0, 0, 10, 1, beta, 1, 1, nil) },
        { C.ghm_exact_density(nil, one, 1, 0.1, nil, L) },
        { C.ghm_exact_density(on, nil, 1, 0.1, nil, L) },
        { C.ghm_exact_density(on, one, 1, 0.1, nil, nil) },
        { C.ghm_mixture_preset(nil, 0, mixture) }, { C.ghm_mixture_preset("fresh", 0, nil) },
        { C.ghm_judge(nil, ffi.new "ghm_facts", 0) }, { C.ghm_judge(one, nil, 0) },
        { C.ghm_judge(ffi.new "ghm_batch", ffi.new("ghm_facts", { nonfinite = 1 }), 0) },
        { C.ghm_synth(nil, 0, mixture, 1, 0, 1, 1, nil, nil, nil) },
        { C.ghm_synth(on, 0, nil, 1, 0, 1, 1, nil, nil, nil) },
        { C.ghm_synth(on, 0, mixture, 1, 0, 1, 1, nil, nil, nil) },
    }
    for k, call in ipairs(calls) do
        lu.assertEquals(call[1], tonumber(C.GHM_E_ARGUMENT), "call " .. k)
    end
    C.ghm_sketch_free(nil)
    C.ghm_device_free(nil)
    lu.assertEquals(C.ghm_sketch_add(on, s.c, holder.c, 0, nil), 0, "facts may be NULL")
    lu.assertNotEquals(s:digest(), digest)
end

-- -- interrupts -----------------------------------------------------------------------------------

function TestCoreHostile.test_an_interrupt_stops_a_pass_and_changes_nothing()
    local one = samples.class_batch(classes())
    local s, unchanged = guarded({ bins = 10 }, one)
    local soft = samples.class_batch({ 1, 2 }, { 0.5, 0.1 })
    local loss = ghm.GHMC()
    loss:forward_batch(one)
    local result = ffi.new "double[1]"
    C.ghm_interrupt_set(1)
    local ok, thrown = pcall(function()
        lu.assertEquals(C.ghm_interrupted(), 1)
        samples.refused("interrupted", { "interrupted" }, s.add, s, one)
        samples.refused("interrupted", { "interrupted" }, sketch.new({ bins = 10 }).add,
            sketch.new { bins = 10 }, soft)
        samples.refused("interrupted", { "interrupted" }, loss.backward, loss)
        lu.assertEquals(C.ghm_exact_density(device.default(), one.c, 1, 0.1, nil, result),
            tonumber(C.GHM_E_INTERRUPTED))
    end)
    C.ghm_interrupt_set(0)
    lu.assertTrue(ok, tostring(thrown))
    unchanged()
    s:add(one)
    lu.assertEquals(s:facts().valid, 2 * ROWS * COLS)
end

-- In a process of its own, because catching lasts. raise() reaches it before it returns.
function TestCoreHostile.test_every_interrupt_is_caught_once_a_prompt_has_asked()
    for first, survives in pairs { ghm_interrupt_catch = 1, ghm_interrupt_keep = 3 } do
        local out = posix.capture(([[luajit -e '
            package.path = "%s/lua/?.lua"
            local C, ffi = require("ghm.clib").C, require "ffi"
            ffi.cdef "int raise(int);"
            assert(C.%s() == 0)
            for k = 1, 3 do
                ffi.C.raise(2)
                print(k, C.ghm_interrupted())
                io.stdout:flush()
                C.ghm_interrupt_set(0)
                if k == 2 then C.ghm_interrupt_catch() end
            end' 2>&1]]):format(scripts.root, first))
        local _, caught = out:gsub("%d\t1", "")
        lu.assertEquals(caught, survives, out)
    end
end
