-- The study of bins, against the oracle and on the real stream.

local lu = require "luaunit"
local close = require "close"
local ghm = require "ghm"
local made_up = require "made_up"
local oracle = require "oracle"
local samples = require "samples"
local scripts = require "scripts"

local study, sweep = ghm.bins_study, ghm.sweep
local source_of, parts_of, steps_of = made_up.source_of, made_up.parts_of, made_up.steps_of

-- task, the loss and what of it is swept
local losses = { { "classification", ghm.GHMC, nil }, { "regression", ghm.GHMR, 0.02 } }

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

-- { rows as bins = error pairs in order, the bins to train with, texts in the reason }
local advice = {
    { { { 5, 0.5 }, { 10, 0.3 }, { 20, 0.29 }, { 30, 0.4 } }, 10, "off by 30 %",
        "coarsest choice within 10 % of the least error, 29 %." },
    { { { 30, 0.4 }, { 20, 0.29 }, { 10, 0.3 }, { 5, 0.5 } }, 10 },
    { { { 5, 0.5 }, { 10, 0.3 }, { 20, 0.1 } }, 20, "off by 10 %", "; try finer ones than 20." },
    { { { 5, 0.5 }, { 20, 0.305 }, { 50, 0.3 } }, 20, "; try finer ones than 50." },
    { { { 1, 0 }, { 5, 0.1 }, { 10, 0.3 } }, 5, "; try coarser ones than 5." },
    { { { 2, 0.1 }, { 10, 0.3 } }, 2, "least error, 10 %." },
    { { { 5, 0 }, { 10, 0 } }, 5 },
    { { { 7, 0.8 } }, 7, "only choice tried." },
    { { { 1, 0 }, { 2, 0.7 }, { 3, 0.6 } }, 3 },
    { { { 1, 0 } }, 1, "only choice tried." },
    { { { 1, 0 }, { 7, 0.8 } }, 7, "only choice tried above 1." },
}

function TestBinsStudy.test_recommends_the_coarsest_whose_betas_are_as_right_as_any()
    for i, case in ipairs(advice) do
        local rows = {}
        for k, pair in ipairs(case[1]) do
            rows[k] = { bins = pair[1], beta_error = pair[2], beta_noise = 0.01 }
        end
        local best, verdict = study.recommend(rows)
        lu.assertEquals({ best.bins, verdict.value, verdict.key }, { case[2], case[2], "bins" },
            "case " .. i)
        for k = 3, #case do
            lu.assertStrContains(verdict.reason, case[k])
        end
        lu.assertEquals(verdict.only, verdict.reason:find "only choice" and true, "case " .. i)
    end
end

function TestBinsStudy.test_where_bins_make_no_difference_the_answer_says_so()
    -- { what rows have in common, whether loss is, text }
    for _, case in ipairs { { 1, 0.5, "lie in one region" }, { 2, 0, "lie in 2 regions" },
        { 2, 0.5 }, { 5, 0 } } do
        local rows = {}
        for k, bins in ipairs { 1, 10, 5, 20 } do
            rows[k] = { bins = bins, n = case[1] == 5 and bins or case[1], beta_largest = 1,
                loss = 1 + case[2] * k, beta_error = 1 / bins, beta_noise = 0.01 }
        end
        local best, verdict = study.recommend(rows)
        lu.assertEquals(verdict.alike, case[3] and true, tostring(case[3]))
        lu.assertEquals(best.bins, case[3] and 5 or 20)
        lu.assertStrContains(verdict.reason, case[3] or "try finer ones than 20")
    end
end

-- { rows as bins = share of empty regions, the bins to train with }
local soft_advice = {
    { { { 5, 0 }, { 10, 0.05 }, { 20, 0.4 } }, 10, "with few of them." },
    { { { 5, 0 }, { 10, 0.05 } }, 10, "with few of them; try finer ones than 10." },
    { { { 5, 0.5 }, { 10, 0.515 }, { 20, 0.53 } }, 10 },
    { { { 1, 0 }, { 2, 0.7 }, { 3, 0.71 }, { 4, 0.9 } }, 3 },
}

function TestBinsStudy.test_soft_targets_get_the_finest_regions_that_are_not_empty()
    for i, case in ipairs(soft_advice) do
        local rows = {}
        for k, pair in ipairs(case[1]) do
            rows[k] = { bins = pair[1], empty_share = pair[2] }
        end
        local best, verdict = study.recommend(rows)
        lu.assertEquals(best.bins, case[2], "case " .. i)
        lu.assertStrContains(verdict.reason, "of the regions are empty")
        lu.assertStrContains(verdict.reason, case[3] or "")
    end
end

function TestBinsStudy.test_among_equal_bins_the_first_is_recommended()
    local rows = { { bins = 5, momentum = 0, beta_error = 0.51, beta_noise = 0 },
        { bins = 5, momentum = 0.9, beta_error = 0.5, beta_noise = 0 } }
    lu.assertIs(study.recommend(rows), rows[1])
end

function TestBinsStudy.test_the_momentum_of_the_recommended_bins_is_told_where_there_are_several()
    local rows = { { bins = 5, momentum = 0, beta_error = 0.9, beta_noise = 0 },
        { bins = 5, momentum = 0.9, beta_error = 0.7, beta_noise = 0 },
        { bins = 40, momentum = 0.9, beta_error = 0.5, beta_noise = 0 } }
    local function reason()
        return select(2, study.recommend(rows)).reason
    end
    lu.assertStrContains(reason(), "bins = 40, momentum = 0.9: beta is off")
    table.remove(rows, 1)
    lu.assertStrContains(reason(), "bins = 40: beta is off")
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

-- From the halves of each region of each call. A cell that the middle of a region cuts is shared
-- out between them, which moves a sample now and then.
function TestBinsStudy.test_errors_of_beta_are_those_of_halved_regions()
    for _, case in ipairs(losses) do
        local task, _, mu = unpack(case)
        local parts = parts_of(task, 3, 500)
        local calls = sweep.read(source_of(task, steps_of(task, parts)), { bins = { 3, 8 },
            mu = mu })
        local configurations = sweep.configurations({ bins = { 3, 8 }, momentum = { 0, 0.5 },
            mu = mu }, { "bins", "momentum", mu and "mu" })
        local rows, shared, weights = study.rows(task, calls, configurations), 0, 0
        for i, row in ipairs(rows) do
            local noise, uneven, n = 0, 0, 0
            for _, part in ipairs(parts) do
                local halves = oracle.regions(mu and oracle.boxes(part[1], part[2], part[3], mu)
                    or oracle.classes(unpack(part)), 2 * row.bins, mu)
                for j = 1, row.bins do
                    local left, right = halves[2 * j - 1], halves[2 * j]
                    local R = left + right
                    if R > 0 then
                        noise, n = noise + (1 - row.momentum) / (1 + row.momentum) / R, n + 1
                        uneven = uneven + 4 / 3 * (((left - right) / R) ^ 2 - 1 / R)
                    end
                end
            end
            close(row.beta_noise, math.sqrt(noise / n), { rel = 1e-12 }, "%s, row %d", task, i)
            close(row.beta_uneven, math.sqrt(uneven / n), { rel = 0.01 }, "%s, row %d", task, i)
            shared, weights = shared + row.bins * uneven / noise, weights + n / noise
        end
        for i, row in ipairs(rows) do
            close(row.beta_error, math.sqrt(row.beta_noise ^ 2 + shared / weights / row.bins),
                { rel = 0.01 }, "%s, row %d", task, i)
        end
    end
end

-- Negatives of one kind: the finer regions far from 0 hold a few samples each, and nothing can be
-- seen of how unevenly.
local function negatives_by(bins_list)
    local x = samples.normals({ 2000, 8 }, -3, 2)
    local batch = samples.class_batch(x, samples.fill({ 2000, 8 }, function() return 0 end))
    local calls = sweep.read(source_of("classification", { { batch } }), { bins = bins_list })
    return function(list)
        return study.rows("classification", calls, sweep.configurations({ bins = list },
            { "bins" }))
    end
end

function TestBinsStudy.test_finer_rows_leave_the_error_of_coarse_ones_nearly_as_it_is()
    local fine = {}
    for bins = 5, 100, 5 do
        fine[#fine + 1] = bins
    end
    local rows_of = negatives_by(fine)
    local alone, among = rows_of { 5, 10, 20 }, rows_of(fine)
    for k, i in ipairs { 1, 2, 4 } do
        close(among[i].beta_error, alone[k].beta_error, { rel = 0.35 }, "M = %d", alone[k].bins)
    end
end

-- Samples drawn anew from samples are noisier than these, which must not pass for unevenness.
function TestBinsStudy.test_errors_of_one_step_lie_inside_their_intervals()
    local rows, inside = negatives_by { 5, 10, 15, 20, 25, 30, 35, 40 } { 5, 10, 15, 20, 25, 30,
        35, 40 }, 0
    for _, row in ipairs(rows) do
        inside = inside + (row.beta_error_low <= row.beta_error
            and row.beta_error <= row.beta_error_high and 1 or 0)
    end
    lu.assertTrue(inside >= 7, ("%d of 8"):format(inside))
end

-- Every half of the steps: most lead to the M of the whole, the others to the next finer.
function TestBinsStudy.test_half_the_real_steps_recommend_the_same_bins()
    local source = ghm.source.open({ dumps = { scripts.root .. "/experiments/digits" },
        keys = { labels = "zero_based" }, given = {} }, "classification")
    local configurations = sweep.configurations({ bins = { 5, 10, 15, 20, 25, 30, 40, 50 } },
        { "bins" })
    local calls = sweep.read(source, { bins = { 5, 10, 15, 20, 25, 30, 40, 50 } })
    local rows, resamplings = study.rows("classification", calls, configurations)
    local best, verdict = study.recommend(rows, resamplings)
    local parts, n = resamplings[1].parts, 8
    lu.assertEquals(best.bins, 10)
    lu.assertTrue(verdict.share > 0.7)
    lu.assertEquals({ verdict.low, verdict.high, #parts[1] }, { 10, 15, n })
    local times = {}
    for mask = 0, 2 ^ n - 1 do
        local steps = {}
        for k = 1, n do
            steps[#steps + 1] = math.floor(mask / 2 ^ (k - 1)) % 2 == 1 and k or nil
        end
        if #steps == n / 2 then
            local _, other = study.recommend(rows, { { parts = parts, steps = steps } })
            times[other.low] = (times[other.low] or 0) + 1
        end
    end
    lu.assertEquals((times[10] or 0) + (times[15] or 0), 70) -- all halves
    lu.assertTrue(times[10] > 0.7 * 70, ("%d of 70 halves"):format(times[10]))
end

function TestBinsStudy.test_one_step_is_resampled_by_its_samples()
    local part = parts_of("classification", 1, 300)[1]
    local calls = sweep.read(source_of("classification", steps_of("classification", { part })),
        { bins = { 3, 6 } })
    local configurations = { { bins = 3, momentum = 0 }, { bins = 6, momentum = 0 } }
    local rows, resamplings = study.rows("classification", calls, configurations)
    lu.assertEquals(#resamplings, ghm.metrics.ANEW)
    for _, row in ipairs(rows) do
        for _, key in ipairs { "loss", "scarce_share", "cosine", "beta_error" } do
            lu.assertTrue(row[key .. "_low"] < row[key .. "_high"], key)
        end
        lu.assertTrue(row.loss_low < row.loss and row.loss < row.loss_high)
        lu.assertTrue(row.beta_error_low < row.beta_error and row.beta_error < row.beta_error_high)
    end
    lu.assertEquals(study.rows("classification", calls, configurations)[1].loss_low,
        rows[1].loss_low)
end

-- Six of the ten that were tried, whichever is recommended among them.
function TestBinsStudy.test_the_figure_of_densities_shows_the_recommended_bins()
    local list = { 5, 10, 15, 20, 25, 30, 35, 40, 45, 50 }
    local calls = sweep.read(source_of("classification", steps_of("classification",
        parts_of("classification", 1, 50))), { bins = list })
    local x = { calls = calls, configurations = sweep.configurations({ bins = list }, { "bins" }) }
    for _, best in ipairs(list) do
        local labels = {}
        for _, one in ipairs(ghm.bins_figures.density_figure(x, nil, best).series) do
            labels[#labels + 1] = one.label
        end
        lu.assertEquals(#labels, 6)
        lu.assertEquals({ labels[1], labels[6] }, { "M = 5", "M = 50" })
        lu.assertTableContains(labels, "M = " .. best)
    end
end
