local lu = require "luaunit"
local bytes = require "dump_bytes"
local dump = require "ghm.dumps.dump"

local TestSafetensors = {}
_G.TestSafetensors = TestSafetensors

function TestSafetensors:setUp()
    self.folder = bytes.folder()
end

function TestSafetensors:tearDown()
    self.folder:remove()
end

function TestSafetensors:read(t)
    return bytes.read_all(self.folder:write("a.safetensors", bytes.safetensors(t)))
end

-- `t` is a description for bytes.safetensors or the raw bytes; the texts must be in the refusal
function TestSafetensors:refuse(t, ...)
    local path = self.folder:write("a.safetensors",
        type(t) == "table" and bytes.safetensors(t) or t)
    bytes.assert_refused({ path, ... }, bytes.read_all, path)
end

-- A header of one tensor x and what is to differ: JSON texts of dtype, shape, offsets.
local function header(t)
    return ('{"x":{"dtype":%s,"shape":%s,"data_offsets":%s}}'):format(t.dtype or '"F32"',
        t.shape or "[3]", t.offsets or "[0,12]")
end

-- A header of tensors of bytes: { { name, first, stop }, ... }.
local function tensors(list)
    local parts = {}
    for k, t in ipairs(list) do
        parts[k] = ('"%s":{"dtype":"U8","shape":[%d],"data_offsets":[%d,%d]}'):format(t[1],
            t[3] - t[2], t[2], t[3])
    end
    return "{" .. table.concat(parts, ",") .. "}"
end

function TestSafetensors:test_reads_every_dtype()
    local cases = { -- dtype there and here, C type, stored values, values as read
        { "F16", "f2", "uint16_t", { 0x3C00, 0xC000 }, { 1, -2 } },
        { "BF16", "bf16", "uint16_t", { 0x3F80, 0xC000 }, { 1, -2 } },
        { "F32", "f4", "float", { 1.5, -2 }, { 1.5, -2 } },
        { "F64", "f8", "double", { 0.1, -1e300 }, { 0.1, -1e300 } },
        { "I8", "i1", "int8_t", { -128, 127 }, { -128, 127 } },
        { "U8", "u1", "uint8_t", { 0, 255 }, { 0, 255 } },
        { "BOOL", "b1", "uint8_t", { 0, 1 }, { 0, 1 } },
        { "I16", "i2", "int16_t", { -32768, 5 }, { -32768, 5 } },
        { "I32", "i4", "int32_t", { -2 ^ 31, 5 }, { -2 ^ 31, 5 } },
        { "I64", "i8", "int64_t", { -2 ^ 53, 5 }, { -2 ^ 53, 5 } },
    }
    for _, case in ipairs(cases) do
        local data = bytes.pack(case[3], case[4])
        local file = self:read { data = data, header = header { dtype = '"' .. case[1] .. '"',
            shape = "[2]", offsets = ("[0,%d]"):format(#data) } }
        lu.assertEquals(tostring(file:get "x"), case[2] .. "[2]")
        lu.assertEquals(file:get("x"):totable(), case[5])
    end
end

function TestSafetensors:test_names_come_in_the_order_of_their_elements()
    local file = self:read { header = tensors { { "b", 2, 5 }, { "a", 5, 6 }, { "c", 0, 2 } },
        data = "\1\2\3\4\5\6" }
    lu.assertEquals({ file.format, file.names }, { "safetensors", { "c", "b", "a" } })
    lu.assertEquals(file:get("b"):totable(), { 3, 4, 5 })
    lu.assertEquals(file:get("a"):totable(), { 6 })
end

function TestSafetensors:test_maps_what_is_aligned_and_copies_what_is_not()
    for blanks = 0, 7 do
        local file = self:read { header = header {} .. (" "):rep(blanks) }
        local entry = file.entries.x
        lu.assertEquals(entry.stored, entry.offset % 4 == 0 and "mapped" or "converted")
        lu.assertEquals(file:get("x"):totable(), { 1, 2, 3 })
    end
end

function TestSafetensors:test_reads_scalars_and_empty_shapes_in_any_place()
    local file = self:read { header = '{"e":{"dtype":"I64","shape":[0,4],"data_offsets":[0,0]},'
        .. '"s":{"dtype":"F32","shape":[],"data_offsets":[0,4]},'
        .. '"f":{"dtype":"F32","shape":[0],"data_offsets":[4,4]}}',
        data = bytes.pack("float", { 7 }) }
    lu.assertEquals({ file:get("s"):totable(), file:get("s").shape }, { 7, {} })
    lu.assertEquals({ file:get("e").shape, file:get("f").n }, { { 0, 4 }, 0 })
    lu.assertEquals(self:read({ header = tensors { { "e", 0, 0 } }, data = "" }):get("e").n, 0)
end

function TestSafetensors:test_tolerates_white_space_and_strings_as_metadata()
    local file = self:read { header = ' \n\t{"__metadata__":{"format":"pt"},'
        .. header({}):sub(2) .. "   " }
    lu.assertEquals(file.names, { "x" })
end

function TestSafetensors:test_is_known_by_its_content_whatever_it_is_called()
    local file = dump.open(self.folder:write("step_1.bin", bytes.safetensors {}))
    lu.assertEquals({ file.format, file.names }, { "safetensors", { "x" } })
    local npy = dump.open(self.folder:write("b.safetensors", bytes.npy {}))
    lu.assertEquals(npy.format, "npy")
end

function TestSafetensors:test_refuses_headers_of_impossible_length()
    self:refuse({ length = 0 }, "byte 0", "no length of a header")
    self:refuse("short", "byte 0", "no length of a header")
    self:refuse({ length = 2 ^ 56 }, "a header of 72057594037927936 bytes, expected at most 1000")
    self:refuse({ length = 1e8 + 1 }, "expected at most 100000000")
    self:refuse({ length = 1e8 }, "a header of 100000000 bytes, 67 are there")
    self:refuse({ length = 68 }, "a header of 68 bytes, 67 are there")
    self:refuse("\255\255\255\255\255\255\255\255{}", "a header of 18446744073709551616 bytes")
end

function TestSafetensors:test_refuses_every_truncation()
    local whole = bytes.safetensors {}
    for length = 1, #whole - 1 do
        self:refuse(whole:sub(1, length))
    end
end

function TestSafetensors:test_refuses_headers_that_are_no_json_object()
    local cases = { -- header, the byte of the file that is named, what is said of it
        { "{", 9, "expected a key" }, { '{"x\255":1}', 11, "not UTF-8" },
        { "[]", 8, "no JSON object" }, { "null", 8, "no JSON object" },
        { "3", 8, "no JSON object" },
        { "{}x", 10, "text after the value" }, { '{"x":NaN}', 13, "expected a value" },
        { "{'x':1}", 9, "expected a key" }, { '{"x":1,}', 15, "expected a key" },
        { '{"a":1,"a":2}', 15, 'the key "a" occurs twice' },
        { '{"x":' .. ("["):rep(70), 76, "nested deeper than 64 levels" },
        { ("["):rep(1e5), 72, "nested deeper than 64 levels" },
    }
    for _, case in ipairs(cases) do
        self:refuse({ header = case[1] }, ("byte %d: "):format(case[2]), case[3])
    end
end

function TestSafetensors:test_refuses_duplicate_keys_at_every_level()
    self:refuse({ header = tensors { { "a", 0, 6 }, { "a", 6, 12 } } }, "occurs twice")
    self:refuse({ header = header { shape = '[3],"dtype":"F32"' } }, "occurs twice")
end

function TestSafetensors:test_refuses_dtypes_it_does_not_read_by_name()
    local others = { F8_E4M3 = 1, F8_E5M2 = 1, F8_E8M0 = 1, U16 = 2, U32 = 4, U64 = 8, C64 = 8 }
    local two = '{"odd":{"dtype":"%s","shape":[3],"data_offsets":[0,%d]},'
        .. '"x":{"dtype":"U8","shape":[1],"data_offsets":[%d,%d]}}'
    for dtype, size in pairs(others) do
        local told = ("dtype '%s' is not read"):format(dtype)
        local bytes_of = 3 * size
        self:refuse({ header = header { dtype = '"' .. dtype .. '"', offsets = ("[0,%d]"):format(
            bytes_of) }, data = ("\0"):rep(bytes_of) }, "array 'x'", told
            .. ", expected one of F16 BF16")
        local file = self:read { header = two:format(dtype, bytes_of, bytes_of, bytes_of + 1),
            data = ("\0"):rep(bytes_of) .. "\7" }
        lu.assertEquals({ file.names, file:get("x"):totable() }, { { "x" }, { 7 } })
        lu.assertEquals({ #file.unread, file.unread[1].name, file.unread[1].reason },
            { 1, "odd", told })
        self:refuse({ header = two:format(dtype, bytes_of + 1, bytes_of + 1, bytes_of + 2),
            data = ("\0"):rep(bytes_of + 2) }, "array 'odd'", dtype .. "[3] takes ")
    end
    for _, dtype in ipairs { "F4", "f32", "" } do -- of no known size: refused with all others
        local told = ("dtype '%s' is not read, expected one of F16 BF16"):format(dtype)
        self:refuse({ header = header { dtype = '"' .. dtype .. '"' } }, "array 'x'", told)
        self:refuse({ header = two:format(dtype, 3, 3, 4), data = "1234" }, "array 'odd'", told)
    end
end

function TestSafetensors:test_refuses_what_describes_no_tensor()
    for _, t in ipairs { { dtype = "32" }, { dtype = "null" }, { shape = "3" }, { shape = "{}" },
        { shape = "[-3]" }, { shape = "[1.5]" }, { shape = '["3"]' }, { shape = "[[3]]" },
        { shape = "[null]" }, { offsets = "[0]" }, { offsets = "[0,12,12]" }, { offsets = "12" },
        { offsets = "[-12,0]" }, { offsets = "[0,1.5]" }, { offsets = '["0","12"]' } } do
        self:refuse({ header = header(t) }, "array 'x'", "expected a dtype, a shape of counts")
    end
    self:refuse({ header = '{"x":[0,12]}' }, "expected a dtype")
    self:refuse({ header = '{"x":{"dtype":"F32","shape":[3]}}' }, "expected a dtype")
    self:refuse({ header = header({}):gsub("}}", ',"strides":[1]}}') }, "key 'strides' is unknown")
end

function TestSafetensors:test_refuses_metadata_that_is_no_object_of_strings()
    for _, metadata in ipairs { "3", "[]", '["a"]', "null", '{"a":1}', '{"a":{}}', '{"a":null}' } do
        self:refuse({ header = '{"__metadata__":' .. metadata .. "," .. header({}):sub(2) },
            "'__metadata__' is no object of strings")
    end
end

function TestSafetensors:test_refuses_sizes_that_are_not_shape_times_dtype()
    self:refuse({ header = header { shape = "[4]" } }, "takes 16 bytes", "[0, 12] give it 12")
    self:refuse({ header = header { dtype = '"F16"' } }, "takes 6 bytes")
    self:refuse({ header = header { shape = "[0]" } }, "takes 0 bytes")
    self:refuse({ header = header { shape = "[]" } }, "takes 4 bytes")
end

function TestSafetensors:test_refuses_shapes_and_offsets_that_overflow()
    self:refuse({ header = header { shape = "[2,9223372036854775807]" } }, "beyond 2^53")
    self:refuse({ header = header { shape = "[2,4611686018427387907]" } }, "beyond 2^53")
    self:refuse({ header = header { shape = "[4294967296,4294967296]" } }, "more than 2^53 bytes")
    self:refuse({ header = header { shape = "[4503599627370496]" } }, "more than 2^53 bytes")
    self:refuse({ header = header { offsets = "[0,18446744073709551628]" } }, "beyond 2^53")
    self:refuse({ header = header { offsets = "[9007199254740980,9007199254740992]" } },
        "no range of the 12 bytes")
end

function TestSafetensors:test_refuses_offsets_outside_the_file_or_backwards()
    self:refuse({ header = header { shape = "[4]", offsets = "[0,16]" } }, "no range of the 12")
    self:refuse({ header = header { offsets = "[12,0]" } }, "[12, 0] are no range of the 12 bytes")
end

function TestSafetensors:test_refuses_overlaps_holes_and_trailing_bytes()
    local data = ("\0"):rep(12)
    local cases = {
        { { { "a", 0, 8 }, { "b", 4, 12 } }, "array 'b'", "overlaps the tensor before it" },
        { { { "a", 0, 12 }, { "b", 0, 12 } }, "overlaps the tensor before it" },
        { { { "a", 0, 12 }, { "b", 2, 4 } }, "overlaps the tensor before it" },
        { { { "a", 0, 4 }, { "b", 8, 12 } }, "array 'b'", "a hole before it" },
        { { { "a", 4, 12 } }, "a hole before it" },
        { { { "a", 0, 12 }, { "b", 5, 5 } }, "overlaps" },
        { { { "a", 0, 11 } }, "1 bytes after the last tensor" },
    }
    for _, case in ipairs(cases) do
        self:refuse({ header = tensors(case[1]), data = data }, unpack(case, 2))
    end
    self:refuse({ header = header {}, data = data .. "\0" }, "1 bytes after the last tensor")
end

function TestSafetensors:test_refuses_a_file_without_tensors()
    self:refuse({ header = "{}", data = "" }, "holds no tensors")
    self:refuse({ header = '{"__metadata__":{}}', data = "" }, "holds no tensors")
end

function TestSafetensors:test_a_long_header_is_read()
    local list = {}
    for k = 1, 20000 do
        list[k] = { "layer." .. k, k - 1, k }
    end
    local file = self:read { header = tensors(list), data = ("\3"):rep(20000) }
    lu.assertEquals({ #file.names, file.names[20000], file:get("layer.777"):totable() },
        { 20000, "layer.20000", { 3 } })
end
