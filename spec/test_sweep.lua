-- Sweeps and the study of bins, against the losses step by step and against the oracle.

local lu = require "luaunit"
local close = require "close"
local ghm = require "ghm"
local oracle = require "oracle"
local samples = require "samples"

local study, sweep = ghm.bins_study, ghm.sweep

-- A source of batches that are there already: one step for each list of batches.
local function source_of(task, steps)
    local source = { task = task, steps = steps, words = { "made up" } }
    function source:each(visit)
        for k, batches in ipairs(self.steps) do
            for _, batch in ipairs(batches) do
                batch.names = { pred = "pred", target = "target" }
            end
            visit({ name = "step " .. k }, batches)
        end
    end
    return source
end

-- Parts of `n` calls, each { x, t, w } of [rows, 4].
local function parts_of(task, n, rows)
    local parts = {}
    for k = 1, n do
        local make = task == "regression" and samples.boxes or samples.detector
        parts[k] = { make({ rows, 4 }) }
    end
    return parts
end

local function steps_of(task, parts)
    local steps = {}
    for k, part in ipairs(parts) do
        steps[k] = { (task == "regression" and samples.box_batch or samples.class_batch)(
            unpack(part)) }
    end
    return steps
end

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

local TestBinsStudy = {}
_G.TestBinsStudy = TestBinsStudy

local histograms = { { 1, 1 }, { 5, 0, 3 }, { 2, 0, 0, 0, 0, 0, 11, 1 }, { 40 },
    { 900, 31, 12, 7, 0, 1, 2, 9 } }

local function cells(R)
    local counts, N = {}, 0
    for j, r in ipairs(R) do
        counts[j - 1], N = r, N + r
    end
    return counts, #R, N
end

-- The score's definition: integral of the squared density, less twice the mean density that a
-- sample finds in the histogram of the others.
function TestBinsStudy.test_rudemo_is_the_leave_one_out_score()
    for _, R in ipairs(histograms) do
        local counts, bins, N = cells(R)
        local squared, others = 0, 0
        for _, r in ipairs(R) do
            squared = squared + (r / N * bins) ^ 2 / bins
            for _ = 1, r do
                others = others + (r - 1) / (N - 1) * bins
            end
        end
        close(study.rudemo(counts, bins, N), squared - 2 * others / N, { rel = 1e-12 }, "Rudemo")
    end
end

-- ln Gamma(k/2) by Gamma(x + 1) = x Gamma(x).
local function log_gamma_half(k)
    local sum = k % 2 == 1 and 0.5 * math.log(math.pi) or 0
    for i = k % 2 == 1 and 1 or 2, k - 2, 2 do
        sum = sum + math.log(i / 2)
    end
    return sum
end

function TestBinsStudy.test_knuth_is_the_posterior_of_its_paper()
    for _, R in ipairs(histograms) do
        local counts, bins, N = cells(R)
        local expected = N * math.log(bins) + log_gamma_half(bins) - bins * log_gamma_half(1)
            - log_gamma_half(2 * N + bins)
        for _, r in ipairs(R) do
            expected = expected + log_gamma_half(2 * r + 1)
        end
        close(study.knuth(counts, bins, N), expected, { rel = 1e-12, abs = 1e-11 }, "Knuth")
    end
end

-- { rows as bins = share pairs in order, the bins to train with, texts in the reason }
local advice = {
    { { { 5, 0 }, { 10, 0.05 }, { 20, 0.4 } }, 10, "5.0 % of the gradient",
        "finest choice below 10 %", "(M = 20: 40.0 %)" },
    { { { 20, 0.4 }, { 10, 0.05 }, { 5, 0 } }, 10, "finest choice below 10 %" },
    { { { 5, 0.5 }, { 10, 0.515 }, { 20, 0.53 }, { 30, 0.9 } }, 10, "51.5 %",
        "within 2 % of the least tried, 50.0 % (M = 20: 53.0 %)" },
    { { { 5, 1 }, { 10, 1 }, { 20, 1 } }, 20, "100.0 %" },
    { { { 5, 0 }, { 10, 0 } }, 10, "0.0 %" },
    { { { 5, 0.3 }, { 10, 0.05 }, { 15, 0.3 }, { 20, 0.09 } }, 20, "9.0 %" },
    { { { 7, 0.8 } }, 7, "only choice tried." },
    { { { 1, 0 }, { 2, 0.7 }, { 3, 0.71 }, { 4, 0.9 } }, 3, "of the least tried, 70.0 %" },
    { { { 1, 0 } }, 1, "only choice tried." },
}

function TestBinsStudy.test_recommends_the_finest_that_data_bear()
    for i, case in ipairs(advice) do
        for key, what in pairs { scarce_share = "of the gradient to regions of fewer than 100",
            empty_share = "of the regions empty" } do
            local rows = {}
            for k, pair in ipairs(case[1]) do
                rows[k] = { bins = pair[1], [key] = pair[2] }
            end
            local best, reason = study.recommend(rows)
            lu.assertEquals(best.bins, case[2], "case " .. i)
            lu.assertStrContains(reason, ("bins = %d leaves "):format(case[2]))
            lu.assertStrContains(reason, what)
            for k = 3, key == "scarce_share" and #case or 2 do
                lu.assertStrContains(reason, case[k])
            end
        end
    end
end

function TestBinsStudy.test_among_equal_bins_the_first_is_recommended()
    local rows = { { bins = 5, momentum = 0, scarce_share = 0.01 },
        { bins = 5, momentum = 0.9, scarce_share = 0 } }
    lu.assertIs(study.recommend(rows), rows[1])
end

-- The study's numbers for one call, sample by sample.
local function slow_study(list, bins, mu, call)
    local exact = oracle.exact_density(list, 1 / bins)
    local R = oracle.regions(list, bins, mu)
    local sum = { error = 0, worst = 0, both = 0, ours = 0, theirs = 0, beta = 0, squares = 0,
        all = 0, scarce = 0, n = 0 }
    local share = {}
    for i, one in ipairs(list) do
        if one.valid then
            local j = oracle.region(one, bins, mu)
            local beta, other = call.beta[j], 1 / exact[i]
            local distance = math.abs(call.used[j] * bins - exact[i]) / exact[i]
            sum.n, sum.error = sum.n + 1, sum.error + distance
            sum.worst = math.max(sum.worst, distance)
            sum.both = sum.both + beta * other * one.norm ^ 2
            sum.ours = sum.ours + (beta * one.norm) ^ 2
            sum.theirs = sum.theirs + (other * one.norm) ^ 2
            sum.beta, sum.squares = sum.beta + beta, sum.squares + beta ^ 2
            sum.all = sum.all + beta * one.norm
            sum.scarce = sum.scarce + (R[j] < study.SCARCE and beta * one.norm or 0)
            share[j] = (share[j] or 0) + beta * one.norm
        end
    end
    local entropy, used = 0, 0
    for _, s in pairs(share) do
        entropy, used = entropy - s / sum.all * math.log(s / sum.all), used + 1
    end
    return { density_error_mean = sum.error / sum.n, density_error_max = sum.worst,
        cosine = sum.both / math.sqrt(sum.ours * sum.theirs), entropy = entropy / math.log(used),
        effective = sum.beta ^ 2 / sum.squares, scarce_share = sum.scarce / sum.all }
end

-- What a sketch knows only to its cells: a sample's exact density is taken at the mean of its cell,
-- and a window's border cuts a cell by interpolation, which in these few samples can move one of
-- them across. Betas and counts are exact; g and its sums are as good as the Taylor step.
local limits = { effective = { rel = 1e-12 }, entropy = { rel = 2e-8 },
    scarce_share = { rel = 2e-8 }, cosine = { rel = 1e-3 },
    density_error_mean = { rel = 3e-3 }, density_error_max = { rel = 0.05 } }

function TestBinsStudy.test_numbers_are_those_of_the_samples()
    for _, case in ipairs(losses) do
        local task, _, mu = unpack(case)
        local parts = parts_of(task, 2, 350)
        local bins = { 4, 10, 25 }
        local calls = sweep.read(source_of(task, steps_of(task, parts)), { bins = bins, mu = mu })
        local configurations = sweep.configurations({ bins = bins, momentum = { 0, 0.5 }, mu = mu },
            { "bins", "momentum", mu and "mu" })
        for i, row in ipairs(study.rows(task, calls, configurations)) do
            local state, expected = {}, {}
            local config = ghm.harmonise.config(task, configurations[i])
            for _, part in ipairs(parts) do
                local list = mu and oracle.boxes(part[1], part[2], part[3], mu)
                    or oracle.classes(unpack(part))
                local R, L, tot = oracle.regions(list, row.bins, mu)
                local call = oracle.step(config, state, R, L, tot)
                for key, value in pairs(slow_study(list, row.bins, mu, call)) do
                    expected[key] = key == "density_error_max" and math.max(expected[key] or 0,
                        value) or (expected[key] or 0) + value / 2
                end
            end
            for key, value in pairs(expected) do
                close(row[key], value, limits[key], "%s, row %d, %s", task, i, key)
            end
        end
    end
end

function TestBinsStudy.test_eps_is_the_window_of_the_exact_density()
    local part = parts_of("classification", 1, 200)[1]
    local calls = sweep.read(source_of("classification", steps_of("classification", { part })),
        { bins = { 5 } })
    local wide = study.rows("classification", calls, { { bins = 5 } }, 1)[1]
    local exact = oracle.exact_density(oracle.classes(unpack(part)), 1)
    local list, sum, n = oracle.classes(unpack(part)), 0, 0
    local R = oracle.regions(list, 5)
    for i, one in ipairs(list) do
        if one.valid then
            sum, n = sum + math.abs(R[oracle.region(one, 5)] * 5 - exact[i]) / exact[i], n + 1
        end
    end
    close(wide.density_error_mean, sum / n, limits.density_error_mean, "GD error of window 1")
end

function TestBinsStudy.test_soft_targets_have_no_study_but_a_loss()
    local x = samples.normals({ 30, 4 }, 0, 2)
    local t = samples.fill({ 30, 4 }, function() return math.random() end)
    local calls = sweep.read(source_of("classification", { { samples.class_batch(x, t) } }),
        { bins = { 5 } })
    local row = study.rows("classification", calls, { { bins = 5 } })[1]
    close(row.loss, (ghm.GHMC { bins = 5 }:forward(x, t)), { rel = 1e-12 }, "loss")
    lu.assertEquals({ row.cosine, row.scarce_share, row.entropy }, {})
    lu.assertTrue(sweep.is_soft(calls))
end
