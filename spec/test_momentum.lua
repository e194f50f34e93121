-- The study of momentum: its noise and drift against streams of which both are known, its table
-- against the oracle, call by call, and its answer on the real stream.

local lu = require "luaunit"
local close = require "close"
local ffi = require "ffi"
local ghm = require "ghm"
local json = require "ghm.json"
local noise = require "ghm.studies.momentum_noise"
local oracle = require "oracle"
local samples = require "samples"
local scripts = require "scripts"

local study = ghm.momentum_study

-- Steps of one call each, from lists of counts; times: their training steps.
local function steps_of(counts, times)
    local steps = {}
    for k, R in ipairs(counts) do
        local L, tot = {}, 0
        for j, r in ipairs(R) do
            L[j], tot = r / 2, tot + r
        end
        steps[k] = { name = "step " .. k, time = times and times[k], { samples = tot,
            R = ffi.new("int64_t[?]", #R, R), L = ffi.new("double[?]", #R, L),
            tot = math.max(tot, 1), name = "call 1" } }
    end
    return steps
end

-- Counts of `bins` regions whose rates wander: rate, relative variance of a batch's scatter and of
-- the drift of one training step. Returns the counts and the rates.
local function wandering(n, bins, rate, scatter, drift, every)
    local counts, rates, now, seed = {}, {}, {}, math.random(2 ^ 31 - 1)
    for k = 1, n do
        local means = {}
        rates[k] = {}
        for j = 1, bins do
            now[j] = (now[j] or rate) * math.exp(samples.normal(0, math.sqrt(drift * (every or 1))))
            rates[k][j] = now[j]
            means[j] = now[j] * math.exp(samples.normal(-scatter / 2, math.sqrt(scatter)))
        end
        counts[k] = samples.list(ghm.bootstrap.counts(means, bins, seed, k), bins)
    end
    return counts, rates
end

local TestMomentumNoise = {}
_G.TestMomentumNoise = TestMomentumNoise

-- rate, scatter, drift, steps between dumped ones; the standard deviations of the scatter and of
-- the drift found in 1000 regions of 60 calls, over 120 seeds. (Of what is really 0 and therefore
-- found as 0 half the time, the deviation from 0 of the other half.)
local worlds = {
    { 50, 0, 0, 1, 1e-4, 2.6e-5 },
    { 50, 0, 0.002, 1, 1.7e-4, 6e-5 },
    { 1000, 0.05, 0.002, 1, 3.5e-4, 1.15e-4 },
    { 20, 0.05, 0, 1, 6.2e-4, 2.1e-4 },
    { 2000, 0, 0.0002, 10, 1.7e-5, 2.5e-6 },
    { 3, 0, 0, 1, 1.2e-3, 5e-4 },
}

-- Fails unless low - 6 sd <= actual <= high + 6 sd: a mean of 1000 regions that are drawn
-- independently is nearly normal, beyond 6 sd once in 5e8, in 1e7 were the sd 10 % too small.
local function within(actual, low, high, sd, what)
    close(actual, (low + high) / 2, { abs = (high - low) / 2 + 6 * sd }, what)
end

-- Of two counts whose rates differ by the factor exp(d), the squared relative difference less its
-- counting is expected to be 4 tanh(d / 2)^2 (1 - 1 / T), T being their sum. With d normal, of
-- variance v, that is less than v by up to v in proportion, and 1/T: the noise of a log-normal
-- world is found a little small. Pairs are weighed by what they say themselves, and far pairs less
-- where they happen to differ much: of n steps that takes about 1/n of the drift, which the scatter
-- gains (measured at 30, 60 and 180 steps).
for i, world in ipairs(worlds) do
    TestMomentumNoise["test_noise_and_drift_are_found_again_" .. i] = function()
        local rate, scatter, drift, every, scatter_sd, drift_sd = unpack(world)
        local n, bins, times = 60, 1000, {}
        for k = 1, n do
            times[k] = 100 + every * k
        end
        local found = noise.measure(steps_of(wandering(n, bins, rate, scatter, drift, every),
            times), bins, "shared")
        local less = 1 - (2 * scatter + noise.REACH * every * drift) - 1 / rate - 1 / n
        within(found.scatter, scatter * less, scatter + every * drift / n, scatter_sd, "scatter")
        within(found.drift, drift * less, drift, drift_sd, "drift")
        lu.assertEquals(found.every, every)
    end
end

-- What exponential smoothing is off by, measured against the rates that made the counts. Limits: 6
-- standard deviations over 80 seeds (0.27, 0.42, 0.7 and 1.25 %), and 1 % for what the formula
-- leaves out: log-normal rates make the error's square larger by 7/4 of drift / (1 - m) in
-- proportion. Momentum 0.75 is by 16 % better than 0.5, and by more than 0.9. For another to be
-- found the best, the drift must be found twice as large as it is or a third of it, over 20
-- deviations off.
function TestMomentumNoise.test_the_error_is_that_of_smoothing()
    local counts, rates = wandering(120, 1000, 1000, 0.002, 0.0003)
    local found = noise.measure(steps_of(counts), 1000, "shared")
    for m, limit in pairs { [0] = 0.027, [0.5] = 0.036, [0.75] = 0.052, [0.9] = 0.085 } do
        local squares, n, S = 0, 0, {}
        for k, R in ipairs(counts) do
            for j, r in ipairs(R) do
                S[j] = m * (S[j] or r) + (1 - m) * r
                if k > 60 then -- the start is forgotten
                    squares, n = squares + (S[j] / rates[k][j] - 1) ^ 2, n + 1
                end
            end
        end
        close(noise.error(found, m), math.sqrt(squares / n), { rel = limit }, "momentum %g", m)
    end
    lu.assertEquals(noise.best(found, { 0, 0.5, 0.75, 0.9, 0.95, 0.99 }), 0.75)
end

function TestMomentumNoise.test_more_noise_asks_for_more_momentum_and_more_drift_for_less()
    local momenta, last = { 0, 0.25, 0.5, 0.75, 0.9, 0.99 }, -1
    for _, counting in ipairs { 0, 0.001, 0.01, 0.1, 1 } do
        local best = noise.best({ counting = counting, scatter = 0, drift = 0.001 }, momenta)
        lu.assertTrue(best >= last)
        last = best
    end
    for _, drift in ipairs { 0, 0.001, 0.01, 0.1, 1 } do
        local best = noise.best({ counting = 0.1, scatter = 0, drift = drift }, momenta)
        lu.assertTrue(best <= last)
        last = best
    end
    lu.assertEquals(last, 0)
end

function TestMomentumNoise.test_times_are_the_numbers_in_names_where_they_rise()
    local steps = steps_of { { 1 }, { 1 }, { 1 } }
    lu.assertEquals({ noise.times(steps) }, { { 1, 2, 3 } })
    for k, time in ipairs { 0, 3, 500 } do
        steps[k].time = time
    end
    lu.assertEquals({ noise.times(steps) }, { { 0, 3, 500 }, 250 })
    steps[3].time = 2
    lu.assertEquals({ noise.times(steps) }, { { 1, 2, 3 } })
end

local TestMomentumStudy = {}
_G.TestMomentumStudy = TestMomentumStudy

local function every_configuration(bins)
    return ghm.sweep.configurations({ momentum = { 0, 0.75, 0.9 }, bins = bins,
        start = { "zero", "first", "uniform", "corrected" }, empty = { "keep", "decay" },
        state = { "shared", "own", "summed" } }, { "momentum", "start", "empty", "state", "bins" })
end

-- A row's metrics, straight from their definitions.
local function slow_row(config, counts)
    local state, calls, before = {}, {}, {}
    local row = { loss = 0, n = 0, beta_largest = 0, inflation = 0 }
    local lag, ahead, hits, later = 0, 0, 0, 0
    for k, R in ipairs(counts) do
        local L, tot = {}, 0
        for j, r in ipairs(R) do
            L[j], tot = r / 2, tot + r
        end
        local call = oracle.step(config, state, R, L, tot)
        calls[k], call.R = call, R
        row.loss, row.n = row.loss + call.loss / #counts, row.n + call.n / #counts
        for j, r in ipairs(R) do
            if r > 0 then
                row.beta_largest = math.max(row.beta_largest, call.beta[j])
                lag, hits = lag + math.abs(math.log(call.used[j] / r)), hits + 1
                if before[j] then
                    ahead, later = ahead + math.log(before[j] / r) ^ 2, later + 1
                else
                    row.inflation = math.max(row.inflation, r / call.used[j])
                end
            end
            before[j] = call.used[j] > 0 and call.used[j] or nil
        end
    end
    row.lag, row.ahead = lag / hits, math.sqrt(ahead / later)
    local jumps = 0
    for k = 2, #calls do
        jumps = jumps + (calls[k].loss - calls[k - 1].loss) ^ 2 / 2 / (#calls - 1)
    end
    row.jitter = math.sqrt(jumps) / row.loss
    local spread, terms = 0, 0
    for j = 1, config.bins do
        local logs, mean = {}, 0
        for _, call in ipairs(calls) do
            logs[#logs + 1] = call.R[j] > 0 and math.log(call.beta[j]) or nil
        end
        for _, log in ipairs(logs) do
            mean = mean + log / #logs
        end
        for _, log in ipairs(#logs > 1 and logs or {}) do
            spread, terms = spread + (log - mean) ^ 2 * #logs / (#logs - 1), terms + 1
        end
    end
    row.beta_spread = math.sqrt(spread / terms)
    return row
end

function TestMomentumStudy.test_the_table_is_that_of_the_oracle()
    local counts = {}
    for k = 1, 12 do
        counts[k] = { math.random(500, 900), math.random(0, 3), math.random(0, 40),
            k > 5 and math.random(1, 9) or 0 }
    end
    local run = study.run("classification", steps_of(counts), every_configuration(4))
    lu.assertEquals(#run.rows, 1 + 2 * 4 * 2) -- one call a step shares with itself alone
    for i, row in ipairs(run.rows) do
        local expected = slow_row(run.traces[i].config, counts)
        for key, value in pairs(expected) do
            close(row[key], value, { rel = 1e-9, abs = 1e-12 }, "row %d, %s", i, key)
            local low, high = row[key .. "_low"], row[key .. "_high"]
            if study.kinds[key] == "most" then
                lu.assertEquals({ low, high }, {}, key)
            else
                lu.assertTrue(low <= high, key)
            end
        end
    end
end

-- The inflation of a region's first hit is 1 / (1 - m) of a state that starts at 0.
function TestMomentumStudy.test_a_first_hit_is_inflated_by_1_over_1_minus_m()
    local counts = { { 900, 0 }, { 900, 0 }, { 900, 7 } }
    local run = study.run("classification", steps_of(counts), every_configuration(2))
    for _, row in ipairs(run.rows) do
        local expected = row.momentum == 0 and 1 or row.start ~= "uniform" and row.empty == "keep"
            and (row.start == "corrected" and 1 or 1 / (1 - row.momentum))
        if expected then
            close(row.inflation, expected, { rel = 1e-12 }, "%s, %g", row.start, row.momentum)
        end
    end
end

-- The cold start of a long stream is soon over, so that start=zero is nearly as near to the counts
-- it meets; and with a first hit after the first call, start=first is as cold.
function TestMomentumStudy.test_no_start_is_recommended_that_is_warned_of()
    local long, late = wandering(300, 4, 50, 0.2, 0.1), {}
    for k = 1, 30 do
        late[k] = { 900, 400, k < 20 and 0 or 9 }
    end
    for warm, counts in pairs { first = long, corrected = late } do
        local steps = steps_of(counts)
        for _, starts in ipairs { { "zero", "first", "uniform", "corrected" }, { "zero" } } do
            local configurations = ghm.sweep.configurations({ momentum = { 0.5 }, bins = #counts[1],
                start = starts, empty = { "keep" }, state = { "shared" } },
                { "momentum", "start", "empty", "state", "bins" })
            local run = study.run("classification", steps, configurations)
            local found = study.recommend(run, { 0.5 })
            local cold = false
            for _, warning in ipairs(study.warnings(run, found)) do
                cold = cold or warning.name == "cold_start"
            end
            lu.assertEquals({ run.rows[found.best].start, cold },
                #starts > 1 and { warm, false } or { "zero", true })
            lu.assertStrContains(found.verdicts[2].reason, "the least of what was tried"
                .. (#starts > 1 and " without a cold start" or ""))
        end
    end
end

function TestMomentumStudy.test_what_was_tried_and_is_not_better_is_not_advised()
    local steps = steps_of { { 99, 9 }, { 99, 0 }, { 99, 0 }, { 99, 0 }, { 99, 0 }, { 99, 3 } }
    for said, empty in pairs { ["empty=decay lets go of old counts"] = { "keep" },
        ["empty=decay was tried and is not clearly better"] = { "keep", "decay" } } do
        local run = study.run("classification", steps, ghm.sweep.configurations(
            { momentum = { 0.5 }, bins = 2, start = { "first" }, empty = empty,
            state = { "shared" } }, { "momentum", "start", "empty", "state", "bins" }))
        local found = study.warnings(run, { best = 1 })
        lu.assertEquals(found[1].name, "stale_region")
        lu.assertStrContains(found[1].text, said)
    end
end

function TestMomentumStudy.test_levels_make_the_shared_states_rows_differ()
    local steps = steps_of { { 4000, 40 }, { 4000, 40 }, { 4000, 40 } }
    for _, step in ipairs(steps) do
        step[2] = steps_of({ { 250, 9 } })[1][1]
    end
    local run = study.run("classification", steps, every_configuration(2))
    lu.assertEquals(#run.rows, 2 + 2 * 4 * 2 * 3)
    local levels = {}
    for _, row in ipairs(run.rows) do
        if row.start == "corrected" and row.empty == "keep" and row.momentum == 0.75 then
            levels[row.state] = row.levels
        end
    end
    close(levels.own, 1, { rel = 1e-9 }, "levels, each its own state")
    lu.assertTrue(levels.shared > 4)
    local found = study.recommend(run, { 0, 0.75, 0.9 })
    lu.assertNotEquals(run.rows[found.best].state, "shared")
    for _, one in ipairs(ghm.momentum_figures.draw(run, found)) do
        if one.name == "levels" then
            lu.assertStrMatches(one.figure.xlabel, "call of the step %(1: [^,]+, 2: [^,]+%)")
        end
    end
    for _, verdict in ipairs(found.verdicts) do
        lu.assertTrue(verdict.share > 0 and verdict.share <= 1, verdict.key)
    end
end

function TestMomentumStudy.test_one_step_is_told_that_it_tells_nothing()
    local run = study.run("classification", steps_of { { 10, 5 } }, every_configuration(2))
    local found = study.recommend(run, { 0, 0.75 })
    lu.assertStrContains(study.answer(run, found)[1], "One step shows no drift")
    lu.assertEquals({ #found.verdicts, found.noise, run.rows[1].loss_low }, { 0 })
end

-- Six lines of twelve momenta, whichever of them is recommended; and the error of every one.
function TestMomentumStudy.test_figures_show_the_recommended_momentum_of_many()
    local momenta, counts = {}, {}
    for k = 1, 12 do
        momenta[k], counts[k] = (k - 1) / 12, { math.random(500, 900), math.random(20, 40) }
    end
    local run = study.run("classification", steps_of(counts), ghm.sweep.configurations(
        { momentum = momenta, bins = 2, start = { "zero", "corrected" }, empty = { "keep" },
        state = { "shared" } }, { "momentum", "start", "empty", "state", "bins" }))
    local found = study.recommend(run, momenta)
    for best = 2, #run.rows, 3 do
        found.best = best
        local figures = {}
        for _, one in ipairs(ghm.momentum_figures.draw(run, found)) do
            figures[one.name] = one.figure
        end
        local labels = {}
        for k, one in ipairs(figures.stream.panels[1].series) do
            labels[k] = one.label
        end
        lu.assertEquals(#labels, 6)
        lu.assertTableContains(labels, ("momentum %g"):format(run.rows[found.best].momentum))
        lu.assertTrue(#figures.noise.series[4].x >= 11, "momenta tried")
        lu.assertEquals(figures.stream.panels[1].xstep, nil)
    end
end

local TestSweepMomentum = {}
_G.TestSweepMomentum = TestSweepMomentum

function TestSweepMomentum.test_answers_in_its_last_three_lines()
    local place = scripts.place()
    local cases = { { "--plot none", "Measured over 8 steps", "momentum = " },
        { "synth:drift,rows=500,steps=12 --split 16,4,1 --plot none", "12 steps", " state=" },
        { "--loss ghmr momentum=0.5,0.9 start=zero --plot none", "8 steps", "start=zero" } }
    for _, case in ipairs(cases) do
        local out = place:fine("sweep_momentum", case[1])
        local last = out:match "([^\n]*\n[^\n]*\n[^\n]*)\n?$"
        for k = 2, #case do
            lu.assertStrContains(last, case[k])
        end
        lu.assertStrContains(last, "of the resamplings")
    end
    place:remove()
end

function TestSweepMomentum.test_a_dry_run_lists_what_would_have_a_row()
    local place = scripts.place()
    local words = "synth:drift,rows=50,steps=4 momentum=0,0.5 start=zero,corrected "
    for more, rows in pairs { [""] = 5, ["--split 4,1"] = 14 } do
        local out = place:fine("sweep_momentum", words .. more .. " -n")
        lu.assertStrContains(out, ("sweep_momentum: %d configurations of "):format(rows))
        lu.assertStrContains(out, ("; %d more cannot differ"):format(24 - rows))
        out = place:fine("sweep_momentum", words .. more .. " -q --plot none --json")
        lu.assertEquals(#json.decode(out).rows, rows)
    end
    place:remove()
end

function TestSweepMomentum.test_split_is_refused_where_it_makes_no_sense()
    local place = scripts.place()
    for word, reason in pairs { ["0"] = "not a number above 0", ["2.5"] = "equal parts", x = "'x'",
        ["1,,2"] = "''" } do
        place:refused(2, { "--split", reason }, "sweep_momentum", { "--split", word })
    end
    place:remove()
end
