-- Calls per step, against the oracle call by call, and the warnings that a stream of calls earns.

local lu = require "luaunit"
local close = require "close"
local ffi = require "ffi"
local ghm = require "ghm"
local oracle = require "oracle"
local samples = require "samples"

local calls, warnings = ghm.calls, ghm.warnings

-- A stream from lists of counts: { { {R...}, {R...} }, ... }, steps of calls. A region's loss sum
-- is half its count.
local function stream(counts)
    local steps = {}
    for k, step in ipairs(counts) do
        steps[k] = { name = "step " .. k }
        for c, R in ipairs(step) do
            local tot, L = 0, {}
            for j, r in ipairs(R) do
                tot, L[j] = tot + r, r / 2
            end
            steps[k][c] = { R = ffi.new("int64_t[?]", #R, R), L = ffi.new("double[?]", #R, L),
                tot = math.max(tot, 1), samples = tot, name = "P" .. c + 2 }
        end
    end
    return steps
end

-- One call a step.
local function plain(counts)
    local steps = {}
    for k, R in ipairs(counts) do
        steps[k] = { R }
    end
    return stream(steps)
end

local function trace_of(config, steps, sharing)
    config.bins = #samples.list(steps[1][1].R, config.bins)
    return calls.trace(config.mu and "regression" or "classification", config, steps, sharing)
end

local TestCalls = {}
_G.TestCalls = TestCalls

local function random_stream(n, per_step, bins)
    local counts = {}
    for k = 1, n do
        counts[k] = {}
        for c = 1, per_step do
            counts[k][c] = {}
            for j = 1, bins do
                counts[k][c][j] = math.random() < 0.6
                    and math.random(0, 50 * 4 ^ (per_step - c)) or 0
            end
        end
    end
    return counts
end

-- What the oracle makes of the same calls: results in order.
local function slow_trace(config, counts, sharing)
    local states, results = {}, {}
    local function apply(state, R)
        states[state] = states[state] or {}
        local L, tot = {}, 0
        for j, r in ipairs(R) do
            L[j], tot = r / 2, tot + r
        end
        results[#results + 1] = oracle.step(config, states[state], R, L, math.max(tot, 1))
    end
    for _, step in ipairs(counts) do
        if sharing == "summed" then
            local whole = {}
            for j = 1, config.bins do
                whole[j] = 0
                for _, R in ipairs(step) do
                    whole[j] = whole[j] + R[j]
                end
            end
            apply(1, whole)
        else
            for c, R in ipairs(step) do
                apply(sharing == "own" and c or 1, R)
            end
        end
    end
    return results
end

for _, sharing in ipairs(calls.states) do
    TestCalls["test_a_stream_of_" .. sharing .. "_calls_follows_the_oracle"] = function()
        for _, start in ipairs { "zero", "corrected" } do
            local counts = random_stream(6, 3, 5)
            local trace = calls.trace("classification", { bins = 5, momentum = 0.75,
                start = start }, stream(counts), sharing)
            local expected = slow_trace(trace.config, counts, sharing)
            lu.assertEquals(#trace, #expected)
            for i, wanted in ipairs(expected) do
                close(trace[i].loss, wanted.loss, { rel = 1e-12 }, "loss of call %d", i)
                for j = 1, 5 do
                    close(trace[i].beta[j - 1], wanted.beta[j], { rel = 1e-12 }, "beta[%d]", j)
                end
            end
        end
    end
end

-- RetinaNet's five levels of sizes 4:1 that share one S at momentum 0.75, and the ways out.
function TestCalls.test_five_pyramid_levels_and_what_they_share()
    local counts = {}
    for k = 1, 60 do
        counts[k] = {}
        for level = 1, 5 do
            local size = 100 * 4 ^ (5 - level)
            counts[k][level] = { size, size, size, size }
        end
    end
    local cases = {
        { 0.75, "shared", { 2.73, 0.74, 0.23, 0.076, 0.025 } },
        { 0, "shared", { 1, 1, 1, 1, 1 } },
        { 0.75, "summed", { 1, 1, 1, 1, 1 } },
        { 0.75, "own", { 1, 1, 1, 1, 1 } },
    }
    for _, case in ipairs(cases) do
        local momentum, sharing, wanted = unpack(case)
        local trace = trace_of({ bins = 4, momentum = momentum, start = sharing == "shared"
            and "zero" or "corrected" }, stream(counts), sharing)
        local last = { config = trace.config, sharing = sharing }
        for i = #trace - (sharing == "summed" and 0 or 4), #trace do
            last[#last + 1] = trace[i]
        end
        for level, one in ipairs(calls.levels(last)) do
            close(one.beta, wanted[level], { abs = wanted[level] < 0.1 and 0.0005 or 0.005 },
                "mean beta of P%d, momentum %g, %s", level + 2, momentum, sharing)
            lu.assertEquals(one.name, "P" .. level + 2)
        end
    end
end

function TestCalls.test_parts_of_several_calls_say_of_which()
    local steps = plain { { 40, 4 } }
    steps[1][1].name = "P3"
    lu.assertEquals(calls.split(steps, 2, { 0.5, 0.5 })[1][2].name, "part 2")
    steps[1][2] = plain({ { 9, 4 } })[1][1]
    steps[1][2].name = "P4"
    local names = {}
    for k, part in ipairs(calls.split(steps, 2, { 0.5, 0.5 })[1]) do
        names[k] = part.name
    end
    lu.assertEquals(names, { "P3 part 1", "P3 part 2", "P4 part 1", "P4 part 2" })
end

function TestCalls.test_parts_are_poisson_counts_of_their_share()
    local steps = plain { { 40000, 400, 0 }, { 20000, 0, 9 } }
    local cut = calls.split(steps, 3, { 0.75, 0.25 })
    lu.assertEquals({ #cut, #cut[1], #cut[2] }, { 2, 2, 2 })
    for k, step in ipairs(cut) do
        for p, share in ipairs { 0.75, 0.25 } do
            local part, R = step[p], samples.list(step[p].R, 3)
            for j = 1, 3 do
                local mean = tonumber(steps[k][1].R[j - 1]) * share
                close(R[j], mean, { abs = 4 * math.sqrt(mean) }, "count of part %d", p)
                lu.assertEquals(part.L[j - 1], R[j] / 2)
            end
            lu.assertEquals(part.samples, samples.total(R))
            close(part.tot, part.samples, { rel = 1e-12 }, "tot of part %d", p)
        end
    end
    lu.assertEquals(samples.list(calls.split(steps, 3, { 0.75, 0.25 })[2][2].R, 3),
        samples.list(cut[2][2].R, 3))
end

function TestCalls.test_calls_of_one_step_are_read_as_such()
    local x, t = samples.detector { 60, 4 }
    local function batch(level)
        local one = samples.class_batch(x, t)
        one.level = level
        return one
    end
    local list = ghm.sweep.read({ task = "classification", words = { "made up" }, steps = { 1, 2 },
        each = function(_, visit)
            visit({ name = "epoch2_0009.npz" }, { batch "P3", batch "P4" })
            visit({ name = "last.npz" }, { batch() })
        end }, { bins = { 5 } })
    local steps = calls.regions(list, 5)
    lu.assertEquals({ #steps, #steps[1], #steps[2] }, { 2, 2, 1 })
    lu.assertEquals({ steps[1][2].name, steps[2][1].name, steps[1][1].samples },
        { "P4", "call 1", 240 })
    lu.assertEquals({ steps[1].time, steps[2].name, steps[2].time }, { 9, "last.npz", nil })
    lu.assertEquals(samples.list(steps[1][1].R, 5), (oracle.regions(oracle.classes(x, t), 5)))
end

local TestWarnings = {}
_G.TestWarnings = TestWarnings

-- name; a stream that earns the warning, with its switches and texts of it; one that does not
local even = { { 100, 100 }, { 100, 100 }, { 100, 100 }, { 100, 100 } }
local gap = { { 100, 9 }, { 100, 0 }, { 100, 0 }, { 100, 0 }, { 100, 0 }, { 100, 0 }, { 100, 3 } }
local cases = {
    { "cold_start", { momentum = 0.75 }, even, { "2 of 2 regions", "up to 4 times", "momentum 0.75",
        "it takes 9 hits" }, { momentum = 0.75, start = "corrected" }, even },
    { "cold_start", { momentum = 0.9, start = "first" }, { { 100, 0 }, { 100, 7 } },
        { "1 of 2 regions", "10 times" }, { momentum = 0.9, start = "first" }, even },
    { "stale_region", { momentum = 0.75 }, gap, { "1 hit comes after",
        "region 2 (g from 0.5) was empty for 5",
        "step 7", "S = 2.44 there, with R = 3" }, { momentum = 0.9 }, gap },
    { "stale_region", { momentum = 0.75 }, gap, { "memory" }, { momentum = 0.75,
        empty = "decay" }, gap },
    { "singleton_region", {}, { { 999, 1 }, { 1000, 0 } }, { "in 1 of 2 calls", "step 1",
        "region 2 (g from 0.5) weighs 500, all 999 samples of region 1 together 500. ",
        "Fewer bins, momentum or beta_max." }, {}, even },
    { "singleton_region", {}, { { 2, 1 } }, { "all 2 samples" }, {}, { { 1, 1 } } },
    { "singleton_region", { beta_max = 600 }, { { 999, 1 } }, { "Fewer bins or momentum." }, {},
        even },
    { "singleton_region", { momentum = 0.5, beta_max = 600 }, { { 999, 1 } }, { "Fewer bins." }, {},
        even },
    { "flickering_n", {}, { { 100, 1 }, { 100, 0 }, { 50, 50 } }, { "2 of 2 successive",
        "step 2 from 2 to 1", "by 2." }, { divide = "all" }, { { 100, 1 }, { 100, 0 } } },
    { "saturated_last_region", { mu = 0.02 }, { { 40, 60 } }, { "60 %", "|d| from 0.0115",
        "mu = 0.02", "luajit sweep_mu.lua finds one" }, { mu = 0.02 }, { { 60, 40 } } },
    { "beta_limit", { momentum = 0.75 }, { { 999, 1 } }, { "step 1", "weighs 2000",
        "share of 500", "S = 0.25", "beta_max=500" }, {}, { { 999, 1 } } },
    { "beta_limit", { beta_max = 20 }, { { 999, 1 }, { 500, 500 } }, { "beta_max = 20 holds down 1 "
        .. "of 4 betas, those of 1 sample." }, { beta_max = 20 }, even },
}

for i, case in ipairs(cases) do
    local name, config, counts, texts, calm_config, calm = unpack(case)
    TestWarnings["test_" .. name .. "_is_told_where_it_applies_" .. i] = function()
        config.bins, calm_config.bins = 2, 2
        local found = warnings[name](trace_of(config, plain(counts)))
        lu.assertNotNil(found, "no warning")
        lu.assertEquals(found.name, name)
        for _, text in ipairs(texts) do
            lu.assertStrContains(found.text, text)
        end
        lu.assertNil(warnings[name](trace_of(calm_config, plain(calm))))
    end
end

function TestWarnings.test_one_level_drowns_another_where_they_share_a_state()
    local steps = stream { { { 400, 400 }, { 4, 4 } }, { { 400, 400 }, { 4, 4 } } }
    local config = { bins = 2, momentum = 0.75, start = "corrected" }
    local found = warnings.drowned_level(trace_of(config, steps, "shared"))
    lu.assertStrContains(found.text, "samples of P3 weigh")
    lu.assertStrContains(found.text, "those of P4 0.0")
    lu.assertStrContains(found.text, "momentum=0 or a state for each "
        .. "(state=own of luajit sweep_momentum.lua) weighs")
    lu.assertStrContains(warnings.drowned_level(trace_of(config, steps, "shared"),
        { own = true }).text, "momentum=0 weighs")
    lu.assertNil(warnings.drowned_level(trace_of(config, steps, "own")))
    lu.assertNil(warnings.drowned_level(trace_of({ bins = 2 }, steps, "shared")))
end

function TestWarnings.test_a_warning_names_the_level_that_it_is_about()
    local steps = stream { { { 100, 100 }, { 3, 1 } } }
    for sharing, name in pairs { shared = " P4 the one", own = " P4 the one", summed = "" } do
        local found = warnings.singleton_region(trace_of({ bins = 2 }, steps, sharing))
        lu.assertEquals(found and found.text:find(name, 1, true) ~= nil, name ~= "" or nil, sharing)
    end
end

function TestWarnings.test_a_trace_has_all_that_apply_in_order()
    local names = {}
    for k, found in ipairs(warnings.of(trace_of({ bins = 2, momentum = 0.75 },
        plain { { 999, 1 }, { 1000, 0 } }))) do
        names[k] = found.name
        lu.assertNil(found.text:find "\n")
    end
    lu.assertEquals(names, { "cold_start", "singleton_region", "flickering_n", "beta_limit" })
    lu.assertEquals(warnings.of(trace_of({ bins = 2 }, plain(even))), {})
end
