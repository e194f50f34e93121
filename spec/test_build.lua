-- What stands around the library: its symbols, the installer of packages, this very runner.

local lu = require "luaunit"
local folder = require("dump_bytes").folder
local posix = require "ghm.posix"

local root = assert(debug.getinfo(1, "S").source:match "^@(.*)/spec/test_build%.lua$")

local TestLibrary = {}
_G.TestLibrary = TestLibrary

local library = os.getenv "GHM_LIBRARY" or root .. "/build/libghm.so"

function TestLibrary.test_exports_its_contract_and_nothing_else()
    local output, status = posix.capture("nm -D --defined-only " .. posix.quote(library))
    lu.assertEquals(status, 0)
    local header = assert(posix.read_file(root .. "/core/ghm.h"))
    local n = 0
    for symbol in output:gmatch "%S+ %u ([^\n]+)" do
        lu.assertStrContains(header, symbol .. "(")
        n = n + 1
    end
    lu.assertTrue(n > 20, output)
end

-- Wide registers anywhere else would end the process on an older x86-64.
function TestLibrary.test_only_functions_made_for_them_use_wide_registers()
    local output = posix.capture(("cd %s && objdump -d --no-show-raw-insn *.o"):format(
        posix.quote(library:match "^(.*)/")))
    lu.skipIf(not output:find("elf64-x86-64", 1, true), "this is not an x86-64")
    local object, name
    local wide, guilty = {}, {}
    for line in output:gmatch "[^\n]+" do
        object = line:match "^(.*%.o): +file format" or object
        name = line:match "^%x+ <(.*)>:$" or name
        if line:find "%%[yz]mm" then
            local clone = name:find "%.avx" or name:find "%.arch_x86"
            if object:find "^kernels_avx" or clone then
                wide[object] = true
            else
                guilty[object .. ": " .. name] = true
            end
        end
    end
    lu.assertTrue(wide["kernels_avx512.o"])
    lu.assertEquals(guilty, {})
end

-- deps, with a PATH that holds only what a test puts there.
local TestDeps = {}
_G.TestDeps = TestDeps

local all = { "gcc", "g++", "gnuplot", "pkg-config", "luacheck", "clang-format", "git" }

function TestDeps:setUp()
    self.folder = folder()
    self.log = self.folder.path .. "/log"
    local real = posix.capture "command -v luajit"
    posix.capture(("ln -s %s %s"):format(posix.quote(real), posix.quote(self.folder.path)))
    for _, name in ipairs(all) do
        self:stub(name, "")
    end
    self:stub("apt-get", ('echo "$@" >>%s'):format(posix.quote(self.log)))
    self:stub("sh", 'exec /bin/sh "$@"')
    self:user(0)
end

function TestDeps:tearDown()
    self.folder:remove()
end

function TestDeps:stub(name, script)
    local path = self.folder:write(name, "#!/bin/sh\n" .. script .. "\n")
    posix.capture("/bin/chmod +x " .. posix.quote(path))
end

function TestDeps:without(name)
    os.remove(self.folder.path .. "/" .. name)
end

function TestDeps:user(id)
    self:stub("id", "echo " .. id)
end

-- -> output and errors, exit status, what apt-get was asked
function TestDeps:deps(groups)
    local output, status = posix.capture(("PATH=%s %s/.ci/deps %s 2>&1 </dev/null"):format(
        posix.quote(self.folder.path), posix.quote(root), groups))
    return output, status, posix.read_file(self.log) or ""
end

function TestDeps:test_is_silent_when_nothing_is_missing()
    local output, status, asked = self:deps "build run test lint"
    lu.assertEquals({ output, status, asked }, { "", 0, "" })
end

function TestDeps:test_installs_only_what_is_missing_and_only_of_its_groups()
    self:without "gnuplot"
    self:without "luacheck"
    local _, status, asked = self:deps "run test"
    lu.assertEquals(status, 0)
    lu.assertEquals(asked, "update\ninstall -y --no-install-recommends gnuplot-nox\n")
end

function TestDeps:test_uses_sudo_when_not_root()
    self:user(1000)
    self:without "luacheck"
    self:stub("sudo", '[ "$1" = -n ] && shift && exec "$@"')
    local _, status, asked = self:deps "lint"
    lu.assertEquals(status, 0)
    lu.assertEquals(asked, "update\ninstall -y --no-install-recommends lua-check\n")
end

function TestDeps:test_prints_the_exact_command_without_root_or_sudo()
    self:user(1000)
    self:without "luacheck"
    for _, sudo in ipairs { "none", "refuses" } do
        if sudo == "refuses" then
            self:stub("sudo", "exit 1")
        end
        local output, status, asked = self:deps "lint"
        lu.assertEquals({ status, asked }, { 1, "" }, sudo)
        lu.assertStrContains(output, "As root, run:\n    apt-get update && DEBIAN_FRONTEND="
            .. "noninteractive apt-get install -y --no-install-recommends lua-check")
    end
end

function TestDeps:test_fails_when_apt_fails()
    self:without "gnuplot"
    self:stub("apt-get", "exit 100")
    local output, status = self:deps "run"
    lu.assertEquals(status, 1)
    lu.assertStrContains(output, "They are not installed")
end

function TestDeps:test_refuses_an_unknown_group()
    local output, status = self:deps "tests"
    lu.assertEquals(status, 2)
    lu.assertStrContains(output,
        "no group 'tests'; expected build, run, prompt, test, lint, peers or browser")
end

-- The runner over specs of its own, in a tree of its own.
local TestRunner = {}
_G.TestRunner = TestRunner

local head = 'local lu = require "luaunit"\nTestX = {}\n'

function TestRunner:setUp()
    self.folder = folder()
    posix.capture(("cp %s %s"):format(posix.quote(root .. "/spec/run.lua"),
        posix.quote(self.folder.path)))
end

function TestRunner:tearDown()
    self.folder:remove()
end

-- specs: file name -> text -> the runner's output, its last line, its exit status
function TestRunner:run(specs, arguments)
    for name, text in pairs(specs) do
        self.folder:write(name, text)
    end
    local output, status = posix.capture(("cd / && luajit %s/run.lua %s 2>&1"):format(
        posix.quote(self.folder.path), arguments or ""))
    return output, output:match "[^\n]*$", status
end

function TestRunner:test_counts_what_passes_fails_and_is_skipped()
    local output, tally, status = self:run { ["test_x.lua"] = head .. [[
        function TestX.test_a() end
        function TestX.test_b() lu.assertEquals(1, 2) end
        function TestX.test_c() error "oops" end
        function TestX.test_d() lu.skip "no such device" end]] }
    lu.assertEquals({ tally, status }, { "1 passed, 2 failed, 1 skipped", 1 })
    lu.assertStrContains(output, "TestX.test_d: no such device")
    lu.assertStrContains(output, "make test T=TestX.test_b")
    lu.assertStrContains(output, "oops")
end

function TestRunner:test_256_failures_still_fail()
    local _, tally, status = self:run { ["test_x.lua"] = head .. [[
        for i = 1, 256 do TestX["test_" .. i] = function() error(i) end end]] }
    lu.assertEquals({ tally, status }, { "0 passed, 256 failed, 0 skipped", 1 })
end

function TestRunner:test_a_spec_that_does_not_load_fails_and_stops_no_other()
    local _, tally, status = self:run {
        ["test_a.lua"] = 'require "no_such_module"',
        ["test_b.lua"] = "TestX = { test_it = function() end }",
    }
    lu.assertEquals({ tally, status }, { "1 passed, 1 failed, 0 skipped", 1 })
end

function TestRunner:test_a_second_class_of_the_same_name_fails()
    local text = "TestX = { test_it = function() end }"
    local output, _, status = self:run { ["test_a.lua"] = text, ["test_b.lua"] = text }
    lu.assertEquals(status, 1)
    lu.assertStrContains(output, "TestX is the name of a class in another spec too")
end

function TestRunner:test_no_tests_is_a_failure()
    local _, tally, status = self:run {}
    lu.assertEquals({ tally, status }, { "0 passed, 1 failed, 0 skipped", 1 })
    _, tally, status = self:run { ["test_x.lua"] = "TestX = {}" }
    lu.assertEquals({ tally, status }, { "0 passed, 1 failed, 0 skipped", 1 })
end

function TestRunner:test_names_choose_files_classes_and_tests()
    local specs = {
        ["test_a.lua"] = "TestA = { test_1 = function() end, test_2 = function() end }",
        ["test_b.lua"] = "TestB = { test_3 = function() end } error 'late'",
    }
    local cases = { -- arguments, tally
        { "a", "2 passed, 0 failed, 0 skipped" },
        { "a TestB", "3 passed, 1 failed, 0 skipped" },
        { "TestA.test_1", "1 passed, 1 failed, 0 skipped" },
        { "c", "0 passed, 1 failed, 0 skipped" },
        { "--list a", "TestA.test_2" },
    }
    for _, case in ipairs(cases) do
        local _, tally = self:run(specs, case[1])
        lu.assertEquals(tally, case[2], case[1])
    end
end

function TestRunner:test_random_numbers_start_from_the_seed_in_every_test()
    local _, tally = self:run { ["test_x.lua"] = head .. [[
        local first
        local function draw()
            first = first or math.random()
            math.randomseed(1)
            lu.assertEquals(first, math.random())
        end
        TestX.test_1, TestX.test_2 = draw, function() lu.assertEquals(math.random(), first) end]] }
    lu.assertEquals(tally, "2 passed, 0 failed, 0 skipped")
end
