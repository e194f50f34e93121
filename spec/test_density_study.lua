-- The study of densities: columns, distances, calibration and parts against single samples, and
-- density.lua as a user runs it.

local lu = require "luaunit"
local columns = require "ghm.columns"
local csv = require "ghm.show.csv"
local bootstrap = require "ghm.studies.bootstrap"
local close = require "close"
local distances = require "ghm.studies.distances"
local ghm = require "ghm"
local json = require "ghm.json"
local oracle = require "oracle"
local samples = require "samples"
local scripts = require "scripts"

local answer, study, figures = ghm.density_answer, ghm.density_study, ghm.density_figures

local TestColumns = {}
_G.TestColumns = TestColumns

-- What all columns of a batch add up to is the batch.
local function check_columns(task, one, where)
    local whole = ghm.sketch.new { task = task, bins = { 3, 10 }, mu = 0.02 }
    local parts, seen = whole:like(), 0
    whole:add(one)
    for c, column in columns.each(one) do
        lu.assertEquals({ column.cols, column.rows, c }, { 1, one.rows, seen }, where)
        parts:add(column)
        seen = seen + 1
    end
    lu.assertEquals(seen, one.cols, where)
    if not whole:is_soft() then
        lu.assertEquals(parts:digest(), whole:digest(), where)
    end
    lu.assertEquals(samples.regions(parts, 10, 0.02), samples.regions(whole, 10, 0.02), where)
    lu.assertEquals(parts:facts(), whole:facts(), where)
end

function TestColumns.test_columns_of_logits_add_up_to_all()
    for _, cols in ipairs { 1, 2, 7 } do
        local x, t, w = samples.detector { 80, cols }
        local labels = samples.fill({ 80 }, function() return math.random(-1, cols) end, "i8")
        local rows = samples.flags({ 80 }, 0.8)
        for name, parts in pairs { dense = { logits = x, target = t, weight = w },
            rows = { logits = x, target = t:convert "u1", weight = rows },
            halves = { logits = x:convert "f2", target = t }, bf16 = { logits = x:convert "bf16",
            target = t:convert "bf16", weight = w:convert "u1" },
            zero = cols > 1 and { logits = x, labels = labels, weight = rows } or nil,
            one = cols > 1 and { logits = x, labels = labels, base = "one_based" } or nil } do
            check_columns("classification", ghm.batch.classification(parts),
                ("%s, %d columns"):format(name, cols))
        end
    end
    check_columns("classification", ghm.batch.classification { logits = samples.normals({ 50, 3 },
        0, 2), target = samples.shares { 50, 3 } }, "soft")
end

function TestColumns.test_columns_of_boxes_add_up_to_all()
    local pred, target, w = samples.boxes { 80, 4 }
    check_columns("regression", samples.box_batch(pred, target, w), "boxes")
    check_columns("regression", ghm.batch.regression { pred = pred, target = target,
        weight = samples.flags({ 80 }, 0.5) }, "weights of rows")
end

local TestDensityStudy = {}
_G.TestDensityStudy = TestDensityStudy

function TestDensityStudy.test_distances_of_histograms()
    local half = -0.5 * math.log(0.5) / math.log(2)
    for _, case in ipairs { { { 3, 1, 2 }, { 6, 2, 4 }, 0 }, { { 5, 0 }, { 0, 9 }, 1 },
        -- shares (1, 0) and (1/2, 1/2): (1 log 4/3 + 1/2 log 2/3 + 1/2 log 2) / 2
        { { 7, 0 }, { 4, 4 }, math.sqrt((math.log(4 / 3) + 0.5 * math.log(2 / 3)
            + 0.5 * math.log(2)) / math.log(2) / 2) },
        { { 1, 1, 0 }, { 0, 1, 1 }, math.sqrt(half) } } do
        close(distances.of(case[1], case[2]), case[3], { abs = 1e-12 }, "distance")
        close(distances.of(case[2], case[1]), case[3], { abs = 1e-12 }, "the other way")
    end
    lu.assertNil(distances.of({ 0, 0 }, { 1, 2 }))
end

-- n samples on average, of a density that is the same in all regions, or high at both ends.
local function drawn_counts(n, bins, steep, draw)
    local means, sum = {}, 0
    for j = 1, bins do
        means[j] = steep and (j - 0.5) ^ -2 + 0.3 * (bins - j + 0.5) ^ -2 or 1
        sum = sum + means[j]
    end
    for j = 1, bins do
        means[j] = n * means[j] / sum
    end
    return samples.list(bootstrap.counts(means, bins, n, draw), bins)
end

-- Samples of one density lie farther apart than by chance in one case of twenty: of 400, in 20, and
-- 3.5 deviations are 15. With few samples many distances are equal, so that it is a little less.
function TestDensityStudy.test_chance_is_what_equal_densities_show()
    for _, case in ipairs { { 100, 100, 4 }, { 100, 100, 30, "steep" }, { 20, 20, 30 },
        { 400, 100, 10, "steep" }, { 1e5, 1e5, 10 }, { 1e5, 1e4, 100, "steep" },
        { 1e5, 100, 30, "steep" } } do
        local n, m, bins, steep = unpack(case)
        local apart, from_all, both = 0, 0, {}
        for k = 1, 400 do
            local R = drawn_counts(n, bins, steep, 2 * k)
            local S = drawn_counts(m, bins, steep, 2 * k + 1)
            for j = 1, bins do
                both[j] = R[j] + S[j]
            end
            bootstrap.seed = k
            local chance = distances.chance(distances.drawn(R, both))
            apart = apart + (distances.of(R, S) > chance and 1 or 0)
            from_all = from_all + (distances.of(R, both)
                > distances.chance(distances.drawn(R, both, { from_all = true })) and 1 or 0)
            if k == 1 then
                lu.assertEquals(distances.chance(distances.drawn(R, both)), chance)
            end
        end
        bootstrap.seed = 0
        for what, times in pairs { ["each other"] = apart, all = from_all } do
            lu.assertTrue(times >= 5 and times <= 35, ("%d and %d samples, %d regions, from %s: %d")
                :format(n, m, bins, what, times))
        end
    end
end

-- Distances of seven pairs, of which the last has samples of two densities where it is `moved`.
local function pairs_of_counts(first, moved)
    local list = {}
    for k = 1, 7 do
        local R = drawn_counts(500, 20, "steep", first + 2 * k)
        local S = drawn_counts(500, 20, not (moved and k == 7) and "steep", first + 2 * k + 1)
        local both = {}
        for j = 1, 20 do
            both[j] = R[j] + S[j]
        end
        list[k] = { k = k, distance = distances.of(R, S),
            drawn = distances.drawn(R, both, { k = k }) }
    end
    return list
end

-- Of 120 times in 6, and 3.5 deviations are 8; one pair of seven exceeds its own chance in 36.
function TestDensityStudy.test_the_largest_of_several_distances_is_held_against_the_largest()
    local alarms, own = 0, 0
    for stream = 1, 120 do
        bootstrap.seed = stream
        local list = pairs_of_counts(1000 * stream)
        local some = false
        for _, one in ipairs(list) do
            some = some or one.distance > distances.chance(one.drawn)
        end
        own = own + (some and 1 or 0)
        alarms = alarms + (distances.beyond(list)[1] and 1 or 0)
    end
    local found = distances.beyond(pairs_of_counts(7, true))
    bootstrap.seed = 0
    lu.assertTrue(alarms <= 14, alarms)
    lu.assertTrue(own > 18, own)
    lu.assertEquals({ #found, found[1].k }, { 1, 7 })
    lu.assertTrue(found[1].distance > found[1].most)
    lu.assertEquals(distances.beyond {}, {})
end

-- What the answer says of steps with these counts.
function TestDensityStudy.test_only_what_is_more_than_chance_is_told_of_steps()
    for _, case in ipairs {
        { { { 50, 9 }, { 50, 9 } }, "The two steps differ by no more than chance." },
        { { { 50, 9 }, { 9, 50 } }, "The two steps differ by more than chance %(Jensen" },
        { { { 50, 9 }, { 49, 10 }, { 51, 8 } }, "Of 3 steps none differs .- than chance%." },
        { { { 50, 9 }, { 49, 10 }, { 9, 50 } }, "Of 3 steps one differs .-, step 3 %([^)]*%)%." },
        { { { 50, 9 }, { 9, 50 }, { 9, 50 } }, "Of 3 steps one .-, step 2 .-; their second half" },
        { { { 50, 9 }, { 9, 50 }, { 50, 9 } }, "Of 3 steps 2 differ .-; the last still does%." },
        { { { 50, 9 }, { 9, 50 }, { 50, 9 }, { 50, 9 } }, "Of 4 steps 2 .- not; their" },
        { { { 50, 9 }, { 0, 0 }, { 9, 50 } }, "Steps without samples: nothing" },
        { { { 50, 9 } }, "One step: nothing can be said" },
        { { { 500, 0 }, { 495, 5 }, { 490, 10 }, { 485, 15 }, { 480, 20 }, { 475, 25 } },
            "Of 6 steps none .-, but their second half lies .-: they drift slowly%." },
    } do
        local found = { steps = {}, rows = {}, part_of = {} }
        for k, R in ipairs(case[1]) do
            found.steps[k] = { R = R, N = R[1] + R[2] }
            found.rows[k] = { kind = "step", name = "step " .. k }
            found.part_of[found.rows[k]] = found.steps[k]
        end
        found.moved = study.drift(found)
        lu.assertNil(found.rows[1].step_distance)
        lu.assertStrMatches(answer.drift_line(found), case[2] .. ".*")
    end
end

-- As many samples as stand here of a region that predicts p = 0.3.
function TestDensityStudy.test_only_a_region_that_is_off_by_more_than_chance_is_told()
    local function worst(...)
        local regions = {}
        for k, n in ipairs { ... } do
            regions[k] = { n = n, predicted = 0.3, observed = k == 1 and 0.9 or 0.4 }
        end
        return answer.worst_region(regions)
    end
    lu.assertNil(worst(1, 10))
    lu.assertNil(worst(2, 100)) -- 3 deviations; one of two
    lu.assertEquals(worst(2, 1000).observed, 0.4)
    lu.assertEquals(worst(30, 1000).observed, 0.9)
    lu.assertEquals(answer.worst_region({ { n = 50, predicted = 0.02, observed = 1 } }).n, 50)
    lu.assertNil(answer.worst_region { { n = 0 } })
end

function TestDensityStudy.test_calibration_agrees_with_single_samples()
    local x, t, w = samples.detector { 2000, 3 }
    local s = samples.sketch_of({ bins = { 10 } }, samples.class_batch(x, t, w))
    local n, p, positives, valid = {}, {}, {}, 0
    for _, sample in ipairs(oracle.classes(x, t, w)) do
        if sample.valid then
            local probability = oracle.sigmoid(sample.x)
            local j = math.min(math.floor(probability * 10) + 1, 10)
            n[j], p[j] = (n[j] or 0) + 1, (p[j] or 0) + probability
            positives[j], valid = (positives[j] or 0) + sample.t, valid + 1
        end
    end
    local regions, error = study.calibration(s, 10)
    local expected = 0
    for j, region in ipairs(regions) do
        lu.assertEquals(region.n, n[j] or 0)
        if region.n > 0 then
            close(region.predicted, p[j] / n[j], { rel = 1e-6 }, "predicted, region %d", j)
            close(region.observed, positives[j] / n[j], { rel = 1e-12 }, "observed, region %d", j)
            expected = expected + math.abs(p[j] - positives[j]) / valid
        end
    end
    close(error, expected, { rel = 1e-6 }, "expected calibration error")
end

-- Four steps of two levels, 4 classes.
local function study_of(soft)
    local totals, x = { calls = 0, classes = {} }, { task = "classification", calls = {},
        args = { keys = { bins = 10 }, by = { group = true, level = true, class = true } } }
    for k = 1, 8 do
        local logits, target, weight = samples.detector { 90, 4 }
        local one = samples.class_batch(logits, soft and samples.shares { 90, 4 } or target, weight)
        local call = { sketch = ghm.sketch.new { bins = 10 }, views = {},
            level = k % 2 == 1 and "P3" or "P4", expected = oracle.classes(logits, target, weight),
            step = k % 2 == 0 and x.calls[k - 1].step
                or { name = ("step_%04d.npz"):format(k * 50) } }
        call.facts = call.sketch:add(one)
        study.views(one, call, x.args)
        study.collect(call, totals)
        x.calls[k] = call
    end
    return study.of(x, totals), x
end

function TestDensityStudy.test_parts_hold_the_samples_they_are_named_for()
    local found, x = study_of()
    local function expect(part, wanted)
        local R, sum, N = {}, 0, 0
        for k, call in ipairs(x.calls) do
            for i, sample in ipairs(call.expected) do
                if sample.valid and wanted(k, sample, (i - 1) % 4) then
                    local j = oracle.region(sample, 10)
                    R[j], sum, N = (R[j] or 0) + 1, sum + sample.norm, N + 1
                end
            end
        end
        for j = 1, 10 do
            lu.assertEquals(part.R[j], R[j] or 0, part.name)
        end
        lu.assertEquals(part.N, N, part.name)
        close(samples.total(part.G), sum, { rel = 1e-9 }, "sum of g of %s", part.name)
    end
    expect(found.all, function() return true end)
    expect(found.groups[1], function(_, sample) return sample.t == 1 end)
    expect(found.groups[2], function(_, sample) return sample.t == 0 end)
    for l, level in ipairs(found.levels) do
        expect(level, function(k) return k % 2 == l % 2 end)
    end
    for c, class in ipairs(found.classes) do
        expect(class, function(_, _, column) return column == c - 1 end)
    end
    for s, step in ipairs(found.steps) do
        expect(step, function(k) return math.ceil(k / 2) == s end)
    end
    local names = {}
    for i, row in ipairs(found.rows) do
        names[i] = row.name
    end
    lu.assertEquals(names, { "all samples", "positives", "negatives", "P3", "P4", "class 0",
        "class 1", "class 2", "class 3", "step 50", "step 150", "step 250",
        "step 350" })
    local first = found.rows[1]
    lu.assertTrue(first.mean_g_low <= first.mean_g and first.mean_g <= first.mean_g_high)
    lu.assertEquals(found.rows[11].step_distance, distances.of(found.steps[1].R,
        found.steps[2].R))
end

function TestDensityStudy.test_soft_targets_are_told_as_far_as_they_go()
    local found = study_of(true)
    lu.assertEquals({ #found.groups, #found.classes, #found.levels, #found.steps }, { 0, 0, 2, 4 })
    lu.assertNil(found.calibration)
    lu.assertEquals(#answer.lines(found), 3)
    lu.assertEquals(#figures.draw(found, 0.1), 4)
end

function TestDensityStudy.test_shapes_have_names()
    for _, case in ipairs { { "U-shaped", 900, 20, 5, 4, 3, 5, 9, 40 }, { "U-shaped", 9, 0, 0, 1 },
        { "falling", 90, 9, 5, 5, 4, 2, 1, 1 }, { "falling", 9, 8, 8, 8, 8, 7, 5, 1 },
        { "rising", 1, 2, 3, 4, 5, 6, 30, 90 }, { "rising", 1, 8, 9, 9 }, { "flat", 5 },
        { "flat", 9, 8, 9, 9, 8, 9, 8, 9 }, { "hump-shaped", 0, 1, 5, 9, 9, 5, 1, 0 },
        { "hump-shaped", 0, 0, 0, 0, 70, 0, 0, 0, 0 } } do
        lu.assertEquals(answer.shape({ unpack(case, 2) }), case[1])
    end
end

function TestDensityStudy.test_a_density_of_one_or_two_regions_has_places_and_no_shape()
    local function line_of(R, groups)
        local list = {}
        for k, name in ipairs { "positives", "negatives" } do
            list[k] = groups and { name = name, N = 1, R = groups[k] }
        end
        return answer.lines { rows = { { first_share = 0, last_share = 0 } }, bins = #R,
            all = { R = R }, groups = list, steps = { {} }, moved = { beyond = {} }, far = {} }[1]
    end
    lu.assertEquals(line_of({ 0, 9, 0, 0 }, { { 0, 1, 0, 0 }, { 0, 8, 0, 0 } }),
        "All samples have g from 0.25 to 0.5.")
    lu.assertEquals(line_of({ 9, 0, 0, 1 }, { { 0, 0, 0, 1 }, { 9, 0, 0, 0 } }),
        "All samples have g from 0 to 0.25 or 0.75 to 1; positives: 0.75 to 1, negatives: 0 to "
        .. "0.25.")
    lu.assertStrContains(line_of { 9, 1, 0, 2 }, "The density is U-shaped")
    lu.assertStrContains(line_of { 9, 1 }, "The density is ")
end

local TestDensity = {}
_G.TestDensity = TestDensity

function TestDensity:setUp()
    self.place = scripts.place()
end

function TestDensity:tearDown()
    self.place:remove()
end

-- The paper's Figure 2, on the logits of a trained detector.
function TestDensity:test_the_density_of_real_logits_is_u_shaped()
    local out = self.place:fine("density", "--plot svg")
    lu.assertStrContains(out, "\nThe density is U-shaped: 99.5 % of the samples have")
    local R
    for _, row in ipairs(csv.read(self.place.folder.path .. "/runs/latest/results.csv")) do
        R = R or row.kind == "all" and row
    end
    lu.assertTrue(R.first_share > 0.99 and R.last_share > 0.0005, "few at the ends")
    lu.assertTrue(1 - R.first_share - R.last_share < 0.005, "many in the middle")
    local plots = self.place:listing "runs/latest/plots"
    for _, name in ipairs { "density", "steps", "distances", "classes", "calibration" } do
        lu.assertStrContains(plots, ("./%s.svg"):format(name))
    end
end

function TestDensity:test_classes_are_known_to_a_resumed_run()
    local words = "synth:drift,rows=20,cols=3,steps=3 bins=5 --plot none "
    local out = self.place:fine("density", words)
    local again = self.place:fine("density", "--resume latest --plot none")
    lu.assertEquals(again:match "\nclass 2 .-\n\n", out:match "\nclass 2 .-\n\n")
    lu.assertEquals(#json.decode(self.place:fine("density", words .. "--json -q")).rows, 9)
end

function TestDensity:test_a_sketch_file_is_told_to_say_nothing_of_classes()
    local said = "\nA sketch file says nothing of classes"
    self.place:fine("sketch", "synth:drift,rows=20,cols=3,steps=2 bins=5 -o a.sketch")
    for words, told in pairs { ["a.sketch"] = true, ["a.sketch --by group"] = false,
        ["synth:drift,rows=20,cols=3,steps=2"] = false } do
        local out = self.place:fine("density", words .. " bins=5 --plot none")
        lu.assertEquals(out:find(said, 1, true) ~= nil, told, words)
    end
end

function TestDensity:test_splits_are_chosen_and_long_tables_are_thinned()
    local words = "synth:drift,rows=20,cols=3,steps=60 bins=5 --plot none --csv rows.csv "
    local out = self.place:fine("density", words)
    local _, listed = out:gsub("\nstep %d", "")
    local rows = csv.read(self.place.folder.path .. "/rows.csv")
    lu.assertEquals({ listed, #rows }, { 24, 1 + 2 + 3 + 60 })
    lu.assertStrContains(out, "\n30 of 66 rows are listed, results.csv has all.\n")
    out = self.place:fine("density", "synth:drift,rows=20,cols=30,steps=2 bins=5 --plot none")
    lu.assertEquals(select(2, out:gsub("\nclass %d", "")), 24)
    self.place:fine("density", words .. "--by none")
    lu.assertEquals(#csv.read(self.place.folder.path .. "/rows.csv"), 61)
    self.place:fine("density", words .. "--by class --loss ghmr mu=0.1 --exact")
    self.place:refused(2, { "--by: unknown split 'klass': did you mean 'class'?" }, "density",
        "--by klass")
end
