-- Sketch files: what is saved is what is loaded, what is damaged is refused, and a save is whole or
-- not at all. Then the lifetimes of what C owns.

local lu = require "luaunit"
local bytes = require "dump_bytes"
local clib = require "ghm.clib"
local ffi = require "ffi"
local ghm = require "ghm"
local posix = require "ghm.posix"
local samples = require "samples"
local sketch = require "ghm.sketches"

local TestSketchFile = {}
_G.TestSketchFile = TestSketchFile

function TestSketchFile:setUp()
    self.folder = bytes.folder()
    self.path = self.folder.path .. "/a.sketch"
end

function TestSketchFile:tearDown()
    self.folder:remove()
end

local function read(path)
    return assert(posix.read_file(path))
end

-- name -> sketch, of every kind
local function kinds()
    local pred, target, w = samples.boxes(3000)
    return {
        empty = sketch.new { bins = 10 },
        plain = samples.sketch_of({ bins = { 10, 30, 100 } },
            samples.class_batch(samples.detector(3000))),
        boxes = samples.sketch_of({ task = "regression", bins = { 10, 30 }, mu = { 0.02, 0.5 },
            knots = 1 }, samples.box_batch(pred, target, w)),
        soft = samples.sketch_of({ bins = { 10, 7 } },
            samples.class_batch(samples.normals(500, 0, 2), samples.shares(500))),
        without_edges = samples.sketch_of({ bins = 1 }, samples.class_batch({ 1, -2 }, { 0, 1 })),
        crowded = samples.sketch_of({ bins = { 1000, 999, 998, 997, 991 } },
            samples.class_batch(samples.detector(3000))),
    }
end

function TestSketchFile:test_what_is_loaded_equals_what_was_saved()
    for name, s in pairs(kinds()) do
        s:save(self.path)
        local back = sketch.load(self.path)
        lu.assertEquals(back:digest(), s:digest(), name)
        lu.assertEquals(back:facts(), s:facts(), name)
        lu.assertEquals(back.task, s.task, name)
        lu.assertEquals(back:is_soft(), s:is_soft(), name)
        lu.assertEquals(samples.list(back:counts(), s:intervals()),
            samples.list(s:counts(), s:intervals()), name)
        back:merge(s)
        lu.assertEquals(back:facts().samples, 2 * s:facts().samples, name)
    end
end

function TestSketchFile:test_a_loaded_sketch_takes_more_batches()
    local x, t, w = samples.detector(1000)
    local one = samples.class_batch(x, t, w)
    local s = samples.sketch_of({ bins = { 10, 30 } }, one)
    s:save(self.path)
    local back = sketch.load(self.path)
    s:add(one)
    back:add(one)
    lu.assertEquals(back:digest(), s:digest())
end

function TestSketchFile.test_equal_state_has_an_equal_digest_and_only_that()
    local one = samples.class_batch({ 1, -2 }, { 0, 1 })
    local s = samples.sketch_of({ bins = 10 }, one)
    lu.assertEquals(samples.sketch_of({ bins = 10 }, one):digest(), s:digest())
    lu.assertEquals(#s:digest(), 16)
    for _, other in ipairs { samples.sketch_of({ bins = 11 }, one), sketch.new { bins = 10 },
        samples.sketch_of({ bins = 10 }, samples.class_batch({ 1, -2 }, { 0, 0 })),
        samples.sketch_of({ bins = 10 }, samples.class_batch({ 1, -2.0000002 }, { 0, 1 })) } do
        lu.assertNotEquals(other:digest(), s:digest())
    end
end

-- -- damage ---------------------------------------------------------------------------------------

function TestSketchFile:refuse(content, what)
    local path = self.folder:write("damaged.sketch", content)
    local ok, thrown = pcall(sketch.load, path)
    lu.assertFalse(ok, what .. " was loaded")
    samples.refused("dump", { "damaged.sketch" }, error, thrown, 0)
end

function TestSketchFile:test_every_length_but_the_whole_is_refused()
    for _, s in pairs { samples.sketch_of({ bins = 3 }, samples.class_batch({ 1, -2 }, { 0, 1 })),
        samples.sketch_of({ bins = 3 }, samples.class_batch({ 1 }, { 0.5 })) } do
        s:save(self.path)
        local whole = read(self.path)
        for length = 0, #whole - 1 do
            self:refuse(whole:sub(1, length), length .. " bytes")
        end
        self:refuse(whole .. "\0", "a file that is too long")
    end
end

function TestSketchFile:test_every_flipped_byte_is_refused()
    samples.sketch_of({ bins = 3 }, samples.class_batch({ 1, -2 }, { 0, 1 })):save(self.path)
    local whole = read(self.path)
    for at = 1, #whole do
        local flipped = string.char((whole:byte(at) + math.random(255)) % 256)
        self:refuse(whole:sub(1, at - 1) .. flipped .. whole:sub(at + 1), "byte " .. at)
    end
end

-- FNV-1a, so that a lie can carry the right checksum.
local function checksum(text)
    local hash = 0xcbf29ce484222325ULL
    for k = 1, #text do
        hash = require("bit").bxor(hash, text:byte(k) + 0ULL) * 0x100000001b3ULL
    end
    local out = {}
    for k = 1, 8 do
        out[k] = string.char(tonumber(hash % 256))
        hash = hash / 256
    end
    return table.concat(out)
end

-- Any byte but the last eight, changed under a right checksum: refused or loaded, never a crash,
-- and what is loaded answers.
function TestSketchFile:test_a_lie_under_a_right_checksum_does_no_harm()
    local sources = {
        samples.sketch_of({ bins = 3 }, samples.class_batch({ 1, -2 }, { 0, 1 })),
        samples.sketch_of({ task = "regression", bins = 3, mu = 0.1, knots = 1 },
            samples.box_batch({ 1, -2 }, { 0, 1 })),
        samples.sketch_of({ bins = 3 }, samples.class_batch({ 1 }, { 0.5 })),
    }
    local loaded = 0
    for _, s in ipairs(sources) do
        s:save(self.path)
        local body = read(self.path):sub(1, -9)
        lu.assertEquals(body .. checksum(body), read(self.path))
        for at = 9, #body do
            local lie = body:sub(1, at - 1) .. string.char((body:byte(at) + math.random(255)) % 256)
                .. body:sub(at + 1)
            local path = self.folder:write("lie.sketch", lie .. checksum(lie))
            local ok, back = pcall(sketch.load, path)
            if ok then
                loaded = loaded + 1
                back:counts()
                back:sums(back.task == "regression" and "asl1" or "bce", 0.1)
                pcall(back.merge, back, s)
                back:free()
            else
                samples.refused("dump", { "lie.sketch" }, error, back, 0)
            end
        end
    end
    lu.assertTrue(loaded > 0, "no lie was small enough to be believed")
end

function TestSketchFile:test_a_reader_stays_where_it_was_when_a_call_is_refused()
    samples.sketch_of({ bins = 3 }, samples.class_batch({ 1, -2 }, { 0, 1 })):save(self.path)
    local longer = read(self.path):sub(1, -9) .. "\0"
    self.folder:write("longer.sketch", longer .. checksum(longer))
    local C, out = clib.C, ffi.new "ghm_reader *[1]"
    clib.check(C.ghm_reader_open(self.folder.path .. "/longer.sketch", out))
    local place, note = ffi.new "ghm_sketch *[1]", ffi.new "const char *[1]"
    for _ = 1, 2 do
        lu.assertEquals(C.ghm_reader_next(out[0], nil, place, note), tonumber(C.GHM_E_FILE))
        lu.assertStrContains(ffi.string(C.ghm_last_error()), "bytes follow its last call")
        lu.assertEquals(tonumber(C.ghm_reader_left(out[0])), 1)
    end
    C.ghm_reader_free(out[0])
end

function TestSketchFile:test_what_is_no_sketch_is_refused_by_name()
    self.folder:write("text.sketch", ("no sketch at all\n"):rep(20))
    samples.refused("dump", { "text.sketch", "does not begin like a sketch" }, sketch.load,
        self.folder.path .. "/text.sketch")
    samples.refused("dump", { "missing.sketch", "No such file" }, sketch.load,
        self.folder.path .. "/missing.sketch")
    samples.refused("dump", { self.folder.path, "not a regular file" }, sketch.load,
        self.folder.path)
    assert(select(2, posix.capture("mkfifo " .. posix.quote(self.path))) == 0)
    samples.refused("dump", { "a.sketch", "not a regular file" }, sketch.load, self.path)
end

-- -- saving ---------------------------------------------------------------------------------------

function TestSketchFile:files()
    return (posix.capture("ls -A " .. posix.quote(self.folder.path)))
end

function TestSketchFile:test_a_save_leaves_one_file_and_replaces_the_old_one()
    local s = sketch.new { bins = 10 }
    s:save(self.path)
    s:add(samples.class_batch({ 1 }, { 0 }))
    s:save(self.path)
    lu.assertEquals(self:files(), "a.sketch")
    lu.assertEquals(sketch.load(self.path):digest(), s:digest())
end

function TestSketchFile:test_a_save_into_a_pipe_leaves_the_pipe_and_through_a_link_the_link()
    local s = sketch.new { bins = 10 }
    local here = "cd " .. posix.quote(self.folder.path)
    posix.capture(here .. "; mkfifo a.sketch; ln -s kept link; cat a.sketch >got &")
    s:save(self.path)
    s:save(self.folder.path .. "/link")
    s:save(self.folder.path .. "/kept")
    s:save(self.folder.path .. "/link")
    posix.capture(here .. "; while [ ! -s got ]; do sleep 0.01; done")
    lu.assertEquals(posix.capture(here .. "; test -p a.sketch; echo $?; cmp got kept; ls"),
        "0\na.sketch\ngot\nkept\nlink")
end

function TestSketchFile:test_a_save_that_fails_names_the_path_and_leaves_nothing()
    local s = sketch.new { bins = 10 }
    local nowhere = self.folder.path .. "/no/such/a.sketch"
    samples.refused("failed", { nowhere, "No such file" }, s.save, s, nowhere)
    assert(posix.make_folder(self.path))
    samples.refused("failed", { self.path, "Is a directory" }, s.save, s, self.path)
    lu.assertEquals(self:files(), "a.sketch")
    local inside = self.folder:write("file", "") .. "/a.sketch"
    samples.refused("failed", { inside, "Not a directory" }, s.save, s, inside)
end

-- -- lifetimes ------------------------------------------------------------------------------------

function TestSketchFile:test_freeing_twice_is_harmless_and_use_afterwards_is_a_fault()
    local s = sketch.new { bins = 10 }
    local alive = sketch.new { bins = 10 }
    s:free()
    s:free()
    for _, use in ipairs {
        function() s:add(samples.class_batch({ 1 }, { 0 })) end, function() s:like() end,
        function() s:merge(alive) end, function() alive:merge(s) end,
        function() s:save(self.path) end, function() s:facts() end, function() s:tot() end,
        function() s:is_soft() end, function() s:digest() end, function() s:intervals() end,
        function() s:counts() end, function() s:sums "bce" end, function() s:cut(10) end,
        function() s:regions(10) end, function() s:density({ 0.5 }, 0.1) end,
    } do
        samples.refused("usage", { "the sketch was freed" }, use)
    end
    lu.assertEquals(self:files(), "")
end

function TestSketchFile.test_sketches_with_shared_edges_are_freed_in_any_order()
    local first = sketch.new { bins = { 10, 30 } }
    local second = first:like()
    first:free()
    local third = second:like()
    second:free()
    third:add(samples.class_batch({ 1 }, { 0 }))
    lu.assertEquals(third:facts().valid, 1)
end

function TestSketchFile.test_a_thousand_sketches_are_collected_under_load()
    local one = samples.class_batch(samples.detector(200))
    local digest
    for k = 1, 1000 do
        local s = samples.sketch_of({ bins = { 5, 10 } }, one)
        digest = digest or s:digest()
        if k % 100 == 0 then
            collectgarbage()
            lu.assertEquals(s:digest(), digest)
        end
    end
end

function TestSketchFile:test_a_mapped_array_outlives_its_dump()
    local path = self.folder:write("x.npz", bytes.zip { { name = "logits.npy",
        data = bytes.npy { descr = "<f4", shape = "(512,)",
            data = bytes.pack("float", samples.list(samples.normals(512, 0, 1).ptr, 512)) } } })
    local function sketch_of_dump()
        local logits = ghm.dump.open(path):get "logits"
        collectgarbage()
        collectgarbage()
        return samples.sketch_of({ bins = 10 }, samples.class_batch(logits, samples.flags(512, 0)))
    end
    local digest = sketch_of_dump():digest()
    for _ = 1, 20 do
        lu.assertEquals(sketch_of_dump():digest(), digest)
    end
end
