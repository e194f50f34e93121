-- The losses as a training loop uses them: forward, backward, state, forms of targets, lifetimes.

local lu = require "luaunit"
local array = require "ghm.array"
local close = require "close"
local ghm = require "ghm"
local oracle = require "oracle"
local samples = require "samples"

local TestLosses = {}
_G.TestLosses = TestLosses

local function mean(list, counted)
    local sum, n = 0, 0
    for i, value in ipairs(list) do
        if not counted or counted(i) then
            sum, n = sum + value, n + 1
        end
    end
    return sum / math.max(n, 1)
end

-- A hand-made case: ten regions of which four are hit.
function TestLosses.test_ghmc_of_four_samples_by_hand()
    -- g is 0.0474, 0.269, 0.5 and 0.881: each alone in its region, so beta is 4 / (1 * 4) = 1
    local value, call = ghm.GHMC():forward({ -3, -1, 0, -2 }, { 0, 0, 1, 1 })
    close(value, mean { oracle.softplus(-3), oracle.softplus(-1), math.log(2),
        oracle.softplus(2) }, { rel = 1e-9 }, "loss")
    lu.assertEquals({ call.n, call.tot, call.beta_largest }, { 4, 4, 1 })
    lu.assertEquals(samples.list(call.R, 10), { 1, 0, 1, 0, 0, 1, 0, 0, 1, 0 })
end

function TestLosses.test_plain_losses_are_means_over_valid_samples()
    for _, n in ipairs { 0, 1, 513, 4000 } do
        local x, t, w = samples.detector(n)
        local function valid(i)
            return w.ptr[i - 1] > 0
        end
        for name, f in pairs { BCE = oracle.bce,
            Focal = function(a, b) return oracle.focal(a, b, 0.25, 2) end } do
            local values = {}
            for i = 1, n do
                values[i] = f(x.ptr[i - 1], t.ptr[i - 1])
            end
            local value = ghm[name]():forward(x, t, w)
            close(value, mean(values, valid), { rel = 1e-8 }, "%s of %d", name, n)
        end
    end
end

-- label_weight is a mask for them, as it is for GHM: fractions choose, they do not scale.
function TestLosses.test_plain_box_losses_are_means_over_valid_samples()
    for _, n in ipairs { 0, 1, 513, 4000 } do
        local pred, target, w = samples.boxes(n)
        for name, f in pairs { ASL1 = function(d) return oracle.asl1(d, 0.02) end,
            SmoothL1 = function(d) return oracle.smooth_l1(d, 0.11) end } do
            local values, valid = {}, 0
            for i = 0, n - 1 do
                values[i + 1] = w.ptr[i] > 0 and f(pred.ptr[i] - target.ptr[i]) or 0
                valid = valid + (w.ptr[i] > 0 and 1 or 0)
            end
            local sum = samples.total(values)
            close(ghm[name]():forward(pred, target, w), sum / math.max(valid, 1), { rel = 1e-8 },
                "%s of %d", name, n)
            close(ghm[name] { reduction = "sum" }:forward(pred, target, w), sum, { rel = 1e-8 },
                "sum of %s of %d", name, n)
            local elements = ghm[name] { reduction = "none" }:forward(pred, target, w)
            for i = 1, n do
                close(elements.ptr[i - 1], values[i], { rel = 1e-6, abs = 1e-30 },
                    "element %d of %s", i, name)
            end
        end
    end
end

function TestLosses.test_soft_targets_agree_with_the_oracle()
    local x, t, w = samples.normals(5000, 0, 3), samples.shares(5000), samples.flags(5000, 0.8)
    for _, bins in ipairs { 1, 10, 30 } do
        local loss = ghm.GHMC { bins = bins }
        local value, call = loss:forward(x, t, w)
        local R, L, tot = oracle.regions(oracle.classes(x, t, w), bins)
        lu.assertEquals(samples.list(call.R, bins), R)
        close(value, oracle.step(loss.config, {}, R, L, tot).loss, { rel = 1e-12 },
            "loss of %d bins", bins)
        lu.assertTrue(call.facts.soft > 0)
    end
end

function TestLosses.test_reductions_agree_with_each_other()
    local x, t, w = samples.detector(3000)
    local value, call = ghm.GHMC { loss_weight = 0.5 }:forward(x, t, w)
    close(ghm.GHMC { loss_weight = 0.5, reduction = "sum" }:forward(x, t, w), value * call.tot,
        { rel = 1e-13 }, "sum")
    local elements = ghm.GHMC { loss_weight = 0.5, reduction = "none" }:forward(x, t, w)
    lu.assertEquals(elements.shape, { 3000 })
    local sum = samples.total(samples.list(elements.ptr, 3000))
    close(sum / call.tot, value, { rel = 1e-6 }, "mean of the elements")
end

function TestLosses.test_momentum_goes_from_call_to_call()
    local config = { bins = 10, momentum = 0.75, start = "corrected", empty = "decay" }
    local loss, state = ghm.GHMC(config), {}
    for call = 1, 6 do
        local x, t, w = samples.detector(call % 3 == 0 and 0 or 300)
        local value = loss:forward(x, t, w)
        local R, L, tot = oracle.regions(oracle.classes(x, t, w), 10)
        close(value, oracle.step(loss.config, state, R, L, tot).loss, { rel = 1e-8 },
            "loss of call %d", call)
        lu.assertEquals(loss:state().updates, state.k)
    end
    lu.assertEquals(loss:state().calls, 6)
end

function TestLosses.test_tables_labels_and_arrays_are_the_same_to_a_loss()
    local logits = { { -3, -1, 2 }, { 0, 1, -8 } }
    local dense = ghm.GHMC():forward(logits, { { 0, 0, 1 }, { 1, 0, 0 } })
    lu.assertEquals(ghm.GHMC():forward(logits, { 2, 0 }), dense)
    lu.assertEquals(ghm.GHMC { labels = "one_based" }:forward(logits, { 3, 1 }), dense)
    lu.assertEquals(ghm.GHMC():forward(array.from(logits, "f4"), array.from({ 2, 0 }, "i4")),
        dense)
    lu.assertEquals(ghm.GHMC():forward(logits, { 2, 0 }, { 1, 1 }), dense)
end

function TestLosses.test_integers_of_the_logits_shape_are_targets_with_one_column_too()
    local x = array.from({ { -3 }, { 0.5 }, { 2 } }, "f4")
    local wanted = ghm.GHMC():forward(x, array.from({ { 0 }, { 1 }, { 1 } }, "f4"))
    local flat = array.from({ -3, 0.5, 2 }, "f4")
    for _, dtype in ipairs { "i1", "i2", "i4", "i8", "u1" } do
        lu.assertEquals(ghm.GHMC():forward(x, array.from({ { 0 }, { 1 }, { 1 } }, dtype)), wanted)
        lu.assertEquals(ghm.GHMC():forward(flat, array.from({ 0, 1, 1 }, dtype)), wanted)
    end
    -- without the axis of classes they are labels: class 0, or 1 for background
    lu.assertEquals(ghm.GHMC():forward(x, array.from({ 1, 0, 0 }, "i8")), wanted)
end

function TestLosses.test_shapes_that_do_not_fit_are_refused()
    local loss = ghm.GHMC()
    samples.refused("dump", { "target is f4[3]", "f4[2]" }, loss.forward, loss, { 1, 2 },
        { 0, 1, 0 })
    samples.refused("dump", { "label_weight is f4[3]" }, loss.forward, loss, { 1, 2 }, { 0, 1 },
        { 1, 1, 1 })
    samples.refused("usage", { "BCE: forward comes first" }, ghm.BCE().backward, ghm.BCE())
    loss:forward({ 1 }, { 0 })
    samples.refused("usage", { "no elements 'colour'" }, loss.elements, loss, "colour")
end

function TestLosses.test_all_ignored_costs_nothing_and_changes_nothing()
    for _, loss in ipairs { ghm.GHMC { momentum = 0.5 }, ghm.BCE(), ghm.Focal() } do
        local value = loss:forward({ 1, -2 }, { 0, 1 }, { 0, 0 })
        lu.assertEquals(value, 0)
        lu.assertEquals(loss:backward():totable(), { 0, 0 })
    end
    lu.assertEquals(ghm.GHMR():forward({ 1, -2 }, { 0, 1 }, { 0, 0 }), 0)
    lu.assertEquals(ghm.GHMC():forward({}, {}), 0)
end

-- -- lifetimes ------------------------------------------------------------------------------------

function TestLosses.test_arrays_live_between_forward_and_backward()
    local loss, expected = ghm.GHMC(), nil
    for round = 1, 20 do
        do
            local x, t = samples.normals(2000, -2, 2), samples.flags(2000, 0.1)
            loss:forward(x:convert "f4", t:convert "f8") -- nobody else holds these
            if round == 20 then
                expected = ghm.GHMC()
                expected:forward(x, t)
                expected = expected:backward():totable()
            end
        end
        collectgarbage()
        for _ = 1, 50 do -- what was freed would be written over
            samples.fill(2000, function() return 0 / 0 end)
        end
    end
    lu.assertEquals(loss:backward():totable(), expected)
end

function TestLosses.test_a_loss_that_failed_keeps_its_state()
    local loss = ghm.GHMC { momentum = 0.5 }
    loss:forward({ -1, 2 }, { 0, 1 })
    local before = loss:state()
    samples.refused("dump", { "not finite" }, loss.forward, loss, { 0 / 0 }, { 0 })
    lu.assertEquals(loss:state(), before)
end
