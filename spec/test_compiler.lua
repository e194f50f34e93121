-- lua/ghm/compiler.lua: what Debian 12's LuaJIT compiles wrongly comes out right. Each program runs
-- by itself, as it flushes the compiler; there both fail without the module.

local lu = require "luaunit"
local posix = require "ghm.posix"

local TestCompiler = {}
_G.TestCompiler = TestCompiler

local function run(program)
    local path = os.tmpname()
    local file = io.open(path, "w")
    file:write(('package.path = %q .. package.path\nrequire "ghm.compiler"\n'):format(
        package.path:match "^[^;]*;"), program)
    file:close()
    local out, status = posix.capture("luajit " .. posix.quote(path) .. " 2>&1")
    os.remove(path)
    lu.assertEquals({ out, status }, { "right", 0 })
end

function TestCompiler.test_sums_of_three_loops_in_each_other()
    run [[
local source = "return function(lists, order)"
    .. "  local total = 0"
    .. "  for _ = 1, 4 do"
    .. "    local sum = 0"
    .. "    for k = 1, #lists do"
    .. "      for _, x in ipairs(lists[order and order[k] or k]) do sum = sum + x end"
    .. "    end"
    .. "    total = total + sum"
    .. "  end"
    .. "  return total "
    .. "end"
local interpreted = loadstring("jit.off(true, true) " .. source)()
local wrong = 0
for seed = 1, 4 do
    math.randomseed(seed)
    for _ = 1, 400 do
        local lists, orders, wanted = {}, {}, {}
        for a = 1, math.random(3, 8) do
            lists[a] = {}
            for b = 1, math.random(0, 6) do lists[a][b] = math.random() end
        end
        for i = 1, 40 do
            orders[i] = {}
            for k = 1, #lists do orders[i][k] = math.random(#lists) end
            orders[i] = i > 1 and orders[i]
            wanted[i] = interpreted(lists, orders[i])
        end
        jit.flush()
        jit.opt.start("hotloop=" .. math.random(2, 80), "hotexit=" .. math.random(1, 12))
        local compiled = loadstring(source)()
        for i = 1, 40 do
            local ok, got = pcall(compiled, lists, orders[i])
            wrong = wrong + (ok and got == wanted[i] and 0 or 1)
        end
    end
end
print(wrong == 0 and "right" or wrong .. " sums of 64000 are wrong")
]]
end

function TestCompiler.test_loops_over_pairs_are_run_to_their_ends()
    run [[
local inner = { 1, 2, 3, 4, 5 }
local outer = { a = inner, b = inner, c = inner, d = inner, e = inner }
local function interpreted(...) for _ = 1, 100 do end end
local short = 0
for _ = 1, 100000 do
    interpreted()
    local n = 0
    for _, list in pairs(outer) do
        for _ in pairs(list) do end
        n = n + 1
    end
    short = short + (n == 5 and 0 or 1)
end
print(short == 0 and "right" or short .. " loops ended early")
]]
end
