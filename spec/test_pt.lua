local lu = require "luaunit"
local bytes = require "dump_bytes"
local dump = require "ghm.dumps.dump"
local torch = require "torch_bytes"

local TestPt = {}
_G.TestPt = TestPt

function TestPt:setUp()
    self.folder = bytes.folder()
end

function TestPt:tearDown()
    self.folder:remove()
end

function TestPt:read(t)
    return bytes.read_all(self.folder:write("a.pt", torch.archive(t)))
end

-- `t` is a description for torch.archive or the raw bytes; the texts must be in the refusal
function TestPt:refuse(t, ...)
    local path = self.folder:write("a.pt", type(t) == "table" and torch.archive(t) or t)
    bytes.assert_refused({ path, ... }, bytes.read_all, path)
end

function TestPt:test_reads_every_dtype()
    local cases = { -- storage, dtype, C type, stored values, values as read
        { "HalfStorage", "f2", "uint16_t", { 0x3C00, 0xC000 }, { 1, -2 } },
        { "BFloat16Storage", "bf16", "uint16_t", { 0x3F80, 0xC000 }, { 1, -2 } },
        { "FloatStorage", "f4", "float", { 1.5, -2 }, { 1.5, -2 } },
        { "DoubleStorage", "f8", "double", { 0.1, -1e300 }, { 0.1, -1e300 } },
        { "CharStorage", "i1", "int8_t", { -128, 127 }, { -128, 127 } },
        { "ByteStorage", "u1", "uint8_t", { 0, 255 }, { 0, 255 } },
        { "BoolStorage", "b1", "uint8_t", { 0, 1 }, { 0, 1 } },
        { "ShortStorage", "i2", "int16_t", { -32768, 5 }, { -32768, 5 } },
        { "IntStorage", "i4", "int32_t", { -2 ^ 31, 5 }, { -2 ^ 31, 5 } },
        { "LongStorage", "i8", "int64_t", { -2 ^ 53, 5 }, { -2 ^ 53, 5 } },
    }
    for _, case in ipairs(cases) do
        local file = self:read { storages = { { "0", bytes.pack(case[3], case[4]) } },
            value = torch.dict { { "x", torch.tensor { storage = case[1], n = 2,
                shape = { 2 } } } } }
        lu.assertEquals({ file.format, tostring(file:get "x") }, { "pt", case[2] .. "[2]" })
        lu.assertEquals(file:get("x"):totable(), case[5])
    end
end

function TestPt:test_names_follow_dicts_lists_and_tuples_in_each_other()
    local t = torch.tensor()
    local file = self:read { value = torch.dict { { "P3", torch.dict { { "logits", t } } },
        { "list", torch.list { t, torch.tuple { "N", t } } }, { { torch.int(7) }, t } } }
    lu.assertEquals(file.names, { "P3.logits", "list.0", "list.1.1", "7" })
    lu.assertEquals(self:read({ value = t }).names, { "a" })
    lu.assertEquals(self:read({ value = torch.tuple { t, t } }).names, { "0", "1" })
end

function TestPt:test_passes_over_numbers_and_words()
    local file = self:read { value = torch.dict { { "step", torch.int(500) }, { "w", "\136" },
        { "lr", "G\63\185\153\153\153\153\153\154" }, { "none", "N" }, { "big", torch.int(2 ^ 40) },
        { "seed", "\138\9" .. ("\255"):rep(8) .. "\0" },
        { "huge", "\138\255" .. ("\255"):rep(255) },
        { "names", torch.list { torch.str "P3" } }, { "x", torch.tensor() },
        { "size", torch.global("torch", "Size") .. torch.ints { 2 } .. "\133R" } } }
    lu.assertEquals(file.names, { "x" })
end

function TestPt:test_reads_a_state_dict_and_its_parameters()
    local parameter = torch.global("torch._utils", "_rebuild_parameter")
        .. torch.tuple { torch.tensor(), "\136", torch.ordered_dict } .. "R"
    local value = torch.ordered_dict .. "(" .. torch.str "weight" .. parameter .. "u"
        .. torch.dict { { "_metadata", torch.ordered_dict } } .. "b"
    local file = self:read { value = value }
    lu.assertEquals({ file.names, file:get("weight"):totable() }, { { "weight" }, { 1, 2, 3 } })
end

function TestPt:test_memoized_values_are_recalled()
    local value = "}q\0(" .. torch.str "x" .. "q\1" .. torch.tensor() .. "r\1\1\0\0"
        .. torch.str "y" .. "j\1\1\0\0" .. torch.str "z" .. "h\1u"
    lu.assertEquals(self:read({ value = value }).names, { "x", "y" })
end

function TestPt:test_maps_a_part_of_a_storage_where_it_lies()
    local data = bytes.pack("float", { 0, 1, 2, 3, 4, 5 })
    local file = self:read { storages = { { "0", data } }, value = torch.tensor { n = 6, offset = 2,
        shape = { 2, 1, 2 }, strides = { 2, 77, 1 } } } -- an axis of one may have any stride
    lu.assertEquals(file.entries.a.stored, "mapped")
    lu.assertEquals(file:get("a"):totable(), { { { 2, 3 } }, { { 4, 5 } } })
end

function TestPt:test_reads_transposed_and_repeated_elements_by_their_strides()
    local data = bytes.pack("float", { 0, 1, 2, 3, 4, 5 })
    local cases = { -- shape, strides, offset, values
        { { 3, 2 }, { 1, 3 }, 0, { { 0, 3 }, { 1, 4 }, { 2, 5 } } },
        { { 2, 3 }, { 0, 1 }, 3, { { 3, 4, 5 }, { 3, 4, 5 } } },
        { { 3 }, { 2 }, 1, { 1, 3, 5 } },
        { { 0, 3 }, { 5, 9 }, 6, {} },
    }
    for _, case in ipairs(cases) do
        local file = self:read { storages = { { "0", data } }, value = torch.tensor { n = 6,
            shape = case[1], strides = case[2], offset = case[3] } }
        lu.assertEquals(file:get("a"):totable(), case[4])
        lu.assertEquals(file.entries.a.stored, #case[4] > 0 and "converted" or "mapped")
    end
end

function TestPt:test_copies_what_is_not_aligned()
    for pad = 1, 4 do
        local file = self:read { pad = pad }
        local entry = file.entries.a
        lu.assertEquals(entry.stored, entry.offset % 4 == 0 and "mapped" or "converted")
        lu.assertEquals(file:get("a"):totable(), { 1, 2, 3 })
    end
end

function TestPt:test_a_crc_of_zero_says_that_there_is_none()
    local data = bytes.pack("float", { 1, 2, 3 })
    lu.assertEquals(self:read({ storages = { { "0", data, { crc = 0 } } } }).names, { "a" })
    self:refuse({ storages = { { "0", data, { crc = 7 } } } }, "'a'", "expected 00000007")
    self:refuse({ pickle_also = { crc = 7 } }, "byte 64", "expected 00000007")
    local path = self.folder:write("b.pt", torch.archive {
        storages = { { "0", data, { crc = 7 } } } })
    lu.assertEquals(dump.open(path):get("b"):totable(), { 1, 2, 3 })
end

function TestPt:test_refuses_globals_other_than_those_of_tensors()
    for _, name in ipairs { { "os", "system" }, { "builtins", "eval" }, { "torch", "load" },
        { "torch._utils", "_rebuild_sparse_tensor" }, { "torch", "ComplexFloatStorage" },
        { "collections", "OrderedDict " }, { "", "" }, { "torch FloatStorage", "x" } } do
        local value = torch.global(name[1], name[2]) .. torch.tuple { torch.str "x" } .. "R"
        local told = (name[1] .. "." .. name[2]):gsub(" ", ".")
        self:refuse({ value = value }, "byte 66", "refused global '" .. told .. "'")
    end
    -- a name that ends no line, and one that would reach the terminal
    self:refuse({ value = "cos\nsystem" }, "a line has no end")
    self:refuse({ value = torch.global("os\27[31m", "x") }, "refused global 'os?[31m.x'")
end

function TestPt:test_a_refused_global_is_told_by_the_key_it_lies_at_and_what_to_do()
    local evil, t = torch.global("os", "system") .. ")R", torch.tensor()
    local dict, list = torch.dict, torch.list
    local cases = { -- value, its place
        { dict { { "x", t }, { "args", evil } }, "args" },
        { dict { { "x", t }, { "cfg", dict { { "lr", "N" }, { "args", evil } } } }, "cfg.args" },
        { dict { { "x", list { t, "N", evil } } }, "x.2" },
        { dict { { "x", list { dict { { "y", evil } } } } }, "x.0.y" },
        { dict { { "x", t }, { "pair", torch.tuple { t, evil } } }, "pair" },
        { "}" .. torch.str "one" .. evil .. "s", "one" },
        { "}(" .. torch.str "x" .. t .. torch.str "some" .. "]" .. evil .. "au", "some.0" },
        { "}(" .. torch.str "x" .. t .. torch.str "sub" .. "}" .. torch.str "y" .. evil .. "su",
            "y" }, -- a dict of one item has no mark
        { dict { { { torch.int(7) }, evil } }, "7" },
    }
    for _, case in ipairs(cases) do
        self:refuse({ value = case[1] }, ("array '%s': byte "):format(case[2]),
            "refused global 'os.system'", "leave it out")
    end
    self:refuse({ value = evil }, "a.pt: byte 66: refused")
    self:refuse({ value = dict { { { evil }, t } } }, "a.pt: byte ")
    for name, advice in pairs { ["torch._utils _rebuild_sparse_tensor"] = "save x.to_dense()",
        ["numpy._core.multiarray _reconstruct"] = "save torch.as_tensor(x)",
        ["numpy.core.multiarray scalar"] = "save x.item()",
        ["torch.nn.modules.linear Linear"] = "save module.state_dict()" } do
        self:refuse({ value = torch.global(name:match "(.*) (.*)") }, advice)
    end
end

function TestPt:test_tensors_under_keys_that_make_no_name_are_told()
    local t = torch.tensor()
    local tuple = torch.tuple { torch.str "a", torch.int(1) }
    local cases = { { tuple, "tuple" }, { "G\63\240\0\0\0\0\0\0", "float" }, { "N", "None" },
        { "\136", "bool" } }
    for _, case in ipairs(cases) do
        local odd = torch.dict { { { case[1] }, torch.dict { { "y", t } } }, { { case[1] }, "N" } }
        local file = self:read { value = torch.dict { { "x", t }, { "more", odd } } }
        lu.assertEquals(file.names, { "x" })
        lu.assertEquals(file.unread, { { name = ("more.{%s}.y"):format(case[2]), reason =
            ("a dict's key is a %s, expected a word or a whole number"):format(case[2]) } })
        self:refuse({ value = odd }, ("array '{%s}.y'"):format(case[2]), "a dict's key is a ")
    end
end

function TestPt:test_lists_of_numbers_and_bare_storages_beside_tensors_are_told()
    local storage = torch.tuple { torch.str "storage", torch.global("torch", "FloatStorage"),
        torch.str "0", torch.str "cpu", torch.int(3) } .. "Q"
    local numbers = torch.list { torch.int(0), "G\63\240\0\0\0\0\0\0" }
    local file = self:read { value = torch.dict { { "x", torch.tensor() }, { "labels", numbers },
        { "target", torch.list { numbers, numbers } }, { "raw", storage }, { "empty", "]" },
        { "words", torch.list { torch.str "P3" } },
        { "groups", torch.list { torch.dict { { "params", numbers } } } } } }
    lu.assertEquals(file.names, { "x" })
    lu.assertEquals(file.unread, {
        { name = "labels", reason = "a list of numbers, expected torch.tensor(x)" },
        { name = "target", reason = "a list of numbers, expected torch.tensor(x)" },
        { name = "raw", reason = "a bare storage, expected torch.tensor(x)" } })
    self:refuse({ value = torch.dict { { "logits", numbers } } }, "array 'logits'",
        "a list of numbers, expected torch.tensor(x)")
end

function TestPt:test_refuses_opcodes_that_make_objects_or_reach_code()
    local cases = { INST = "(ios\nsystem\n", OBJ = "(o", NEWOBJ = "\129", EXT1 = "\130\1",
        EXT2 = "\131\1\0", EXT4 = "\132\1\0\0\0", NEWOBJ_EX = "\146", STACK_GLOBAL = "\147" }
    for name, opcodes in pairs(cases) do
        self:refuse({ value = torch.tensor() .. opcodes }, "refused opcode " .. name)
    end
    self:refuse({ value = "I1\n" }, "unknown opcode 0x49", "only tensors in dicts and lists")
end

function TestPt:test_refuses_other_protocols()
    for _, protocol in ipairs { "\0", "\1", "\3", "\4", "\5", "\255" } do
        self:refuse({ pickle = "\128" .. protocol .. torch.tensor() .. "." },
            ("pickle protocol %d, expected torch.save's own, 2"):format(protocol:byte()))
    end
end

function TestPt:test_refuses_items_of_what_holds_none()
    local key = torch.str "k"
    self:refuse({ value = "]" .. key .. "Ns" }, "expected a dict, found a list")
    self:refuse({ value = torch.tensor() .. key .. "Ns" }, "expected a dict, found a call")
    self:refuse({ value = torch.int(3) .. "(" .. key .. "Nu" }, "expected a dict, found a number")
    self:refuse({ value = "}(" .. key .. "u" }, "a key without a value")
    self:refuse({ value = "}Na" }, "expected a list, found a dict")
    self:refuse({ value = "](}e}b" }, "expected a dict, found a list")
    self:refuse({ value = torch.tuple {} .. torch.tuple {} .. "R" }, "expected a global")
    self:refuse({ value = torch.global("torch", "Size") .. "NR" }, "expected a tuple, found a none")
    self:refuse({ value = torch.str "storage" .. "Q" }, "expected a tuple, found a string")
end

function TestPt:test_refuses_stack_underflow_and_memo_misses()
    for _, opcodes in ipairs { "R", "s", "a", "Q", "b", "\133", "q\0", "(\133", "N(\134",
        "](N(a" } do
        self:refuse({ value = opcodes }, "stack underflow")
    end
    for _, opcodes in ipairs { "t", "u", "e" } do
        self:refuse({ value = opcodes }, "no mark on the stack")
    end
    self:refuse({ value = "Nq\0h\1" }, "nothing was memoized as 1")
    self:refuse({ value = "j\255\255\255\255" }, "nothing was memoized as 4294967295")
end

function TestPt:test_refuses_pickles_that_end_too_early_or_too_late()
    local whole = torch.pickle(torch.tensor())
    for length = 0, #whole - 1 do
        self:refuse { pickle = whole:sub(1, length) }
    end
    self:refuse({ pickle = whole .. "." }, "1 bytes left, expected one value")
    self:refuse({ value = "NN" }, "the pickle stops with 2 values")
    self:refuse({ value = "N(" }, "1 marks")
    self:refuse({ value = "" }, "the pickle stops with 0 values")
    self:refuse({ value = "X\255\255\255\255abc" }, "4294967295 bytes expected, the pickle ends")
end

function TestPt:test_refuses_ten_million_operations_and_a_million_tables()
    self:refuse({ value = "N" .. ("q\0"):rep(1e7) }, "more than 10000000 operations")
    self:refuse({ value = ("]"):rep(1e6 + 1) }, "more than 1000000 dicts, lists, tuples and calls")
end

function TestPt:test_refuses_values_that_hold_themselves_or_multiply()
    self:refuse({ value = "]q\0h\0a" }, "nested deeper than 64 levels")
    self:refuse({ value = ("]"):rep(70) .. ("a"):rep(69) }, "nested deeper than 64 levels")
    local lists = "]q\0" -- each of 30 more holds the one before ten times: 10^30 in all
    for k = 1, 30 do
        lists = lists .. "](" .. ("h" .. string.char(k - 1)):rep(10) .. "eq" .. string.char(k)
    end
    self:refuse({ value = torch.tuple { lists } }, "more than 1000000 of them")
    local long = "](" .. ("K\7"):rep(1e5) .. "eq\0" -- 100000 numbers, 100000 times: looked at once
    self:refuse({ value = "(" .. long .. ("h\0"):rep(1e5) .. "t" }, "a list of numbers")
end

function TestPt:test_refuses_a_name_over_1000_bytes_or_told_twice()
    self:refuse({ value = torch.dict { { ("n"):rep(1001), torch.tensor() } } }, "over 1000 bytes")
    self:refuse({ value = torch.dict { { "x", torch.tensor() }, { "x", torch.tensor() } } },
        "array 'x'", "occurs twice")
    self:refuse({ value = torch.dict { { "a.b", torch.tensor() },
        { "a", torch.dict { { "b", torch.tensor() } } } } }, "array 'a.b'", "occurs twice")
end

function TestPt:test_refuses_storages_that_are_missing_compressed_or_of_another_size()
    local data = bytes.pack("float", { 1, 2, 3 })
    self:refuse({ storages = {} }, "array 'a'", "its storage '0' is not in the archive")
    self:refuse({ value = torch.tensor { key = "../0" } }, "is not in the archive")
    self:refuse({ storages = { { "0", data, { method = 8 } } } }, "its storage is compressed")
    self:refuse({ pickle_also = { method = 8 } }, "archive/data.pkl", "is compressed")
    self:refuse({ storages = { { "0", data .. "\0" } } }, "takes 13 bytes, expected 12 of f4")
    self:refuse({ value = torch.tensor { n = 4 } }, "takes 12 bytes, expected 16 of f4")
    self:refuse({ value = torch.tensor { storage = "DoubleStorage" } }, "expected 24 of f8")
    self:refuse({ value = torch.tensor { n = 2 ^ 52 } }, "its storage takes 12 bytes")
end

function TestPt:test_refuses_storage_ids_that_torch_does_not_write()
    local float = torch.global("torch", "FloatStorage")
    local word, key, n = torch.str "storage", torch.str "0", torch.int(3)
    for _, id in ipairs { torch.tuple {}, torch.tuple { word, float, key, key },
        torch.tuple { key, float, key, key, n }, torch.tuple { word, key, key, key, n },
        torch.tuple { word, torch.global("torch", "Size"), key, key, n },
        torch.tuple { word, float, n, key, n }, torch.tuple { word, float, key, key, key },
        torch.tuple { word, float, key, key, torch.int(-3) } } do
        self:refuse({ value = torch.tensor { id = id } }, "its storage is not what torch.save")
    end
    local call = torch.global("torch._utils", "_rebuild_tensor_v2")
    self:refuse({ value = call .. torch.tuple {} .. "R" }, "its storage is not what torch.save")
end

function TestPt:test_refuses_views_beyond_their_storage()
    local cases = { { shape = { 4 } }, { offset = 1 }, { offset = 4, shape = { 0 } },
        { strides = { 2 } }, { shape = { 2, 2 }, strides = { 2, 1 } },
        { shape = { 1 }, offset = 2 ^ 52 }, { shape = { 2 }, strides = { 2 ^ 52 } },
        { shape = { 2 ^ 20, 2 ^ 20 }, strides = { 2 ^ 52, 2 ^ 52 } } }
    for _, t in ipairs(cases) do
        self:refuse({ value = torch.tensor(t) }, "array 'a'", "passes the 3 elements of its")
    end
end

function TestPt:test_refuses_offsets_sizes_and_strides_that_are_no_counts()
    local cases = { { offset = -1 }, { shape = { -3 } }, { strides = { -1 } }, { shape = { 3, 1 } },
        { strides = {} }, { offset = 2 ^ 54 }, { offset_opcodes = "N" },
        { offset_opcodes = torch.str "0" }, { offset_opcodes = "\136" },
        { offset_opcodes = "\138\255" .. ("\127"):rep(255) }, { offset_opcodes = "\138\1\255" },
        { offset_opcodes = "G\63\240\0\0\0\0\0\0" } }
    for _, t in ipairs(cases) do
        self:refuse({ value = torch.tensor(t) }, "array 'a'", "are no counts")
    end
end

function TestPt:test_refuses_shapes_that_overflow_or_repeat_beyond_the_file()
    self:refuse({ value = torch.tensor { shape = { 2 ^ 30, 2 ^ 30 }, strides = { 0, 0 } } },
        "more than 2^53 bytes")
    self:refuse({ value = torch.tensor { shape = { 2 ^ 30 }, strides = { 0 } } },
        "repeats the elements of its storage to 4294967296 bytes")
    local nine, ones = {}, {}
    for k = 1, 9 do
        nine[k], ones[k] = 1, 1
    end
    self:refuse({ value = torch.tensor { shape = nine, strides = ones } },
        "9 axes, expected at most 8")
end

function TestPt:test_refuses_conjugate_and_negative_views()
    self:refuse({ value = torch.tensor { extra = torch.dict { { "neg", "\136" } } } },
        "a tensor with attributes")
    lu.assertEquals(self:read({ value = torch.tensor { extra = torch.dict {} } }).names, { "a" })
end

function TestPt:test_refuses_big_endian_elements()
    self:refuse({ byteorder = "big" }, "big-endian")
    lu.assertEquals(self:read({ byteorder = "little" }).names, { "a" })
end

function TestPt:test_refuses_archives_without_or_with_two_pickles()
    self:refuse({ second = "other" }, "two pickles, archive/data.pkl and other/data.pkl")
    local path = self.folder:write("b.pt", bytes.zip { { name = "x.npy", data = bytes.npy {} } })
    lu.assertEquals(dump.open(path).format, "npz") -- the content decides
end

function TestPt:test_refuses_a_pickle_without_tensors()
    self:refuse({ value = torch.dict { { "step", torch.int(5) } } }, "holds no tensors")
    self:refuse({ value = torch.int(5) }, "holds no tensors")
end

function TestPt:test_advises_to_save_older_forms_again()
    self:refuse("\128\2\138\10l\252\156F\249 j\168P\25.\128\2M\233\3.", "byte 0", "legacy format",
        "torch.save(torch.load(path), path)")
    self:refuse("\128\4\149" .. ("x"):rep(30), "a pickle without an archive")
    self:refuse(("\0"):rep(257) .. "ustar" .. ("\0"):rep(250), "a tar archive")
    self:refuse("hello", "no zip archive")
    local bare = self.folder:write("bare", "\128\2\138\10l\252\156F\249 j\168P\25." .. ("x"):rep(9))
    bytes.assert_refused({ "legacy format" }, dump.open, bare)
end
