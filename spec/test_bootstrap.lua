-- Draws for the bootstrap: their distributions, that they are the same everywhere, and the
-- intervals and verdicts made of them.

local lu = require "luaunit"
local close = require "close"
local clib = require "ghm.clib"
local ffi = require "ffi"
local ghm = require "ghm"
local samples = require "samples"

local bootstrap, metrics = ghm.bootstrap, ghm.metrics

local TestBootstrap = {}
_G.TestBootstrap = TestBootstrap

-- P(count = k) of a Poisson distribution, k = 0, 1, ..., until it is negligible.
local function poisson_law(mean)
    local law, log_p = {}, -mean
    for k = 0, math.floor(mean + 12 * math.sqrt(mean) + 30) do
        law[k] = math.exp(log_p)
        log_p = log_p + math.log(mean) - math.log(k + 1)
    end
    return law
end

-- Both ways of drawing, and the border between them at 32. Pearson's statistic over cells of at
-- least 20 expected draws; its limit is five deviations above its mean.
function TestBootstrap.test_counts_are_poisson()
    local n = 20000
    for seed, mean in ipairs { 0.3, 1, 7, 31.99, 32, 33, 150, 4000 } do
        local means = {}
        for i = 1, n do
            means[i] = mean
        end
        local drawn, seen, sum = bootstrap.counts(means, n, seed, 0), {}, 0
        for i = 0, n - 1 do
            local count = tonumber(drawn[i])
            seen[count], sum = (seen[count] or 0) + 1, sum + count
        end
        close(sum / n, mean, { abs = 5 * math.sqrt(mean / n) }, "mean of Poisson(%g)", mean)
        local statistic, cells, observed, expected = 0, 0, 0, 0
        local law = poisson_law(mean)
        for k = 0, #law do
            observed, expected = observed + (seen[k] or 0), expected + n * law[k]
            if expected >= 20 then
                statistic, cells = statistic + (observed - expected) ^ 2 / expected, cells + 1
                observed, expected = 0, 0
            end
        end
        lu.assertTrue(statistic < cells + 5 * math.sqrt(2 * cells),
            ("Poisson(%g): %g over %d cells"):format(mean, statistic, cells))
    end
end

function TestBootstrap.test_large_counts_keep_their_mean_and_variance()
    for _, mean in ipairs { 1e6, 1e12, 2 ^ 53 } do
        local n, means, sum, squares = 4000, {}, 0, 0
        for i = 1, n do
            means[i] = mean
        end
        local drawn = bootstrap.counts(means, n, 3, 1)
        for i = 0, n - 1 do
            local z = (tonumber(drawn[i]) - mean) / math.sqrt(mean)
            sum, squares = sum + z, squares + z * z
        end
        close(sum / n, 0, { abs = 5 / math.sqrt(n) }, "mean of Poisson(%g)", mean)
        close(squares / n, 1, { abs = 5 * math.sqrt(2 / n) }, "variance of Poisson(%g)", mean)
    end
end

function TestBootstrap.test_uniform_numbers_are_even()
    local n, u = 20000, bootstrap.uniform(20000, 9, 4)
    local sorted, worst = {}, 0
    for i = 0, n - 1 do
        sorted[i + 1] = u[i]
    end
    table.sort(sorted)
    for i, value in ipairs(sorted) do
        worst = math.max(worst, math.abs(value - (i - 0.5) / n))
    end
    lu.assertTrue(worst < 2 / math.sqrt(n), "Kolmogorov's distance is " .. worst)
end

-- Taken down once: other machines and later versions must draw the same.
function TestBootstrap.test_draws_are_the_same_everywhere()
    lu.assertEquals(bootstrap.steps(8, 0, 0), { 2, 4, 1, 1, 2, 3, 7, 5 })
    lu.assertEquals(bootstrap.steps(8, 0, 1), { 7, 6, 2, 6, 1, 8, 6, 8 })
    local drawn = bootstrap.counts({ 0, 0.5, 3, 20, 31, 32, 1000, 1e9 }, 8, 7, 2)
    lu.assertEquals(samples.list(drawn, 8), { 0, 0, 1, 21, 34, 29, 1008, 1000006552 })
    lu.assertEquals(bootstrap.divide({ 3, 40, 0, 500, 1e6, 1e9 }, 3e8, 7, 2),
        { 1, 11, 0, 152, 300786, 299699050 })
end

function TestBootstrap.test_a_place_knows_nothing_of_the_others()
    local long = samples.list(bootstrap.counts({ 5, 50, 500, 5 }, 4, 1, 6), 4)
    lu.assertEquals(samples.list(bootstrap.counts({ 5, 50, 500 }, 3, 1, 6), 3),
        { long[1], long[2], long[3] })
    lu.assertNotEquals(samples.list(bootstrap.counts({ 5, 50, 500, 5 }, 4, 1, 7), 4), long)
    lu.assertNotEquals(samples.list(bootstrap.counts({ 5, 50, 500, 5 }, 4, 2, 6), 4), long)
end

-- Hypergeometric: one by one where few are counted or taken, and more at a time otherwise. A count
-- c of n in all has mean c take / n; 5 deviations of the mean and of the variance are allowed.
function TestBootstrap.test_a_part_of_all_samples_is_drawn_blindly()
    for c, case in ipairs { { { 3, 0, 5, 1 }, 4 }, { { 3, 90, 5 }, 95 }, { { 500, 40, 700 }, 20 },
        { { 500, 40, 700, 1 }, 300 }, { { 500, 40, 700, 1 }, 1000 }, { { 1e6, 3e5, 12 }, 5e5 },
        { { 2 ^ 52, 40, 2 ^ 50 }, 2 ^ 50 } } do
        local counts, take = unpack(case)
        local draws, n, mean, square = 2000, samples.total(counts), {}, {}
        for draw = 1, draws do
            local drawn = bootstrap.divide(counts, take, c, draw)
            lu.assertEquals(samples.total(drawn), take)
            for j, count in ipairs(drawn) do
                lu.assertTrue(count >= 0 and count <= counts[j])
                local off = count - counts[j] * (take / n)
                mean[j], square[j] = (mean[j] or 0) + off / draws,
                    (square[j] or 0) + off * off / draws
            end
        end
        for j, count in ipairs(counts) do
            local variance = take * (count / n) * (1 - count / n) * ((n - take) / (n - 1))
            local sd = math.sqrt(variance)
            close(mean[j], 0, { abs = 5 * sd / math.sqrt(draws) }, "mean of %g, case %d", count, c)
            -- a rare count's fourth moment is about its variance; 1/2: as resample.c says
            close(square[j], variance, { abs = 5 * math.sqrt((2 * variance ^ 2 + variance) / draws)
                + (count < 32 and 0 or 0.5) }, "variance of %g, case %d", count, c)
        end
    end
    lu.assertEquals(bootstrap.divide({ 2, 1, 4 }, 7, 0, 0), { 2, 1, 4 })
    lu.assertEquals(bootstrap.divide({ 2, 1, 4 }, 0, 0, 0), { 0, 0, 0 })
    lu.assertEquals(bootstrap.divide({}, 0, 0, 0), {})
end

-- Of the mean of the values, one of each step: low, high.
local function interval(values, opts)
    local part, row = {}, {}
    for k, value in ipairs(values) do
        part[k] = {}
        metrics.add(part[k], "mean", value)
    end
    metrics.fill({ row }, { part }, { mean = "mean" }, opts)
    return row.mean_low, row.mean_high
end

-- The share of draws beyond each end is 1 - Phi(t sqrt(n / (n - 1))), t being Student's quantile;
-- taken down from a numeric integral of his density.
function TestBootstrap.test_draws_beyond_an_interval_are_those_of_students_t()
    for n, expected in pairs { [4] = 0.0032896, [5] = 0.0085750, [8] = 0.0214137, [16] = 0.0351058,
        [31] = 0.0422352, [1000] = 0.0497580 } do
        close(bootstrap.beyond(n), expected, { rel = 0.005 }, "%d steps", n)
    end
    close(bootstrap.beyond(), 0.05, { abs = 1e-15 }, "samples")
end

-- Streams of one law, and how many of their intervals hold what is true of it. 90 % are meant; few
-- steps lie all on one side of their mean too often, and the tail of a skewed law is often not in
-- them. The shares were measured over 10000 streams; 500 may be off by 3.5 deviations.
function TestBootstrap.test_nine_of_ten_intervals_hold_the_truth()
    local measured = {
        [4] = { normal = 0.858, skewed = 0.804, root = 0.822 },
        [5] = { normal = 0.879, skewed = 0.822, root = 0.848 },
        [8] = { normal = 0.884, skewed = 0.849, root = 0.856 },
        [16] = { normal = 0.891, skewed = 0.861, root = 0.867 },
    }
    local kinds, truth = { normal = "mean", skewed = "mean", root = "root" },
        { normal = 0, skewed = 1, root = math.exp(1 / 16) }
    local trials = 500
    for n, shares in pairs(measured) do
        local held = { normal = 0, skewed = 0, root = 0 }
        for trial = 1, trials do
            local parts, rows = { {} }, { {} }
            for k = 1, n do
                parts[1][k] = {}
                metrics.add(parts[1][k], "normal", samples.normal(0, 1))
                metrics.add(parts[1][k], "skewed", -math.log(1 - math.random()))
                metrics.add(parts[1][k], "root", math.exp(samples.normal(0, 0.5)))
            end
            metrics.fill(rows, parts, kinds, { seed = trial })
            for key, value in pairs(truth) do
                local low, high = bootstrap.fields(key)
                local inside = rows[1][low] <= value and value <= rows[1][high]
                held[key] = held[key] + (inside and 1 / trials or 0)
            end
        end
        for key, share in pairs(held) do
            local sd = math.sqrt(shares[key] * (1 - shares[key]) / trials)
            close(share, shares[key], { abs = 3.5 * sd }, "%s, %d steps", key, n)
        end
    end
end

-- Of many steps, the interval of a mean is its standard error times 1.645 each way.
function TestBootstrap.test_the_interval_of_a_mean_is_that_of_theory()
    local values, n, squares, mean = {}, 200, 0, 0
    for i = 1, n do
        values[i] = samples.normal(10, 2)
        mean = mean + values[i] / n
    end
    for _, value in ipairs(values) do
        squares = squares + (value - mean) ^ 2
    end
    local error_of_mean = math.sqrt(squares / n) / math.sqrt(n)
    local low, high = interval(values, { draws = 2000, seed = 1 })
    close(low, mean - 1.645 * error_of_mean, { abs = 0.15 * error_of_mean }, "low end")
    close(high, mean + 1.645 * error_of_mean, { abs = 0.15 * error_of_mean }, "high end")
end

function TestBootstrap.test_less_than_four_steps_have_no_interval()
    for n = 1, 5 do
        local low, high = interval { unpack({ 1, 2, 3, 4, 5 }, 1, n) }
        lu.assertEquals({ low ~= nil, high ~= nil }, { n >= 4, n >= 4 })
        local verdict = bootstrap.choice(1, n, function(steps) return steps[1] end)
        lu.assertEquals(verdict.low ~= nil, n >= 4)
        lu.assertTrue(verdict.share > 0.1) -- which is of the draws alone
    end
end

-- Steps that say nothing of a metric do not count; a largest value has an interval of one step's
-- samples alone.
function TestBootstrap.test_metrics_have_intervals_where_these_can_be_told()
    local function filled(n, telling, resamplings)
        local parts, rows = { {} }, { {} }
        for k = 1, n do
            parts[1][k] = {}
            metrics.add(parts[1][k], "most", k)
            if k <= telling then
                metrics.add(parts[1][k], "mean", k)
            end
        end
        metrics.fill(rows, parts, { mean = "mean", most = "most" },
            resamplings and { resamplings = metrics.resamplings(parts, resamplings) })
        return rows[1]
    end
    local row = filled(9, 4)
    lu.assertEquals({ row.mean, row.most, row.most_low, row.most_high }, { 2.5, 9 })
    lu.assertTrue(1 <= row.mean_low and row.mean_low < 2 and 3 < row.mean_high)
    lu.assertNil(filled(9, 3).mean_low)
    row = filled(1, 1, function(draw)
        return { { { mean = { draw, 1, most = draw }, most = { draw, 1, most = draw } } } }
    end)
    lu.assertEquals({ row.mean_low, row.mean_high, row.most_low, row.most_high }, { 4, 94, 4, 94 })
end

function TestBootstrap.test_a_verdict_counts_what_was_chosen()
    local chosen = {}
    for i = 1, 100 do
        chosen[i] = i <= 3 and 10 or i <= 60 and 20 or i <= 85 and 30 or 40
    end
    local verdict = bootstrap.verdict(20, chosen)
    lu.assertEquals({ verdict.value, verdict.low, verdict.high, verdict.share },
        { 20, 20, 40, 0.57 })
    lu.assertEquals({ unpack(verdict.as_good) }, { 30, 40 })
    lu.assertEquals(bootstrap.words(verdict),
        "chosen in 57 % of the resamplings; 30 and 40 are as good")
    lu.assertEquals(bootstrap.words(bootstrap.verdict(5, { 5, 5 })),
        "chosen in 100 % of the resamplings")
    local picked = bootstrap.choice(1, 3, function(steps) return steps[1] end, { draws = 300 })
    close(picked.share, 1 / 3, { abs = 0.11 }, "share of step 1")
end

-- A sketch's samples drawn anew: counts with their own variance, sums and weights in proportion.
function TestBootstrap.test_a_resampled_sketch_holds_poisson_counts()
    local soft = samples.class_batch(samples.normals({ 800, 4 }, -1, 2), samples.shares { 800, 4 })
    local cases = { { samples.class_batch(samples.detector { 800, 4 }) },
        { samples.box_batch(samples.boxes { 800, 4 }), 0.1 }, { soft } }
    for c, case in ipairs(cases) do
        local batch, mu = unpack(case)
        local s = samples.sketch_of({ task = mu and "regression", bins = 4, mu = mu }, batch)
        local R, L = samples.regions(s, 4, mu)
        local facts, draws = s:facts(), 400
        local mean, square, loss = { 0, 0, 0, 0 }, { 0, 0, 0, 0 }, { 0, 0, 0, 0 }
        for draw = 1, draws do
            local drawn = bootstrap.sketch(s, c, draw)
            local counts, sums = samples.regions(drawn, 4, mu)
            local now = drawn:facts()
            lu.assertEquals(now.valid, samples.total(counts))
            lu.assertEquals(now.samples - now.valid, facts.samples - facts.valid)
            close(now.weight_sum / now.valid, facts.weight_sum / facts.valid, { rel = 1e-5 },
                "mean weight")
            for j = 1, 4 do
                mean[j], loss[j] = mean[j] + counts[j] / draws, loss[j] + sums[j] / draws
                square[j] = square[j] + (counts[j] - R[j]) ^ 2 / draws
            end
            drawn:free()
        end
        for j = 1, 4 do
            close(mean[j], R[j], { abs = 5 * math.sqrt(R[j] / draws) }, "mean of region %d", j)
            close(square[j], R[j], { rel = 0.4 }, "variance of region %d", j)
            close(loss[j], L[j], { rel = 5 / math.sqrt(R[j] * draws / 10) }, "loss of region %d", j)
        end
        lu.assertEquals(bootstrap.sketch(s, c, 7):digest(), bootstrap.sketch(s, c, 7):digest())
        lu.assertNotEquals(bootstrap.sketch(s, c, 7):digest(), bootstrap.sketch(s, c, 8):digest())
    end
end

function TestBootstrap.test_what_is_refused()
    samples.refused("usage", { "mean 1 is -1" }, bootstrap.counts, { 1, -1 }, 2, 0, 0)
    samples.refused("usage", { "mean 0 is ", "nan" }, bootstrap.counts, { 0 / 0 }, 1, 0, 0)
    samples.refused("usage", { "draw -1 of 1" }, bootstrap.steps, 1, 0, -1)
    local C, out = clib.C, ffi.new "int64_t[1]"
    lu.assertEquals(C.ghm_poisson(0, 0, 1, nil, out), tonumber(C.GHM_E_ARGUMENT))
    samples.refused("usage", { "count 1 is -2" }, bootstrap.divide, { 1, -2 }, 1, 0, 0)
    samples.refused("usage", { "count 1 is 1: ", "2^53" }, bootstrap.divide, { 2 ^ 53, 1 }, 1, 0, 0)
    for _, take in ipairs { -1, 4 } do
        samples.refused("usage", { ("take is %d of 3"):format(take) }, bootstrap.divide, { 1, 2 },
            take, 0, 0)
    end
    lu.assertEquals(C.ghm_divide(0, 0, 1, nil, 0, out), tonumber(C.GHM_E_ARGUMENT))
    lu.assertEquals(C.ghm_uniform(0, 0, 1, nil), tonumber(C.GHM_E_ARGUMENT))
    lu.assertEquals(C.ghm_uniform(0, 0, 0, nil), 0)
    local s = ghm.sketch.new { bins = 4 }
    lu.assertEquals(C.ghm_sketch_resample(s.c, 0, 0, nil), tonumber(C.GHM_E_ARGUMENT))
    lu.assertEquals(C.ghm_sketch_resample(s.c, 0, 0, ghm.sketch.new({ bins = 5 }).c),
        tonumber(C.GHM_E_MISMATCH))
    samples.refused("usage", { "draw -1" }, bootstrap.sketch, s, 0, -1)
end
