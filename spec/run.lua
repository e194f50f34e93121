-- Runs the specs: luajit spec/run.lua [-v] [--list] [NAME...], from any folder.
--
-- NAME is a spec file (npy: spec/test_npy.lua), a class (TestNpy) or a test (TestNpy.test_x). The
-- last line is "N passed, N failed, N skipped"; the exit code is 0 only if there was something to
-- run and nothing failed. math.random starts every test from GHM_SEED (1 unless set).

local folder = arg[0]:match "^(.*)/[^/]*$" or "."
local listing = io.popen("cd '" .. folder:gsub("'", "'\\''") .. "' && pwd && ls test_*.lua")
local here = listing:read "*l"
local root = here:match "^(.*)/"
package.path = ("%s/lua/?.lua;%s/lua/?/init.lua;%s/?.lua;"):format(root, root, here)
    .. package.path
io.stdout:setvbuf "line"

local lu = require "luaunit"

local seed = tonumber(os.getenv "GHM_SEED" or 1)
local options = {} -- "-v", "--list" -> true
local names = {} -- NAME -> whether it named anything
local by_file = true -- whether every NAME is a file: the other files then need not load
for _, word in ipairs(arg) do
    if word:find "^%-" then
        options[word] = true
    else
        names[word] = false
        by_file = by_file and not word:find "^Test"
    end
end

local passed, failed, skipped = 0, {}, {}
local function fail(name, text)
    failed[#failed + 1] = name
    print(("FAILED %s\n    %s"):format(name, (tostring(text):gsub("\n", "\n    "))))
end

-- Whether one of these is asked for.
local function wanted(...)
    local found = next(names) == nil
    for _, name in ipairs { ... } do
        if names[name] ~= nil then
            names[name], found = true, true
        end
    end
    return found
end

-- A spec file's Test* globals are taken away once it is loaded, so that a second file with the same
-- class is noticed, and given back before the tests, which may use them.
local classes = {}
local function take_classes(file)
    local taken = {}
    for name, value in pairs(_G) do
        if type(name) == "string" and name:find "^Test" then
            taken[#taken + 1] = { name, value }
        end
    end
    table.sort(taken, function(a, b)
        return a[1] < b[1]
    end)
    for _, class in ipairs(taken) do
        if classes[class[1]] then
            fail(file, class[1] .. " is the name of a class in another spec too")
        end
        classes[class[1]], _G[class[1]] = class[2], nil
    end
    return taken
end

local tests = {} -- { "Class.test", class }: the form that luaunit takes
local function load_spec(file)
    local ok, problem = xpcall(require, function(problem)
        return debug.traceback(tostring(problem), 2)
    end, "test_" .. file)
    local found = lu.LuaUnit.expandClasses(take_classes(file))
    if not ok then
        fail(file, problem)
    elseif #found == 0 then
        fail(file, "the file has no test")
    end
    for _, test in ipairs(found) do
        if wanted(file, test[1], test[1]:match "^[^.]*") then
            tests[#tests + 1] = test
        end
    end
end

for path in listing:lines() do
    local file = path:match "^test_(.*)%.lua$"
    if not by_file or wanted(file) then
        load_spec(file)
    end
end

-- luaunit breaks off the whole suite where a setupClass fails, without saying why: here the tests
-- of that class fail, and say it.
local function hold_setup(class)
    local setup, before, problem = class.setupClass, class.setUp, nil
    if setup then
        class.setupClass = function()
            local ok, said = xpcall(setup, function(said)
                return debug.traceback(tostring(said), 2)
            end)
            problem = not ok and "setupClass: " .. said or nil
        end
        class.setUp = function(...)
            if problem then
                error(problem, 0)
            end
            return before and before(...)
        end
    end
end

for name, class in pairs(classes) do
    hold_setup(class)
    _G[name] = class
end
for name, used in pairs(names) do
    if not used then
        fail(name, "no such spec file, class or test: --list shows what there is")
    end
end

if options["--list"] then
    for _, test in ipairs(tests) do
        print(test[1])
    end
    os.exit(#failed == 0 and 0 or 1)
end

-- What luaunit tells as it goes: one line for each class, or each test with -v; failures at once.
local Output = {}
Output.__index = Output

function Output.new(runner)
    return setmetatable({ result = runner.result }, Output)
end

function Output:startClass(name)
    self.class, self.n_tests, self.started = name, 0, os.clock()
end

function Output.startTest()
    math.randomseed(seed)
end

function Output:endTest(node)
    self.n_tests = self.n_tests + 1
    local verdict = "ok"
    if node:isSuccess() then
        passed = passed + 1
    elseif node:isSkipped() then
        verdict = "skipped"
        skipped[#skipped + 1] = ("%s: %s"):format(node.testName, node.msg or "no reason given")
    else
        verdict = "failed"
        fail(node.testName, ("%s\n%s"):format(node.msg, node.stackTrace))
    end
    if options["-v"] then
        print(("%-8s %7.3f s  %s"):format(verdict, node.duration, node.testName))
    end
end

function Output:endClass()
    if not options["-v"] then
        local seconds = os.clock() - self.started
        print(("%-28s %4d tests %7.2f s"):format(self.class, self.n_tests, seconds))
    end
end

function Output.startSuite() end
function Output.updateStatus() end
function Output.endSuite() end

local runner = lu.LuaUnit.new()
runner.outputType = Output
-- Its own argument keeps luaunit from reading ours.
local ok, problem = pcall(runner.runSuiteByInstances, runner, tests, "--verbose")
if not ok then
    fail("luaunit", problem)
elseif #tests == 0 and #failed == 0 then
    fail("luaunit", "there is no test to run in " .. here)
end

local function list(title, lines, form)
    if #lines > 0 then
        print("\n" .. title)
    end
    for _, line in ipairs(lines) do
        print(form:format(line))
    end
end
list("Skipped:", skipped, "    %s")
list("Failed; one again:", failed, ("    GHM_SEED=%d make test T=%%s"):format(seed))
print(("\n%d passed, %d failed, %d skipped"):format(passed, #failed, #skipped))
os.exit(#failed == 0 and 0 or 1)
