-- What must not matter: threads, instruction sets, the order of samples, shards, and how many of
-- them share a slot.

local lu = require "luaunit"
local array = require "ghm.array"
local clib = require "ghm.clib"
local close = require "close"
local device = require "ghm.device"
local ffi = require "ffi"
local oracle = require "oracle"
local posix = require "ghm.posix"
local samples = require "samples"
local sketch = require "ghm.sketches"

local TestCoreOrder = {}
_G.TestCoreOrder = TestCoreOrder

local spec = { bins = { 5, 10, 30 } }
local box_spec = { task = "regression", bins = { 10, 30 }, mu = { 0.02, 0.5 }, knots = 1 }

local function on_threads(threads, one, with)
    return samples.sketch_of(with, one, { device = device.open("cpu", threads) })
end

function TestCoreOrder.test_threads_change_no_bit_of_a_sketch()
    for _, n in ipairs { 0, 1, 513, 16 * 32 * 512 } do -- the last is large enough for 16 threads
        local classes = samples.class_batch(samples.detector(n))
        local boxes = samples.box_batch(samples.boxes(n))
        local digest = on_threads(1, classes, spec):digest()
        local box_digest = on_threads(1, boxes, box_spec):digest()
        for _, threads in ipairs { 2, 3, 16 } do
            lu.assertEquals(on_threads(threads, classes, spec):digest(), digest)
            lu.assertEquals(on_threads(threads, boxes, box_spec):digest(), box_digest)
        end
    end
end

function TestCoreOrder.test_threads_change_no_bit_of_soft_sums()
    local one = samples.class_batch(samples.normals(60001, 0, 3), samples.shares(60001))
    local digest = on_threads(1, one, spec):digest()
    for _, threads in ipairs { 2, 3, 16 } do
        lu.assertEquals(on_threads(threads, one, spec):digest(), digest)
    end
end

local function gradient_bytes(one, threads)
    local out, places = array.new("f4", one.shape), ffi.new "ghm_outputs"
    places.grad = out.ptr
    local mu = one.task == "regression" and 0.02 or nil
    local beta = ffi.new("double[10]", { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 })
    clib.check(clib.C.ghm_gradient(device.open("cpu", threads), one.c,
        mu and clib.C.GHM_ASL1 or clib.C.GHM_BCE, mu or 0, 0, 10, mu or 1, beta, 0.5, 1, places))
    return ffi.string(out.ptr, out.n * 4)
end

function TestCoreOrder.test_threads_change_no_bit_of_a_gradient()
    for _, one in ipairs { samples.class_batch(samples.detector(5001)),
        samples.box_batch(samples.boxes(5001)) } do
        local bytes = gradient_bytes(one, 1)
        for _, threads in ipairs { 2, 3, 16 } do
            lu.assertTrue(gradient_bytes(one, threads) == bytes, threads .. " threads differ")
        end
    end
end

-- Prints digests and gradients of a fixed batch; run by children, each with its own GHM_ISA.
local child = [[
package.path = %q
local samples = require "samples"
local ghm = require "ghm"
math.randomseed(7) -- after luaunit, which seeds by the clock
io.write(ghm.device.name(ghm.device.default(ghm.device.open "cpu")), "\n")
for _, kind in ipairs { "GHMC", "Focal", "GHMR", "SmoothL1" } do
    local boxes = kind == "GHMR" or kind == "SmoothL1"
    local loss = ghm[kind]()
    local one = boxes and samples.box_batch(samples.boxes(2051))
        or samples.class_batch(samples.detector(2051))
    local value = loss:forward_batch(one)
    local whole = loss.sketch:like()
    whole:add(one)
    io.write(whole:digest(), " ", ("%%.17g"):format(value), "\n")
    for _, what in ipairs { "grad", "loss", "norm", "beta" } do
        local list = loss:elements(what)
        for i = 0, list.n - 1 do
            io.write(("%%.9g "):format(list.ptr[i]))
        end
        io.write "\n"
    end
end
]]

local function lines_of(isa)
    local path = os.tmpname()
    local file = assert(io.open(path, "w"))
    file:write(child:format(package.path))
    file:close()
    local out, status = posix.capture(("GHM_ISA=%s luajit %s 2>&1"):format(isa, posix.quote(path)))
    os.remove(path)
    local lines = {}
    for line in (out .. "\n"):gmatch "(.-)\n" do
        lines[#lines + 1] = line
    end
    return lines, status
end

for _, isa in ipairs { "avx2", "avx512" } do
    TestCoreOrder["test_" .. isa .. "_equals_plain_code"] = function()
        local lines, status = lines_of(isa)
        if status ~= 0 and lines[1]:find "as far as this CPU has it" then
            lu.skip("this CPU has no " .. isa)
        end
        lu.assertEquals(status, 0, lines[1])
        lu.assertStrContains(lines[1], isa)
        local plain, plain_status = lines_of "plain"
        lu.assertEquals(plain_status, 0, plain[1])
        lu.assertStrContains(plain[1], "plain")
        lu.assertEquals(#lines, #plain)
        for k = 2, #plain do
            if k % 5 == 2 then -- digest and loss
                lu.assertEquals(lines[k], plain[k])
            else
                local next_value = lines[k]:gmatch "%S+"
                for value in plain[k]:gmatch "%S+" do
                    close(tonumber(next_value()), tonumber(value), { rel = 1e-6, abs = 1e-12 },
                        "a value of line %d", k)
                end
            end
        end
    end
end

function TestCoreOrder.test_an_unknown_instruction_set_is_refused()
    local lines, status = lines_of "sse9"
    lu.assertNotEquals(status, 0)
    lu.assertStrContains(table.concat(lines), "GHM_ISA is 'sse9'")
end

local function shuffled(n)
    local order = {}
    for i = 1, n do
        local k = math.random(i)
        order[i] = order[k]
        order[k] = i - 1
    end
    return order
end

function TestCoreOrder.test_the_order_of_samples_does_not_matter()
    local n = 20000
    local x, t, w = samples.detector(n)
    local order = shuffled(n)
    local function mixed(a)
        return samples.fill(n, function(i) return a.ptr[order[i + 1]] end)
    end
    lu.assertEquals(
        samples.sketch_of(spec, samples.class_batch(mixed(x), mixed(t), mixed(w))):digest(),
        samples.sketch_of(spec, samples.class_batch(x, t, w)):digest())
end

-- -- shards ---------------------------------------------------------------------------------------

local function part(a, from, to)
    return array.view(a.ptr + from, a.dtype, { to - from }, a)
end

local function shards(n, make)
    local cuts, list = { 0, 1, 300, 300, 7777, n }, {}
    for k = 2, #cuts do
        list[k - 1] = make(cuts[k - 1], cuts[k])
    end
    return list
end

local function merged(list)
    local whole = list[1]:like()
    for _, shard in ipairs(list) do
        whole:merge(shard)
    end
    return whole
end

function TestCoreOrder.test_shards_merge_to_the_whole()
    local n = 20000
    local x, t, w = samples.detector(n)
    local pred, target, weight = samples.boxes(n)
    local classes = shards(n, function(from, to)
        return samples.sketch_of(spec, samples.class_batch(part(x, from, to), part(t, from, to),
            part(w, from, to)))
    end)
    local boxes = shards(n, function(from, to)
        return samples.sketch_of(box_spec, samples.box_batch(part(pred, from, to),
            part(target, from, to), part(weight, from, to)))
    end)
    local whole = samples.sketch_of(spec, samples.class_batch(x, t, w))
    lu.assertEquals(merged(classes):digest(), whole:digest())
    lu.assertEquals(merged(classes):facts(), whole:facts())
    lu.assertEquals(merged(boxes):digest(),
        samples.sketch_of(box_spec, samples.box_batch(pred, target, weight)):digest())
end

function TestCoreOrder.test_adding_batch_by_batch_equals_one_batch()
    local x, t, w = samples.detector(10000)
    local s = sketch.new(spec)
    for from = 0, 9999, 1000 do
        s:add(samples.class_batch(part(x, from, from + 1000), part(t, from, from + 1000),
            part(w, from, from + 1000)))
    end
    lu.assertEquals(s:digest(), samples.sketch_of(spec, samples.class_batch(x, t, w)):digest())
end

function TestCoreOrder.test_soft_shards_merge_to_the_whole_within_rounding()
    local n = 20000
    local x, t = samples.normals(n, 0, 3), samples.shares(n)
    local all = samples.sketch_of(spec, samples.class_batch(x, t))
    local sum = merged(shards(n, function(from, to)
        return samples.sketch_of(spec, samples.class_batch(part(x, from, to), part(t, from, to)))
    end))
    local R, L = samples.regions(sum, 10)
    local wanted_R, wanted_L = samples.regions(all, 10)
    lu.assertEquals(R, wanted_R)
    for j = 1, 10 do
        close(L[j], wanted_L[j], { rel = 1e-12 }, "loss of region %d", j)
    end
end

function TestCoreOrder.test_sketches_of_other_edges_or_targets_do_not_merge()
    local s = sketch.new(spec)
    samples.refused("mismatch", { "different edges" }, s.merge, s, sketch.new { bins = 7 })
    samples.refused("mismatch", { "different edges" }, s.merge, s, sketch.new(box_spec))
    s:add(samples.class_batch({ 1 }, { 0 }))
    local soft = samples.sketch_of(spec, samples.class_batch({ 1 }, { 0.5 }))
    local digest = s:digest()
    samples.refused("mismatch", { "hard targets", "soft" }, s.merge, s, soft)
    lu.assertEquals(s:digest(), digest)
end

-- -- many samples in one slot ---------------------------------------------------------------------

local last_before_1 = 0.999999940395355224609375 -- its cell's last float32

-- A word of a table holds 1023 samples, and what is fuller moves on: the whole against parts that
-- never fill one. Logits at a cell's far end, and next to both sides of an edge inside a cell.
function TestCoreOrder.test_slots_fuller_than_a_word_are_counted_exactly()
    local n, few = 50000, 500
    for _, bins in ipairs { 10, 300 } do -- with few and with many edges
        local edge = math.log(2 / 8)
        local near = { -last_before_1, edge * (1 - 2 ^ -23), edge * (1 + 2 ^ -23), edge * 1.0002 }
        local x = samples.fill(n, function(i) return near[i % 4 + 1] end)
        local t = samples.fill(n, function(i) return i % 3 == 0 and 1 or 0 end)
        local w = samples.fill(n, function(i) return i % 7 == 0 and 0 or 1 end)
        local parts = {}
        for from = 0, n - 1, few do
            parts[#parts + 1] = samples.sketch_of({ bins = bins }, samples.class_batch(
                part(x, from, from + few), part(t, from, from + few), part(w, from, from + few)))
        end
        for threads = 1, 2 do
            local own = { device = device.open("cpu", threads) }
            for _ = 1, 2 do -- the second pass finds nothing that the first has left
                local whole = samples.sketch_of({ bins = bins }, samples.class_batch(x, t, w), own)
                lu.assertEquals(whole:digest(), merged(parts):digest())
            end
        end
    end
end

-- 16-bit logits of one value, whose patterns are counted.
function TestCoreOrder.test_four_million_equal_logits_are_counted_exactly()
    local n = 2 ^ 22 + 7
    local logits, target = array.new("f2", { n }), array.new("u1", { n })
    local pattern = require("ghm.dtype").f2.encode(-0.99951171875) -- the last before -1
    for i = 0, n - 1 do
        logits.ptr[i], target.ptr[i] = pattern, i % 4 == 0 and 1 or 0
    end
    for threads = 1, 2 do
        local s = on_threads(threads, samples.class_batch(logits, target), spec)
        local positives = math.ceil(n / 4)
        lu.assertEquals(s:facts().positive, positives)
        local R, L = samples.regions(s, 10)
        lu.assertEquals(R, { 0, 0, n - positives, 0, 0, 0, 0, positives, 0, 0 })
        close(L[3], (n - positives) * oracle.softplus(-0.99951171875), { rel = 1e-12 },
            "loss of the negatives")
        close(L[8], positives * oracle.softplus(0.99951171875), { rel = 1e-12 },
            "loss of the positives")
    end
    logits:free()
    target:free()
end
