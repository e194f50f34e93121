-- Batches that are read from a dump block by block: the same answers, the same refusals, and memory
-- that does not grow with the step.

local ffi = require "ffi"
local lu = require "luaunit"
local blocks = require "ghm.dumps.blocks"
local bytes = require "dump_bytes"
local ghm = require "ghm"
local scripts = require "scripts"

local TestBlocks = {}
_G.TestBlocks = TestBlocks

local ROWS, COLS = 40, 10
local BYTES = blocks.BYTES

function TestBlocks:setUp()
    self.place = scripts.place()
end

function TestBlocks:tearDown()
    blocks.BYTES = BYTES
    self.place:remove()
end

local function value_list(value, n)
    local list = {}
    for i = 0, n - 1 do
        list[i + 1] = value(i)
    end
    return list
end

local function weight_of(i)
    return i % 7 ~= 3 and 0.5 or 0
end

local function label_of(i)
    return i % 11
end

-- The bytes of numbers in the other byte order.
local function swapped(ctype, values)
    local size = ffi.sizeof(ctype)
    return (bytes.pack(ctype, values):gsub(("."):rep(size), string.reverse))
end

-- The same in Fortran order.
local function by_columns(value)
    return function(i)
        return value(i % ROWS * COLS + math.floor(i / ROWS))
    end
end

-- Logits as every kind of member: descr, bytes, and the method of the zip (0 stored, 8 deflated).
local n = ROWS * COLS
local kinds = {
    { "<f4", bytes.pack("float", value_list(scripts.logit, n)) },
    { ">f4", swapped("float", value_list(scripts.logit, n)) },
    { "<f4", bytes.pack("float", value_list(by_columns(scripts.logit), n)), "True" },
    { ">f4", swapped("float", value_list(by_columns(scripts.logit), n)), "True" },
    { "<f8", bytes.pack("double", value_list(scripts.logit, n)) },
}

local function logits_member(kind, method)
    return { name = "logits.npy", method = method, data = bytes.npy { descr = kind[1],
        data = kind[2], fortran = kind[3], shape = "(40, 10)" } }
end

-- The first call of a step, read block by block, and a sketch of it.
local function read(path, nonfinite)
    local step = ghm.source.open({ dumps = { path }, keys = {} }, "classification").steps[1]
    local sketch = ghm.sketch.new { bins = { 10, 30 } }
    local ok, facts = pcall(sketch.add, sketch, step.load()[1], { nonfinite = nonfinite })
    step.close()
    return sketch, facts, ok
end

-- bytes of a block: one row, some rows with a short last block, all rows
local sizes = { 1, 3 * COLS * 9, BYTES }

function TestBlocks:test_the_sketch_is_that_of_the_whole_arrays()
    local whole = ghm.sketch.new { bins = { 10, 30 } }
    local expected = whole:add(ghm.batch.classification {
        logits = ghm.array.from(value_list(scripts.logit, n), "f4", { ROWS, COLS }),
        labels = value_list(label_of, ROWS), weight = value_list(weight_of, ROWS) })
    for k, kind in ipairs(kinds) do
        for _, method in ipairs { 0, 8 } do
            local labels = scripts.member("labels", "int64_t", "<i8", "(40,)", label_of)
            local weight = scripts.member("label_weights", "float", "<f4", "(40,)", weight_of)
            labels.method, weight.method = method, method
            local path = self.place:dump("x.npz", logits_member(kind, method), labels, weight)
            for _, size in ipairs(sizes) do
                blocks.BYTES = size
                local sketch, facts = read(path)
                local what = ("kind %d, method %d, blocks of %d bytes"):format(k, method, size)
                lu.assertEquals(sketch:digest(), whole:digest(), what)
                lu.assertEquals(facts, expected, what)
            end
        end
    end
end

-- What a value in the last row, and in an earlier one, is refused for; as when read at once.
local bad = {
    { { [35] = 0 / 0, [397] = 1 / 0 }, {}, "2 of 400 samples are not finite, the first at row 3, "
        .. "column 5" },
    { {}, { [20] = 2, [398] = 3 }, "2 targets are not in [0, 1], the first at row 2, column 0" },
    { { [20] = 0 / 0 }, { [30] = 0.5 }, "1 of 400 samples are not finite" },
}

function TestBlocks:test_refusals_count_all_blocks()
    for _, case in ipairs(bad) do
        local logits, targets, text = unpack(case)
        local path = self.place:dump("x.npz", scripts.member("logits", "float", "<f4", "(40, 10)",
            function(i) return logits[i] or scripts.logit(i) end),
            scripts.targets(function(i) return targets[i] or scripts.target(i) end))
        for _, size in ipairs(sizes) do
            blocks.BYTES = size
            local sketch, problem, ok = read(path)
            lu.assertFalse(ok)
            lu.assertStrContains(problem.message, text)
            lu.assertEquals(sketch:facts().samples, 0)
        end
    end
end

function TestBlocks:test_softmax_margins_are_those_of_the_whole_arrays()
    local logits = ghm.array.from(value_list(scripts.logit, n), "f4", { ROWS, COLS })
    local whole = ghm.batch.classification { logits = logits, labels = value_list(label_of, ROWS),
        weight = value_list(function(i) return label_of(i) < 10 and weight_of(i) or 0 end, ROWS) }
    local path = self.place:dump("x.npz", scripts.logits(), scripts.member("labels", "int32_t",
        "<i4", "(40,)", label_of), scripts.member("weight", "float", "<f4", "(40,)", function(i)
        return label_of(i) < 10 and weight_of(i) or 0
    end))
    for _, form in ipairs(ghm.softmax.forms) do
        for _, size in ipairs(sizes) do
            blocks.BYTES = size
            local step = ghm.source.open({ dumps = { path }, keys = {} }, "classification").steps[1]
            local digests = {}
            for k, batch in ipairs { whole, step.load()[1] } do
                local sketch = ghm.sketch.new { bins = 10 }
                sketch:add(ghm.softmax.margins(batch, form))
                digests[k] = sketch:digest()
            end
            lu.assertEquals(digests[2], digests[1], form)
        end
    end
end

function TestBlocks:test_elements_of_a_batch_that_is_not_in_memory_are_refused()
    local path = self.place:dump("x.npz", scripts.logits(), scripts.targets())
    local step = ghm.source.open({ dumps = { path }, keys = {} }, "classification").steps[1]
    local loss = ghm.GHMC {}
    loss:forward_batch(step.load()[1])
    local ok, problem = pcall(loss.backward, loss)
    lu.assertEquals({ ok, problem.kind }, { false, "usage" })
    lu.assertStrContains(problem.message, "block by block")
end

function TestBlocks:test_labels_beyond_the_classes_are_counted_over_blocks()
    local path = self.place:dump("x.npz", scripts.logits(), scripts.member("labels", "int32_t",
        "<i4", "(40,)", function(i) return i % 10 == 9 and 77 or 1 end))
    for _, size in ipairs(sizes) do
        blocks.BYTES = size
        local _, problem = read(path)
        lu.assertStrContains(problem.message, "4 labels are beyond the 10 classes, the first in "
            .. "row 9")
    end
end

function TestBlocks:test_a_soft_target_in_the_last_block_makes_the_call_soft()
    local path = self.place:dump("x.npz", scripts.logits(), scripts.targets(function(i)
        return i == 395 and 0.25 or scripts.target(i)
    end))
    for _, size in ipairs(sizes) do
        blocks.BYTES = size
        local sketch, facts = read(path)
        lu.assertEquals({ sketch:is_soft(), facts.soft, facts.valid }, { true, 1, 400 })
        lu.assertEquals(tonumber(sketch:facts().samples), 400)
    end
end

function TestBlocks:test_ignored_samples_are_counted_over_blocks()
    local path = self.place:dump("x.npz", scripts.member("logits", "float", "<f4", "(40, 10)",
        function(i) return i % 100 == 99 and 0 / 0 or scripts.logit(i) end), scripts.targets())
    blocks.BYTES = 1
    local _, facts = read(path, "ignore")
    lu.assertEquals({ facts.nonfinite, facts.first_nonfinite, facts.valid }, { 4, 99, 396 })
end

function TestBlocks:test_damage_behind_the_first_block_leaves_the_sketch_empty()
    local member = scripts.logits()
    member.crc = 1
    local path = self.place:dump("x.npz", member, scripts.targets())
    blocks.BYTES = 1
    local sketch, problem, ok = read(path)
    lu.assertFalse(ok)
    lu.assertStrContains(problem.message, "the data is damaged")
    lu.assertEquals(sketch:facts().samples, 0)
end

-- A .npy of fp16 logits of which only the header and the last element are on the disk.
local function sparse(path, rows)
    local header = bytes.npy { descr = "<f2", shape = ("(%d, 80)"):format(rows), data = "" }
    local file = assert(io.open(path, "wb"))
    file:write(header)
    file:seek("set", #header + rows * 160 - 2)
    lu.skipIf(not file:write "\0\0" or not file:flush(), "no room for a sparse file")
    file:close()
end

-- Prints how many samples a dump has and the most memory that reading it took, in kB.
local peak = [[
    local ghm, blocks = require "ghm", require "ghm.dumps.blocks"
    local entry = ghm.dump.open("big.npy").entries.big
    local facts = ghm.sketch.new { bins = 10 }:add(blocks.batch("classification",
        { pred = entry, target = entry }))
    print(facts.valid, io.open "/proc/self/status":read "*a":match "VmHWM:%s*(%d+)")
]]

function TestBlocks:test_memory_is_bounded_by_a_block_and_not_by_the_step()
    local rows = 1000000 -- 160 MB, ten blocks
    sparse(self.place.folder.path .. "/big.npy", rows)
    local script = self.place.folder:write("peak.lua", ("package.path = %q\n%s"):format(
        package.path, peak))
    local valid, kilobytes = self.place:fine(script, ""):match "^(%d+)%s+(%d+)"
    lu.assertEquals(tonumber(valid), rows * 80)
    lu.assertTrue(tonumber(kilobytes) < 100e3, "a peak of " .. kilobytes .. " kB")
end

-- Cuts the file short when the first block has been read.
local cut = [[
    local ffi, ghm, blocks = require "ffi", require "ghm", require "ghm.dumps.blocks"
    ffi.cdef "int truncate(const char *path, int64_t length);"
    local path = arg[1]
    blocks.BYTES = 2 ^ 20
    local source = ghm.source.open({ dumps = { path }, keys = {} }, "classification")
    local batch = source.steps[1].load()[1]
    local blocks_of = batch.blocks
    function batch.blocks(self)
        local next_block = blocks_of(self)
        return function()
            local block, row = next_block()
            if row and row > 0 then
                ffi.C.truncate(path, 4096)
            end
            return block, row
        end
    end
    local sketch = ghm.sketch.new { bins = 10 }
    local ok, problem = pcall(sketch.add, sketch, batch)
    print(ok, problem.kind, problem.message, sketch:facts().samples)
]]

function TestBlocks:test_a_dump_that_is_cut_short_while_it_is_read_is_refused()
    local script = self.place.folder:write("cut.lua", ("package.path = %q\n%s"):format(
        package.path, cut))
    local function large(name, value, method)
        local member = scripts.member(name, "float", "<f4", "(100000, 10)", value)
        member.method = method
        return member
    end
    for _, method in ipairs { 0, 8 } do
        self.place:dump("x.npz", large("logits", scripts.logit, method),
            large("target", scripts.target, method))
        local out = self.place:fine(script, { "x.npz" })
        lu.assertStrMatches(out,
            "false%s+dump%s+x.npz: array '%l+': the file was cut short, .*%s0")
    end
end

-- Cuts the file short before the CRC of a stored member is computed.
local unchecked = [[
    local ffi, dump = require "ffi", require "ghm.dumps.dump"
    local inflate = require "ghm.dumps.inflate"
    ffi.cdef "int truncate(const char *path, int64_t length);"
    local crc32 = inflate.crc32
    function inflate.crc32(...)
        ffi.C.truncate(arg[1], 4096)
        return crc32(...)
    end
    print(pcall(function()
        return dump.open(arg[1], { check_crc = true }):get "logits"
    end))
]]

-- Cuts the file short before an array of it is copied.
local copied = [[
    local ffi, ghm, array = require "ffi", require "ghm", require "ghm.array"
    ffi.cdef "int truncate(const char *path, int64_t length);"
    local file, make = ghm.dump.open(arg[1]), array.new
    function array.new(...)
        ffi.C.truncate(arg[1], 4096)
        return make(...)
    end
    print(pcall(file.get, file, "logits"))
]]

-- Runs a script that reads x.npz while its file is cut short; order: of the array's bytes.
function TestBlocks:refuses_what_is_cut_short(script, order)
    local path = self.place.folder:write("cut.lua", ("package.path = %q\n%s"):format(
        package.path, script))
    local member = scripts.member("logits", "float", order, "(100000, 10)", scripts.logit)
    member.method = 0
    self.place:dump("x.npz", member)
    lu.assertStrMatches(self.place:fine(path, { "x.npz" }),
        "false%s+x.npz: array 'logits': the file was cut short, .*")
end

function TestBlocks:test_a_dump_that_is_cut_short_while_an_array_is_copied_is_refused()
    self:refuses_what_is_cut_short(copied, ">f4")
end

function TestBlocks:test_nothing_is_guarded_any_more_when_an_array_is_handed_out()
    local members = {}
    for k, case in ipairs { { "mapped", "<f4", 0 }, { "swapped", ">f4", 0 },
        { "packed", "<f4", 8 } } do
        members[k] = scripts.member(case[1], "float", case[2], "(10, 10)", scripts.logit)
        members[k].method = case[3]
    end
    local path = self.place:dump("x.npz", unpack(members))
    for _, name in ipairs { "mapped", "swapped", "packed" } do
        local file = ghm.dump.open(path, { check_crc = true })
        file:get(name)
        lu.assertNil(file.source.guarded, "zeros of a file that is cut short would go unseen")
        file:close()
    end
end

function TestBlocks:test_a_dump_that_is_cut_short_while_its_CRC_is_checked_is_refused()
    self:refuses_what_is_cut_short(unchecked, "<f4")
end

return TestBlocks
