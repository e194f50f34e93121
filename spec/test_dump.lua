local ffi = require "ffi"
local lu = require "luaunit"
local bytes = require "dump_bytes"
local dump = require "ghm.dumps.dump"
local posix = require "ghm.posix"

ffi.cdef "int mkfifo(const char *path, unsigned int mode); unsigned int geteuid(void);"

local TestDump = {}
_G.TestDump = TestDump

function TestDump:setUp()
    self.folder = bytes.folder()
end

function TestDump:tearDown()
    self.folder:remove()
end

-- The file names, without their folders, that words stand for.
local function list_names(words)
    local names = {}
    for k, path in ipairs(dump.list(words)) do
        names[k] = path:match "[^/]*$"
    end
    return names
end

-- A dump of one-element arrays of these names.
function TestDump:with(names)
    local members = {}
    for k, name in ipairs(names) do
        members[k] = { name = name .. ".npy", data = bytes.npy { shape = "()",
            data = bytes.pack("float", { k }) } }
    end
    return dump.open(self.folder:write("roles.npz", bytes.zip(members)))
end

function TestDump:test_folders_and_globs_come_in_natural_order()
    for _, name in ipairs { "step_10.npz", "step_2.npz", "step_007.npy", "step_1.npz", "a.npy",
        "notes.txt", ".hidden.npz" } do
        self.folder:write(name, "x")
    end
    local natural = { "a.npy", "step_1.npz", "step_2.npz", "step_007.npy", "step_10.npz" }
    lu.assertEquals(list_names { self.folder.path }, natural)
    lu.assertEquals(list_names { self.folder.path .. "/" }, natural)
    lu.assertEquals(list_names { self.folder.path .. "/step*.npz" },
        { "step_1.npz", "step_2.npz", "step_10.npz" })
end

function TestDump:test_numbers_that_differ_in_zeros_only_keep_one_order()
    for _, name in ipairs { "s_7.npy", "s_007.npy", "s_07.npy" } do
        self.folder:write(name, "x")
    end
    lu.assertEquals(list_names { self.folder.path }, { "s_007.npy", "s_07.npy", "s_7.npy" })
end

function TestDump:test_refuses_an_unreadable_folder()
    lu.skipIf(ffi.C.geteuid() == 0, "root reads every folder")
    self.folder:write("a.npy", "x")
    os.execute("chmod 000 " .. posix.quote(self.folder.path))
    local ok, thrown = pcall(dump.list, { self.folder.path })
    os.execute("chmod 700 " .. posix.quote(self.folder.path))
    lu.assertFalse(ok)
    lu.assertStrContains(tostring(thrown), "the folder cannot be read")
end

function TestDump:test_words_keep_their_order_and_a_file_comes_once()
    local b, a = self.folder:write("b.npz", "x"), self.folder:write("a.npz", "x")
    local c = self.folder:write("c.npz", "x")
    assert(os.execute(("ln -s b.npz %s"):format(posix.quote(self.folder.path .. "/z.npz"))) == 0)
    lu.assertEquals(dump.list { b, self.folder.path .. "/?.npz", self.folder.path, c },
        { b, a, c })
    lu.assertEquals(dump.list {}, {})
end

function TestDump:test_a_glob_may_match_folders()
    assert(posix.make_folder(self.folder.path .. "/run1"))
    self.folder:write("run1/x.npy", "x")
    lu.assertEquals(list_names { self.folder.path .. "/run*" }, { "x.npy" })
end

function TestDump:test_names_with_glob_signs_are_taken_as_they_are()
    local path = self.folder:write("a[1]*.npz", "x")
    lu.assertEquals(dump.list { path }, { path })
    assert(posix.make_folder(self.folder.path .. "/[x]"))
    local inner = self.folder:write("[x]/y.npy", "x")
    lu.assertEquals(dump.list { self.folder.path .. "/[x]" }, { inner })
end

function TestDump:test_words_that_match_nothing_are_named()
    for _, name in ipairs { "/none.npz", "/none/*.npz", "/*.npz" } do
        local word = self.folder.path .. name
        bytes.assert_refused({ word, "expected a dump file" }, dump.list, { word })
    end
    bytes.assert_refused({ self.folder.path, "holds no dump" }, dump.list, { self.folder.path })
end

function TestDump:test_the_format_is_chosen_by_content()
    local npz = dump.open(self.folder:write("a.npy", bytes.zip {
        { name = "x.npy", data = bytes.npy {} } }))
    lu.assertEquals({ npz.format, npz.names }, { "npz", { "x" } })
    local npy = dump.open(self.folder:write("logits.dat", bytes.npy {}))
    lu.assertEquals({ npy.format, npy.names }, { "npy", { "logits" } })
    lu.assertEquals(dump.open(self.folder:write("bare", bytes.npy {})).names, { "bare" })
end

function TestDump:test_refuses_what_is_no_file_of_arrays()
    local path = self.folder.path
    bytes.assert_refused({ path, "is a folder" }, dump.open, path)
    bytes.assert_refused({ "none.npz", "cannot be opened" }, dump.open, path .. "/none.npz")
    bytes.assert_refused({ "empty.npz: is empty" }, dump.open, self.folder:write("empty.npz", ""))
    bytes.assert_refused({ "byte 0", "no known format" }, dump.open,
        self.folder:write("text.npz", "hello"))
    bytes.assert_refused({ "/dev/null" }, dump.open, "/dev/null")
end

function TestDump:test_refuses_a_fifo_without_waiting_for_a_writer()
    local path = self.folder.path .. "/fifo.npz"
    lu.assertEquals(ffi.C.mkfifo(path, 384), 0)
    bytes.assert_refused({ "is a pipe" }, dump.open, path)
end

function TestDump:test_refuses_an_unreadable_file()
    lu.skipIf(ffi.C.geteuid() == 0, "root reads every file")
    local path = self.folder:write("a.npy", bytes.npy {})
    os.execute("chmod 000 " .. posix.quote(path))
    bytes.assert_refused({ path, "cannot be opened" }, dump.open, path)
end

function TestDump:test_refuses_a_file_that_shrank_after_it_was_opened()
    for _, method in ipairs { 0, 8 } do
        local whole = bytes.zip { { name = "x.npy", data = bytes.npy {}, method = method } }
        local file = dump.open(self.folder:write("a.npz", whole))
        self.folder:write("a.npz", whole:sub(1, 100)) -- truncates the same inode
        bytes.assert_refused({ "shrank" }, file.get, file, "x")
    end
end

function TestDump:test_a_file_replaced_while_mapped_keeps_its_old_content()
    local path = self.folder:write("a.npy", bytes.npy {})
    local a = dump.open(path):get "a"
    assert(os.rename(self.folder:write("b.npy", bytes.npy { data = ("\0"):rep(12) }), path))
    lu.assertEquals(a:totable(), { 1, 2, 3 })
end

function TestDump:test_arrays_outlive_their_file()
    local a
    do
        local file = dump.open(self.folder:write("a.npy", bytes.npy {}))
        a = file:get "a"
        file:close()
        file:close()
        lu.assertErrorMsgContains("closed", file.get, file, "a")
    end
    for _ = 1, 5 do
        collectgarbage()
    end
    lu.assertEquals(a:totable(), { 1, 2, 3 })
end

function TestDump:test_writing_to_a_mapped_array_is_refused_not_a_crash()
    local a = dump.open(self.folder:write("a.npy", bytes.npy {})):get "a"
    for _, view in ipairs { a, a:reshape { 3, 1 } } do
        local ok, thrown = pcall(view.set, view, 0, 9)
        lu.assertFalse(ok)
        lu.assertStrContains(tostring(thrown), "read-only")
    end
    local copy = a:convert "f4"
    copy:set(0, 9)
    lu.assertEquals({ copy:get(0), a:get(0) }, { 9, 1 })
end

function TestDump:test_get_reads_once_and_again_after_free()
    local file = dump.open(self.folder:write("a.npy", bytes.npy { descr = ">f4",
        shape = "()", data = "\63\192\0\0" }))
    local a = file:get "a"
    lu.assertIs(file:get "a", a)
    a:free()
    lu.assertEquals(file:get("a"):totable(), 1.5)
end

function TestDump:test_an_unknown_array_is_refused_with_the_nearest_name()
    local file = self:with { "cls_logits", "labels" }
    bytes.assert_refused({ "no array 'cls_logit'", "did you mean 'cls_logits'?",
        "it holds cls_logits, labels" }, file.get, file, "cls_logit")
end

function TestDump:test_reads_arrays_beyond_2_GiB_of_a_sparse_file()
    -- 4.3e9 bytes, all holes but the header and the last element
    local n = 2 ^ 32 + 2 ^ 20
    local header = bytes.npy { descr = "|u1", shape = ("(%d,)"):format(n), data = "" }
    local path, start = self.folder:write("big.npy", header), #header
    local file = assert(io.open(path, "r+b"))
    lu.skipIf(not file:seek("set", start + n - 1), "no files beyond 2 GiB here")
    lu.skipIf(not file:write "\7" or not file:flush(), "no room for a sparse file")
    file:close()
    local a = dump.open(path):get "big"
    lu.assertEquals({ a.n, a:get(n - 1), a:get(2 ^ 31 + 5) }, { n, 7, 0 })
end
