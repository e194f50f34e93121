-- The bundled dump is what its maker's manifest says.

local ffi = require "ffi"
local lu = require "luaunit"
local array = require "ghm.array"
local dump = require "ghm.dumps.dump"
local inflate = require "ghm.dumps.inflate"
local json = require "ghm.json"
local posix = require "ghm.posix"
local provenance = require "ghm.runner.provenance"
local scripts = require "scripts"

local TestDigits = {}
_G.TestDigits = TestDigits

local folder = scripts.root .. "/experiments/digits"

local function manifest()
    return assert(json.decode(assert(posix.read_file(folder .. "/digits_manifest.json"))))
end

function TestDigits.test_the_manifest_says_how_the_dump_was_made()
    local said = manifest()
    lu.assertEquals({ type(said.seed), type(said.steps) }, { "number", "number" })
    for _, library in ipairs { "python", "numpy", "torch", "scikit-learn" } do
        lu.assertStrMatches(said.versions[library], "%d+%.%d+.*")
    end
end

function TestDigits.test_the_files_are_those_of_the_manifest()
    local listed = {}
    for k, file in ipairs(manifest().files) do
        listed[k] = folder .. "/" .. file.file
        lu.assertEquals(provenance.sha256(listed[k]), file.sha256, file.file)
    end
    lu.assertEquals(dump.list { folder }, listed)
end

function TestDigits.test_the_arrays_are_those_of_the_manifest()
    for _, file in ipairs(manifest().files) do
        local open = dump.open(folder .. "/" .. file.file, { check_crc = true })
        lu.assertEquals(#open.names, #file.arrays)
        for k, expected in ipairs(file.arrays) do
            local a = open:get(expected.name)
            lu.assertEquals({ open.names[k], a.dtype, array.shape_text(a.shape) },
                { expected.name, expected.dtype, array.shape_text(expected.shape) })
            lu.assertEquals(inflate.crc32(0, ffi.cast("const uint8_t *", a.ptr),
                a.n * array.itemsize[a.dtype]), expected.crc32, expected.name)
        end
        open:close()
    end
end

return TestDigits
