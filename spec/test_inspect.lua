local lu = require "luaunit"
local bytes = require "dump_bytes"
local json = require "ghm.show.json"
local posix = require "ghm.posix"

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

function TestInspect:test_shows_type_role_range_and_the_first_nonfinite_place()
    local output, status = self:run "b.npz"
    lu.assertEquals(status, 0)
    lu.assertStrMatches(output:match "logits[^\n]*",
        "logits +f4%[2,3%] +logits +%-2 +4 +1 +2, first at %[1,1%] +inflated")
    lu.assertStrMatches(output:match "\npred([^\n]*)", " +f8%[1%] +box_pred +1 +1 +0 +0 +converted")
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

function TestInspect:test_a_stored_member_with_a_wrong_crc_is_refused()
    self.folder:write("a.npz", bytes.zip { { name = "x.npy", data = bytes.npy {}, crc = 7 } })
    local output, status = self:run "a.npz"
    lu.assertEquals(status, 3)
    lu.assertStrContains(output, "CRC-32")
end
