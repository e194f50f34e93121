-- The sketch pass on a GPU: bit for bit the CPU's cells, facts and sums, whatever the data.

local lu = require "luaunit"
local array = require "ghm.array"
local batches = require "ghm.batch"
local clib = require "ghm.clib"
local cuda = require "on_cuda"
local ffi = require "ffi"
local samples = require "samples"
local sketches = require "ghm.sketches"

local TestCudaSketch = {}
_G.TestCudaSketch = TestCudaSketch

function TestCudaSketch.setUp()
    cuda.device() -- or skips
end

local spec = { bins = { 5, 10, 30 } }
local box_spec = { task = "regression", bins = { 10, 30 }, mu = { 0.02, 0.5 }, knots = 1 }

-- Where groups of four, warps, blocks of the kernel and parts of the emulated device end.
local sizes = { 0, 1, 3, 4, 5, 31, 33, 127, 129, 4095, 4096, 4097, 9001 }

function TestCudaSketch.test_classes_of_every_size()
    for _, n in ipairs(sizes) do
        cuda.same_sketch(spec, samples.class_batch(samples.detector(n)), nil, n)
    end
end

function TestCudaSketch.test_boxes_of_every_size()
    for _, n in ipairs(sizes) do
        cuda.same_sketch(box_spec, samples.box_batch(samples.boxes(n)), nil, n)
    end
end

-- The CPU's chunks of soft sums end at 16384 samples.
function TestCudaSketch.test_soft_targets_of_every_size()
    for _, n in ipairs { 0, 1, 31, 33, 513, 16383, 16384, 16385, 40001 } do
        local weight = n < 1000 and samples.flags(n, 0.8) or nil
        cuda.same_sketch(spec, samples.class_batch(samples.normals(n, 0, 3), samples.shares(n),
            weight), nil, n)
    end
end

function TestCudaSketch.test_a_million_samples_and_one()
    local x, t, w = samples.detector(2 ^ 20 + 1)
    cuda.same_sketch(spec, samples.class_batch(x, t, w))
end

-- -- what arrays hold -----------------------------------------------------------------------------

function TestCudaSketch.test_every_dtype_of_classes()
    local x, t, w = samples.detector { 151, 7 }
    for _, pred in ipairs { "f4", "f2", "bf16" } do
        for _, target in ipairs { "f4", "f2", "bf16", "u1" } do
            for _, weight in ipairs { "f4", "u1", "none" } do
                cuda.same_sketch(spec, samples.class_batch(x:convert(pred), t:convert(target),
                    weight ~= "none" and w:convert(weight) or nil), nil,
                    pred .. " " .. target .. " " .. weight)
            end
        end
    end
end

function TestCudaSketch.test_every_dtype_of_boxes()
    local p, t, w = samples.boxes { 301, 4 }
    for _, dtype in ipairs { "f4", "f2", "bf16" } do
        cuda.same_sketch(box_spec, samples.box_batch(p:convert(dtype), t, w), nil, dtype)
        cuda.same_sketch(box_spec, samples.box_batch(p, t:convert(dtype)), nil, dtype)
    end
end

-- Columns that do not divide by four, and rows longer than a part.
function TestCudaSketch.test_labels_and_weights_of_rows()
    for _, shape in ipairs { { 200, 1 }, { 333, 3 }, { 60, 80 }, { 2, 4999 } } do
        local rows, cols = shape[1], shape[2]
        local x = samples.normals(shape, -1, 2)
        for _, base in ipairs { "zero_based", "one_based" } do
            for _, dtype in ipairs { "u1", "i4", "i8" } do
                local labels = samples.fill(rows, function()
                    return math.random(0, math.min(cols, 255))
                end, dtype)
                for _, weight in ipairs { { rows }, shape } do
                    cuda.same_sketch(spec, batches.classification { logits = x, labels = labels,
                        base = base, weight = samples.flags(weight, 0.7) }, nil,
                        ("%d x %d, %s %s"):format(rows, cols, base, dtype))
                end
            end
        end
        cuda.same_sketch(spec, samples.class_batch(x, samples.flags(shape, 0.2),
            samples.flags(rows, 0.5)))
        cuda.same_sketch(spec, samples.class_batch(x, samples.shares(shape),
            samples.flags(rows, 0.5)))
    end
end

function TestCudaSketch.test_weights_of_any_size()
    local x, t = samples.detector(3000)
    cuda.same_sketch(spec, samples.class_batch(x, t, samples.fill(3000, function(i)
        return i % 3 == 0 and 0.5 or i % 3 == 1 and 10 ^ (math.random() * 80 - 45) or 1
    end)))
    cuda.same_sketch(spec, samples.class_batch(x, t, samples.fill(3000, function(i)
        return i % 5 == 0 and -1 or 2.5
    end)))
end

-- -- how keys lie ---------------------------------------------------------------------------------

local spreads = {
    equal = function() return -4.25 end,
    two_values = function(i) return i % 2 == 0 and -3.7 or 0 end,
    rising = function(i) return i / 700 - 6 end,
    huge = function(i) return (i % 2 * 2 - 1) * 1e4 * (1 + i % 7) end,
    zeros = function(i) return i % 2 == 0 and 0 or -0.0 end,
    every_scale = function() return (math.random(2) * 2 - 3) * 10 ^ (math.random() * 76 - 38) end,
    ends_of_cells = function(i) return -2 - (2 ^ -9 - 2 ^ -22) * (i % 3) end,
}

for name, value in pairs(spreads) do
    TestCudaSketch["test_logits_" .. name] = function()
        local x = samples.fill(5001, value)
        cuda.same_sketch(spec, samples.class_batch(x, samples.flags(5001, 0.3)))
        cuda.same_sketch(box_spec, samples.box_batch(x, samples.normals(5001, 0, 1e-3)))
    end
end

-- The largest offsets and squares there are, often enough that each of a block's counters carries.
-- On the device, where a batch is one part. Of four cells in turn, lanes add up two, and add two
-- sample by sample; their low bits are such that offsets carry where nothing else does.
function TestCudaSketch.test_counters_that_carry()
    local n = cuda.is_emulated() and 80000 or 2 ^ 22 + 7
    local function on_device(value)
        return cuda.sent(samples.fill(n, value))
    end
    local zeros = on_device(function() return 0 end)
    local small = on_device(function() return 2 ^ -30 end)
    local function each(value)
        local x = on_device(value)
        cuda.same_sketch({ bins = 1 }, samples.class_batch(x, zeros))
        cuda.same_sketch({ task = "regression", bins = 1, mu = 1 }, samples.box_batch(x, small))
    end
    local last = 2 - 2 ^ -23 -- all low bits set
    each(function() return 1.9990234375 end) -- low bits 0
    each(function() return last end)
    each(function(i) return 1 + i % 4 * 2 ^ -10 + 7500 * 2 ^ -23 end)
end

-- Many edges in one cell, finer cells, and as many sides as cells.
function TestCudaSketch.test_any_edges()
    local all = {}
    for bins = 1, 100 do
        all[bins] = bins
    end
    local x, t, w = samples.detector(2000)
    for _, bins in ipairs { { 1 }, { 1000 }, { 4096, 30 }, all } do
        cuda.same_sketch({ bins = bins }, samples.class_batch(x, t, w))
    end
    local mu = { 0.005, 0.0050001, 0.02, 0.1, 1 }
    cuda.same_sketch({ task = "regression", bins = all, mu = mu, knots = { 1 / 9, 0.11112 } },
        samples.box_batch(samples.boxes(2000)))
end

function TestCudaSketch.test_sketches_of_other_edges_in_turn()
    local one = samples.class_batch(samples.detector(500))
    for _ = 1, 2 do
        for _, bins in ipairs { 7, 10, 1000, 10 } do
            cuda.same_sketch({ bins = bins }, one)
        end
    end
end

-- -- what is wrong with data ----------------------------------------------------------------------

-- Status, message and facts of a pass that fails.
local function outcome(one, where, task)
    local s = sketches.new { task = task, bins = 10, mu = task and 0.02 }
    local facts = ffi.new "ghm_facts"
    local status = clib.C.ghm_sketch_add(where, s.c, one.c, 0, facts)
    return { status, ffi.string(clib.C.ghm_last_error()), ffi.string(facts, ffi.sizeof(facts)) }
end

local function same_outcome(one, status, task)
    local got = outcome(one, cuda.device(), task)
    lu.assertEquals(got, outcome(one, cuda.cpu(), task))
    lu.assertEquals(got[1], tonumber(status))
end

function TestCudaSketch.test_what_is_not_finite_is_counted_and_found()
    local n = 9001
    for _, bad in ipairs { 0 / 0, math.huge, -math.huge } do
        local x, t, w = samples.detector(n)
        for _, at in ipairs { 8999, 4097, 79, 78, 77 } do
            x.ptr[at], w.ptr[at] = bad, 1
        end
        w.ptr[5000] = bad
        x.ptr[10], w.ptr[10] = bad, 0 -- ignored
        same_outcome(samples.class_batch(x, t, w), clib.C.GHM_E_NONFINITE)
        same_outcome(samples.box_batch(x, t, w), clib.C.GHM_E_NONFINITE, "regression")
        local ignoring = { nonfinite = "ignore" }
        cuda.same_sketch(spec, samples.class_batch(x, t, w), ignoring)
        cuda.same_sketch(box_spec, samples.box_batch(x, t, w), ignoring)
        cuda.same_sketch(spec, samples.class_batch(x, samples.shares(n), w), ignoring)
    end
end

function TestCudaSketch.test_targets_and_labels_out_of_range()
    local x, t, w = samples.detector(9001)
    for _, at in ipairs { 9000, 4500, 34, 33 } do
        t.ptr[at], w.ptr[at] = 0.25, 1
    end
    same_outcome(samples.class_batch(x, t, w), clib.C.GHM_E_SOFT)
    local soft = samples.class_batch(x, t, w)
    soft.c.target_form, t.ptr[4500] = clib.C.GHM_SOFT, 1.5
    same_outcome(soft, clib.C.GHM_E_SOFT)
    for _, base in ipairs { "zero_based", "one_based" } do
        local labels = samples.fill(1500, function(i)
            return i % 400 == 399 and 6 + i % 3 or i % 5
        end, "i8")
        labels.ptr[100] = -7
        local weight = samples.flags({ 1500, 6 }, 0.5)
        for i = 0, 5 do -- a row that is not in use may be labelled anything
            weight.ptr[399 * 6 + i] = 0
        end
        for _, w_of in ipairs { weight, samples.flags(1500, 0.5) } do
            local one = batches.classification { logits = samples.normals({ 1500, 6 }, 0, 2),
                labels = labels, base = base, weight = w_of }
            same_outcome(one, outcome(one, cuda.cpu())[1])
        end
    end
end

-- -- order and repetition -------------------------------------------------------------------------

function TestCudaSketch.test_twenty_runs_give_one_digest()
    local one = samples.class_batch(samples.detector(6000))
    local soft = samples.class_batch(samples.normals(20000, 0, 3), samples.shares(20000))
    local digest = cuda.sketch(spec, one, cuda.cpu()):digest()
    local soft_digest = cuda.sketch(spec, soft, cuda.cpu()):digest()
    for _ = 1, 20 do
        lu.assertEquals(cuda.sketch(spec, one, cuda.device()):digest(), digest)
    end
    for _ = 1, cuda.is_emulated() and 2 or 20 do
        lu.assertEquals(cuda.sketch(spec, soft, cuda.device()):digest(), soft_digest)
    end
end

-- -- many -----------------------------------------------------------------------------------------

function TestCudaSketch.test_more_samples_than_32_bits_count()
    local n = cuda.is_emulated() and 2 ^ 16 + 5 or 2 ^ 31 + 5
    local logits, target = array.new("f2", { n }), array.new("u1", { n })
    local f2 = require("ghm.dtype").f2.encode
    local patterns = { f2(-4.5), f2(-1.25), f2(0.5) }
    for i = 0, n - 1, cuda.is_emulated() and 31 or 1000003 do
        logits.ptr[i], target.ptr[i] = patterns[i % 3 + 1], i % 2
    end
    logits.ptr[n - 1], target.ptr[n - 1] = patterns[2], 1
    cuda.same_sketch(spec, samples.class_batch(logits, target))
    logits:free()
    target:free()
end
