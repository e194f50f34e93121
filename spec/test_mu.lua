-- The study of mu, against the samples themselves.

local lu = require "luaunit"
local close = require "close"
local ghm = require "ghm"
local made_up = require "made_up"
local oracle = require "oracle"
local scripts = require "scripts"

local study = ghm.mu_study

local TestMuStudy = {}
_G.TestMuStudy = TestMuStudy

-- Calls of these parts, sketched as sweep_mu does, and |d| of every valid sample, sorted.
local function stream(n, bins, mu)
    local parts, sizes = made_up.parts_of("regression", n, 400), {}
    local calls = ghm.sweep.read(made_up.source_of("regression",
        made_up.steps_of("regression", parts)), { bins = bins, mu = mu, knots = study.knots() })
    for _, part in ipairs(parts) do
        for _, one in ipairs(oracle.boxes(part[1], part[2], part[3], 1)) do
            sizes[#sizes + 1] = one.valid and one.key or nil
        end
    end
    table.sort(sizes)
    return calls, sizes, parts
end

-- Where `rank` of the sorted sizes lie below, in proportion to ln |d| between two of these edges.
local function size_at(rank, sizes, edges, n_edges)
    rank = math.min(math.max(rank, 1), #sizes)
    local low, high, below, here = 0, math.huge, 0, 0
    for i = 0, n_edges - 1 do
        local at = edges[i]
        low = at <= sizes[math.ceil(rank)] and at or low
        high = at > sizes[math.ceil(rank)] and math.min(at, high) or high
    end
    for _, size in ipairs(sizes) do
        below = below + (size < low and 1 or 0)
        here = here + (size >= low and size < high and 1 or 0)
    end
    return low * (high / low) ^ ((rank - below) / here), low, high
end

-- A quantile lies between the knots that its sample lies between, 6 % apart: nothing is left to
-- chance.
function TestMuStudy.test_quantiles_are_those_of_the_samples()
    for _, n in ipairs { 1, 5 } do
        local calls, sizes = stream(n, { 10 }, { 0.02 })
        local edges = calls[1].sketch:edges()
        for _, q in ipairs { 0.05, 0.25, 0.5, 0.9, 0.99 } do
            local expected, low, high = size_at(q * #sizes, sizes, edges,
                calls[1].sketch:intervals() - 1)
            close((study.quantiles(calls, q)), expected, { rel = 1e-9 }, "%g-quantile of %d steps",
                q, n)
            lu.assertTrue(low > 0 and high < low * 10 ^ 0.02501, "knots around it")
        end
    end
end

-- Samples drawn anew: their q-quantile lies below a size that x of N samples lie below, where
-- (1 - q) Poisson(x) > q Poisson(N - x); so it stands at q N, give or take sqrt(q (1 - q) N). Of
-- 200 draws the 10th and the 190th are the ends of the interval. Beyond 0.7 of those deviations lie
-- at least 20 % of the draws, and beyond 4.5 at most 0.06 % (summed from the Poisson distributions,
-- N from 1050 to 1200): by the binomial distribution an end stands outside of these in fewer than
-- one stream of 1e9.
function TestMuStudy.test_a_steps_interval_is_that_of_its_samples()
    local calls, sizes = stream(1, { 10 }, { 0.02 })
    local edges, n_edges = calls[1].sketch:edges(), calls[1].sketch:intervals() - 1
    for _, q in ipairs { 0.05, 0.25, 0.5, 0.9, 0.99 } do
        local _, drawn = study.quantiles(calls, q)
        lu.assertNil(drawn.steps)
        local ends = { ghm.bootstrap.middle(drawn) }
        local N = #sizes
        for k, side in ipairs { -1, 1 } do
            local deviation = side * math.sqrt(q * (1 - q) * N)
            local near = size_at(q * N + 0.7 * deviation, sizes, edges, n_edges)
            local far = size_at(q * N + 4.5 * deviation, sizes, edges, n_edges)
            lu.assertTrue(side * ends[k] > side * near, ("end %d at %g is too near"):format(k, q))
            lu.assertTrue(side * ends[k] <= side * far, ("end %d at %g is too far"):format(k, q))
        end
    end
end

-- Steps drawn anew: a quantile of several lies between the least and the largest of theirs (where
-- two steps have the same, perhaps on it), and five steps make 126 different mixtures.
function TestMuStudy.test_the_interval_of_steps_lies_inside_them()
    local calls, near = stream(5, { 10 }, { 0.02 }), 1 + 1e-12 -- by rounding
    for _, q in ipairs { 0.05, 0.25, 0.5, 0.9, 0.99 } do
        local d, drawn = study.quantiles(calls, q)
        lu.assertEquals(drawn.steps, 5)
        local least, most = math.huge, 0
        for _, call in ipairs(calls) do
            local own = study.quantiles({ call }, q)
            least, most = math.min(least, own), math.max(most, own)
        end
        local seen, n_seen = {}, 0
        for _, value in ipairs(drawn) do
            if not seen[value] then
                seen[value], n_seen = true, n_seen + 1
            end
        end
        lu.assertTrue(n_seen > 5, "quantiles of single steps alone")
        local low, high = ghm.bootstrap.middle(drawn, drawn.steps)
        lu.assertTrue(least <= low * near and low < d and d < high and high <= most * near,
            ("%g < %g < %g < %g < %g at %g"):format(least, low, d, high, most, q))
    end
end

function TestMuStudy.test_the_recommended_mu_puts_the_quantile_at_its_g()
    for _, d in ipairs { 1e-4, 0.05, 1, 30 } do
        for _, g in ipairs { 0.1, 0.5, 0.6, 0.7, 0.99 } do
            local mu = study.mu_at(d, g)
            close(d / math.sqrt(d * d + mu * mu), g, { rel = 1e-14 }, "g of d = %g", d)
        end
        local verdict = study.recommend(d, { d, d, 3 * d }, 0.5)
        close(verdict.value, d * 4 / 3, { rel = 0.05 }, "mu of d = %g", d) -- two digits
        close(verdict.share, 2 / 3, { rel = 1e-12 }, "share")
        lu.assertTrue(verdict.as_good[1] < verdict.value and verdict.value < verdict.as_good[2])
    end
end

function TestMuStudy.test_rows_agree_with_single_samples()
    local bins, mus = { 4, 10 }, { 0.02, 0.3 }
    local calls, _, parts = stream(3, bins, mus)
    local configurations = ghm.sweep.configurations({ mu = mus, bins = bins, momentum = 0 },
        { "mu", "bins", "momentum" })
    local rows, _, whole = study.rows(calls, configurations, 0.1, { beta = 1 })
    for i, row in ipairs(rows) do
        local last, n, asl1, smooth = 0, 0, 0, 0
        for _, part in ipairs(parts) do
            local valid, own_asl1, own_smooth = 0, 0, 0
            for _, one in ipairs(oracle.boxes(part[1], part[2], part[3], row.mu)) do
                if one.valid then
                    valid, own_asl1 = valid + 1, own_asl1 + one.loss
                    own_smooth = own_smooth + oracle.smooth_l1(one.d, 1)
                    last = last + (oracle.region(one, row.bins, row.mu) == row.bins and 1 or 0)
                end
            end
            n, asl1, smooth = n + valid, asl1 + own_asl1 / valid, smooth + own_smooth / valid
        end
        lu.assertEquals(row.last_share, last / n)
        close(row.asl1, asl1 / #parts, { rel = 1e-6 }, "ASL1, row %d", i)
        close(row.smooth_l1, smooth / #parts, { rel = 1e-6 }, "smooth L1, row %d", i)
        close(row.g_quantile, 0.1 / math.sqrt(0.01 + row.mu ^ 2), { rel = 1e-12 }, "g, row %d", i)
        for j, d in ipairs(study.region_edges(whole, row.bins, row.mu)) do
            close(d, row.mu * j / math.sqrt(row.bins ^ 2 - j ^ 2), { rel = 1e-6 }, "edge %d", j)
        end
        close(row.d_last, row.mu * (row.bins - 1) / math.sqrt(2 * row.bins - 1), { rel = 1e-6 },
            "the last region's edge")
    end
    local best = study.nearest(rows, {}, 0.25)
    lu.assertEquals(best.mu, 0.3)
end

-- Boxes that are ignored, but have no weights to say so.
function TestMuStudy.test_no_mu_is_recommended_where_most_errors_are_0()
    local zeros = ghm.array.from({ 0, 0, 0, 0.5 }, "f4", { 1, 4 })
    local batch = ghm.batch.regression { pred = zeros, target = ghm.array.new("f4", { 1, 4 }) }
    local calls = ghm.sweep.read(made_up.source_of("regression", { { batch } }), { bins = { 10 },
        mu = { 0.02 }, knots = study.knots() })
    for q, said in pairs { [0.5] = "The 0.5-quantile of |d| is 0, so no mu", [0.9] = "mu = 0.6" } do
        local d, drawn = study.quantiles(calls, q)
        local verdict = study.recommend(d, drawn, q)
        local row = { mu = 0.02, bins = 10, d_last = 0.04, last_share = 0.25 }
        local lines = study.answer(verdict, ghm.bootstrap.verdict(10, { 10 }), row, { row })
        lu.assertStrContains(lines[1], said)
        lu.assertEquals({ #lines, #verdict.as_good }, q == 0.5 and { 1, 0 } or { 2, 2 })
    end
end

-- Boxes in pixels, say, of a model that is far off.
function TestMuStudy.test_large_errors_have_their_quantile_too()
    for size, said in pairs { [7e4] = "puts the 0.5-quantile of |d|, 6.81e+04", -- 6 % a knot
        [3e9] = "is beyond 1e+09" } do
        local pred = ghm.array.from({ size, size, size, 0.5 }, "f4", { 1, 4 })
        local batch = ghm.batch.regression { pred = pred, target = ghm.array.new("f4", { 1, 4 }) }
        local calls = ghm.sweep.read(made_up.source_of("regression", { { batch } }),
            { bins = { 10 }, mu = { 0.02 }, knots = study.knots() })
        local d, drawn = study.quantiles(calls, 0.5)
        lu.assertStrContains(study.recommend(d, drawn, 0.5).reason, said)
    end
end

function TestMuStudy.test_few_steps_are_told_that_they_have_no_interval()
    local row = { mu = 0.1, bins = 10, d_last = 0.2, last_share = 0.25 }
    for n, said in pairs { [3] = "is not known; at mu = 0.1, the nearest tried, the last",
        [4] = "is mu = 0.067 to 0.27; at mu = 0.1, the nearest tried, the last" } do
        local verdict = study.recommend(0.1, { 0.05, 0.1, 0.1, 0.2, steps = n }, 0.5)
        local lines = study.answer(verdict, ghm.bootstrap.verdict(10, { 10 }), row, { row })
        lu.assertStrContains(lines[2], said)
        lu.assertStrContains(lines[2], "Try mu=log:0.013:1.3:9 too.") -- 0.1 alone was tried
    end
end

function TestMuStudy.test_a_table_of_many_regions_adds_up_neighbours()
    local calls = stream(3, { 90 }, { 0.1 })
    local said = study.edges_table(ghm.sweep.merged(calls), { bins = 90, mu = 0.1 })
    local lines, share = 0, 0
    for region, part in said:gmatch "\n +(%d+) +%S+ +%S+ +([%d.]+)" do
        lines, share = lines + 1, share + tonumber(part)
        lu.assertEquals((region - 1) % 3, 0)
    end
    lu.assertStrContains(said, "M = 90, 3 in a line\n")
    lu.assertEquals(lines, 30)
    close(share, 1, { abs = 0.02 }, "samples")
end

local TestSweepMu = {}
_G.TestSweepMu = TestSweepMu

function TestSweepMu.test_answers_from_the_sketch_that_sketch_makes_unasked()
    local place = scripts.place()
    place:fine("sketch", "synth:detector,rows=400 --loss ghmr -q -o a.sketch")
    local answers = {}
    for k, dump in ipairs { "synth:detector,rows=400", "a.sketch" } do
        answers[k] = place:fine("sweep_mu", dump .. " -q --plot none"):match "mu = %S+ puts.-;"
    end
    lu.assertNotNil(answers[1])
    lu.assertEquals(answers[2], answers[1])
    place:remove()
end

function TestSweepMu.test_answers_in_its_last_three_lines()
    local place = scripts.place()
    for words, said in pairs { [""] = "the 0.5-quantile of |d|", ["--quantile 0.9"] = "the 0.9-",
        ["synth:detector,rows=400 mu=0.1,0.2 bins=10"] = "are as good" } do
        local out = place:fine("sweep_mu", words .. " --plot term")
        local last = out:match "([^\n]*\n[^\n]*\n[^\n]*)\n?$"
        lu.assertStrContains(last, said)
        lu.assertStrContains(last, "run folder: ")
        lu.assertStrContains(out, "regions of mu = ")
    end
    for _, q in ipairs { "0", "1", "x" } do
        place:refused(2, { "--quantile", "between 0 and 1" }, "sweep_mu", { "--quantile", q })
    end
    place:remove()
end
