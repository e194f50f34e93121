-- Sweeps, against the losses step by step.

local lu = require "luaunit"
local close = require "close"
local ghm = require "ghm"
local made_up = require "made_up"
local samples = require "samples"

local study, sweep = ghm.bins_study, ghm.sweep
local source_of, parts_of, steps_of = made_up.source_of, made_up.parts_of, made_up.steps_of

local TestSweep = {}
_G.TestSweep = TestSweep

function TestSweep.test_configurations_are_all_combinations_the_last_axis_fastest()
    local keys = { bins = { 5, 10 }, momentum = { 0, 0.5 }, start = "first" }
    lu.assertEquals(sweep.configurations(keys, { "bins", "momentum" }), {
        { bins = 5, momentum = 0 }, { bins = 5, momentum = 0.5 }, { bins = 10, momentum = 0 },
        { bins = 10, momentum = 0.5 } })
    lu.assertEquals(sweep.configurations(keys, { "start" }), { { start = "first" } })
end

-- task, the loss and what of it is swept
local losses = { { "classification", ghm.GHMC, nil }, { "regression", ghm.GHMR, 0.02 } }

function TestSweep.test_rows_are_the_losses_taken_step_by_step()
    for _, case in ipairs(losses) do
        local task, make, mu = unpack(case)
        local parts = parts_of(task, 4, 150)
        local keys = { bins = { 1, 3, 10, 40 }, momentum = { 0, 0.75 }, mu = mu, loss_weight = 2,
            start = { "zero", "corrected" }, divide = { "nonempty", "all" } }
        local configurations = sweep.configurations(keys, { "bins", "momentum", "start", "divide",
            "loss_weight", mu and "mu" })
        local calls = sweep.read(source_of(task, steps_of(task, parts)), { bins = keys.bins,
            mu = mu })
        for i, row in ipairs(study.rows(task, calls, configurations)) do
            local loss = make(configurations[i])
            local sum, n, largest, list = 0, 0, 0, {}
            for k, part in ipairs(parts) do
                local value, call = loss:forward(unpack(part))
                list[k], sum, n = value, sum + value, n + call.n
                largest = math.max(largest, call.beta_largest)
            end
            local squares = 0
            for _, value in ipairs(list) do
                squares = squares + (value - sum / 4) ^ 2
            end
            local what = ("%s, row %d, "):format(task, i)
            close(row.loss, sum / 4, { rel = 1e-8 }, what .. "loss")
            close(row.loss_sd, math.sqrt(squares / 3), { rel = 1e-6 }, what .. "its deviation")
            close(row.beta_largest, largest, { rel = 1e-12 }, what .. "largest beta")
            close(row.empty_share, 1 - n / 4 / row.bins, { abs = 1e-12 }, what .. "empty share")
            lu.assertEquals({ row.n, row.calls }, { n / 4, 4 }, what)
        end
    end
end

-- One sketch has the edges of all of them, and says of each what its own would.
function TestSweep.test_many_bins_share_a_sketch_without_a_difference()
    local steps = steps_of("classification", parts_of("classification", 1, 500))
    local bins = {}
    for m = 1, 300 do
        bins[m] = m
    end
    local call = sweep.read(source_of("classification", steps), { bins = bins })[1]
    for _, m in ipairs { 1, 2, 75, 76, 151, 211, 300 } do
        local alone = samples.sketch_of({ bins = m }, steps[1][1])
        local R, L = samples.regions(call.sketch, m)
        local expected, sums = samples.regions(alone, m)
        lu.assertEquals(R, expected)
        for j = 1, m do
            close(L[j], sums[j], { rel = 1e-7 }, "M = %d, loss sum of region %d", m, j)
        end
    end
end

function TestSweep.test_a_step_counts_whole_or_not_at_all()
    local sound = samples.class_batch(samples.detector { 50, 4 })
    local x, t = samples.detector { 50, 4 }
    x:set(7, 0 / 0)
    local source = source_of("classification", { { sound }, { sound,
        samples.class_batch(x, t) } })
    local each = source.each
    function source:each(visit)
        each(self, function(step, batches)
            pcall(visit, step, batches)
        end)
    end
    local told, kept = {}, {}
    local calls = sweep.read(source, { bins = { 5 }, progress = function(...)
        told[#told + 1] = { ... }
    end, keep = function(step, fresh, valid)
        kept[#kept + 1] = { step.name, #fresh, valid }
    end })
    lu.assertEquals(#calls, 1)
    lu.assertEquals(told, { { 0, 2 }, { 1, 2 } })
    lu.assertEquals(kept, { { "step 1", 1, calls[1].facts.valid } })
    samples.refused("dump", { "made up: no valid samples" }, sweep.read,
        source_of("classification", { { samples.class_batch(x, t, samples.flags({ 50, 4 }, 0)) } }),
        { bins = { 5 } })
end
