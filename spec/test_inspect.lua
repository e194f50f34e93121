local lu = require "luaunit"
local bytes = require "dump_bytes"
local json = require "ghm.json"
local posix = require "ghm.posix"
local samples = require "samples"
local saved = require "ghm.dumps.saved"
local torch = require "torch_bytes"

local TestInspect = {}
_G.TestInspect = TestInspect

local spec = debug.getinfo(1, "S").source:match "^@(.*)/" or "."
local script = assert(posix.real_path(spec .. "/../experiments/inspect.lua"))

function TestInspect:setUp()
    self.folder = bytes.folder()
    self.folder:write("b.npz", bytes.zip { { name = "logits.npy", method = 8, data = bytes.npy {
        shape = "(2, 3)", data = bytes.pack("float", { 1, 0, -2, 4, 0 / 0, 1 / 0 }) } },
        { name = "pred.npy", data = bytes.npy { descr = ">f8", shape = "(1,)",
            data = "\63\240\0\0\0\0\0\0" } } })
end

function TestInspect:tearDown()
    self.folder:remove()
end

-- Runs the script in the folder -> stdout and stderr together, exit status.
function TestInspect:run(words)
    return posix.capture(("cd %s && luajit %s %s 2>&1"):format(posix.quote(self.folder.path),
        posix.quote(script), words))
end

function TestInspect:test_shows_type_use_range_and_the_first_nonfinite_place()
    local output, status = self:run "b.npz"
    lu.assertEquals(status, 0)
    lu.assertStrMatches(output:match "\nlogits[^\n]*",
        "\nlogits +f4%[2,3%] +%- +2, first at %[1,1%] +%-2 +4 +1 +inflated")
    lu.assertStrMatches(output:match "\npred([^\n]*)", " +f8%[1%] +%- +0 +1 +1 +0 +converted")
    lu.assertStrContains(output, "in all: files 1, refused 0, arrays 2, elements 7, non-finite 2")
end

function TestInspect:test_json_has_the_same()
    local output, status = self:run "--json ."
    local decoded = assert(json.decode(output))
    lu.assertEquals({ status, decoded.totals.nonfinite }, { 0, 2 })
    local row = decoded.files[1].arrays[1]
    lu.assertEquals({ row.name, row.shape[2], row.first_nonfinite[1], row.min, row.mean },
        { "logits", 3, 1, -2, 0.75 })
end

-- A dump of one-byte arrays: { { name, shape as Python text, bytes }, ... }.
function TestInspect:dump(arrays)
    local members = {}
    for k, a in ipairs(arrays) do
        members[k] = { name = a[1] .. ".npy", data = bytes.npy { descr = "|u1", shape = a[2],
            data = ("\0"):rep(a[3]) } }
    end
    self.folder:write("b.npz", bytes.zip(members))
    local output, status = self:run "b.npz --json"
    lu.assertEquals(status, 0)
    local found, why = json.decode(output).files[1], {}
    for _, row in ipairs(found.arrays) do
        why[row.name] = #row.roles > 0 and table.concat(row.roles, " ") or row.unused
    end
    return why, found.losses, (self:run "b.npz")
end

function TestInspect:test_tells_what_each_array_is_used_as_or_why_it_is_not()
    local why, losses, shown = self:dump { { "cls_logits", "(2, 3)", 6 }, { "target", "(2, 3)", 6 },
        { "pred", "(2, 3)", 6 }, { "labels", "(2,)", 2 }, { "label_weights", "(2,)", 2 },
        { "step", "()", 1 } }
    lu.assertEquals(why, { cls_logits = "logits", target = "target box_target", pred = "box_pred",
        labels = "as labels, target goes first", label_weights = "weight box_weight",
        step = "no usual name" })
    local call = losses.classification.calls[1]
    lu.assertEquals({ call.rows, call.cols, call.weight_per_row }, { 2, 3, true })
    lu.assertEquals(call.names, { pred = "cls_logits", target = "target",
        weight = "label_weights" })
    lu.assertStrContains(call.notes[1], "is converted to f4")
    lu.assertStrContains(shown, "classification  2 rows of 3, logits from cls_logits, target,")
    lu.assertStrContains(shown, "labels (as labels, target goes first), step (no usual name)")
end

-- What is dumped behind the sigmoid is a common slip, and every script takes it.
function TestInspect:test_logits_that_look_like_probabilities_get_a_warning()
    local said = "array 'logits': all of it lies in [0, 1]"
    for values, warned in pairs { [{ 0, 0.5, 1 }] = true, [{ 0, 0.5, 1.01 }] = false,
        [{ -0.01, 0.5, 1 }] = false, [{ 1, 1, 1 }] = false } do
        self.folder:write("b.npz", bytes.zip { { name = "logits.npy", data = bytes.npy {
            shape = "(1, 3)", data = bytes.pack("float", values) } }, { name = "target.npy",
            data = bytes.npy { descr = "|u1", shape = "(1, 3)", data = "\0\0\1" } } })
        local output = self:run "b.npz"
        lu.assertEquals(output:find(said, 1, true) ~= nil, warned, output)
    end
end

-- The labels of 8 rows of 3 classes (x: masked), and the share that has a class, where it is told.
function TestInspect:test_a_background_taken_for_a_class_is_asked_about()
    for labels, share in pairs { ["00000012"] = false, ["00001233"] = "75.0", ["33330000"] = false,
        ["333x0000"] = "57.1", ["33333300"] = false } do
        local values, weights = {}, {}
        for i = 1, 8 do
            local letter = labels:sub(i, i)
            values[i], weights[i] = tonumber(letter) or 3, letter == "x" and 0 or 1
        end
        self.folder:write("b.npz", bytes.zip {
            { name = "logits.npy", data = bytes.npy { shape = "(8, 3)", data = ("\0"):rep(96) } },
            { name = "labels.npy", data = bytes.npy { descr = "<i8", shape = "(8,)",
                data = bytes.pack("int64_t", values) } },
            { name = "label_weights.npy", data = bytes.npy { shape = "(8,)",
                data = bytes.pack("float", weights) } } })
        local said = self:run "b.npz":match "labels: ([%d.]+) %% of the rows have a class"
        lu.assertEquals(said or false, share, labels)
    end
end

function TestInspect:test_labels_beside_weights_of_each_class_are_inspected()
    self.folder:write("b.npz", bytes.zip {
        { name = "logits.npy", data = bytes.npy { shape = "(4, 2)", data = ("\0"):rep(32) } },
        { name = "labels.npy", data = bytes.npy { descr = "|u1", shape = "(4,)",
            data = "\2\1\1\0" } },
        { name = "weight.npy", data = bytes.npy { descr = "|u1", shape = "(4, 2)",
            data = ("\1"):rep(8) } } })
    local output, status = self:run "b.npz"
    lu.assertEquals(status, 0)
    lu.assertStrContains(output, "labels: 75.0 % of the rows have a class")
end

function TestInspect:test_help_promises_no_synthetic_dumps()
    lu.assertNotStrContains(self:run "-h", "synth:")
    lu.assertEquals({ self:run "synth:fresh" },
        { "error: unexpected 'synth:fresh': inspect reads files", 2 })
end

function TestInspect:test_tells_the_levels_of_a_pyramid_and_what_they_share()
    local why, losses = self:dump { { "P3_logits", "(4, 3)", 12 }, { "P3_labels", "(4,)", 4 },
        { "P10_logits", "(1, 3)", 3 }, { "P10_labels", "(1,)", 1 } }
    lu.assertEquals(why, { P3_logits = "logits", P3_labels = "labels", P10_logits = "logits",
        P10_labels = "labels" })
    local calls = losses.classification.calls
    lu.assertEquals({ #calls, calls[1].level, calls[2].level, calls[2].rows },
        { 2, "P3", "P10", 1 })
end

function TestInspect:test_tells_why_there_is_no_call()
    local why, losses, shown = self:dump { { "logits", "(2, 3)", 6 }, { "target", "(3, 2)", 6 } }
    lu.assertEquals(why, { logits = "see classification", target = "see classification" })
    lu.assertEquals(losses.classification.problem,
        "target is u1[3,2], expected the shape of the logits or predictions, u1[2,3]")
    lu.assertStrContains(losses.regression.problem, "no array looks like predictions")
    lu.assertStrContains(shown, "classification  no call: target is u1[3,2]")
end

function TestInspect:test_inspects_every_format()
    self.folder:write("a.npy", bytes.npy {})
    self.folder:write("c.safetensors", bytes.safetensors {})
    self.folder:write("d.pt", torch.archive {})
    local formats = {}
    for k, file in ipairs(json.decode((self:run "--json .")).files) do
        formats[k] = ("%s %s"):format(file.format, file.arrays[1].max)
    end
    lu.assertEquals(formats, { "npy 3", "npz 4", "safetensors 3", "pt 3" })
end

function TestInspect:test_looks_at_long_arrays_in_pieces()
    local n = 2 ^ 20 * 2 + 3 -- of two pieces and a bit
    local zeros = ("\0"):rep(4)
    local data = zeros:rep(n - 2) .. bytes.pack("float", { 1 / 0, 5 })
    for _, method in ipairs { 0, 8 } do
        self.folder:write("b.npz", bytes.zip { { name = "x.npy", method = method, data = bytes.npy {
            shape = ("(%d, 1)"):format(n), data = data } } })
        local row = json.decode((self:run "b.npz --json")).files[1].arrays[1]
        lu.assertEquals({ row.n, row.max, row.zeros, row.nonfinite, row.first_nonfinite[1] },
            { n, 5, n - 2, 1, n - 2 })
        lu.assertAlmostEquals(row.mean, 5 / (n - 1), 1e-18)
    end
end

function TestInspect:test_names_the_arrays_that_are_not_read()
    self.folder:write("b.npz", bytes.zip { { name = "x.npy", data = bytes.npy {} },
        { name = "names.npy", data = bytes.npy { descr = "|S3" } } })
    local output, status = self:run "b.npz"
    lu.assertEquals(status, 0)
    lu.assertStrContains(output, "warning         array 'names': dtype '|S3' is not read")
end

function TestInspect:test_a_sketch_file_tells_its_calls_and_what_it_answers()
    local one = samples.sketch_of({ bins = { 5, 10 } }, samples.class_batch({ 1, -2 }, { 0, 1 }))
    saved.write(self.folder.path .. "/x.sketch", { { name = "step_7", calls = { { sketch = one,
        facts = one:facts(), shape = { 2, 1 }, names = { pred = "logits" }, notes = {} } } } })
    local output, status = self:run "x.sketch"
    lu.assertEquals(status, 0)
    lu.assertStrContains(output, "sketches of classification, which answer bins 5, 10\n")
    lu.assertStrMatches(output:match "step_7[^\n]*", "step_7 +logits%[2,1%] +2 +2 +1 +0")
    self.folder:write("x.sketch", "ghmskch\0 and what follows")
    output, status = self:run "x.sketch"
    lu.assertEquals(status, 3)
    lu.assertStrContains(output, "x.sketch: not a sketch: its checksum is wrong")
end

function TestInspect:test_a_refused_file_is_reported_and_the_rest_goes_on()
    self.folder:write("a.npz", "nothing")
    local output, status = self:run "."
    lu.assertEquals(status, 1)
    lu.assertStrContains(output, "error: ./a.npz: byte 0")
    lu.assertStrContains(output, "files 2, refused 1, arrays 2")
end

function TestInspect:test_many_refused_files_do_not_use_up_the_descriptors()
    for k = 1, 100 do
        self.folder:write(("bad_%d.npz"):format(k), "PK\3\4 and nothing else")
    end
    local output, status = posix.capture(("cd %s && ulimit -n 30 && luajit %s . 2>&1"):format(
        posix.quote(self.folder.path), posix.quote(script)))
    lu.assertEquals(status, 1)
    lu.assertStrContains(output, "files 101, refused 100, arrays 2")
    lu.assertNil(output:find "open files")
end

function TestInspect:test_exit_3_when_nothing_is_sound()
    self.folder:write("a.npz", "nothing")
    local _, status = self:run "a.npz"
    lu.assertEquals(status, 3)
    local output
    output, status = self:run "none.npz"
    lu.assertEquals(status, 3)
    lu.assertStrContains(output, "error: none.npz")
end

function TestInspect:test_stored_elements_with_a_wrong_crc_are_refused()
    self.folder:write("a.npz", bytes.zip { { name = "x.npy", data = bytes.npy {}, crc = 7 } })
    self.folder:write("a.pt", torch.archive { storages = { { "0", ("\0"):rep(12), { crc = 7 } } } })
    for _, name in ipairs { "a.npz", "a.pt" } do
        local output, status = self:run(name)
        lu.assertEquals(status, 3)
        lu.assertStrContains(output, "CRC-32")
    end
end
