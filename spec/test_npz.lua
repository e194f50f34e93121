local lu = require "luaunit"
local bytes = require "dump_bytes"
local dump = require "ghm.dumps.dump"

local TestNpz = {}
_G.TestNpz = TestNpz

local DEFLATE = 8

function TestNpz:setUp()
    self.folder = bytes.folder()
end

function TestNpz:tearDown()
    self.folder:remove()
end

function TestNpz:write(members, opts)
    return self.folder:write("a.npz", bytes.zip(members, opts))
end

-- The texts must be in the refusal of the archive's directory or of its arrays.
function TestNpz:refuse(members, opts, ...)
    bytes.assert_refused({ "a.npz", ... }, bytes.read_all, self:write(members, opts))
end

-- A member called x with changes; its data is an .npy of { 1, 2, 3 } unless told otherwise.
local function member(changes)
    local t = { name = "x.npy", data = bytes.npy {} }
    for key, value in pairs(changes or {}) do
        t[key] = value
    end
    return t
end

function TestNpz:test_reads_stored_and_deflated_members_in_order()
    local file = bytes.read_all(self:write {
        member { name = "b.npy", method = DEFLATE }, member { name = "a.npy" },
        member { name = "in/folder.npy", method = DEFLATE } })
    lu.assertEquals(file.format, "npz")
    lu.assertEquals(file.names, { "b", "a", "in/folder" })
    lu.assertEquals(file.entries.b.stored, "inflated")
    for _, name in ipairs(file.names) do
        lu.assertEquals(file:get(name):totable(), { 1, 2, 3 })
        lu.assertEquals(file.entries[name].bytes, 12)
    end
end

function TestNpz:test_maps_a_stored_member_only_when_aligned()
    for extra = 0, 3 do -- one of four paddings aligns the data
        local file = dump.open(self:write { member { local_extra = ("\0"):rep(extra) } })
        local entry = file.entries.x
        lu.assertEquals(entry.stored, entry.offset % 4 == 0 and "mapped" or "converted")
        lu.assertEquals(file:get("x"):totable(), { 1, 2, 3 })
    end
end

function TestNpz:test_converts_order_of_inflated_members()
    local data = bytes.npy { descr = ">i2", fortran = "True", shape = "(2, 2)",
        data = "\0\1\0\3\0\2\0\4" }
    local file = bytes.read_all(self:write { member { data = data, method = DEFLATE } })
    lu.assertEquals(file:get("x"):totable(), { { 1, 2 }, { 3, 4 } })
end

function TestNpz:test_reads_empty_arrays_and_scalars()
    for _, method in ipairs { 0, DEFLATE } do
        local file = bytes.read_all(self:write {
            member { data = bytes.npy { shape = "(0, 4)", data = "" }, method = method },
            member { name = "y.npy", method = method,
                data = bytes.npy { shape = "()", data = bytes.pack("float", { 7 }) } } })
        lu.assertEquals(file:get("x").shape, { 0, 4 })
        lu.assertEquals(file:get("y"):totable(), 7)
    end
end

function TestNpz:test_inflates_large_members()
    local values = {}
    for k = 1, 200000 do
        values[k] = k % 977
    end
    local data = bytes.npy { shape = "(200000,)", data = bytes.pack("float", values) }
    local file = bytes.read_all(self:write { member { data = data, method = DEFLATE } })
    lu.assertEquals(file:get("x"):totable(), values)
end

function TestNpz:test_reads_zip64_records()
    local packed = bytes.npy {}
    local extra = bytes.le(1, 2) .. bytes.le(16, 2) .. bytes.le(#packed, 8) .. bytes.le(#packed, 8)
    local path = self:write({ member { extra = "\9\9\1\0z" .. extra, size = 0xFFFFFFFF,
        packed = 0xFFFFFFFF } }, { zip64 = true })
    lu.assertEquals(bytes.read_all(path):get("x"):totable(), { 1, 2, 3 })
end

function TestNpz:test_ignores_members_that_are_no_npy_and_says_so()
    local file = dump.open(self:write { member { name = "readme.txt" }, member() })
    lu.assertEquals(file.names, { "x" })
    lu.assertStrContains(file.warnings[1], "readme.txt")
    self:refuse({ member { name = "readme.txt" } }, nil, "without .npy members")
end

function TestNpz:test_passes_over_arrays_of_other_types_and_names_them_where_they_are_missed()
    local words = bytes.npy { descr = "<U2", shape = "(2,)", data = ("P\0\0\0003\0\0\0"):rep(2) }
    for _, method in ipairs { 0, DEFLATE } do
        local path = self:write { member { name = "names.npy", data = words, method = method },
            member() }
        local file = bytes.read_all(path)
        lu.assertEquals({ file.names, #file.unread, file.unread[1].name }, { { "x" }, 1, "names" })
        bytes.assert_refused({ "no array 'names'",
            "it holds x; not read: names (dtype '<U2' is not read)" }, file.get, file, "names")
        self:refuse({ member { data = words, method = method } }, nil, "'x'", "dtype '<U2'")
    end
    for _, descr in ipairs { "<u4", "<c8", "|S5", "<M8[s]", ">m8[ns]", "<f16", "|V3" } do
        local data = bytes.npy { descr = descr, shape = "(2,)", data = ("\0"):rep(64) }
        local file = dump.open(self:write { member { name = "a.npy", data = data }, member() })
        lu.assertStrContains(file.unread[1].reason, ("dtype '%s' is not read"):format(descr))
    end
    local objects = { name = "meta.npy", data = bytes.npy { descr = "|O", data = "\128\4N." } }
    local records = { name = "meta.npy", data = bytes.npy { header =
        "{'descr': [('x', '<f4')], 'fortran_order': False, 'shape': (3,), }" } }
    for told, odd in pairs { ["object elements are refused"] = objects,
        ["structured elements are not read"] = records } do
        for _, method in ipairs { 0, DEFLATE } do
            odd.method = method
            local file = bytes.read_all(self:write { odd, member() })
            lu.assertEquals({ file.names, file.unread[1].name }, { { "x" }, "meta" })
            bytes.assert_refused({ "no array 'meta'", told }, file.get, file, "meta")
            self:refuse({ odd }, nil, "array 'meta'", told, "expected one of f2")
        end
    end
    for _, descr in ipairs { "O", "<O", "f", "<", "!f4", "|f4", "", "<q" } do -- all are refused
        local odd = member { name = "a.npy", data = bytes.npy { descr = descr } }
        self:refuse({ odd, member() }, nil, "array 'a'")
    end
end

function TestNpz:test_reads_an_archive_with_a_comment()
    local file = dump.open(self:write({ member() }, { comment = "made by hand" }))
    lu.assertEquals(file.names, { "x" })
end

function TestNpz:test_refuses_an_empty_archive()
    self:refuse({}, nil, "empty")
end

function TestNpz:test_refuses_no_and_two_end_records()
    local whole = bytes.zip { member() }
    for _, text in ipairs { whole:sub(1, -23), whole:sub(1, -2), whole .. "\0" } do
        bytes.assert_refused({ "no zip end record" }, dump.open, self.folder:write("a.npz", text))
    end
    local double = whole .. whole:sub(-22)
    bytes.assert_refused({ "does not end where" }, dump.open, self.folder:write("a.npz", double))
    -- the first record calls the second its comment: two readings of one file
    local hidden = whole:sub(1, -3) .. bytes.le(22, 2) .. whole:sub(-22)
    bytes.assert_refused({ "second zip end record" }, dump.open, self.folder:write("a.npz", hidden))
end

function TestNpz:test_refuses_an_end_signature_in_the_comment()
    self:refuse({ member() }, { comment = "see PK\5\6 here, and more than 22 bytes" },
        "comment holds an end record")
end

function TestNpz:test_refuses_a_directory_that_lies_elsewhere()
    self:refuse({ member() }, { offset = 0 }, "does not end where")
    self:refuse({ member() }, { offset = 0xFFFFFFF0 }, "does not end where")
    self:refuse({ member() }, { size = 0xFFFFFFF0 }, "does not end where")
    self:refuse({ member() }, { gap = "gap" }, "does not end where")
end

function TestNpz:test_refuses_a_wrong_number_of_entries()
    self:refuse({ member() }, { entries = 2 }, "entries")
    self:refuse({ member(), member { name = "y.npy" } }, { entries = 1 }, "after the last entry")
    self:refuse({ member() }, { entries = 0 }, "empty")
end

function TestNpz:test_refuses_damaged_directory_entries()
    self:refuse({ member() }, { directory = function(text)
        return "PK\1\3" .. text:sub(5)
    end }, "expected an entry")
    local long = member { name = ("n"):rep(50) .. ".npy" }
    self:refuse({ long, member() }, { directory = function(text)
        return text:sub(1, -32) -- ends inside the second entry
    end }, "expected an entry")
    self:refuse({ member() }, { directory = function(text)
        return text:sub(1, 28) .. "\255\255" .. text:sub(31) -- the length of the name
    end }, "beyond the directory's end")
end

function TestNpz:test_refuses_two_end_records_that_disagree()
    self:refuse({ member() }, { zip64 = true, narrow = 7 }, "disagree on the directory's size")
end

function TestNpz:test_refuses_several_disks()
    self:refuse({ member() }, { disk = 1 }, "several disks")
end

function TestNpz:test_refuses_zip64_sentinels_without_their_records()
    self:refuse({ member() }, { zip64 = "sentinel" }, "asks for a zip64 record")
    self:refuse({ member() }, { zip64 = true, locator = 3 }, "leads to no zip64 end record")
    self:refuse({ member() }, { zip64 = true, locator = 2 ^ 60 }, "leads to no zip64 end record")
    self:refuse({ member { size = 0xFFFFFFFF } }, nil, "'x.npy'", "size is in a zip64 extra field")
    local short = bytes.le(1, 2) .. bytes.le(4, 2) .. "abcd"
    self:refuse({ member { offset = 0xFFFFFFFF, extra = short } }, nil,
        "header is in a zip64 extra field")
end

function TestNpz:test_refuses_zip64_numbers_beyond_the_file()
    for _, huge in ipairs { 2 ^ 53, 2 ^ 63, 2 ^ 40 } do
        local extra = bytes.le(1, 2) .. bytes.le(8, 2) .. bytes.le(huge, 8)
        self:refuse({ member { size = 0xFFFFFFFF, extra = extra } }, nil, "differ")
        self:refuse({ member { offset = 0xFFFFFFFF, extra = extra } }, nil, "local header")
        self:refuse({ member { size = 0xFFFFFFFF, extra = extra, method = DEFLATE } }, nil,
            "cannot inflate to")
    end
end

function TestNpz:test_refuses_encrypted_members()
    for _, flags in ipairs { 1, 64, 8192 } do
        self:refuse({ member { flags = flags } }, nil, "'x.npy'", "encrypted")
    end
end

function TestNpz:test_refuses_other_compression_methods()
    self:refuse({ member { method = 12 } }, nil, "compression method 12")
end

function TestNpz:test_refuses_a_wrong_crc()
    self:refuse({ member { crc = 1 } }, nil, "expected 00000001")
    self:refuse({ member { crc = 1, method = DEFLATE } }, nil, "expected 00000001")
end

function TestNpz:test_checks_the_crc_of_stored_members_only_when_asked()
    local path = self:write { member { crc = 1 } }
    lu.assertEquals(dump.open(path):get("x"):totable(), { 1, 2, 3 })
end

function TestNpz:test_refuses_sizes_that_lie()
    local data = bytes.npy {}
    self:refuse({ member { size = #data - 1 } }, nil, "differ")
    self:refuse({ member { size = #data + 4, packed = #data + 4 } }, nil, "x")
    self:refuse({ member { packed = 2 ^ 31, size = 2 ^ 31 } }, nil, "pass the zip directory")
    self:refuse({ member { size = #data + 4, method = DEFLATE } }, nil, "by its own header")
    self:refuse({ member { size = #data - 4, method = DEFLATE } }, nil, "12 bytes, 8 are there")
    self:refuse({ member { data = data .. "more", size = #data, method = DEFLATE } }, nil,
        "more bytes than the directory says")
    self:refuse({ member { data = data:sub(1, -5), size = #data, method = DEFLATE } }, nil,
        "4 bytes fewer")
end

function TestNpz:test_refuses_broken_deflate_streams()
    local body = bytes.deflate(bytes.npy {})
    self:refuse({ member { method = DEFLATE, body = body .. "x" } }, nil, "after the end")
    self:refuse({ member { method = DEFLATE, body = body:sub(1, -8) } }, nil, "ends too early")
    self:refuse({ member { method = DEFLATE, body = body:sub(1, -2) } }, nil, "ends too early")
    self:refuse({ member { method = DEFLATE, body = ("\255"):rep(50) } }, nil, "zlib")
    self:refuse({ member { method = DEFLATE, body = "" } }, nil, "cannot inflate")
end

function TestNpz:test_refuses_a_bomb_before_inflating_it()
    -- 64 MB of zeros behind the header of three numbers; the directory tells the truth about it
    local data = bytes.npy {} .. ("\0"):rep(64e6)
    local path = self:write { member { data = data, method = DEFLATE } }
    collectgarbage()
    bytes.assert_refused({ "64000140 bytes by the zip directory, 140 by its own header" },
        dump.open, path)
    -- a directory that promises more than deflate can give
    self:refuse({ member { method = DEFLATE, size = 2 ^ 32 - 2 } }, nil, "cannot inflate to")
end

function TestNpz:test_refuses_overlapping_members()
    self:refuse({ member(), member { name = "y.npy", offset = 0, local_name = "y.npy" } }, nil,
        "disagree")
    self:refuse({ member(), member { name = "x.npy", offset = 0 } }, nil, "occurs twice")
    local inner = bytes.zip { member { name = "y.npy" } } -- a local header inside x's own data
    self:refuse({ member { data = inner }, member { name = "y.npy", offset = 35 } }, nil,
        "'y.npy'", "overlaps the member 'x.npy'")
end

function TestNpz:test_refuses_duplicate_names()
    self:refuse({ member(), member() }, nil, "occurs twice")
end

function TestNpz:test_refuses_unsafe_names()
    for _, name in ipairs { "../x.npy", "a/../x.npy", "/x.npy", "a\\x.npy", "x\0.npy", "", ".." } do
        self:refuse({ member { name = name } }, nil, "unsafe member name")
    end
end

function TestNpz:test_refuses_local_headers_that_disagree()
    self:refuse({ member { local_name = "y.npy" } }, nil, "a.npz: member 'x.npy': byte 0: ",
        "disagree")
    self:refuse({ member { local_method = DEFLATE } }, nil, "disagree")
    self:refuse({ member { offset = 1 } }, nil, "expected a zip local header")
    self:refuse({ member { local_extra = ("x"):rep(10), offset = 0xFFFFFF } }, nil, "local header")
end

function TestNpz:test_names_array_and_place_of_a_bad_header()
    local data = bytes.npy { descr = "|O" }
    for _, method in ipairs { 0, DEFLATE } do
        self:refuse({ member { data = data, method = method } }, nil, "array 'x'",
            "object elements are refused")
        self:refuse({ member { data = "not an array", method = method } }, nil, "array 'x'",
            "byte ", "no .npy magic")
        self:refuse({ member { data = "\147NUMPY\1", method = method } }, nil, "header")
    end
end
