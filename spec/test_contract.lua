-- The contract, core/ghm.h: what it declares is what the library exports, it is plain C for C and
-- C++ alike, and Lua's words are its enums.

local lu = require "luaunit"
local bytes = require "dump_bytes"
local clib = require "ghm.clib"
local ffi = require "ffi"
local posix = require "ghm.posix"

local TestContract = {}
_G.TestContract = TestContract

local C = clib.C
local root = debug.getinfo(1, "S").source:match "^@(.*)/spec/[^/]*$"
local library = os.getenv "GHM_LIBRARY" or root .. "/build/libghm.so"

local function header()
    local text = assert(posix.read_file(root .. "/core/ghm.h"))
    return text, text:match "/%* cdef: begin %*/(.*)/%* cdef: end %*/"
end

-- Names of the functions of the cdef region, comments taken out.
local function declared()
    local _, region = header()
    local names = {}
    for name in region:gsub("/%*.-%*/", ""):gmatch "(ghm_[%w_]+)%s*%b()%s*;" do
        names[#names + 1] = name
    end
    table.sort(names)
    return names
end

local function need(tool)
    if select(2, posix.capture("command -v " .. tool)) ~= 0 then
        lu.skip(tool .. " is not installed")
    end
end

function TestContract.test_every_declared_function_can_be_called()
    local names = declared()
    lu.assertTrue(#names > 25, "the spec no longer finds the declarations")
    for _, name in ipairs(names) do
        lu.assertTrue(pcall(function() return C[name] end), name .. " is declared, not exported")
    end
end

function TestContract.test_nothing_else_is_exported()
    need "nm"
    local out, status = posix.capture("nm -D --defined-only " .. posix.quote(library))
    lu.assertEquals(status, 0, out)
    local exported = {}
    for kind, name in out:gmatch "%x+ (%a) (ghm_[%w_]+)" do
        lu.assertEquals(kind, "T", name .. " is exported and no function")
        exported[#exported + 1] = name
    end
    table.sort(exported)
    lu.assertEquals(exported, declared())
end

-- What a Lua reader of the region could not take.
function TestContract.test_the_region_holds_plain_declarations()
    local text, region = header()
    for _, mark in ipairs { "begin", "end" } do
        local _, count = text:gsub("/%* cdef: " .. mark .. " %*/", "")
        lu.assertEquals(count, 1, mark)
    end
    lu.assertNil(region:find "\n%s*#", "a preprocessor line")
    lu.assertNil(region:find('extern "C"', 1, true))
    lu.assertNil(region:find "%[static")
    lu.assertNil(region:find "__attribute__")
end

-- Includes the header twice and uses it, which must compile without a word.
local program = [[
#include "ghm.h"
#include "ghm.h"
int main(void)
{
    ghm_config config;
    return ghm_config_default(GHM_CLASSIFICATION, &config) == GHM_OK ? 0 : 1;
}
]]

for compiler, language in pairs { gcc = "c11", ["g++"] = "c++17" } do
    TestContract["test_the_header_compiles_as_" .. language:gsub("%+", "p")] = function()
        need(compiler)
        local folder = bytes.folder()
        local path = folder:write(language == "c11" and "a.c" or "a.cpp", program)
        local out, status = posix.capture(("%s -std=%s -Wall -Wextra -pedantic -Werror"
            .. " -fsyntax-only -I%s %s 2>&1"):format(compiler, language,
            posix.quote(root .. "/core"), posix.quote(path)))
        folder:remove()
        lu.assertEquals(status, 0, out)
        lu.assertEquals(out, "")
    end
end

function TestContract.test_structs_have_no_holes()
    -- C compilers agree on these offsets, so batches can be made in any language
    lu.assertEquals(ffi.sizeof "ghm_batch", 6 * 4 + 2 * 8 + 3 * 8)
    lu.assertEquals(ffi.sizeof "ghm_facts", 10 * 8)
    lu.assertEquals(ffi.sizeof "ghm_config", 5 * 8 + 4 * 4)
    lu.assertEquals(ffi.sizeof "ghm_result", 6 * 8)
    lu.assertEquals(ffi.sizeof "ghm_study", 6 * 8)
    lu.assertEquals(ffi.sizeof "ghm_outputs", 4 * 8)
end

-- Each word is a value of its enum, they count from 0, and the enum has no value without a word.
function TestContract.test_words_of_switches_are_the_enums()
    local _, region = header()
    local prefixes = { divide = "GHM_DIVIDE_", start = "GHM_START_", empty = "GHM_EMPTY_",
        reduction = "GHM_" }
    for key, prefix in pairs(prefixes) do
        local body = region:match("enum ghm_" .. key .. " {(.-)}")
        local count = 0
        for _ in body:gmatch "GHM_[%u_]+" do
            count = count + 1
        end
        lu.assertEquals(#clib.words[key], count, key)
        for k, word in ipairs(clib.words[key]) do
            lu.assertEquals(clib.enum(prefix, key, word, clib.words[key]), k - 1, word)
        end
    end
    for _, word in ipairs(clib.words.labels) do
        lu.assertNotNil(C["GHM_" .. word:upper()])
    end
end

-- The functions that Lua names are the enum's, all of them.
function TestContract.test_functions_of_sketches_are_the_enum()
    local _, region = header()
    local functions = require("ghm.sketches").functions
    local named, count = {}, 0
    for name in pairs(functions) do
        named["GHM_" .. name:upper()] = true
    end
    for name in region:match("enum ghm_function {(.-)};"):gsub("/%*.-%*/", "")
        :gmatch "GHM_[%u%d_]+" do
        lu.assertTrue(named[name], name)
        lu.assertEquals(tonumber(C[name]), count)
        count = count + 1
    end
    lu.assertEquals(count, 10)
end

function TestContract.test_the_abi_and_version_of_the_library_are_the_headers()
    local text = header()
    lu.assertEquals(C.ghm_abi(), tonumber(text:match "GHM_ABI = (%d+)"))
    lu.assertEquals(clib.version, text:match 'ghm_version%(void%);%s*/%* "([%d.]+)"')
    lu.assertStrContains(clib.build, "commit ")
    lu.assertStrContains(clib.build, "-ffp-contract=off")
    lu.assertNil(clib.build:find "fast%-math")
end

function TestContract.test_the_last_error_is_one_line_and_stays_until_the_next()
    lu.assertNotEquals(C.ghm_device_open("gpu", 0, ffi.new "ghm_device *[1]"), 0)
    local message = ffi.string(C.ghm_last_error())
    lu.assertStrContains(message, "device 'gpu'")
    lu.assertNil(message:find "\n")
    lu.assertEquals(C.ghm_config_default(0, ffi.new "ghm_config"), 0)
    lu.assertEquals(ffi.string(C.ghm_last_error()), message)
end

function TestContract.test_a_device_says_what_it_is()
    local device = require "ghm.device"
    local one, three = device.open("cpu", 1), device.open("cpu", 3)
    lu.assertStrMatches(device.name(one), "cpu %w+, 1 thread")
    lu.assertStrMatches(device.name(three), "cpu %w+, 3 threads")
    lu.assertEquals(device.threads(three), 3)
    lu.assertEquals(ffi.string(C.ghm_device_name(nil)), "no device")
end
