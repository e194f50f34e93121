-- Dumps that numpy, torch and safetensors wrote: what is read must be, to the bit, what they say
-- that they wrote. Without a python that has them this is skipped; with GHM_REQUIRE_PEERS=1 it
-- fails.

local ffi = require "ffi"
local lu = require "luaunit"
local array = require "ghm.array"
local bytes = require "dump_bytes"
local json = require "ghm.json"
local posix = require "ghm.posix"
local scripts = require "scripts"

local TestRealDumps = {}
_G.TestRealDumps = TestRealDumps

local folder, manifest, problem

function TestRealDumps.setupClass()
    folder = bytes.folder()
    local code, said = scripts.run_python("make_real_dumps.py", folder.path)
    problem = code ~= 0 and said or nil
    manifest = code == 0 and assert(json.decode(posix.read_file(folder.path .. "/manifest.json")))
        or { libraries = {}, files = {} }
end

function TestRealDumps.teardownClass()
    folder:remove()
end

-- The files that this library wrote. Skips the test where the library is not there.
local function written_by(library)
    lu.assertNil(problem)
    local version = manifest.libraries[library]
    scripts.skip_without(library, version and version ~= json.null)
    local files = {}
    for _, file in ipairs(manifest.files) do
        if file.library == library then
            files[#files + 1] = file
        end
    end
    return files
end

local function hex(a)
    local text = ffi.string(a.ptr, a.n * array.itemsize[a.dtype])
    return (text:gsub(".", function(c)
        return ("%02x"):format(c:byte())
    end))
end

local function check(file)
    local path = folder.path .. "/" .. file.file
    if file.refused then
        bytes.assert_refused({ path, file.refused }, bytes.read_all, path)
        return
    end
    local dump = bytes.read_all(path)
    lu.assertEquals(dump.warnings, {}, path)
    for _, expected in ipairs(file.arrays) do
        local a = dump:get(expected.name)
        local what = path .. " " .. expected.name
        lu.assertEquals(a.dtype .. array.shape_text(a.shape),
            expected.dtype .. array.shape_text(expected.shape), what)
        lu.assertEquals(hex(a), expected.hex, what)
    end
    dump:close()
end

for _, library in ipairs { "numpy", "torch", "safetensors" } do
    TestRealDumps["test_what_" .. library .. "_writes_is_read_to_the_bit"] = function()
        local files = written_by(library)
        lu.assertTrue(#files > 0)
        for _, file in ipairs(files) do
            check(file)
        end
    end
end

function TestRealDumps.test_elements_of_torch_and_safetensors_are_mapped_where_they_lie()
    local found = 0
    for _, name in ipairs { "all.pt", "no_crc.pt", "torch.safetensors" } do
        local path = folder.path .. "/" .. name
        if posix.real_path(path) then
            local dump = bytes.read_all(path)
            for _, key in ipairs { "bf16_4x2x3", "f2_4x2x3", "f4_4x2x3", "b1_5", "i8_5" } do
                lu.assertEquals(dump.entries[key].stored, "mapped", path .. " " .. key)
                found = found + 1
            end
        end
    end
    scripts.skip_without("torch or safetensors", found > 0)
end
