-- GHM-C for rows of exclusive classes: margins, losses and gradients of its three forms against
-- probabilities in float64.

local lu = require "luaunit"
local array = require "ghm.array"
local close = require "close"
local clib = require "ghm.clib"
local device = require "ghm.device"
local ffi = require "ffi"
local ghm = require "ghm"
local oracle = require "oracle"
local samples = require "samples"

local forms = ghm.softmax.forms

local TestSoftmax = {}
_G.TestSoftmax = TestSoftmax

-- Logits [rows, cols] of a classifier that is mostly right, labels from 0, one row in ten ignored
-- by a negative label.
local function rows_of(rows, cols, spread)
    local labels = samples.fill({ rows }, function()
        return math.random() < 0.1 and -1 or math.random(0, cols - 1)
    end, "i8")
    local logits = samples.fill({ rows, cols }, function(i)
        local own = labels:get(math.floor(i / cols)) == i % cols
        return samples.normal(own and 3 or 0, spread or 2)
    end)
    return logits, labels
end

local function row_of(logits, row)
    local list, cols = {}, logits.shape[2]
    for c = 1, cols do
        list[c] = logits:get(row * cols + c - 1)
    end
    return list
end

-- All samples of the rows, in order; weight: an array of [rows], or nil.
local function oracle_samples(logits, labels, form, weight)
    local list = {}
    for row = 0, labels.n - 1 do
        local used = labels:get(row) >= 0 and (not weight or weight:get(row) > 0)
        for _, sample in ipairs(oracle.softmax_samples(row_of(logits, row),
            used and labels:get(row) + 1 or nil, form)) do
            list[#list + 1] = sample
        end
    end
    return list
end

local function labelled(logits, labels, weight)
    return ghm.batch.classification { logits = logits, labels = labels, weight = weight }
end

-- ln(p / (1 - p)) from sums that cannot cancel
local function margin(list, c)
    local largest, sum = -math.huge, 0
    for k, x in ipairs(list) do
        largest = k ~= c and math.max(largest, x) or largest
    end
    for k, x in ipairs(list) do
        sum = sum + (k ~= c and math.exp(x - largest) or 0)
    end
    return list[c] - largest - math.log(sum)
end

local hard_rows = { { 0, 0 }, { 0, 0, 0 }, { 1e4, -1e4 }, { -1e4, 1e4, 1e4 },
    { 1.5e38, -1.5e38, 0 }, { 90, 89, -90, 0 }, { -745, 0, 1 }, { 1e-30, 0, -1e-30 },
    { 16777216, 16777215, 16777214 }, { 40, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 } }

function TestSoftmax.test_margins_are_rounded_once()
    local lists = { unpack(hard_rows) }
    for _, cols in ipairs { 2, 3, 31, 33, 511, 600 } do
        for _, spread in ipairs { 0.1, 3, 30 } do
            lists[#lists + 1] = row_of(rows_of(1, cols, spread), 0)
        end
    end
    for _, list in ipairs(lists) do
        local logits = array.from({ list }, "f4")
        local each = ghm.softmax.margins(labelled(logits, { 0 }), "each_class").arrays.pred
        local own = ghm.softmax.margins(labelled(logits, { 0 }), "true_class").arrays.pred
        for c = 1, #list do
            close(each:get(c - 1), margin(row_of(logits, 0), c), { rel = 2 ^ -24 * 1.0001,
                abs = 1e-14 }, "margin %d of %d", c, #list)
        end
        lu.assertEquals(own:get(0), each:get(0))
    end
end

function TestSoftmax.test_the_widest_margins_stay_finite()
    local logits = array.from({ { 3.4e38, -3.4e38, -3.4e38 } }, "f4")
    local pred = ghm.softmax.margins(labelled(logits, { 0 }), "each_class").arrays.pred
    for c = 0, 2 do
        close(math.abs(pred:get(c)), 3.4028235e38, { rel = 1e-6 }, "margin %d", c)
    end
end

-- { rows, cols, bins, momentum }
local cases = { { 1, 2, 10, 0 }, { 31, 3, 10, 0.75 }, { 400, 10, 30, 0 }, { 513, 4, 5, 0.5 },
    { 20, 700, 100, 0 } }

-- Margins are rounded by 2^-24 of themselves, which moves softplus(-m) by |m| 2^-24 of itself where
-- the row is right (it is e^-m there), and by 2^-24 where it is wrong (it is -m). What the worst
-- sample is off by is a bound of the whole loss; 1e-8 is the sketch's.
local function rounding_of(expected)
    local most = 1
    for _, sample in ipairs(expected) do
        local right = sample.valid and sample.loss > 0 -- m is at most -ln l, as l <= e^l - 1
        most = math.max(most, right and -math.log(sample.loss) or 0)
    end
    return 2 ^ -24 * most + 1e-8
end

function TestSoftmax.test_losses_are_those_of_the_probabilities()
    for _, case in ipairs(cases) do
        local rows, cols, bins, momentum = unpack(case)
        for _, form in ipairs(forms) do
            local loss = ghm.SoftmaxGHMC { form = form, bins = bins, momentum = momentum }
            local state = {}
            for call = 1, momentum > 0 and 3 or 1 do
                local logits, labels = rows_of(rows, cols)
                local weight = samples.flags({ rows }, 0.9)
                local value, made = loss:forward(logits, labels, weight)
                local expected = oracle_samples(logits, labels, form, weight)
                local R, L, tot = oracle.regions(expected, bins)
                local what = ("call %d of %d rows, %d classes, %s"):format(call, rows, cols, form)
                lu.assertEquals(samples.list(made.R, bins), R, what)
                close(value, oracle.step(loss.config, state, R, L, tot).loss,
                    { rel = rounding_of(expected) }, what)
            end
        end
    end
end

-- d (scale * sum of beta_i l_i) / d x by central differences in float64, beta held.
local function differences(logits, labels, form, beta, scale)
    local cols, grads = logits.shape[2], {}
    for row = 0, labels.n - 1 do
        local list, t = row_of(logits, row), labels:get(row) + 1
        local function value()
            local sum = 0
            for c, sample in ipairs(t > 0 and oracle.softmax_samples(list, t, form) or {}) do
                local at = form == "each_class" and row * cols + c - 1 or row
                sum = sum + beta:get(at) * sample.loss
            end
            return scale * sum
        end
        for c = 1, cols do
            local x, h = list[c], 1e-4
            list[c] = x + h
            local above = value()
            list[c] = x - h
            grads[#grads + 1] = (above - value()) / (2 * h)
            list[c] = x
        end
    end
    return grads
end

function TestSoftmax.test_gradients_are_differences_of_the_loss()
    for _, form in ipairs(forms) do
        for _, reduction in ipairs { "mean", "sum" } do
            local logits, labels = rows_of(60, 5)
            local loss = ghm.SoftmaxGHMC { form = form, reduction = reduction, loss_weight = 3 }
            local _, call = loss:forward(logits, labels)
            local scale = 3 / (reduction == "mean" and call.tot or 1)
            local expected = differences(logits, labels, form, loss:elements "beta", scale)
            local grad = loss:backward()
            lu.assertEquals(grad.shape, { 60, 5 })
            for i, value in ipairs(expected) do
                local limit = { rel = 1e-6, abs = 2e-8 * scale * call.beta_largest }
                close(grad:get(i - 1), value, limit, "%s, %s, element %d", form,
                    reduction, i - 1)
            end
        end
    end
end

-- Where p is within a float of 0 or 1, the gradient of a true class is beta (p_c - y_c) still.
function TestSoftmax.test_gradients_keep_their_digits_where_p_is_near_one()
    for gap = 0, 80, 8 do
        local loss = ghm.SoftmaxGHMC { bins = 1 }
        loss:forward({ { gap, 0, -1 } }, { 0 })
        local e, f = math.exp(-gap), math.exp(-gap - 1)
        local grad = loss:backward()
        for c, expected in ipairs { -(e + f) / (1 + e + f), e / (1 + e + f), f / (1 + e + f) } do
            close(grad:get(c - 1), expected, { rel = 2e-7 }, "gap %d, class %d", gap, c)
        end
        local each = ghm.SoftmaxGHMC { bins = 1, form = "each_class" }
        local value = each:forward({ { gap, 0, -1 } }, { 1 })
        -- -ln(1 - p_1) - ln p_2 - ln(1 - p_3), over three samples: by x_1, and x_1 and x_2 alone
        close(value * 3, -math.log((e + f) / (1 + e + f)) - math.log(e / (1 + e + f))
            - math.log((1 + e) / (1 + e + f)), { rel = 1e-6 }, "loss, gap %d", gap)
        grad = each:backward()
        local sum = 0
        for c = 0, 2 do
            lu.assertTrue(math.abs(grad:get(c)) <= 1, "gap " .. gap)
            sum = sum + grad:get(c)
        end
        close(sum, 0, { abs = 2e-7 }, "a shift of all logits changes nothing, gap %d", gap)
    end
end

function TestSoftmax.test_l1_is_true_class_with_regions_twice_as_wide()
    local logits, labels = rows_of(300, 6)
    local value = ghm.SoftmaxGHMC { form = "l1" }:forward(logits, labels)
    lu.assertEquals(value, (ghm.SoftmaxGHMC():forward(logits, labels)))
end

function TestSoftmax.test_one_region_is_cross_entropy()
    local value = ghm.SoftmaxGHMC { bins = 1 }:forward({ { 1, 2, 3 }, { 0, 0, 5 } }, { 2, 0 })
    close(value, (math.log(1 + math.exp(-1) + math.exp(-2)) + math.log(2 + math.exp(5))) / 2,
        { rel = 1e-7 }, "loss")
end

function TestSoftmax.test_dtypes_and_one_hot_targets_are_the_same_to_it()
    local logits, labels = rows_of(90, 7)
    logits = logits:convert("f2"):convert "f4"
    local onehot = samples.fill({ 90, 7 }, function(i)
        return labels:get(math.floor(i / 7)) == i % 7 and 1 or 0
    end)
    local mask = samples.fill({ 90 }, function(i) return labels:get(i) >= 0 and 1 or 0 end)
    for _, form in ipairs(forms) do
        local function run(...)
            local loss = ghm.SoftmaxGHMC { form = form }
            return { loss:forward(...), loss:backward():totable() }
        end
        local expected = run(logits, labels)
        lu.assertEquals(run(logits:convert "f2", labels:convert "i4")[1], expected[1])
        for _, dtype in ipairs { "f4", "u1", "f2", "bf16" } do
            local got = run(logits, onehot:convert(dtype), mask)
            lu.assertEquals(got[1], expected[1], dtype)
            lu.assertEquals(got[2], expected[2], dtype)
        end
        lu.assertEquals(run(logits:convert "bf16", labels)[1],
            run(logits:convert("bf16"):convert "f4", labels)[1])
    end
end

function TestSoftmax.test_threads_do_not_change_a_bit()
    local logits, labels = rows_of(1500, 9)
    local expected
    for _, threads in ipairs { 1, 2, 3, 16 } do
        local loss = ghm.SoftmaxGHMC { form = "each_class", momentum = 0.5,
            device = device.open("cpu", threads) }
        local got = { loss:forward(logits, labels), loss:backward():totable() }
        expected = expected or got
        lu.assertEquals(got[1], expected[1])
        lu.assertEquals(got[2], expected[2])
    end
end

function TestSoftmax.test_ignored_rows_may_hold_anything()
    for _, form in ipairs(forms) do
        local loss = ghm.SoftmaxGHMC { form = form }
        local expected = loss:forward({ { 1, 2 }, { 3, 1 } }, { 0, 1 })
        local value = loss:forward({ { 1, 2 }, { 0 / 0, 1 }, { 3, 1 }, { math.huge, 0 } },
            { 0, 7, 1, -5 }, { 1, 0, 2, 1 })
        lu.assertEquals(value, expected)
        local grad = loss:backward():totable()
        lu.assertEquals({ grad[2], grad[4] }, { { 0, 0 }, { 0, 0 } })
        lu.assertEquals(ghm.SoftmaxGHMC { form = form }:forward({ { 1, 2 } }, { -1 }), 0)
    end
end

function TestSoftmax.test_rows_that_are_not_finite_are_told_or_ignored()
    local logits = { { 1, 2 }, { 3, 0 / 0 }, { -math.huge, 1 } }
    samples.refused("dump", { "2 of 3 samples are not finite", "row 1" }, ghm.SoftmaxGHMC().forward,
        ghm.SoftmaxGHMC(), logits, { 0, 1, 1 })
    for _, form in ipairs(forms) do
        local loss = ghm.SoftmaxGHMC { form = form, nonfinite = "ignore" }
        local value, call = loss:forward(logits, { 0, 1, 1 })
        lu.assertEquals(value, (ghm.SoftmaxGHMC { form = form }:forward({ { 1, 2 } }, { 0 })))
        lu.assertEquals(call.facts.nonfinite, form == "each_class" and 4 or 2)
        local grad = loss:backward():totable()
        lu.assertEquals({ grad[2], grad[3] }, { { 0, 0 }, { 0, 0 } })
    end
    samples.refused("dump", { "not finite" }, ghm.SoftmaxGHMC().forward, ghm.SoftmaxGHMC(),
        { { 1, 2 } }, { 0 }, { 0 / 0 })
end

function TestSoftmax.test_refuses_what_is_no_softmax()
    local function refused(parts, kind, ...)
        samples.refused(kind, parts, ghm.SoftmaxGHMC().forward, ghm.SoftmaxGHMC(), ...)
    end
    refused({ "1 rows are not of exactly one of 2 classes, the first is row 1" }, "dump",
        { { 1, 2 }, { 3, 4 } }, { 1, 2 })
    refused({ "2 rows are not of exactly one", "the first is row 0" }, "dump",
        { { 1, 2 }, { 3, 4 } }, { { 1, 1 }, { 0, 0 } })
    refused({ "exactly one of 2" }, "dump", { { 1, 2 } }, { { 0.5, 0.5 } })
    refused({ "one label_weight for each row" }, "usage", { { 1, 2 } }, { { 0, 1 } }, { { 1, 1 } })
    refused({ "over 2 classes or more, not over 1" }, "usage", { { 1 }, { 2 } }, { { 1 }, { 0 } })
    for key, parts in pairs { form = { "form is 'l2': did you mean 'l1'" },
        labels = { "unknown key 'labels'" }, mu = { "unknown key 'mu'" } } do
        samples.refused("usage", parts, ghm.SoftmaxGHMC, { [key] = "l2" })
    end
    samples.refused("usage", { "SoftmaxGHMC: forward comes first" }, ghm.SoftmaxGHMC().backward,
        ghm.SoftmaxGHMC())
end

function TestSoftmax.test_nothing_is_written_beyond_the_rows()
    local batch = labelled(rows_of(33, 5))
    local margins, own, grad = ffi.new "float[170]", ffi.new "float[34]", ffi.new "float[170]"
    local valid, beta = ffi.new "uint8_t[34]", ffi.new("float[165]")
    ffi.fill(margins, 680, 0x55)
    ffi.fill(own, 136, 0x55)
    ffi.fill(grad, 680, 0x55)
    ffi.fill(valid, 34, 0x55)
    clib.check(clib.C.ghm_softmax_margins(device.default(), batch.c, margins, own, valid))
    clib.check(clib.C.ghm_softmax_gradient(device.default(), batch.c, beta, 0, 1, grad))
    for name, at in pairs { margins = margins + 165, own = own + 33, grad = grad + 165 } do
        lu.assertEquals(ffi.cast("uint32_t *", at)[0], 0x55555555, name)
    end
    lu.assertEquals(valid[33], 0x55)
    lu.assertNotEquals(clib.C.ghm_softmax_margins(nil, batch.c, margins, own, valid), 0)
    lu.assertNotEquals(clib.C.ghm_softmax_margins(device.default(), nil, margins, own, valid), 0)
    lu.assertNotEquals(clib.C.ghm_softmax_margins(device.default(), batch.c, nil, nil, nil), 0)
    lu.assertNotEquals(clib.C.ghm_softmax_gradient(device.default(), batch.c, nil, 0, 1, grad), 0)
end
