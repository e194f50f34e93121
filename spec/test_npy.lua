local lu = require "luaunit"
local bytes = require "dump_bytes"
local dump = require "ghm.dumps.dump"

local TestNpy = {}
_G.TestNpy = TestNpy

function TestNpy:setUp()
    self.folder = bytes.folder()
end

function TestNpy:tearDown()
    self.folder:remove()
end

function TestNpy:read(t)
    local file = dump.open(self.folder:write("a.npy", bytes.npy(t)))
    return file:get "a", file.entries.a, file
end

-- `t` is a description for bytes.npy or the raw bytes; the texts must be in the refusal
function TestNpy:refuse(t, ...)
    local path = self.folder:write("a.npy", type(t) == "table" and bytes.npy(t) or t)
    bytes.assert_refused({ path, ... }, bytes.read_all, path)
end

function TestNpy:test_reads_versions_1_2_and_3()
    for major = 1, 3 do
        local a = self:read { major = major }
        lu.assertEquals(a:totable(), { 1, 2, 3 })
        lu.assertEquals(tostring(a), "f4[3]")
    end
end

function TestNpy:test_reads_every_dtype()
    local cases = { -- descr, C type, stored values, values as read
        { "<f2", "uint16_t", { 0x3C00, 0xC000 }, { 1, -2 } },
        { "<f4", "float", { 1.5, -2 }, { 1.5, -2 } },
        { "<f8", "double", { 0.1, -1e300 }, { 0.1, -1e300 } },
        { "|i1", "int8_t", { -128, 127 }, { -128, 127 } },
        { "|u1", "uint8_t", { 0, 255 }, { 0, 255 } },
        { "|b1", "uint8_t", { 0, 1 }, { 0, 1 } },
        { "<i2", "int16_t", { -32768, 5 }, { -32768, 5 } },
        { "<i4", "int32_t", { -2 ^ 31, 5 }, { -2 ^ 31, 5 } },
        { "<i8", "int64_t", { -2 ^ 53, 5 }, { -2 ^ 53, 5 } },
        { "=i4", "int32_t", { 1, 5 }, { 1, 5 } },
    }
    for _, case in ipairs(cases) do
        local a = self:read { descr = case[1], shape = "(2,)", data = bytes.pack(case[2], case[3]) }
        lu.assertEquals(a.dtype, case[1]:sub(2))
        lu.assertEquals(a:totable(), case[4])
    end
end

function TestNpy:test_maps_what_is_aligned_and_copies_what_is_not()
    local _, entry = self:read { pad = 64 }
    lu.assertEquals(entry.stored, "mapped")
    for pad = 1, 8 do -- a header of any length, as other writers make it
        local a, copied = self:read { header = "{'descr': '<f4', 'fortran_order': False, 'shape':"
            .. (" "):rep(pad) .. "(3,)}", pad = 1 }
        lu.assertEquals(copied.stored, copied.offset % 4 == 0 and "mapped" or "converted")
        lu.assertEquals(a:totable(), { 1, 2, 3 })
    end
end

function TestNpy:test_converts_big_endian()
    local a, entry = self:read { descr = ">f4", shape = "(2,)", data = "\63\192\0\0\192\0\0\0" }
    lu.assertEquals(a:totable(), { 1.5, -2 })
    lu.assertEquals(entry.stored, "converted")
    local wide = self:read { descr = ">i8", shape = "(1,)", data = "\0\0\0\0\0\0\1\2" }
    lu.assertEquals(wide:get(0), 258)
    local narrow = self:read { descr = ">i2", shape = "(1,)", data = "\1\2" }
    lu.assertEquals(narrow:get(0), 258)
end

function TestNpy:test_converts_fortran_order()
    -- a[i][j] = 10 i + j, columns first
    local a = self:read { descr = "|u1", fortran = "True", shape = "(2, 3)",
        data = "\0\10\1\11\2\12" }
    lu.assertEquals(a:totable(), { { 0, 1, 2 }, { 10, 11, 12 } })
end

function TestNpy:test_converts_fortran_order_of_three_axes_and_big_endian_together()
    local data = {}
    for k = 0, 2 do
        for j = 0, 1 do
            for i = 0, 3 do
                data[#data + 1] = string.char(0, 100 * i + 10 * j + k > 255 and 0 or 1)
                data[#data] = string.char(math.floor((100 * i + 10 * j + k) / 256),
                    (100 * i + 10 * j + k) % 256)
            end
        end
    end
    local a = self:read { descr = ">i2", fortran = "True", shape = "(4, 2, 3)",
        data = table.concat(data) }
    for i, plane in ipairs(a:totable()) do
        for j, row in ipairs(plane) do
            for k, value in ipairs(row) do
                lu.assertEquals(value, 100 * (i - 1) + 10 * (j - 1) + k - 1)
            end
        end
    end
end

function TestNpy:test_reads_a_scalar_and_empty_shapes()
    local scalar = self:read { shape = "()", data = bytes.pack("float", { 7 }) }
    lu.assertEquals({ scalar.n, scalar.shape, scalar:totable() }, { 1, {}, 7 })
    local empty = self:read { shape = "(0,)", data = "" }
    lu.assertEquals({ empty.n, empty:totable() }, { 0, {} })
    local flat = self:read { shape = "(0, 5)", data = "", fortran = "True", descr = ">f8" }
    lu.assertEquals({ flat.n, flat.shape }, { 0, { 0, 5 } })
end

function TestNpy:test_reads_python_2_longs_and_any_key_order()
    local a = self:read { header = [[{"shape": (3L,), "fortran_order": False, "descr": "<f4"}]] }
    lu.assertEquals(a:totable(), { 1, 2, 3 })
end

function TestNpy:test_warns_of_trailing_bytes()
    local a, _, file = self:read { data = bytes.pack("float", { 1, 2, 3 }) .. "xyz" }
    lu.assertEquals(a:totable(), { 1, 2, 3 })
    lu.assertEquals(file.warnings, { "3 bytes after the array are ignored" })
    local _, _, clean = self:read {}
    lu.assertEquals(clean.warnings, {})
end

function TestNpy:test_refuses_bad_magic()
    self:refuse("\147NUMPZ\1\0" .. ("x"):rep(100), "byte 0",
        "expected npy or pt or npz or safetensors")
end

function TestNpy:test_refuses_unknown_versions()
    for _, version in ipairs { { 0, 0 }, { 1, 1 }, { 255, 255 }, { 4, 0 } } do
        self:refuse({ major = version[1], minor = version[2] },
            ("version %d.%d"):format(version[1], version[2]), "expected 1.0, 2.0 or 3.0")
    end
end

function TestNpy:test_refuses_a_huge_header_length()
    self:refuse({ major = 2, length = 0xFFFFFFF0 }, "header of 4294967280 bytes")
end

function TestNpy:test_refuses_a_header_over_10000_bytes()
    self:refuse({ header = "{" .. (" "):rep(10000) }, "at most 10000")
end

function TestNpy:test_refuses_truncated_headers_and_data()
    local whole = bytes.npy {}
    for length = 1, #whole - 1 do
        self:refuse(whole:sub(1, length))
    end
    self:refuse(whole:sub(1, 60), "header")
    self:refuse(whole:sub(1, -2), "takes 12 bytes, 11 are there")
end

function TestNpy:test_refuses_missing_extra_and_repeated_keys()
    local rest = "'fortran_order': False, 'shape': (3,)"
    self:refuse({ header = "{" .. rest .. "}" }, "'descr' is missing")
    self:refuse({ header = "{'descr': '<f4', 'shape': (3,)}" }, "'fortran_order' is missing")
    self:refuse({ header = "{'descr': '<f4', " .. rest .. ", 'x': 1}" }, "'x' is unknown")
    self:refuse({ header = "{'descr': '<f4', 'descr': '<f8', " .. rest .. "}" }, "occurs twice")
end

function TestNpy:test_refuses_what_is_no_dict_literal()
    local inner = "'descr': '<f4', 'fortran_order': False, 'shape': (3,)"
    for _, header in ipairs { "", "{", "{}", "{" .. inner, inner .. "}", "{" .. inner .. "} x",
        "{" .. inner .. ",,}", "{,}", "{'descr' '<f4'}", "{'descr': __import__('os')}",
        "{" .. inner:gsub("False", "0") .. "}", "{" .. inner:gsub(", ", " ") .. "}" } do
        self:refuse { header = header }
    end
end

function TestNpy:test_names_the_key_whose_value_is_not_understood()
    self:refuse({ fortran = "0" }, "'fortran_order' has no value that is understood")
    self:refuse({ shape = "3" }, "'shape' has no value that is understood")
end

function TestNpy:test_refuses_shapes_that_are_no_counts()
    for _, shape in ipairs { "(-3,)", "(1e3,)", "(3.0,)", "(3)", "(,)", "(3,,)", "(0x3,)", "(03,)",
        "[3]", "3", "(3 3,)", "(True,)", "('3',)", "((3,),)" } do
        self:refuse({ shape = shape }, "a.npy")
    end
    self:refuse({ shape = "(-3,)" }, "shape (-3,)")
end

function TestNpy:test_refuses_dimensions_and_products_that_overflow()
    self:refuse({ shape = "(18446744073709551616,)" }, "beyond 2^53")
    self:refuse({ shape = "(9007199254740993,)" }, "2^53")
    self:refuse({ shape = "(4294967296, 4294967296)" }, "more than 2^53 bytes")
    self:refuse({ shape = "(4611686018427387905, 4)" }, "beyond 2^53")
    self:refuse({ shape = "(9007199254740992,)", descr = "<f8" }, "more than 2^53 bytes")
    self:refuse({ shape = "(1000000000000,)" }, "takes 4000000000000 bytes, 12 are there")
end

function TestNpy:test_an_empty_axis_excuses_long_ones()
    local a = self:read { shape = "(4294967296, 0, 4294967296)", data = "" }
    lu.assertEquals(a.n, 0)
end

function TestNpy:test_refuses_dtypes_it_does_not_read()
    for _, descr in ipairs { "f", "<", "f4", "<f16", "<c8", "<U5", "|S3", "<M8[s]", "|V2", "<u4",
        "|f4", "<f44", "!f4", "" } do
        self:refuse({ descr = descr }, "dtype '" .. descr .. "'")
    end
end

function TestNpy:test_refuses_object_and_structured_elements()
    self:refuse({ descr = "|O" }, "object elements are refused")
    self:refuse({ header = "{'descr': [('x', '<f4')], 'fortran_order': False, 'shape': (3,), }" },
        "structured")
end

function TestNpy:test_hostile_names_do_not_reach_the_terminal()
    local path = self.folder:write("a\27[31m\n.npy", bytes.npy { descr = "<c8" })
    bytes.assert_refused({ "a?[31m?" }, dump.open, path)
end
