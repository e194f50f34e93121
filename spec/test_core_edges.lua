-- Which region a sample at an edge belongs to, decided here without the core's logarithm and root:
-- sigmoid(s) >= j/M exactly when (M - j) (e^s - 1) >= 2j - M, and |d| / sqrt(d^2 + mu^2) >= j/M
-- exactly when d^2 (M^2 - j^2) >= mu^2 j^2. Doubles decide these for a float32 s or d unless the
-- two sides are nearer to each other than rounding; such a case fails here, it is not guessed.

local lu = require "luaunit"
local ffi = require "ffi"
local array = require "ghm.array"
local clib = require "ghm.clib"
local device = require "ghm.device"
local oracle = require "oracle"
local samples = require "samples"
local sketch = require "ghm.sketches"

local TestCoreEdges = {}
_G.TestCoreEdges = TestCoreEdges

-- a >= b where each carries a few roundings; equal sides are meant to be equal.
local function surely_at_least(a, b)
    lu.assertTrue(a == b or math.abs(a - b) > 4e-15 * math.abs(b),
        "doubles cannot tell this edge: the spec needs more digits")
    return a >= b
end

local function reaches_class(s, j, bins)
    return surely_at_least((bins - j) * ffi.C.expm1(s), 2 * j - bins)
end

local function reaches_box(d, j, bins, mu)
    local root = math.sqrt((bins - j) * (bins + j))
    if root == math.floor(root) then
        -- Here d root and mu j can come as near as mu = 0.1 is to a tenth. Of mu's two halves each
        -- product is exact, and so are the differences of numbers this near.
        local top = (mu * (2 ^ 27 + 1)) - (mu * (2 ^ 27 + 1) - mu)
        return d * root - top * j >= (mu - top) * j
    end
    return surely_at_least(d * d * (bins - j) * (bins + j), mu * mu * j * j)
end

local bits = ffi.new "union { float f; int32_t i; }"

-- The float32 `steps` away from x, away from zero where positive.
local function neighbour(x, steps)
    bits.f = x
    bits.i = bits.i + steps
    return bits.f
end

-- However often one is repeated: nobody waits for minutes, or needs the memory, to hear of it.
function TestCoreEdges.test_too_many_edges_are_refused_at_once()
    local bins = {}
    for k = 1, 2 ^ 20 do
        bins[k] = 65536
    end
    samples.refused("usage", { "more than 67108864 edges" }, sketch.new, { bins = bins })
end

-- Keys around the edges j of bins, and for each the region (1..bins) that `reaches` gives it.
local function around(edges, place, reaches)
    local keys, regions = {}, {}
    for _, j in ipairs(edges) do
        local near = oracle.float32(place(j))
        for step = -2, 2 do
            local key = near == 0 and step * 1e-45 or neighbour(near, step)
            -- among its five neighbours only this edge can matter, and every j below is reached
            local region = reaches(key, j) and j + 1 or j
            keys[#keys + 1], regions[#regions + 1] = key, region
        end
    end
    return keys, regions
end

local function every_edge(bins)
    local edges = {}
    for j = 1, bins - 1 do
        edges[j] = j
    end
    return edges
end

-- Both passes on the batch: counts per region, and beta per sample when region j has beta j.
local function check_passes(one, spec, bins, mu, regions)
    local s = samples.sketch_of(spec, one)
    local wanted = {}
    for j = 1, bins do
        wanted[j] = 0
    end
    for _, j in ipairs(regions) do
        wanted[j] = wanted[j] + 1
    end
    lu.assertEquals(samples.list(s:regions(bins, mu), bins), wanted)
    s:free()
    local beta = ffi.new("double[?]", bins)
    for j = 1, bins do
        beta[j - 1] = j
    end
    local out, places = array.new("f4", one.shape), ffi.new "ghm_outputs"
    places.beta = out.ptr
    local f = mu and clib.C.GHM_ASL1 or clib.C.GHM_BCE
    clib.check(clib.C.ghm_gradient(device.default(), one.c, f, mu or 0, 0, bins, mu or 1, beta, 1,
        1, places))
    for i, j in ipairs(regions) do
        if out.ptr[i - 1] ~= j then
            lu.fail(("sample %d of %d bins is in region %d, expected %d"):format(i, bins,
                out.ptr[i - 1], j))
        end
    end
end

local function check_classes(bins, edges)
    local keys, regions = around(edges, function(j)
        return math.log(j / (bins - j))
    end, function(key, j)
        return reaches_class(key, j, bins)
    end)
    for target = 0, 1 do -- s = (1 - 2t) x
        local logits = samples.fill(#keys, function(i) return keys[i + 1] * (1 - 2 * target) end)
        check_passes(samples.class_batch(logits, samples.fill(#keys, function()
            return target
        end)), { bins = bins }, bins, nil, regions)
    end
end

local function check_boxes(bins, mu, edges)
    local keys, regions = around(edges, function(j)
        return mu * j / math.sqrt((bins - j) * (bins + j))
    end, function(key, j)
        return reaches_box(key, j, bins, mu)
    end)
    local pred = samples.fill(#keys, function(i) return keys[i + 1] * (1 - 2 * (i % 2)) end)
    check_passes(samples.box_batch(pred, samples.fill(#keys, function() return 0 end)),
        { task = "regression", bins = bins, mu = mu }, bins, mu, regions)
end

function TestCoreEdges.test_every_edge_of_1_to_128_bins()
    for bins = 2, 128 do
        check_classes(bins, every_edge(bins))
    end
end

function TestCoreEdges.test_edges_of_many_bins()
    check_classes(1000, every_edge(1000))
    local some = { 1, 2, 3, 32767, 32768, 32769, 65533, 65534, 65535 }
    for _ = 1, 300 do
        some[#some + 1] = math.random(4, 65532)
    end
    check_classes(65536, some)
end

function TestCoreEdges.test_every_edge_of_boxes_for_mu_from_a_thousandth_to_1()
    for _, mu in ipairs { 0.001, 0.005, 0.02, 0.1, 0.5, 1 } do
        for bins = 2, 128, mu == 0.5 and 1 or 9 do
            check_boxes(bins, mu, every_edge(bins))
        end
    end
end

-- 3-4-5: with mu = 1/2, |d| = 3/8 is g = 3/5 exactly, which is an edge of every multiple of 5.
function TestCoreEdges.test_an_error_exactly_at_an_edge_is_in_the_upper_region()
    for bins = 5, 60, 5 do
        check_passes(samples.box_batch({ 0.375, -0.375 }, { 0, 0 }),
            { task = "regression", bins = bins, mu = 0.5 }, bins, 0.5,
            { bins * 3 / 5 + 1, bins * 3 / 5 + 1 })
    end
end

function TestCoreEdges.test_a_logit_of_zero_of_either_sign_is_at_one_half_and_above()
    local logits = samples.fill(4, function(i) return i % 2 == 0 and 0 or -0.0 end)
    lu.assertEquals(1 / logits.ptr[1], -math.huge)
    local target = samples.fill(4, function(i) return i < 2 and 0 or 1 end)
    for _, bins in ipairs { 2, 10, 64, 1000 } do
        local j = bins / 2 + 1
        check_passes(samples.class_batch(logits, target), { bins = bins }, bins, nil,
            { j, j, j, j })
    end
end

-- sigmoid(0) - t is an edge of 4 and of 8 bins exactly.
function TestCoreEdges.test_soft_targets_exactly_at_an_edge_are_in_the_upper_region()
    local target = array.from({ 0.5, 0.25, 0.75, 0.125, 0, 1 }, "f4")
    local logits = array.new("f4", { 6 })
    check_passes(samples.class_batch(logits, target), { bins = 4 }, 4, nil, { 1, 2, 2, 2, 3, 3 })
    check_passes(samples.class_batch(logits, target), { bins = 8 }, 8, nil, { 1, 3, 3, 4, 5, 5 })
end

function TestCoreEdges.test_the_last_region_takes_g_equal_1()
    local logits = samples.fill(4, function(i) return ({ 1e4, 3e38, -1e4, -3e38 })[i + 1] end)
    local target = samples.fill(4, function(i) return i < 2 and 0 or 1 end)
    check_passes(samples.class_batch(logits, target), { bins = 10 }, 10, nil, { 10, 10, 10, 10 })
    check_passes(samples.box_batch({ 1e30, -1e30 }, { 0, 0 }),
        { task = "regression", bins = 10, mu = 0.02 }, 10, 0.02, { 10, 10 })
end

function TestCoreEdges.test_both_passes_agree_on_random_samples()
    local x, t = samples.detector(20000)
    local pred, target = samples.boxes(20000)
    for _, bins in ipairs { 1, 20, 85, 100, 1000 } do
        local regions, boxes = {}, {}
        for i, sample in ipairs(oracle.classes(x, t)) do
            regions[i] = oracle.region(sample, bins)
        end
        for i, sample in ipairs(oracle.boxes(pred, target, nil, 0.02)) do
            boxes[i] = oracle.region(sample, bins, 0.02)
        end
        check_passes(samples.class_batch(x, t), { bins = bins }, bins, nil, regions)
        check_passes(samples.box_batch(pred, target),
            { task = "regression", bins = bins, mu = 0.02 }, bins, 0.02, boxes)
    end
end
