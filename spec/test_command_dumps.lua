-- What dumps do to a command: the golden numbers through evaluate.lua, and hostile files.

local lu = require "luaunit"
local bytes = require "dump_bytes"
local close = require "close"
local csv = require "ghm.show.csv"
local float32 = require("oracle").float32
local json = require "ghm.json"
local posix = require "ghm.posix"
local scripts = require "scripts"

local quick = "--plot none"

local TestEvaluate = {}
_G.TestEvaluate = TestEvaluate

function TestEvaluate:setUp()
    self.place = scripts.place()
end

function TestEvaluate:tearDown()
    self.place:remove()
end

local bases = { labels_from_zero = "zero_based", labels_from_one = "one_based" }

-- The words of one golden case, its steps named together or by repeated options.
local function golden_words(folder, case, repeated)
    local words = { folder .. case.name .. ".npz", "--json", "--loss",
        case.loss == "ghm_r" and "ghmr" or "ghmc", "bins=" .. case.bins }
    for _, key in ipairs { "momentum", "loss_weight", "mu" } do
        words[#words + 1] = case[key] and ("%s=%.17g"):format(key, case[key])
    end
    words[#words + 1] = bases[case.target] and "labels=" .. bases[case.target]
    local labels = bases[case.target] and "labels" or "target"
    for option, array in pairs { pred = "pred", [labels] = labels, weight = "label_weight" } do
        local names = {}
        for k in ipairs(case.steps) do
            names[k] = ("step%d.%s"):format(k - 1, array)
            if repeated then
                words[#words + 1], words[#words + 2] = "--" .. option, names[k]
            end
        end
        if not repeated then
            words[#words + 1], words[#words + 2] = "--" .. option, table.concat(names, ",")
        end
    end
    return words
end

function TestEvaluate:test_golden_numbers_come_out_of_the_command()
    local folder = scripts.root .. "/spec/golden/"
    local checked = 0
    for c, case in ipairs(json.decode(assert(posix.read_file(folder .. "manifest.json")))) do
        local words = not case.eps and golden_words(folder, case, c % 2 == 0)
        local got = words and self.place:run("evaluate", words) or { code = 0, out = "" }
        lu.assertEquals(got.code, 0, got.err) -- it may ask about the labels
        local at = 0
        for line in got.out:gmatch "[^\n]+" do
            at = at + 1
            local row, expected = json.decode(line), case.steps[at]
            close(row.loss, expected.loss, { rel = 1e-8 }, "%s, loss of step %d", case.name, at)
            lu.assertEquals({ row.n, row.tot, row.counts },
                { expected.n, expected.tot, expected.counts }, case.name)
            for j, S in ipairs(expected.acc_sum) do
                close(row.acc_sum[j], S, { rel = 1e-12 }, "%s, S[%d]", case.name, j)
            end
        end
        lu.assertEquals(at, words and #case.steps or 0, case.name)
        checked = checked + at
    end
    lu.assertEquals(checked, 78)
end

function TestEvaluate:test_files_share_the_momentum()
    self.place:dump("s1.npz", scripts.logits(), scripts.targets())
    self.place:dump("s2.npz", scripts.logits(), scripts.targets())
    local out = self.place:fine("evaluate", "s1.npz s2.npz momentum=0.75 bins=2 --json")
    local first, second = out:match "^([^\n]*)\n([^\n]*)$"
    first, second = json.decode(first), json.decode(second)
    lu.assertEquals(first.counts, second.counts)
    for j = 1, 2 do
        lu.assertEquals(first.acc_sum[j], first.counts[j] * 0.25)
        lu.assertEquals(second.acc_sum[j], first.counts[j] * (0.75 * 0.25 + 0.25))
    end
end

function TestEvaluate:test_the_table_ends_with_the_mean_of_several_calls()
    self.place:dump("s1.npz", scripts.logits(), scripts.targets())
    self.place:dump("s2.npz", scripts.logits(), scripts.targets())
    local out = self.place:fine("evaluate", "s1.npz s2.npz momentum=0.5 start=zero")
    local loss = "s%d.npz +%d+ +%d+ +([%d.]+).-"
    local a, b, mean = out:match(loss .. loss .. "mean +([%d.]+)")
    lu.assertAlmostEquals(tonumber(mean), (tonumber(a) + tonumber(b)) / 2, 2e-5)
    lu.assertNotStrContains(self.place:fine("evaluate", "s1.npz"), "mean")
    lu.assertNotStrContains(self.place:fine("evaluate", "s1.npz s2.npz --json"), "mean")
end

function TestEvaluate:test_every_loss_has_a_table()
    for loss, name in pairs { ghmc = "GHMC", ghmr = "GHMR", bce = "BCE", focal = "Focal",
        asl1 = "ASL1", smooth_l1 = "SmoothL1" } do
        local out = self.place:fine("evaluate", "synth:detector,rows=30 --loss " .. loss)
        lu.assertStrContains(out, "synth:detector step 0")
        lu.assertStrContains(out, "\n" .. name .. " on ") -- whatever device there is
    end
end

function TestEvaluate:test_smooth_l1_has_one_beta_in_every_script()
    local boxes = "synth:detector,rows=300 "
    local loss = json.decode(self.place:fine("evaluate", boxes .. "--loss smooth_l1 --json")).loss
    local swept = json.decode(self.place:fine("sweep_mu", boxes .. "mu=1 bins=5 -q --json "
        .. "--plot none")).rows[1]
    local compared = json.decode(self.place:fine("compare_losses", boxes .. "--loss ghmr -q --json "
        .. "--plot none")).rows[1]
    lu.assertStrContains(compared.loss, "smooth L1")
    lu.assertAlmostEquals(swept.smooth_l1 / loss, 1, 1e-6)
    lu.assertAlmostEquals(compared.value / loss, 1, 1e-6)
end

function TestEvaluate:test_softmax_takes_rows_of_one_class_each()
    local labels = scripts.member("labels", "int64_t", "<i8", "(40,)", function(i)
        return i % 11 - 1 -- -1: ignored
    end)
    self.place:dump("rows.npz", scripts.logits(), labels)
    local words = "rows.npz --loss softmax_ghmc --json form="
    local own = json.decode(self.place:fine("evaluate", words .. "true_class"))
    lu.assertEquals({ own.samples, own.valid, own.positive }, { 40, 36, 36 })
    lu.assertEquals(json.decode(self.place:fine("evaluate", words .. "l1")).loss, own.loss)
    local each = json.decode(self.place:fine("evaluate", words .. "each_class"))
    lu.assertEquals({ each.samples, each.valid, each.positive }, { 400, 360, 36 })
    self.place:dump("more.npz", scripts.logits(), scripts.targets())
    self.place:refused(3, { "more.npz: ", "not of exactly one of 10 classes" }, "evaluate",
        "more.npz --loss softmax_ghmc")
end

local TestHostileDumps = {}
_G.TestHostileDumps = TestHostileDumps
TestHostileDumps.tearDown = TestEvaluate.tearDown

local function float_list(value)
    return scripts.member("target", "float", "<f4", "(40, 10)", value)
end

local function weights(value, shape)
    return scripts.member("label_weights", "float", "<f4", shape or "(40, 10)", value)
end

local function labels(value, shape, ctype, descr)
    return scripts.member("labels", ctype or "int64_t", descr or "<i8", shape or "(40,)", value)
end

local function nan_at(place)
    return function(i)
        return i == place and 0 / 0 or scripts.logit(i)
    end
end

-- name -> { what the line says, members of the .npz }
local refused = {
    object = { "object elements are refused", scripts.member("logits", "int64_t", "|O", "(2,)",
        scripts.target), scripts.targets() },
    no_use = { "no array looks like logits; it holds foo: name one with --logits",
        scripts.member("foo", "float", "<f4", "(3,)", scripts.logit) },
    no_target = { "no array looks like targets or labels; it holds logits", scripts.logits() },
    shapes = { "target is f4[40,5], expected the shape of the logits or predictions, f4[40,10]",
        scripts.logits(), scripts.member("target", "float", "<f4", "(40, 5)", scripts.target) },
    few_labels = { "labels are i8[39], expected one for each of 40 rows", scripts.logits(),
        labels(scripts.target, "(39,)") },
    beyond = { "1 labels are beyond the 10 classes, the first in row 7", scripts.logits(),
        labels(function(i) return i == 7 and 11 or 0 end) },
    float_labels = { "labels are f4[40], expected integers", scripts.logits(),
        labels(scripts.target, nil, "float", "<f4") },
    flat_labels = { "have no axis of classes", scripts.member("logits", "float", "<f4", "(40,)",
        scripts.logit), labels(scripts.target) },
    weights = { "label_weight is f4[3,10], expected one per sample", scripts.logits(),
        scripts.targets(), weights(scripts.target, "(3, 10)") },
    nan = { "1 of 400 samples are not finite, the first at row 3, column 4",
        scripts.member("logits", "float", "<f4", "(40, 10)", nan_at(34)), scripts.targets() },
    infinite = { "not finite, the first at row 0, column 1", scripts.logits(),
        float_list(function(i) return i == 1 and 1 / 0 or 0 end) },
    nan_weight = { "not finite, the first at row 0, column 0", scripts.logits(), scripts.targets(),
        weights(function() return 0 / 0 end) },
    target_2 = { "1 targets are not in [0, 1], the first at row 0, column 2", scripts.logits(),
        float_list(function(i) return i == 2 and 2 or 0 end) },
    ignored = { "no valid samples", scripts.logits(), scripts.targets(), weights(function()
        return 0
    end) },
    no_rows = { "no valid samples", scripts.member("logits", "float", "<f4", "(0, 10)",
        scripts.logit), scripts.member("target", "float", "<f4", "(0, 10)", scripts.target) },
    complex = { "dtype '<c8' is not read", scripts.member("logits", "float", "<c8", "(0, 10)",
        scripts.logit), scripts.targets() },
}

function TestHostileDumps:setUp()
    self.place = scripts.place()
    self.sound = bytes.zip { scripts.logits(), scripts.targets() }
end

function TestHostileDumps:test_a_dump_that_makes_no_sense_is_refused_in_a_line()
    for name, case in pairs(refused) do
        self.place:dump(name .. ".npz", unpack(case, 2))
        self.place:refused(3, { name .. ".npz: ", case[1] }, "sweep_bins", name .. ".npz " .. quick)
    end
end

function TestHostileDumps:test_a_damaged_file_is_refused_in_a_line()
    self.place.folder:write("empty.npz", "")
    self.place:refused(3, { "empty.npz: is empty" }, "evaluate", "empty.npz")
    self.place.folder:write("text.npz", "epoch 1: loss 0.3\n")
    self.place:refused(3, { "text.npz: byte 0: ", "no known format" }, "evaluate", "text.npz")
    for step = 1, 12 do
        local length = math.floor(#self.sound * step / 12) - 1
        self.place.folder:write("cut.npz", self.sound:sub(1, length))
        self.place:refused(3, { "cut.npz: " }, "evaluate", "cut.npz")
    end
end

function TestHostileDumps:test_every_form_of_the_same_data_gives_the_same_row()
    local function swapped(size, data)
        return (data:gsub(("."):rep(size), string.reverse))
    end
    local function fortran(i) -- element i of the file lies at row i % 40, column i / 40
        return scripts.logit(i % 40 * 10 + math.floor(i / 40))
    end
    local big = scripts.member("logits", "float", "<f4", "(40, 10)", scripts.logit)
    big.data = bytes.npy { descr = ">f4", shape = "(40, 10)",
        data = swapped(4, big.data:sub(-1600)) }
    local forms = {
        f4 = { scripts.logits(), scripts.targets() },
        f8 = { scripts.member("logits", "double", "<f8", "(40, 10)", function(i)
            return float32(scripts.logit(i))
        end), scripts.targets() },
        big = { big, scripts.targets() },
        fortran = { scripts.member("logits", "float", "<f4", "(40, 10)", fortran,
            { fortran = "True" }), scripts.targets() },
        u1 = { scripts.logits(), scripts.member("target", "uint8_t", "|u1", "(40, 10)",
            scripts.target) },
        bool = { scripts.logits(), scripts.member("target", "uint8_t", "|b1", "(40, 10)",
            scripts.target) },
        deep = { scripts.member("logits", "float", "<f4", "(4, 10, 10)", scripts.logit),
            scripts.member("target", "float", "<f4", "(4, 10, 10)", scripts.target) },
        flat = { scripts.member("logits", "float", "<f4", "(400,)", scripts.logit),
            scripts.member("target", "float", "<f4", "(400,)", scripts.target) },
        row_weights = { scripts.logits(), scripts.targets(), weights(function() return 1 end,
            "(40,)") },
    }
    local expected
    for name, members in pairs(forms) do
        self.place:dump(name .. ".npz", unpack(members))
        local row = json.decode(self.place:fine("evaluate", name .. ".npz --json"))
        expected = expected or row
        lu.assertEquals({ row.loss, row.counts, row.valid },
            { expected.loss, expected.counts, 400 }, name)
    end
end

function TestHostileDumps:test_ignored_nonfinite_samples_are_counted_aloud()
    self.place:dump("nan.npz", scripts.member("logits", "float", "<f4", "(40, 10)", nan_at(34)),
        scripts.targets())
    local said = "1 sample is not finite and is ignored (--nonfinite ignore)"
    local words = "nan.npz --nonfinite ignore "
    lu.assertStrContains(self.place:fine("evaluate", words), said)
    lu.assertStrContains(self.place:fine("sweep_bins", words .. quick), said)
end

function TestHostileDumps:test_a_nonfinite_sample_is_refused_with_what_can_be_done_about_it()
    local advice = "; --nonfinite ignore leaves them out, luajit inspect.lua tells of each array"
    for k = 1, 3 do
        self.place:dump(("steps_%d.npz"):format(k), scripts.member("logits", "float", "<f4",
            "(40, 10)", k > 1 and nan_at(30 + k) or scripts.logit), scripts.targets())
    end
    for _, script in ipairs { "sweep_bins", "evaluate" } do
        self.place:refused(3, { "1 of 400 samples are not finite", advice }, script,
            "steps_2.npz")
    end
    local got = self.place:run("sweep_bins", "*.npz " .. quick)
    local _, times = got.err:gsub("--nonfinite ignore", "")
    lu.assertEquals({ got.code, times }, { 1, 1 }, got.err)
    lu.assertStrContains(got.err, "steps_3.npz: 1 of 400")
    lu.assertStrContains(got.out, "warning: left out: 2 steps, refused as told above; the answer")
end

-- Values of 400 logits; their targets; whether they look like probabilities.
local looks = {
    { function(i) return (i * 37) % 101 / 100 end, nil, true },
    { function(i) return (i * 37) % 101 / 100 end, function(i) return i % 50 == 0 and 0.7 or 0 end,
        true },
    { function(i) return i % 50 == 7 and -0.5 or (i * 37) % 101 / 100 end, nil, false },
    { function(i) return i % 50 == 7 and 1.5 or (i * 37) % 101 / 100 end, nil, false },
    { function(i) return scripts.target(i) == 1 and -0.5 or 0.3 end, nil, false },
    { function(i) return (i * 37) % 101 / 50 - 1 end, function(i) return i % 50 == 0 and 0.7 or 0
    end, false },
    { scripts.logit, function(i) return i % 50 == 0 and 0.7 or 0 end, false },
}

function TestHostileDumps:test_probabilities_where_logits_were_expected_are_told_of()
    for k, case in ipairs(looks) do
        self.place:dump("a.npz", scripts.member("logits", "float", "<f4", "(40, 10)", case[1]),
            scripts.targets(case[2]))
        for _, script in ipairs { "sweep_bins", "compare_losses" } do
            local found = json.decode(self.place:fine(script, "a.npz -q --json " .. quick))
            local first = found.warnings[1] or {}
            lu.assertEquals(first.name == "probabilities", case[3], script .. k)
        end
        for _, words in ipairs { "a.npz", "a.npz --json" } do
            local got = self.place:run("evaluate", words)
            lu.assertEquals((got.out .. got.err):find("warning: probabilities: 'logits'", 1, true)
                ~= nil, case[3], words .. k)
        end
    end
end

function TestHostileDumps:test_a_background_taken_for_a_class_is_asked_about()
    local function labelled(value)
        self.place:dump("a.npz", scripts.logits(), scripts.member("labels", "int64_t", "<i8",
            "(40,)", value))
    end
    local asked = "labels: 90.0 % of the rows have a class. If 0 is the background in 'labels'"
    labelled(function(i) return i % 10 == 7 and 10 or 0 end) -- one_based: 4 rows of class 9
    lu.assertStrContains(self.place:fine("sweep_bins", "a.npz " .. quick), asked)
    lu.assertStrContains(self.place:fine("evaluate", "a.npz"), asked)
    lu.assertNotStrContains(self.place:fine("sweep_bins", "a.npz labels=one_based " .. quick),
        "labels: 90")
    for _, value in ipairs { function(i) return i % 10 end, -- no row is background
        function(i) return i % 10 == 7 and 0 or 10 end } do -- most are
        labelled(value)
        lu.assertNotStrContains(self.place:fine("sweep_bins", "a.npz " .. quick),
            "rows have a class")
    end
end

function TestHostileDumps:test_what_is_wrong_with_every_step_is_told_once()
    for k = 1, 4 do
        self.place.folder:write(("steps_%d.npz"):format(k), self.sound)
    end
    local got = self.place:run("sweep_bins", "*.npz --logits nosuch " .. quick)
    lu.assertEquals(got.code, 3)
    lu.assertStrMatches(got.err, "error: steps_1.npz: no array 'nosuch'[^\n]*\n"
        .. "error: [^\n]*: none of the 4 steps can be used\n")
    self.place:dump("steps_2.npz", scripts.member("nosuch", "float", "<f4", "(40, 10)",
        scripts.logit), scripts.targets())
    got = self.place:run("sweep_bins", "*.npz --logits nosuch " .. quick)
    lu.assertEquals(got.code, 1)
    lu.assertStrMatches(got.err, "error: steps_1.npz: no array 'nosuch'[^\n]*\n"
        .. "error: as with steps_1.npz, so with steps_3.npz, steps_4.npz\n.*")
end

-- "pred" and "target" are usual names of logits and of boxes.
function TestHostileDumps:test_logits_are_not_taken_for_boxes_too()
    self.place:dump("a.npz", scripts.member("pred", "float", "<f4", "(40, 10)", scripts.logit),
        scripts.targets())
    local out = self.place:fine("compare_losses", "a.npz " .. quick)
    lu.assertStrContains(out, "GHM-C, M = 10")
    lu.assertNotStrContains(out, "GHM-R")
    out = self.place:fine("sweep_bins", "a.npz --loss ghmr bins=5 " .. quick)
    lu.assertStrContains(out, "400 samples, 400 valid  on ") -- boxes are not positive
end

function TestHostileDumps:test_soft_targets_leave_out_what_needs_a_key()
    self.place:dump("a.npz", scripts.logits(), float_list(function(i) return i % 5 / 5 end))
    local out = self.place:fine("sweep_bins", "a.npz bins=5,10 --plot svg,term")
    lu.assertStrContains(out, "soft targets in 1 of 1 call: ")
    lu.assertNotStrContains(out, "positive")
    lu.assertStrContains(out, "of the regions are empty")
    local rows = csv.read(self.place.folder.path .. "/runs/latest/results.csv")
    lu.assertEquals({ rows[1].n, rows[1].cosine, rows[1].scarce_share, rows[1].loss_sd },
        { 5, "", "", "" })
    lu.assertStrContains(self.place:read "runs/latest/plots/density.svg", "</svg>")
    lu.assertNil(self.place:listing("runs/latest/plots/"):find "reformulated")
    self.place.folder:write("b.npz", self.sound) -- and a stream may have both kinds
    out = self.place:fine("sweep_bins", "a.npz b.npz bins=5,10 --plot svg")
    lu.assertStrContains(out, "soft targets in 1 of 2 calls")
end

function TestHostileDumps:test_what_is_sound_of_a_folder_is_used()
    assert(posix.make_folder(self.place.folder.path .. "/steps"))
    for k = 1, 6 do
        local sound = k ~= 2 and k ~= 5
        self.place.folder:write(("steps/s_%d.npz"):format(k), sound and self.sound or "damaged")
    end
    local got = self.place:run("sweep_bins", "steps bins=5 --json " .. quick)
    lu.assertEquals(got.code, 1)
    lu.assertStrMatches(got.err, "error: steps/s_2.npz: [^\n]*\n"
        .. "error: as with s_2.npz, so with s_5.npz\n"
        .. "run folder: [^\n]*\n")
    local object = json.decode(got.out)
    lu.assertEquals({ object.rows[1].calls, #object.failed, object.failed[2].step },
        { 4, 2, "s_5.npz" })
    lu.assertEquals(self.place:run("evaluate", "steps").code, 1)
    got = self.place:run("sweep_bins", "steps/s_2.npz steps/s_5.npz " .. quick)
    lu.assertEquals({ got.code, got.out }, { 3, "" })
    lu.assertStrContains(got.err, "error: steps/s_2.npz, steps/s_5.npz: none of the 2 steps can be")
    lu.assertEquals(got.err:find "traceback", nil)
end
