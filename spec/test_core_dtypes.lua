-- Every dtype, label base and form of weight gives what the same numbers give as dense float32.

local lu = require "luaunit"
local array = require "ghm.array"
local batch = require "ghm.batch"
local ghm = require "ghm"
local samples = require "samples"

local TestCoreDtypes = {}
_G.TestCoreDtypes = TestCoreDtypes

local ROWS, COLS = 257, 5 -- rows that do not end with blocks

-- The digest of a batch's sketch and the bytes of its gradient.
local function outcome(one)
    local boxes = one.task == "regression"
    local s = samples.sketch_of(boxes and { task = one.task, bins = { 1, 10 }, mu = 0.02 }
        or { bins = { 1, 10 } }, one)
    local loss = boxes and ghm.GHMR() or ghm.GHMC()
    loss:forward_batch(one)
    local grad = loss:backward()
    return s:digest() .. s:facts().weight_sum, require("ffi").string(grad.ptr, grad.n * 4)
end

local function check_equal(one, dense, what)
    local digest, grad = outcome(one)
    local wanted_digest, wanted_grad = outcome(dense)
    lu.assertEquals(digest, wanted_digest, what)
    lu.assertTrue(grad == wanted_grad, "the gradients of " .. what .. " differ")
end

local function as_f4(a)
    return a:convert "f4"
end

function TestCoreDtypes.test_logits_and_targets_of_every_dtype()
    for _, pred in ipairs { "f2", "bf16", "f4" } do
        for _, target in ipairs { "f2", "bf16", "f4", "u1", "b1" } do
            local x, t, w = samples.detector { ROWS, COLS }
            x, t = x:convert(pred), t:convert(target)
            check_equal(samples.class_batch(x, t, w), samples.class_batch(as_f4(x), as_f4(t), w),
                pred .. " logits, " .. target .. " targets")
        end
    end
end

function TestCoreDtypes.test_every_half_and_bfloat_pattern_is_widened_exactly()
    for _, dtype in ipairs { "f2", "bf16" } do
        local x = array.new(dtype, { 65536 })
        for i = 0, 65535 do
            x.ptr[i] = i
        end
        local zeros = samples.fill(x.n, function() return 0 end)
        local ignore = { nonfinite = "ignore" }
        local one = samples.sketch_of({ bins = 10 }, samples.class_batch(x, zeros), ignore)
        local wide = samples.sketch_of({ bins = 10 }, samples.class_batch(as_f4(x), zeros), ignore)
        lu.assertEquals(one:digest(), wide:digest(), dtype)
        lu.assertEquals(one:facts().nonfinite, dtype == "f2" and 2 * 1024 or 2 * 128)
    end
end

-- So many 16-bit logits are counted by their patterns instead of being added cell by cell.
local MANY = 2 ^ 18 + 37

local function many(dtype, spoil)
    local x, t, w = samples.detector { MANY }
    x = x:convert(dtype)
    if spoil then
        spoil(x, t, w)
    end
    return samples.class_batch(x, t, w), samples.class_batch(as_f4(x), t, w)
end

function TestCoreDtypes.test_counted_patterns_are_the_same_cells()
    for _, dtype in ipairs { "f2", "bf16" } do
        -- few edges, many, and none at all
        for _, bins in ipairs { { 10 }, { 10, 30, 64, 1000 }, { 1 } } do
            local counted, wide = many(dtype)
            local one = samples.sketch_of({ bins = bins }, counted)
            lu.assertEquals(one:digest(), samples.sketch_of({ bins = bins }, wide):digest(), dtype)
            lu.assertTrue(one:facts().positive > 0 and one:facts().valid < MANY)
        end
    end
end

-- Labels have a way of their own where all weights are 1: all as negatives, and then the positives.
function TestCoreDtypes.test_counted_patterns_of_labels_are_the_same_cells()
    for _, shape in ipairs { { 4400, 60 }, { 220, 1201 }, { MANY, 1 } } do
        local rows, cols = shape[1], shape[2]
        local x = samples.normals(shape, -2, 3):convert "f2"
        local labels = samples.fill(rows, function() return math.random(-1, cols) end, "i4")
        for _, base in ipairs { "zero_based", "one_based" } do
            local one, wide = batch.classification { logits = x, labels = labels, base = base },
                batch.classification { logits = as_f4(x), labels = labels, base = base }
            check_equal(one, wide, ("%s labels of [%d,%d]"):format(base, rows, cols))
        end
        for _, weight in ipairs {
            samples.fill(rows, function(i) return i % 1000 == 7 and 0 or 1 end),
            samples.fill(rows, function(i) return i % 5000 == 7 and 0.5 or 1 end),
            samples.flags(shape, 0.9999, "u1") } do
            check_equal(batch.classification { logits = x, labels = labels, weight = weight },
                batch.classification { logits = as_f4(x), labels = labels, weight = weight },
                ("weights %s of [%d,%d]"):format(weight.dtype, rows, cols))
        end
        x.ptr[200003] = 0x7c00 -- infinite
        local odd = batch.classification { logits = x, labels = labels }
        lu.assertErrorMsgContains("are not finite, the first at row " .. math.floor(200003 / cols),
            samples.sketch_of, { bins = 10 }, odd)
        labels.ptr[math.floor(200003 / cols)], x.ptr[200003] = cols + 1, 0
        lu.assertErrorMsgContains("beyond the ", samples.sketch_of, { bins = 10 }, odd)
    end
end

function TestCoreDtypes.test_counted_patterns_tell_of_odd_samples_where_they_are()
    local spoils = {
        logit = function(x) x.ptr[200003] = 0x7c01 end,
        target = function(_, t) t.ptr[200003] = 0 / 0 end,
        weight = function(_, _, w) w.ptr[200003] = math.huge end,
    }
    for what, spoil in pairs(spoils) do
        local counted, wide = many("f2", function(x, t, w)
            w.ptr[200003] = 1
            spoil(x, t, w)
        end)
        local ignore = { nonfinite = "ignore" }
        local one = samples.sketch_of({ bins = 10 }, counted, ignore)
        lu.assertEquals(one:facts().nonfinite, 1, what)
        lu.assertEquals(one:digest(), samples.sketch_of({ bins = 10 }, wide, ignore):digest(), what)
        lu.assertErrorMsgContains("the first at row 200003", samples.sketch_of, { bins = 10 },
            counted)
    end
    local soft = many("f2", function(_, t, w)
        t.ptr[200003], w.ptr[200003] = 0.5, 1
    end)
    lu.assertTrue(samples.sketch_of({ bins = 10 }, soft):is_soft())
end

function TestCoreDtypes.test_boxes_of_every_dtype()
    for _, pred in ipairs { "f2", "bf16", "f4" } do
        for _, target in ipairs { "f2", "bf16", "f4", "u1" } do
            local p, t, w = samples.boxes { ROWS, 4 }
            t = target == "u1" and samples.flags({ ROWS, 4 }, 0.5, "u1") or t:convert(target)
            p = p:convert(pred)
            check_equal(samples.box_batch(p, t, w), samples.box_batch(as_f4(p), as_f4(t), w),
                pred .. " predictions, " .. target .. " targets")
        end
    end
end

-- Labels in each base with the class or nil for background, and what they stand for as dense.
local function labelled(dtype, base)
    local least = base == "one_based" and 1 or 0
    local labels, dense = array.new(dtype, { ROWS }), array.new("f4", { ROWS, COLS })
    for row = 0, ROWS - 1 do
        local class = math.random(-1, COLS - 1)
        labels:set(row, class < 0 and (least == 1 and 0 or COLS) or class + least)
        if class >= 0 then
            dense.ptr[row * COLS + class] = 1
        end
    end
    return labels, dense
end

function TestCoreDtypes.test_labels_of_every_dtype_and_base_equal_dense_targets()
    for _, dtype in ipairs { "u1", "i4", "i8", "i1", "i2" } do
        for _, base in ipairs { "zero_based", "one_based" } do
            local labels, dense = labelled(dtype, base)
            local x, w = samples.normals({ ROWS, COLS }, -2, 3), samples.flags(ROWS, 0.8)
            local wide = samples.fill({ ROWS, COLS }, function(i)
                return w.ptr[math.floor(i / COLS)]
            end)
            local one = batch.classification { logits = x, labels = labels, base = base,
                weight = w }
            check_equal(one, samples.class_batch(x, dense, wide), dtype .. " labels " .. base)
        end
    end
end

function TestCoreDtypes.test_rows_longer_than_a_block_and_of_one_column()
    for _, shape in ipairs { { 3, 1200 }, { 1200, 1 }, { 2, 512 }, { 700, 3 } } do
        local rows, cols = shape[1], shape[2]
        local x = samples.normals(shape, -2, 3)
        local labels = samples.fill(rows, function() return math.random(0, cols) end, "i4")
        local dense = samples.fill(shape, function(i)
            return labels:get(math.floor(i / cols)) == i % cols and 1 or 0
        end)
        check_equal(batch.classification { logits = x, labels = labels },
            samples.class_batch(x, dense), ("labels of [%d,%d]"):format(rows, cols))
    end
end

function TestCoreDtypes.test_negative_labels_are_background()
    local x = samples.normals({ 3, 2 }, 0, 1)
    local labels = array.from({ -1, 2, -100 }, "i8")
    for _, base in ipairs { "zero_based", "one_based" } do
        local wanted = array.from({ { 0, 0 }, { 0, base == "one_based" and 1 or 0 }, { 0, 0 } },
            "f4")
        check_equal(batch.classification { logits = x, labels = labels, base = base },
            samples.class_batch(x, wanted), base)
    end
end

function TestCoreDtypes.test_labels_beyond_the_classes_are_counted_and_refused()
    local x = samples.normals({ 4, 2 }, 0, 1)
    local s = ghm.sketch.new { bins = 10 }
    for base, labels in pairs { zero_based = { 0, 3, 2, 9 }, one_based = { 0, 3, 2, 9 } } do
        samples.refused("dump", { "2 labels are beyond the 2 classes, the first in row 1" }, s.add,
            s, batch.classification { logits = x, labels = array.from(labels, "i8"), base = base })
    end
    lu.assertEquals(s:facts().samples, 0)
end

function TestCoreDtypes.test_a_row_that_is_ignored_may_hold_any_label()
    local x = samples.normals({ 3, 2 }, 0, 1)
    local labels = array.from({ 1, 99, 0 }, "i8")
    local dense = array.from({ { 0, 1 }, { 0, 0 }, { 1, 0 } }, "f4")
    local wide = array.from({ { 1, 1 }, { 0, 0 }, { 1, 1 } }, "f4")
    for _, weight in ipairs { array.from({ 1, 0, 1 }, "f4"), wide } do
        check_equal(batch.classification { logits = x, labels = labels, weight = weight },
            samples.class_batch(x, dense, wide), "labels with weights " .. tostring(weight))
    end
end

function TestCoreDtypes.test_weights_of_every_dtype_per_row_and_per_element()
    local x, t = samples.detector { ROWS, COLS }
    local pred, target = samples.boxes { ROWS, 4 }
    for _, dtype in ipairs { "f4", "u1", "b1" } do
        local rows = samples.flags(ROWS, 0.7, dtype)
        local function wide(cols)
            return samples.fill({ ROWS, cols }, function(i)
                return rows:get(math.floor(i / cols))
            end)
        end
        check_equal(samples.class_batch(x, t, rows), samples.class_batch(x, t, wide(COLS)),
            dtype .. " weights per row")
        check_equal(samples.class_batch(x, t, wide(COLS):convert(dtype)),
            samples.class_batch(x, t, wide(COLS)), dtype .. " weights per element")
        check_equal(samples.box_batch(pred, target, rows),
            samples.box_batch(pred, target, wide(4)), dtype .. " weights of boxes per row")
    end
    local ones = samples.fill({ ROWS, COLS }, function() return 1 end)
    check_equal(samples.class_batch(x, t), samples.class_batch(x, t, ones), "no weights")
end

function TestCoreDtypes.test_tot_of_boxes_sums_weights_exactly()
    local n = 30000
    local p, t = samples.boxes(n)
    local w = samples.fill(n, function(i) return i == 0 and 2 ^ 24 or 0.1 * math.random(0, 9) end)
    local exact = 0 -- of float32 weights up to 2^24, doubles lose nothing that shows
    for i = 0, n - 1 do
        exact = exact + w.ptr[i]
    end
    local s = samples.sketch_of({ task = "regression", bins = 10, mu = 0.02 },
        samples.box_batch(p, t, w))
    lu.assertAlmostEquals(s:tot(), exact, exact * 1e-14)
end
