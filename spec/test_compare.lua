-- Runs side by side, the conditions of --fail-if, and sketch files as dumps.

local lu = require "luaunit"
local condition = require "ghm.runner.condition"
local csv = require "ghm.show.csv"
local fault = require "ghm.fault"
local json = require "ghm.json"
local saved = require "ghm.dumps.saved"
local scripts = require "scripts"
local sketches = require "ghm.sketches"

local TestCondition = {}
_G.TestCondition = TestCondition

local B, A = { loss = 1.02, n = 4, odd = 0 / 0 }, { loss = 1, n = 5, odd = 1 }

local function holds(source)
    return (condition.parse(source))(function(name, run)
        return (run == "A" and A or B)[name]
    end)
end

function TestCondition.test_conditions_are_arithmetic_on_columns_and_runs()
    for source, expected in pairs {
        ["loss>1.01*A"] = true, ["loss > 1.05 * A"] = false, ["loss>=A"] = true, ["n<5"] = true,
        ["n == A - 1"] = true, ["n != 4"] = false, ["abs(n-A)>0.5"] = true, ["-n < -3"] = true,
        ["(loss-A)/A <= 2e-2+1e-9"] = true, ["loss > A.n"] = false, ["2*n+1 > 10-2*1"] = true,
        ["8/n/2 == 1"] = true, [".5 < loss"] = true, ["10-n-3 == 3"] = true,
    } do
        lu.assertEquals(holds(source), expected, source)
    end
end

function TestCondition.test_what_is_not_a_number_is_not_well()
    lu.assertTrue(holds "odd > A")
    lu.assertTrue(holds "odd < A")
end

function TestCondition.test_what_is_no_condition_is_a_usage_fault()
    for _, source in ipairs { "", "loss", "loss>", ">1", "loss>1>2", "loss>(1", "loss>1)", "loss>$",
        "1>2", "loss = 3", "os.exit(1)>0", "loss>A A", "loss>abs 3", "A>1" } do
        local ok, problem = pcall(condition.parse, source)
        lu.assertFalse(ok, "accepted " .. source)
        lu.assertEquals(fault.exit_code(problem), 2, source)
    end
end

local TestCompare = {}
_G.TestCompare = TestCompare

local words = "synth:converged,rows=400,steps=4 bins=5,10 --plot none -q "

function TestCompare:setUp()
    self.place = scripts.place()
end

function TestCompare:tearDown()
    self.place:remove()
end

function TestCompare:runs(...)
    for k, more in ipairs { ... } do
        self.place:fine("sweep_bins", ("%s -o %s %s"):format(words, ("abcd"):sub(k, k), more))
    end
end

function TestCompare:test_only_what_differs_is_told_unless_all_is_wanted()
    self:runs("", "momentum=0.75")
    local out = self.place:fine("compare", "a/latest b/latest")
    lu.assertStrMatches(out:match "\nmomentum[^\n]*", "\nmomentum  0  0.75")
    local a, b = csv.read(self.place.folder.path .. "/a/latest/results.csv"),
        csv.read(self.place.folder.path .. "/b/latest/results.csv")
    local one, two = (a[1].loss + a[2].loss) / 2, (b[1].loss + b[2].loss) / 2
    local expected = ("\nloss %.6g %.6g %+.3g %% "):format(one, two, 100 * (two - one) / one)
    local told = out:match "\nloss [^\n]*":gsub(" +", " "):gsub("%d%.%d+ ", function(number)
        return ("%.6g "):format(tonumber(number)) -- a column shows as many decimals of each
    end)
    lu.assertStrContains(told, expected)
    lu.assertNil(out:find "\nknuth") -- the counts are the same
    lu.assertNil(out:find "\nbins ")
    local all = self.place:fine("compare", "--all a/latest b/latest")
    lu.assertStrMatches(all:match "\nknuth[^\n]*", "\nknuth .* =.*")
    lu.assertStrContains(all, "\nbins ")
end

-- Other bins are other cells, over which sums round otherwise.
function TestCompare:test_of_three_runs_what_rounding_makes_is_no_difference()
    self:runs("", "--loss ghmc", "momentum=0.75")
    self.place:fine("sweep_bins", (words:gsub("bins=5,10", "bins=5,10,20")) .. "-o b")
    local line = self.place:fine("compare", "a/latest b/latest c/latest"):match "\nloss_sd[^\n]*"
    lu.assertStrMatches(line, "\nloss_sd +%S+ +%S+ +%S+ += +%+%S+ %% .*")
end

function TestCompare:test_intervals_are_held_against_each_other_and_are_no_results()
    self:runs("", "loss_weight=1.01", "loss_weight=100")
    local out = self.place:fine("compare", "--all a/latest b/latest c/latest")
    lu.assertNil(out:find "_low" or out:find "_high")
    lu.assertStrMatches(out:match "\nloss +%d[^\n]*", ".* 2 of 4") -- of b none, of c both
    lu.assertStrMatches(out:match "\nknuth [^\n]*", ".* 0 of 4")
    lu.assertNil(out:match "\nloss_sd [^\n]*":find " of ") -- it has no interval
    self.place:fine("compare", "a/latest b/latest -q --fail-if 'loss_low>1.1*A'")
end

function TestCompare:test_equal_runs_say_so()
    self:runs("", "--threads 1")
    local same = ".*the results are the same in the 2 configurations that all runs have"
    lu.assertStrMatches(self.place:fine("compare", "a/latest b/latest --fail-if 'loss>A'"), same)
    for _, seed in ipairs { "1", "2" } do -- of the resamplings
        self.place:fine("sweep_bins", "bins=5,10 --plot none -q --seed " .. seed .. " -o " .. seed)
    end
    lu.assertStrMatches(self.place:fine("compare", "1/latest 2/latest"),
        same .. ", but for their 90 %% intervals")
end

function TestCompare:test_rows_that_not_all_runs_have_are_counted()
    self:runs("", "loss_weight=2", "", "")
    self.place:fine("sweep_bins", "bins=10 --plot none -q -o few")
    for _, order in ipairs { "a b c d few", "a few b c d", "a b few c d" } do
        local out = self.place:fine("compare", (order:gsub("%w+", "%0/latest")))
        lu.assertStrContains(out, "; 4 rows are not in all runs")
        lu.assertStrContains(out, "\nloss ")
    end
end

-- Columns of two results.csv: what differs in the last digits is no difference, but is told.
function TestCompare:test_what_differs_by_rounding_is_told_apart()
    self:runs("", "")
    local path = self.place.folder.path .. "/b/latest/results.csv"
    local rows, names = csv.read(path)
    local function compared(factors)
        local changed = {}
        for k, row in ipairs(rows) do
            changed[k] = {}
            for name, value in pairs(row) do
                changed[k][name] = factors[name] and k == 2 and value * factors[name] or value
            end
        end
        csv.write(path, changed, names)
        return self.place:fine("compare", "a/latest b/latest")
    end
    lu.assertStrContains(compared { loss = 1 + 1e-9, knuth = 1 - 1e-15 }, "the results are the "
        .. "same in the 2 configurations that all runs have, but for rounding, less than 1e-6 % "
        .. "(loss, knuth)")
    local out = compared { loss = 1 + 2e-8, knuth = 1 - 1e-15 }
    lu.assertStrContains(out, "\nloss ")
    lu.assertStrContains(out, "; the same but for rounding, less than 1e-6 % (knuth)")
    lu.assertStrMatches(self.place:fine("compare", "a/latest b/latest --all")
        :match "\nknuth[^\n]*", "\nknuth .*e%-1%d %%.*")
end

-- Rows that nothing common tells apart would be held against any of the others.
function TestCompare:test_runs_of_different_experiments_are_refused()
    self:runs("")
    self.place:fine("density", "synth:converged,rows=40,steps=2 bins=5 --plot none -q -o d")
    self.place:refused(5, { "the rows of a/", "are told apart by bins, momentum, which not all" },
        "compare", "a/latest d/latest")
    self.place:refused(5, { "the rows of d/", "are told apart by name" }, "compare",
        "d/latest a/latest")
end

function TestCompare:test_fail_if_ends_with_6_and_names_the_place()
    self:runs("", "loss_weight=2", "")
    local judged = "a/latest c/latest b/latest -q --fail-if 'loss>1.01*A'"
    local got = self.place:run("compare", judged)
    lu.assertEquals(got.code, 6)
    lu.assertStrMatches(got.err, "error: loss>1.01%*A holds for C at bins=5 and 1 more: b/[^\n]*\n")
    self.place:fine("compare", "a/latest b/latest -q --fail-if 'loss>2.01*A'")
    self.place:refused(2, { "unknown column 'los': did you mean 'loss'?" }, "compare",
        "a/latest b/latest --fail-if 'los>A'")
    self.place:refused(2, { "there is no run C" }, "compare",
        "a/latest b/latest --fail-if 'loss>C'")
end

function TestCompare:test_rows_are_for_other_tools()
    self:runs("", "loss_weight=2")
    local out = self.place:fine("compare", "a/latest b/latest --csv -")
    lu.assertStrMatches(out, "column,configuration,A,A_low,A_high,B,B_low,B_high,change_B\n"
        .. "loss,bins=5,[^,]+,[^,]+,[^,]+,[^,]+,[^,]+,[^,]+,1\n.*")
    local object = assert(json.decode(self.place:fine("compare", "a/latest b/latest --json")))
    local first = object.results[1]
    lu.assertEquals({ first.change_B, first.B_low, first.B_high },
        { 1, 2 * first.A_low, 2 * first.A_high })
    for _, row in ipairs(object.results) do
        lu.assertNil(row.column:find "_low$" or row.column:find "_high$")
    end
end

function TestCompare:test_what_cannot_be_compared_is_refused()
    self:runs ""
    self.place:refused(2, { "two or more runs" }, "compare", "a/latest")
    self.place:refused(5, { "is no run folder" }, "compare", "a/latest a")
    self.place:fine("sweep_bins", words:gsub("bins=5,10", "bins=7,8") .. "-o c")
    self.place:refused(5, { "no configuration of a/" }, "compare", "a/latest c/latest")
    self.place:fine("sweep_bins", words .. "--shard 1/2 -o d")
    self.place:refused(5, { "has no results to compare" }, "compare", "a/latest d/latest")
end

local TestSketchedDump = {}
_G.TestSketchedDump = TestSketchedDump
TestSketchedDump.setUp, TestSketchedDump.tearDown = TestCompare.setUp, TestCompare.tearDown

function TestSketchedDump:test_a_study_of_the_sketch_is_that_of_the_dump()
    for k = 1, 3 do
        self.place:dump(("s%d.npz"):format(k), scripts.logits(), scripts.targets(function(i)
            return k == 2 and i % 5 / 5 or i % (7 * k) == 0 and 1 or 0 -- the second is soft
        end))
    end
    local bins, all = " bins=5,10 ", " -q --csv - --plot none bins=5,10"
    local said = self.place:fine("sketch", "s1.npz s2.npz s3.npz -o run.sketch" .. bins)
    lu.assertStrContains(said, "answers bins 5, 10\nrun.sketch: 3 steps, ")
    local rows = self.place:fine("sweep_bins", "s1.npz s2.npz s3.npz" .. all)
    lu.assertEquals(self.place:fine("sweep_bins", "runs/latest" .. all), rows)
    lu.assertEquals(self.place:fine("sweep_bins", "run.sketch" .. all), rows)
    local values = self.place:fine("evaluate", "s1.npz s2.npz s3.npz bins=10 momentum=0.5")
    lu.assertEquals(self.place:fine("evaluate", "run.sketch bins=10 momentum=0.5"), values)
end

-- { what is asked of a sketch for bins 5 and 10, exit code, what the line says }
local unanswered = {
    { "bins=7", 2, "a.sketch: the sketch was not made for bins = 7, only for 5, 10" },
    { "bins=5 --loss ghmr", 3, "a sketch of classification, expected one of regression" },
    { "bins=5 --logits x", 2, "--pred chooses from a dump, and this is a sketch" },
    { "bins=5 labels=one_based", 2, "labels chooses from a dump" },
}

function TestSketchedDump:test_a_question_that_it_was_not_made_for_is_refused_by_name()
    self.place:fine("sketch", "synth:detector,rows=50 bins=5,10 -q -o a.sketch")
    for _, case in ipairs(unanswered) do
        self.place:refused(case[2], { case[3] }, "sweep_bins", "a.sketch " .. case[1])
    end
    self.place:fine("sketch", "synth:detector,rows=50 bins=5 -q -o b.sketch")
    self.place:refused(2, { "b.sketch was sketched for bins 5; a.sketch for bins 5, 10" },
        "sweep_bins", "a.sketch b.sketch bins=5")
end

function TestSketchedDump:test_ignored_nonfinite_samples_stay_told()
    self.place:dump("a.npz", scripts.member("logits", "float", "<f4", "(40, 10)", function(i)
        return i == 3 and 0 / 0 or scripts.logit(i)
    end), scripts.targets())
    self.place:fine("sketch", "a.npz bins=5 -q --nonfinite ignore -o a.sketch")
    self.place:refused(3, { "1 samples are not finite and were ignored" }, "sweep_bins",
        "a.sketch bins=5")
    lu.assertStrContains(self.place:fine("sweep_bins", "a.sketch bins=5 --nonfinite ignore "
        .. "--plot none"), "1 sample is not finite and is ignored")
end

function TestSketchedDump:test_a_damaged_or_foreign_file_is_refused_with_the_reason()
    self.place:fine("sketch", "synth:detector,rows=50,steps=2 bins=5 -q -o a.sketch")
    local whole = self.place:read "a.sketch"
    for content, reason in pairs { [whole:sub(1, -20)] = "its checksum is wrong",
        [whole:sub(1, 8) .. "\1" .. whole:sub(10)] = "its checksum is wrong",
        ["ghmskch\0" .. ("x"):rep(30)] = "its checksum is wrong" } do
        self.place.folder:write("b.sketch", content)
        self.place:refused(3, { "b.sketch: ", reason }, "sweep_bins", "b.sketch bins=5")
    end
    self.place.folder:write("b.sketch", "no sketch at all")
    self.place:refused(3, { "b.sketch: " }, "sweep_bins", "b.sketch bins=5")
end

-- What another program saved: no note, or one of its own.
function TestSketchedDump:test_a_sketch_without_our_note_is_a_step_too()
    local one = sketches.new { bins = 5 }
    one:add(require("samples").class_batch({ 1, -2, 0.5 }, { 0, 1, 0 }))
    local path = self.place.folder.path .. "/c.sketch"
    sketches.write(path, { { sketch = one }, { sketch = one, note = "epoch 3" } })
    local out = self.place:fine("evaluate", "c.sketch bins=5")
    lu.assertStrMatches(out:match "\n(c.sketch[^\n]*)", "c.sketch +3 .*")
    lu.assertStrMatches(out:match "\n(epoch 3[^\n]*)", "epoch 3 +3 .*")
    local head = '{"step": "a", "call": 1, "calls": 1, "names": {}, "notes": [], "facts": {}, '
    for note, odd in pairs { [head .. '"shape": 2}'] = "shape",
        [head .. '"shape": [2]}'] = "facts.", ['{"view": "v", "facts": 3}'] = "facts" } do
        sketches.write(path, { { sketch = one, note = note } })
        local ok, problem = pcall(saved.read, path)
        lu.assertEquals({ ok, problem.kind }, { false, "dump" })
        lu.assertStrContains(problem.message, "is not possible: " .. odd)
    end
end

function TestSketchedDump:test_calls_of_a_step_come_whole_and_in_order()
    local one = sketches.new { bins = 5 }
    one:add(require("samples").class_batch({ 1 }, { 0 }))
    local call = { sketch = one, facts = one:facts(), shape = { 1, 1 }, names = { pred = "p" },
        notes = {}, level = "P3", views = { softmax = { sketch = one, facts = one:facts() } } }
    local path = self.place.folder.path .. "/d.sketch"
    saved.write(path, { { name = "s", calls = { call, call } } })
    local back = saved.read(path)[1]
    lu.assertEquals({ back.name, #back.calls, back.calls[2].level }, { "s", 2, "P3" })
    lu.assertEquals(back.calls[1].views.softmax.sketch:digest(), one:digest())
    local list = sketches.read(path)
    table.remove(list, 3)
    sketches.write(path, { list[1], list[2] })
    local ok, problem = pcall(saved.read, path)
    lu.assertFalse(ok)
    lu.assertStrContains(problem.message, "step s has 1 of 2 calls")
    sketches.write(path, { list[3] or list[2] })
    lu.assertFalse((pcall(saved.read, path)))
end
