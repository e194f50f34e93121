-- The bench: it runs, its numbers have their form, a gate can fail, a wrong result is caught.

local lu = require "luaunit"
local cases = require "ghm.bench.bench_cases"
local check = require "ghm.bench.bench_check"
local clock = require "ghm.bench.bench_clock"
local data = require "ghm.bench.bench_data"
local device = require "ghm.device"
local fault = require "ghm.fault"
local gates = require "ghm.bench.bench_gates"
local harmonise = require "ghm.harmonise"
local json = require "ghm.json"
local child = require "ghm.bench.bench_child"
local posix = require "ghm.posix"

local module = package.searchpath("ghm.bench.bench_run", package.path)
local script = module:match "^(.*)/lua/ghm/bench/bench_run%.lua$" .. "/experiments/bench.lua"

TestBench = {}

function TestBench:setUp()
    self.folder = posix.capture "mktemp -d"
end

function TestBench:tearDown()
    posix.capture("rm -rf -- " .. posix.quote(self.folder))
end

local function bench(self, words)
    return posix.capture(("luajit %s %s -o %s 2>%s/stderr"):format(posix.quote(script), words,
        posix.quote(self.folder), posix.quote(self.folder)))
end

function TestBench:test_runs_without_peers_and_prints_json()
    local output, status = bench(self, "--quick --sizes 2e4 --no-peers --json --plot none")
    lu.assertEquals(status, 0)
    local found = json.decode(output)
    lu.assertEquals(type(found), "table")
    lu.assertStrContains(found.missing[1], "no-peers")
    local names = {}
    for _, gate in ipairs(found.gates) do
        names[gate.name] = gate
        lu.assertEquals(type(gate.gate), "number")
        local measured = gate.value ~= json.null
        lu.assertEquals(type(gate.holds), measured and "boolean" or type(json.null))
    end
    lu.assertEquals(names.same_bits.value, 1)
    lu.assertEquals(names.same_bits.holds, true)
    lu.assertTrue(names.question_t1.value > 0)
    lu.assertEquals(names.ghmc_10_t1.value, json.null)
    local seen = {}
    for _, row in ipairs(found.measurements) do
        seen[row.thing .. " " .. row.data] = row
        lu.assertTrue(row.seconds > 0 and row.rounds >= 3)
    end
    for _, thing in ipairs { "read spread f4", "sketch skewed f4", "ghmc_10 equal f4",
        "ghmc_grad_10 spread f2", "sketch spread labels", "exact spread f4",
        "mu_16x16 spread f4" } do
        lu.assertNotNil(seen[thing], thing)
    end
end

function TestBench:test_leaves_a_run_folder_with_its_numbers()
    local output, status = bench(self, "--quick --sizes 2e4,4e4 --threads 1 --no-peers --plot svg")
    lu.assertEquals(status, 0)
    lu.assertStrContains(output, "gates measured")
    for _, name in ipairs { "results.csv", "gates.json", "provenance.json", "run.json",
        "plots/cost_by_size.svg" } do
        local file = io.open(self.folder .. "/latest/" .. name)
        lu.assertNotNil(file, name)
        file:close()
    end
end

function TestBench:test_tells_a_python_that_is_not_there()
    local output, status = bench(self, "--quick --sizes 2e4 --threads 1 --python /no/such --json "
        .. "--plot none")
    lu.assertEquals(status, 0)
    lu.assertStrContains(json.decode(output).missing[1], "there is no /no/such")
end

function TestBench:test_refuses_sizes_that_cannot_be()
    for _, size in ipairs { "0", "12", "1e12", "x", "" } do
        local output, status = bench(self, "--no-peers --sizes '" .. size .. "'")
        lu.assertEquals(status, fault.exit_codes.usage, size)
        lu.assertEquals(output, "")
    end
end

TestBenchGates = {}

function TestBenchGates.test_holds_at_its_bound_and_not_beyond()
    local least = { name = "a", gate = 40 }
    lu.assertEquals(gates.judge(least, 40).holds, true)
    lu.assertEquals(gates.judge(least, 39.9).holds, false)
    local most = { name = "b", gate = 5, sense = "at most" }
    lu.assertEquals(gates.judge(most, 5).holds, true)
    lu.assertEquals(gates.judge(most, 5.1).holds, false)
end

function TestBenchGates.test_is_open_where_nothing_was_measured()
    lu.assertNil(gates.judge({ name = "a", gate = 40 }, nil).holds)
end

function TestBenchGates.test_does_not_hold_for_nan()
    lu.assertEquals(gates.judge({ name = "a", gate = 40 }, 0 / 0).holds, false)
    lu.assertEquals(gates.judge({ name = "a", gate = 4, sense = "at most" }, 0 / 0).holds, false)
end

-- A find() in which everything took `seconds[name]`, or `otherwise`.
local function timed(seconds, otherwise)
    return function(name)
        local one = seconds[name] or otherwise
        return one and { seconds = { one, one, one } }
    end
end

local function by_name(list)
    local names = {}
    for _, gate in ipairs(list) do
        names[gate.name] = gate
    end
    return names
end

function TestBenchGates.test_follow_from_fabricated_times()
    local found = by_name(gates.evaluate(timed({ eager_ghmc_10 = 0.041, question = 0.006 }, 0.001),
        { 1, 2 }, { 1e6 }, 2))
    lu.assertAlmostEquals(found.ghmc_10_t1.value, 41, 1e-9)
    lu.assertEquals(found.ghmc_10_t1.holds, true)
    lu.assertEquals(found.ghmc_30_t2.holds, false) -- as fast as the peer
    lu.assertEquals(found.question_t2.holds, false)
    lu.assertEquals(found.same_bits.holds, false)
    lu.assertNil(found.read_share_t2) -- claimed for one thread
end

function TestBenchGates.test_ratios_are_taken_round_by_round()
    -- a noisy moment that meets both leaves the ratio alone
    local slow, fast = { seconds = { 4, 40, 4 } }, { seconds = { 1, 10, 1 } }
    local ratio, spread = clock.ratio(slow, fast)
    lu.assertEquals(ratio, 4)
    lu.assertEquals(spread, 0)
end

TestBenchClock = {}

function TestBenchClock.test_median_and_quartiles()
    local median, spread = clock.median { 5, 1, 3, 2, 4 }
    lu.assertEquals(median, 3)
    lu.assertAlmostEquals(spread, 2 / 3, 1e-12)
end

function TestBenchClock.test_cases_take_turns_and_short_ones_are_repeated()
    local order = {}
    local function case(name, seconds)
        return { name = name, time = function(calls)
            order[#order + 1] = name .. calls
            return seconds * calls
        end }
    end
    local long, short = case("long", 0.5), case("short", 1.01e-4)
    clock.race({ long, short }, 3)
    lu.assertEquals(table.concat(order, " "), "long1 long1 short1 short1 short50 "
        .. ("long1 short50 short50 "):rep(3):sub(1, -2))
    lu.assertEquals(#long.seconds, 3)
    lu.assertAlmostEquals(short.seconds[2], 1.01e-4, 1e-15)
end

function TestBenchClock.test_what_takes_long_is_timed_less_often()
    local slow = { name = "slow", time = function() return 3 end }
    clock.race({ slow }, 11)
    lu.assertEquals(#slow.seconds, clock.FEW)
end

function TestBenchClock.test_the_collector_runs_again_after_a_failure()
    lu.assertErrorMsgContains("oops", clock.time, function() error "oops" end, 1)
    local weak = setmetatable({ {} }, { __mode = "v" })
    for _ = 1, 2e5 do
        weak.x = { {}, {} }
    end
    lu.assertNil(weak[1], "no collection happened")
end

TestBenchCheck = {}

local SIZE = 8000

function TestBenchCheck:setUp()
    self.folder, self.usual = posix.capture "mktemp -d", device.default()
    self.place = { device = device.open("cpu", 1), threads = 1, folder = self.folder,
        data = data.logits("spread", SIZE), boxes = data.boxes(SIZE) }
    self.about = { logits = check.reference(self.place.data, cases.class_configurations),
        boxes = check.reference(self.place.boxes, cases.box_configurations) }
    self.cases = cases.all(self.place)
end

function TestBenchCheck:tearDown()
    posix.capture("rm -rf -- " .. posix.quote(self.folder))
end

local function caught(self, name)
    for _, case in ipairs(self.cases) do
        if case.name == name then
            local ok, problem = pcall(case.check, self.about)
            return not ok and fault.is(problem) and problem.message:find(name, 1, true) ~= nil
        end
    end
    error("no case " .. name)
end

function TestBenchCheck:test_passes_what_is_right()
    for _, case in ipairs(self.cases) do
        case.check(self.about)
    end
end

function TestBenchCheck:test_catches_a_loss_that_is_off_by_a_millionth()
    local Harmonise = getmetatable(harmonise.new("classification")).__index
    local apply = Harmonise.apply
    Harmonise.apply = function(...)
        local call = apply(...)
        call.loss = call.loss * (1 + 1e-6)
        return call
    end
    local missed = {}
    for _, name in ipairs { "ghmc_10", "ghmc_30", "ghmr_10", "ghmr_30", "sweep_1", "sweep_64",
        "sweep_64x8", "mu_16x16", "question" } do
        missed[#missed + 1] = not caught(self, name) and name or nil
    end
    Harmonise.apply = apply
    lu.assertEquals(missed, {})
end

function TestBenchCheck:test_catches_a_gradient_scaled_wrongly()
    local Harmonise = getmetatable(harmonise.new("classification")).__index
    local apply = Harmonise.apply
    Harmonise.apply = function(...)
        local call = apply(...)
        call.grad_scale = call.grad_scale * 1.00001
        return call
    end
    local found = caught(self, "ghmc_grad_10") and caught(self, "ghmc_grad_30")
    Harmonise.apply = apply
    lu.assertTrue(found)
end

function TestBenchCheck:test_catches_a_count_that_is_off_by_one()
    self.about.logits[1].R[3] = self.about.logits[1].R[3] + 1
    lu.assertTrue(caught(self, "sketch"))
end

function TestBenchCheck.test_catches_a_density_of_another_window()
    local one = data.logits("spread", SIZE)
    local density = require("ghm.array").new("f8", { one.n })
    local loss, C = require("ffi").new "double[1]", require("ghm.clib").C
    C.ghm_exact_density(device.default(), one.batch.c, 1, 0.11, density.ptr, loss)
    lu.assertErrorMsgContains("density", check.density, one, 0.1, density.ptr, "density")
end

function TestBenchCheck.test_nan_is_near_nothing()
    lu.assertErrorMsgContains("expected", check.near, 0 / 0, 1, 1e-8, "it")
end

function TestBenchCheck.test_reference_agrees_with_losses_on_every_kind_of_data()
    local losses = require "ghm.losses"
    for _, kind in ipairs { { "skewed" }, { "equal" }, { "spread", "f2" },
        { "spread", "labels" } } do
        local one = data.logits(kind[1], SIZE, kind[2])
        local wanted = check.reference(one, { { bins = 10 } })[1].loss
        check.near((losses.GHMC { bins = 10 }:forward_batch(one.batch)), wanted, check.LOSS,
            kind[1] .. " " .. (kind[2] or "f4"))
    end
end

TestBenchChild = {}

function TestBenchChild:setUp()
    self.folder = posix.capture "mktemp -d"
end

function TestBenchChild:tearDown()
    posix.capture("rm -rf -- " .. posix.quote(self.folder))
end

function TestBenchChild:test_a_process_that_dies_is_told_with_its_last_words()
    local dying = self.folder .. "/dying"
    posix.write_file(dying, "#!/bin/sh\necho no numpy here >&2\nexit 1\n")
    posix.capture("chmod +x " .. posix.quote(dying))
    local process, reason = child.start(dying, "script", self.folder, 1)
    lu.assertNil(process)
    lu.assertStrContains(reason, "no numpy here")
end

function TestBenchChild:test_a_process_answers_line_by_line_and_ends()
    local echo = self.folder .. "/echo"
    posix.write_file(echo, '#!/bin/sh\nwhile read -r line; do echo "$line"; done\n')
    posix.capture("chmod +x " .. posix.quote(echo))
    local process = child.start(echo, "script", self.folder, 1)
    lu.assertEquals(process:ask { seconds = 0.5 }.seconds, 0.5)
    process:stop() -- would wait for ever if the process did not see the end of its input
end
