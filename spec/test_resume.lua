-- Runs that stop and go on: kept sketches, --resume, shards and their merge, full disks.

local lu = require "luaunit"
local csv = require "ghm.show.csv"
local json = require "ghm.json"
local posix = require "ghm.posix"
local scripts = require "scripts"
local shards = require "ghm.runner.shards"

local stream = "synth:drift,rows=400,steps=6 bins=5,10,30 momentum=0,0.75 --plot none "

local TestResume = {}
_G.TestResume = TestResume

function TestResume:setUp()
    self.place = scripts.place()
    self.path = self.place.folder.path
end

function TestResume:tearDown()
    self.place:remove()
end

-- The folder of the only run there is, or of the newest one.
function TestResume:run_folder()
    return "runs/" .. posix.real_path(self.path .. "/runs/latest"):match "[^/]*$"
end

function TestResume:rows_of(words, environment)
    return self.place:fine("sweep_bins", words .. " -q --csv -", environment)
end

function TestResume:test_every_step_is_kept_in_a_file_of_its_own()
    self.place:fine("sweep_bins", stream)
    local listing = self.place:listing "runs/latest/sketches"
    lu.assertEquals(listing, "./000001.sketch\n./000002.sketch\n./000003.sketch\n"
        .. "./000004.sketch\n./000005.sketch\n./000006.sketch")
end

function TestResume:test_a_run_goes_on_with_the_steps_it_has()
    local rows = self:rows_of(stream)
    local dir = self:run_folder()
    os.remove(("%s/%s/results.csv"):format(self.path, dir))
    os.remove(("%s/%s/sketches/000003.sketch"):format(self.path, dir))
    self.place.folder:write(dir .. "/sketches/000004.sketch", "") -- as a power failure leaves it
    self.place.folder:write(dir .. "/sketches/000005.sketch", "damaged")
    self.place.folder:write(dir .. "/sketches/000006.sketch.part-77", "half")
    lu.assertEquals(self.place:fine("sweep_bins", "-q --csv - --resume " .. dir), rows)
    lu.assertEquals(self.place:read(dir .. "/results.csv"), rows .. "\n")
    lu.assertNil(self.place:listing(dir):find "part")
    lu.assertEquals(self.place:fine("sweep_bins", "-q --csv - --resume latest"), rows)
    local _, runs = self.place:listing("runs"):gsub("run%.json", "")
    lu.assertEquals(runs, 1) -- no second folder
end

function TestResume:test_kept_steps_need_no_dump_any_more()
    self.place:dump("a.npz", scripts.logits(), scripts.targets())
    local rows = self:rows_of "a.npz bins=5 --plot none"
    assert(os.remove(self.path .. "/a.npz"))
    lu.assertEquals(self.place:fine("sweep_bins", "--resume latest -q --csv -"), rows)
end

function TestResume:test_a_dump_that_has_changed_is_a_mismatch()
    self.place:dump("a.npz", scripts.logits(), scripts.targets())
    self:rows_of "a.npz bins=5 --plot none"
    posix.capture("touch -d 2001-01-01 " .. posix.quote(self.path .. "/a.npz"))
    self.place:fine("sweep_bins", "--resume latest -q") -- another time, the same bytes
    self.place:dump("a.npz", scripts.logits(), scripts.targets(function() return 1 end))
    self.place:refused(5, { "a.npz has changed since runs/" }, "sweep_bins", "--resume latest")
end

-- { what the command says beside --resume, what the line names }
local differences = {
    { "bins=5,20", "bins is 5,10,30 in runs/", "5,20 in this command" },
    { "start=first", "start is zero in runs/" },
    { "--loss ghmr", "--loss is ghmc in runs/" },
    { "--nonfinite ignore", "--nonfinite is error in runs/" },
    { "--seed 9", "--seed is nothing in runs/", "9 in this command" },
    { "synth:fresh", "dumps is synth:drift,rows=400,steps=6 in runs/" },
    { "--shard 1/2", "--shard is nothing in runs/" },
    { "--logits x", "--logits is nothing in runs/" },
}

function TestResume:test_a_command_that_contradicts_its_run_is_refused_by_name()
    self.place:fine("sweep_bins", stream)
    for _, case in ipairs(differences) do
        self.place:refused(5, { "cannot go on: ", case[2], case[3] or "" }, "sweep_bins",
            "--resume latest " .. case[1])
    end
    -- what agrees, or has no say in the numbers, is taken
    self.place:fine("sweep_bins", "--resume latest bins=5,10,30 --threads 1 --loss ghmc -q "
        .. "synth:drift,rows=400,steps=6")
end

function TestResume:test_what_is_no_run_of_the_script_is_a_mismatch()
    self.place:refused(5, { "'runs/latest' is no run folder" }, "sweep_bins", "--resume latest")
    self.place:fine("sweep_bins", stream)
    self.place:refused(5, { " is a run of sweep_bins, not of sweep_momentum" }, "sweep_momentum",
        "--resume latest")
end

function TestResume:test_a_run_json_that_lacks_something_is_a_mismatch()
    assert(posix.make_folder(self.path .. "/edited"))
    for _, part in ipairs { "dumps", "given", "inputs", "keys", "options", "steps" } do
        local info = { schema = 1, experiment = "sweep_bins", dumps = {}, given = {}, inputs = {},
            keys = {}, options = { shard = "1/2" }, steps = {} }
        info[part] = part ~= "steps" and 1 or nil
        self.place.folder:write("edited/run.json", json.encode(info))
        local told = "edited/run.json: " .. part .. " is not there, or is no list or object"
        self.place:refused(5, { told }, "sweep_bins", "--resume edited")
        self.place:refused(5, { told }, "merge", "edited")
    end
end

-- The step at which a run is killed is anyone's guess; what it leaves must be whole.
function TestResume:test_a_killed_run_goes_on_to_the_same_bytes()
    local words = "synth:drift,rows=6000,steps=12 bins=5:100:5 --plot none "
    local rows = self:rows_of(words)
    local script = posix.quote(scripts.root .. "/experiments/sweep_bins.lua")
    for k = 1, 4 do
        local out = ("killed%d"):format(k)
        local moment = 0.05 + 0.1 * k + 0.1 * math.random()
        posix.capture(("cd %s; luajit %s %s -o %s >/dev/null 2>&1 & sleep %g; "
            .. "kill -9 $! 2>/dev/null; wait"):format(posix.quote(self.path), script, words,
            out, moment))
        local listing = self.place:listing(".")
        local dir = listing:match("%./(" .. out .. "/[^/\n]*)/run%.json")
        for path in listing:gmatch("%./(" .. out .. "/[^\n]*)") do
            local text = path:find "%.json$" and self.place:read(path)
            lu.assertTrue(not text or json.decode(text) ~= nil, path)
            if path:find "%.sketch$" then
                self.place:fine("evaluate", path .. " bins=5")
            end
        end
        local again = dir and "--resume " .. dir or words .. "-o " .. out
        lu.assertEquals(self.place:fine("sweep_bins", again .. " -q --csv -"), rows, again)
    end
end

function TestResume:test_ctrl_c_tells_the_command_that_goes_on()
    local script = posix.quote(scripts.root .. "/experiments/sweep_bins.lua")
    local words = "synth:drift,rows=100000,steps=40 bins=5,10 --plot none"
    local said = posix.capture(("cd %s; luajit %s %s 2>&1 >/dev/null & while [ ! -e "
        .. "runs/latest/sketches/000002.sketch ]; do sleep 0.05; done; kill -INT $!; wait $!; "
        .. "echo $?"):format(posix.quote(self.path), script, words))
    local command, code = said:match "^interrupted: stopped at [^\n]*; to go on: ([^\n]*)\n(%d+)$"
    lu.assertEquals(code, "130", said)
    local _, went_on = posix.capture(("cd %s; %s -q"):format(posix.quote(self.path), command))
    lu.assertEquals(went_on, 0)
    lu.assertEquals(#csv.read(self.path .. "/runs/latest/results.csv"), 2)
end

-- A file size limit stands in for a full disk: what fits is there, what does not is one error.
function TestResume:test_a_full_disk_is_one_error_and_earlier_results_stay()
    local rows = self:rows_of(stream)
    local before = self.place:listing "runs"
    local got = posix.capture(("cd %s; trap '' XFSZ; ulimit -f 16; luajit %s "
        .. "synth:detector,rows=20000 bins=1:300:1 --plot none 2>&1; echo $?"):format(
        posix.quote(self.path), posix.quote(scripts.root .. "/experiments/sweep_bins.lua")))
    lu.assertStrMatches(got, "error: [^\n]*cannot write[^\n]*: File too large\n1")
    local after = self.place:listing "runs"
    for line in before:gmatch "[^\n]+" do
        lu.assertStrContains(after, line)
    end
    lu.assertNil(after:find "%.tmp%-")
    lu.assertNil(after:find "%.part%-")
    lu.assertEquals(self.place:read((before:match "%./([^\n/]*)/results.csv"):gsub("^", "runs/")
        .. "/results.csv"), rows .. "\n")
end

function TestResume:test_a_disk_that_is_full_during_a_run_tells_the_command_that_goes_on()
    local script = posix.quote(scripts.root .. "/experiments/sweep_bins.lua")
    local got = posix.capture(("cd %s; trap '' XFSZ; ulimit -f 16; luajit %s "
        .. "synth:detector,rows=20000 bins=5,10 --plot none 2>&1; echo $?"):format(
        posix.quote(self.path), script))
    local command = got:match "^error: [^\n]*%.sketch: cannot write[^\n]*; to go on: (.*)\n1$"
    lu.assertNotNil(command, got)
    local _, went_on = posix.capture(("cd %s; %s -q"):format(posix.quote(self.path), command))
    lu.assertEquals(went_on, 0)
    lu.assertEquals(#csv.read(self.path .. "/runs/latest/results.csv"), 2)
end

function TestResume:test_fail_fast_stops_at_the_first_bad_step()
    self.place:dump("a.npz", scripts.logits(), scripts.targets())
    self.place.folder:write("b.npz", "damaged")
    self.place.folder:write("c.npz", "damaged")
    local got = self.place:run("sweep_bins", "a.npz b.npz c.npz --fail-fast bins=5 --plot none")
    lu.assertEquals(got.code, 3)
    lu.assertStrMatches(got.err, "error: b.npz[^\n]*\n")
    got = self.place:run("evaluate", "a.npz b.npz c.npz --fail-fast")
    lu.assertEquals(got.code, 3)
end

local TestShards = {}
_G.TestShards = TestShards
TestShards.setUp, TestShards.tearDown = TestResume.setUp, TestResume.tearDown
TestShards.rows_of = TestResume.rows_of

function TestShards.test_shards_share_out_the_steps_in_order()
    for _, case in ipairs { { 8, 3 }, { 10, 10 }, { 7, 2 }, { 3, 5 } } do
        local n, of = unpack(case)
        local following = 1
        for i = 1, of do
            local first, last = shards.range(n, i, of)
            lu.assertEquals(first, following)
            lu.assertTrue(last - first + 1 <= math.ceil(n / of))
            following = last + 1
        end
        lu.assertEquals(following, n + 1)
    end
end

function TestShards.test_a_job_array_of_slurm_names_its_shard()
    local cases = {
        { { ID = "0", COUNT = "8", MIN = "0", STEP = "1" }, "1/8" },
        { { ID = "8", COUNT = "8", MIN = "1", STEP = "1" }, "8/8" },
        { { ID = "30", COUNT = "4", MIN = "10", STEP = "10" }, "3/4" },
        { { ID = "1", COUNT = "2" }, "2/2" }, { { ID = "3" }, nil }, { {}, nil },
    }
    for _, case in ipairs(cases) do
        lu.assertEquals(shards.from_environment(function(name)
            return case[1][name:match "^SLURM_ARRAY_TASK_(.*)$"]
        end), case[2])
    end
    local ok, problem = pcall(shards.from_environment, function(name)
        return ({ SLURM_ARRAY_TASK_ID = "9", SLURM_ARRAY_TASK_COUNT = "2" })[name]
    end)
    lu.assertEquals({ ok, problem.kind }, { false, "usage" })
end

function TestShards:test_merged_shards_are_the_single_run_to_the_byte()
    local rows = self:rows_of(stream)
    for i = 1, 3 do
        local said = self.place:fine("sweep_bins", ("%s --shard %d/3 -o parts"):format(stream, i))
        lu.assertStrContains(said, ("shard %d/3: 2 of 6 steps are sketched"):format(i))
    end
    self.place:fine("sweep_bins", stream .. "-q -o parts/slurm",
        "SLURM_ARRAY_TASK_ID=2 SLURM_ARRAY_TASK_COUNT=3")
    lu.assertStrContains(self.place:listing "parts/slurm/latest/", "./sketches/000006.sketch")
    lu.assertEquals(self.place:fine("merge", "parts/2* -q --csv -"), rows)
    lu.assertEquals(self.place:read "runs/latest/results.csv", rows .. "\n")
end

function TestShards:test_missing_shards_are_named()
    for _, i in ipairs { 1, 3 } do
        self.place:fine("sweep_bins", ("%s --shard %d/4 -o parts"):format(stream, i))
    end
    self.place:refused(5, { "missing of the shards: 2/4, 4/4" }, "merge", "parts/2*")
    local third = self.place:listing("parts"):match "%./([^\n]*3%-of%-4[^\n/]*)\n"
    assert(os.remove(("%s/parts/%s/sketches/000004.sketch"):format(self.path, third)))
    local said = ("3/4 (1 of its 1 steps: go on with --resume parts/%s)"):format(third)
    self.place:refused(5, { said }, "merge", "parts/2*")
end

function TestShards:test_what_are_no_shards_of_one_run_is_a_mismatch()
    self.place:refused(2, { "expected the run folders" }, "merge", "")
    self.place:fine("sweep_bins", stream .. "-q -o whole")
    self.place:refused(5, { "is a whole run, not a shard" }, "merge", "whole/2*")
    self.place:fine("sweep_bins", stream .. "-q -o parts --shard 1/2")
    local other = stream:gsub("bins=5,10,30", "bins=5")
    self.place:fine("sweep_bins", other .. "-q -o parts --shard 2/2")
    self.place:refused(5, { "these are not shards of one run: bins is " }, "merge", "parts/2*")
    self.place:refused(2, { "--shard: expected I/N" }, "sweep_bins", stream .. "--shard 3/2")
    self.place:refused(2, { "there are only 6 steps" }, "sweep_bins", stream .. "--shard 1/9")
end

function TestShards:test_a_step_that_a_shard_refused_is_refused_in_the_merged_run()
    for k = 1, 4 do
        self.place:dump(("s%d.npz"):format(k), scripts.logits(), scripts.targets())
    end
    self.place.folder:write("s2.npz", "damaged")
    local words = "s1.npz s2.npz s3.npz s4.npz bins=5 --plot none -q "
    local whole = self.place:run("sweep_bins", words .. "--csv -")
    for i = 1, 2 do
        local got = self.place:run("sweep_bins", words .. ("-o parts --shard %d/2"):format(i))
        lu.assertEquals(got.code, i == 1 and 1 or 0)
    end
    for k = 1, 4 do
        os.remove(("%s/s%d.npz"):format(self.path, k))
    end
    local merged = self.place:run("merge", "parts/2* -q --csv -")
    lu.assertEquals({ merged.code, merged.out, merged.err }, { 1, whole.out, whole.err })
end
