-- The other passes on a GPU, against the CPU's: gradient, exact density, synthetic batches; its own
-- memory; and that what fails leaves it fit for the next pass.

local lu = require "luaunit"
local array = require "ghm.array"
local batches = require "ghm.batch"
local clib = require "ghm.clib"
local close = require "close"
local cuda = require "on_cuda"
local device = require "ghm.device"
local ffi = require "ffi"
local samples = require "samples"
local sketches = require "ghm.sketches"

local TestCudaPasses = {}
_G.TestCudaPasses = TestCudaPasses

function TestCudaPasses.setUp()
    cuda.device() -- or skips
end

ffi.cdef "int emulated_memory_for(int pieces), emulated_waits(void);" -- see emulator.cpp

local C = clib.C
local sizes = { 0, 1, 3, 4, 5, 31, 33, 1025, 4097, 9001 }
local spec = { bins = { 10, 30 } }

-- -- gradient -------------------------------------------------------------------------------------

local outputs = { "grad", "beta", "norm", "loss" }

-- name -> array of one pass with coefficients 1, 2, 3, ...
local function gradient(one, where, f, a, b, bins, mu)
    local places, out = ffi.new "ghm_outputs", {}
    for _, name in ipairs(outputs) do
        out[name] = samples.fill(one.shape, function() return 0 / 0 end)
        places[name] = out[name].ptr
    end
    local beta = ffi.new("double[?]", bins)
    for j = 0, bins - 1 do
        beta[j] = j + 1
    end
    clib.check(C.ghm_gradient(where, one.c, f, a, b, bins, mu or 1, beta, 0.5, 2, places))
    return out
end

local function same_gradient(one, f, a, b, ...)
    local wanted = gradient(one, cuda.cpu(), f, a, b, ...)
    local got = gradient(one, cuda.device(), f, a, b, ...)
    local within = { rel = 1e-6, abs = 1e-37 }
    for _, name in ipairs(outputs) do
        for i = 0, one.n - 1 do
            close(got[name].ptr[i], wanted[name].ptr[i], within,
                "%s of sample %d of %d", name, i, one.n)
        end
    end
end

function TestCudaPasses.test_gradients_of_classes()
    for _, n in ipairs(sizes) do
        local one = samples.class_batch(samples.detector(n))
        same_gradient(one, C.GHM_BCE, 0, 0, 10)
        for _, p in ipairs { { 0.25, 2 }, { -1, 1 }, { 0.6, 0.5 }, { 0.25, 5 }, { -1, 0 } } do
            same_gradient(one, C.GHM_FOCAL, p[1], p[2], 30)
        end
    end
end

function TestCudaPasses.test_gradients_of_boxes_and_soft_targets()
    for _, n in ipairs(sizes) do
        local boxes = samples.box_batch(samples.boxes(n))
        same_gradient(boxes, C.GHM_ASL1, 0.02, 0, 10, 0.02)
        same_gradient(boxes, C.GHM_SMOOTH_L1, 1 / 9, 0, 30, 0.5)
        local soft = samples.class_batch(samples.normals(n, 0, 3), samples.shares(n),
            samples.flags(n, 0.7))
        soft.c.target_form = C.GHM_SOFT
        same_gradient(soft, C.GHM_BCE, 0, 0, 1000)
    end
end

function TestCudaPasses.test_gradients_of_every_form_of_batch()
    local x, t, w = samples.detector { 77, 6 }
    local labels = samples.fill(77, function(i) return i % 8 end, "i4")
    local per_row = samples.flags(77, 0.5)
    for _, dtype in ipairs { "f2", "bf16" } do
        same_gradient(samples.class_batch(x:convert(dtype), t:convert "u1", w:convert "u1"),
            C.GHM_BCE, 0, 0, 10)
        for _, base in ipairs { "zero_based", "one_based" } do
            same_gradient(batches.classification { logits = x:convert(dtype), labels = labels,
                base = base, weight = per_row }, C.GHM_BCE, 0, 0, 10)
        end
    end
end

-- Keys at, below and above every edge of several M fall on the side on which the CPU sees them.
function TestCudaPasses.test_regions_next_to_edges()
    local keys = {}
    for _, bins in ipairs { 2, 10, 20, 30, 49 } do
        for j = 1, bins - 1 do
            local edge = ffi.new("float[1]", math.log(j / (bins - j)))
            local bits = ffi.cast("int32_t *", edge)
            for step = edge[0] ~= 0 and -2 or 0, 2 do
                local near = ffi.new("int32_t[1]", bits[0] + step)
                keys[#keys + 1] = ffi.cast("float *", near)[0]
            end
        end
    end
    local one = samples.class_batch(samples.fill(#keys, function(i) return keys[i + 1] end),
        samples.fill(#keys, function() return 0 end))
    for _, bins in ipairs { 2, 10, 20, 30, 49 } do
        local got = gradient(one, cuda.device(), C.GHM_BCE, 0, 0, bins)
        local wanted = gradient(one, cuda.cpu(), C.GHM_BCE, 0, 0, bins)
        lu.assertEquals(got.beta:totable(), wanted.beta:totable())
    end
end

-- -- exact density and synthetic batches ----------------------------------------------------------

local function exact(one, where, mu, eps)
    local density, loss = array.new("f8", one.shape), ffi.new "double[1]"
    clib.check(C.ghm_exact_density(where, one.c, mu or 1, eps, density.ptr, loss))
    return density, loss[0]
end

function TestCudaPasses.test_exact_densities()
    for _, n in ipairs { 0, 1, 33, 4097, 9001 } do
        for _, eps in ipairs { 0.1, 1, 1e-4, 1e-8 } do
            local all = { [1] = samples.class_batch(samples.detector(n)),
                [0.02] = samples.box_batch(samples.boxes(n)),
                [0.5] = samples.box_batch(samples.tied_boxes(n)) }
            for mu, one in pairs(all) do
                local density, loss = exact(one, cuda.device(), mu, eps)
                local wanted, wanted_loss = exact(one, cuda.cpu(), mu, eps)
                local rel = 1e-12 + 1e-15 / eps -- see ghm.h
                close(loss, wanted_loss, { rel = 1e-11 + rel }, "loss of %d samples", n)
                for i = 0, n - 1 do
                    local a, b = density.ptr[i], wanted.ptr[i]
                    lu.assertEquals(a ~= a, b ~= b)
                    if b == b then
                        close(a, b, { rel = rel }, "density of sample %d, eps %g", i, eps)
                    end
                end
            end
        end
    end
end

local function synth(where, task, name, rows, cols, memory)
    local mixture, made = ffi.new "ghm_mixture", {}
    clib.check(C.ghm_mixture_preset(name, -1, mixture))
    for k = 1, 3 do
        made[k] = memory(rows * cols)
    end
    clib.check(C.ghm_synth(where, task, mixture, 7, 3, rows, cols, made[1].remote or made[1].ptr,
        made[2].remote or made[2].ptr, made[3].remote or made[3].ptr))
    return made
end

local function host(n)
    return array.new("f4", { n })
end

function TestCudaPasses.test_synthetic_batches_have_the_same_bits()
    for _, name in ipairs { "detector", "converged", "fresh", "uniform" } do
        for task = 0, 1 do
            local got = synth(cuda.device(), task, name, 1500, 7, host)
            local wanted = synth(cuda.cpu(), task, name, 1500, 7, host)
            for k = 1, 3 do
                lu.assertTrue(ffi.string(got[k].ptr, 4 * got[k].n)
                    == ffi.string(wanted[k].ptr, 4 * wanted[k].n), name)
            end
        end
    end
end

local function still_works()
    cuda.same_sketch(spec, samples.class_batch(samples.detector(700)))
end

-- -- memory of the device -------------------------------------------------------------------------

local sent = cuda.sent

function TestCudaPasses.test_what_lies_on_the_device_is_used_there_aligned_or_not()
    local n = 9001
    local x, t, w = samples.detector(n)
    local digest = cuda.sketch(spec, samples.class_batch(x, t, w), cuda.cpu()):digest()
    local wanted = gradient(samples.class_batch(x, t, w), cuda.device(), C.GHM_BCE, 0, 0, 10)
    for skip = 0, 3 do
        local there = { sent(x, skip), sent(t, skip), sent(w) }
        local one = samples.class_batch(there[1], there[2], there[3])
        lu.assertEquals(cuda.sketch(spec, one, cuda.device()):digest(), digest)
        one = samples.class_batch(there[1], t, w) -- the rest is copied
        lu.assertEquals(cuda.sketch(spec, one, cuda.device()):digest(), digest)
        local grad, places = cuda.array(n, skip), ffi.new "ghm_outputs"
        places.grad = grad.remote
        clib.check(C.ghm_gradient(cuda.device(), one.c, C.GHM_BCE, 0, 0, 10, 1,
            ffi.new("double[10]", { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 }), 0.5, 2, places))
        local back = array.new("f4", { n })
        clib.check(C.ghm_memory_copy(cuda.device(), back.ptr, grad.remote, 4 * n))
        lu.assertTrue(ffi.string(back.ptr, 4 * n) == ffi.string(wanted.grad.ptr, 4 * n))
    end
end

function TestCudaPasses.test_a_pass_over_data_on_the_device_waits_once()
    lu.skipIf(not cuda.is_emulated(), "waits are counted on the emulated device alone")
    local x, t, w = samples.detector(900) -- fewer cells than are taken at once
    local one, grad = samples.class_batch(sent(x), sent(t), sent(w)), cuda.array(900)
    C.emulated_waits()
    cuda.sketch(spec, one, cuda.device())
    lu.assertEquals(C.emulated_waits(), 1)
    clib.check(C.ghm_gradient(cuda.device(), one.c, C.GHM_BCE, 0, 0, 1, 1,
        ffi.new("double[1]", 1), 1, 1, ffi.new("ghm_outputs", { grad = grad.remote })))
    lu.assertEquals(C.emulated_waits(), 1)
end

function TestCudaPasses.test_synthetic_batches_are_made_on_the_device()
    local made = synth(cuda.device(), 0, "detector", 1500, 7, cuda.array)
    local wanted = synth(cuda.cpu(), 0, "detector", 1500, 7, host)
    lu.assertEquals(
        cuda.sketch(spec, samples.class_batch(made[1], made[2], made[3]), cuda.device()):digest(),
        cuda.sketch(spec, samples.class_batch(wanted[1], wanted[2], wanted[3]),
            cuda.cpu()):digest())
end

-- Whoever asks for elements gets a copy; a pass on the CPU does.
function TestCudaPasses.test_arrays_on_the_device_are_fetched_when_someone_looks()
    local x, t, w = samples.detector(777)
    local there = sent(x)
    lu.assertTrue(array.is(there))
    lu.assertEquals(tostring(there), "f4[777]")
    lu.assertEquals(there:get(776), x:get(776))
    samples.refused("usage", { "read-only" }, there.set, there, 0, 1)
    lu.assertEquals(there:convert("f2"):totable(), x:convert("f2"):totable())
    there:free()
    there:free()
    lu.assertNil(there.ptr)
    local wanted = cuda.sketch(spec, samples.class_batch(x, t, w), cuda.cpu()):digest()
    local one = samples.class_batch(sent(x), sent(t), sent(w))
    lu.assertEquals(cuda.sketch(spec, one, cuda.cpu()):digest(), wanted)
    lu.assertEquals(cuda.sketch(spec, one, cuda.device()):digest(), wanted)
end

-- Memory keeps its device, whatever order they are let go in.
function TestCudaPasses.test_memory_outlives_the_handle_of_its_device()
    local own = device.open("cuda", 1)
    local kept = device.array("f4", { 100 }, own)
    C.ghm_device_free(ffi.gc(own, nil))
    kept:free()
    still_works()
end

function TestCudaPasses.test_the_last_pass_is_timed_by_the_device()
    local seconds = ffi.new "double[1]"
    cuda.sketch(spec, samples.class_batch(samples.detector(100)), cuda.device())
    clib.check(C.ghm_device_elapsed(cuda.device(), seconds))
    lu.assertTrue(seconds[0] > 0 and seconds[0] < 10, seconds[0])
end

-- -- what fails leaves the device as it was -------------------------------------------------------

function TestCudaPasses.test_memory_that_is_not_there()
    local out = clib.place "void *"
    for _ = 1, 3 do
        samples.refused("failed", { "cuda:0 has no memory for an array of 1125899906842624 bytes" },
            function() clib.check(C.ghm_memory_new(cuda.device(), 2 ^ 50, out)) end)
        still_works()
    end
end

-- Passes over several parts of the emulated device: each gives its result as text.
local function bytes_of(...)
    local parts = {}
    for i, a in ipairs { ... } do
        parts[i] = ffi.string(a.ptr, a.n * array.itemsize[a.dtype])
    end
    return table.concat(parts)
end

local function sketched(one)
    return function(where)
        local s = sketches.new(spec)
        local before = s:digest()
        local ok, problem = pcall(s.add, s, one, { device = where })
        if not ok then
            lu.assertEquals(s:digest(), before, "half of a batch was added")
            error(problem, 0)
        end
        return s:digest()
    end
end

local function long_passes()
    local x, t, w = samples.detector(9001)
    local hard = samples.class_batch(x, t, w)
    local soft = samples.class_batch(samples.normals(40001, 0, 3), samples.shares(40001))
    return { sketch = sketched(hard), soft_sketch = sketched(soft),
        gradient = function(where)
            local out = gradient(hard, where, C.GHM_BCE, 0, 0, 10)
            return bytes_of(out.grad, out.beta, out.norm, out.loss)
        end,
        exact = function(where)
            return bytes_of((exact(hard, where, 1, 0.1)))
        end,
        synth = function(where)
            return bytes_of(unpack(synth(where, 0, "detector", 1500, 7, host)))
        end }
end

-- A device keeps what memory it got, so each piece is asked for by a new one.
function TestCudaPasses.test_memory_that_ends_before_or_amid_a_pass()
    lu.skipIf(not cuda.is_emulated(), "memory ends at will on the emulated device alone")
    for name, pass in pairs(long_passes()) do
        local wanted, pieces, amid = pass(cuda.device()), 0, 0
        repeat
            local own = device.open("cuda", 1)
            C.emulated_memory_for(pieces)
            local ok, result = pcall(pass, own)
            amid = amid + (C.emulated_memory_for(-1) > 0 and not ok and 1 or 0)
            if not ok then
                lu.assertEquals(result.kind, "failed", tostring(result))
                lu.assertStrMatches(result.message, "cuda:0, memory for [a-z ]+: out of memory")
                result = pass(own)
            end
            lu.assertTrue(result == wanted, ("%s, %d pieces of memory"):format(name, pieces))
            C.ghm_device_free(ffi.gc(own, nil))
            pieces = pieces + 1
        until ok
        lu.assertTrue(amid >= 1, name .. ": no kernel ran before memory ended")
    end
    still_works()
end

-- The table of a sketch is zeroed again after a pass that has ended amid its parts.
function TestCudaPasses.test_what_a_failed_pass_has_added_is_forgotten()
    lu.skipIf(not cuda.is_emulated(), "memory ends at will on the emulated device alone")
    local one_part = sketched(samples.class_batch(samples.detector(4096)))
    local own = device.open("cuda", 1)
    local wanted = one_part(own)
    C.emulated_memory_for(0)
    local ok = pcall(long_passes().sketch, own)
    lu.assertEquals({ ok, C.emulated_memory_for(-1) }, { false, 1 }) -- one kernel was started
    lu.assertEquals(one_part(own), wanted)
end

function TestCudaPasses.test_arguments_that_do_not_fit()
    local one = samples.class_batch({ 1, 2 }, { 0, 1 })
    samples.refused("usage", { "expected one mu" }, function()
        local boxes = samples.box_batch({ 1 }, { 0 })
        gradient(boxes, cuda.device(), C.GHM_ASL1, 0.1, 0, 10, 0.2)
    end)
    samples.refused("usage", { "eps is 2" }, exact, one, cuda.device(), 1, 2)
    samples.refused("usage", { "bytes is below 0" }, function()
        clib.check(C.ghm_memory_new(cuda.device(), -1, clib.place "void *"))
    end)
    samples.refused("dump", { "1 of 2 samples are not finite" }, exact,
        samples.class_batch({ 1, 0 / 0 }, { 0, 1 }), cuda.device(), 1, 0.1)
    still_works()
end

function TestCudaPasses.test_an_interrupt_ends_a_pass_and_no_more()
    local x, t, w = samples.detector(9001)
    C.ghm_interrupt_set(1)
    local ok, thrown = pcall(cuda.sketch, spec, samples.class_batch(x, t, w), cuda.device())
    C.ghm_interrupt_set(0)
    lu.assertFalse(ok)
    lu.assertEquals(thrown.kind, "interrupted")
    still_works()
end

function TestCudaPasses.test_a_device_that_is_not_there()
    samples.refused("device", { "cuda:63: there", "devices, counted from 0" },
        device.open, "cuda:63")
end
