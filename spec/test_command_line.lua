-- The scripts as a user runs them: what is refused and how, what is printed, what is written.

local lu = require "luaunit"
local csv = require "ghm.show.csv"
local json = require "ghm.json"
local posix = require "ghm.posix"
local scripts = require "scripts"
local text = require "ghm.show.text"

local quick = "--plot none"
local small = "synth:detector,rows=300 bins=5,10 --plot none "

local TestCommandLine = {}
_G.TestCommandLine = TestCommandLine

function TestCommandLine:setUp()
    self.place = scripts.place()
end

function TestCommandLine:tearDown()
    self.place:remove()
end

-- { words, exit code, what the one line on stderr holds }
local refusals = {
    { "binz=5", 2, "unknown key 'binz': did you mean 'bins'?" },
    { "M=5", 2, "unknown key 'M': expected one of bins, momentum" },
    { "bins = 5", 2, "unexpected 'bins': expected bins=SPEC, without blanks" },
    { "--modmentum 0.5", 2, "unknown option '--modmentum': did you mean 'momentum=SPEC'?" },
    { "--devise cpu", 2, "unknown option '--devise': did you mean '--device'?" },
    { "bins=0", 2, "bins=0: expected a whole number from 1 to 65536" },
    { "bins=1e9", 2, "bins=1000000000: expected a whole number" },
    { "bins=2.5", 2, "bins=2.5: 2.5 is not a whole number" },
    { "bins=abc", 2, "'abc' is not a number" },
    { "bins=", 2, "'' is not a number" },
    { "bins=5,,6", 2, "bins=5,,6: a comma without a number" },
    { "bins=5, 6", 2, "bins=5,: a comma without a number; expected 5,10,20, without blanks" },
    { "bins=10:5:1", 2, "the range is empty" },
    { "bins=1:1000000:1", 2, "1000000 values; at most 100000 are taken" },
    { "bins=5 bins=6", 2, "'bins' is given twice" },
    { "momentum=1", 2, "momentum=1: expected a number of at least 0 and below 1" },
    { "momentum=-0.1", 2, "momentum=-0.1: expected" },
    { "--loss ghmr mu=0", 2, "mu=0: expected a number above 0" },
    { "--loss ghmr mu=-1", 2, "mu=-1: expected a number above 0" },
    { "mu=0.1", 2, "mu: GHM-C has none; --loss ghmr has" },
    { "loss_weight=nan", 2, "'nan' is not a number" },
    { "loss_weight=1,2", 2, "expected one value, not 2" },
    { "eps=0", 2, "eps=0: expected a number above 0" },
    { "eps=1.5", 2, "eps=1.5: expected" },
    { "labels=two_based", 2, "unknown value 'two_based': did you mean" },
    { "--loss ghmr labels=one_based", 2, "labels: boxes have none" },
    { "--loss nonsense", 2, "'--loss' must be one of 'ghmc', 'ghmr'" },
    { "--device gpu", 2, "--device: expected auto, cpu, cuda or cuda:I, not 'gpu'" },
    { "--threads 0", 2, "--threads: '0' is not a whole number from 1" },
    { "--threads 100000", 2, "threads is 100000, expected" },
    { "--plot jpg", 2, "--plot: unknown format 'jpg'" },
    { "--nonfinite maybe", 2, "'--nonfinite' must be one of 'error', 'ignore'" },
    { "--csv - --json", 2, "--csv - and --json both write to stdout" },
    { "-o ''", 2, "--out: expected a path" },
    { "--csv ''", 2, "--csv: expected a path" },
    { "--resume ''", 2, "--resume: expected a path" },
    { "--logits ''", 2, "--logits: expected a name, not an empty word" },
    { "--calls=", 2, "--calls: expected a name, not an empty word" },
    { "--plot=", 2, "--plot: unknown format ''" },
    { "--seed 9007199254740993", 2, "is not a whole number from 0 to 9007199254740991" },
    { "--target a --labels b", 2, "--target and --labels both name the targets" },
    { "--logits a --pred b", 2, "--logits and --pred name the same array" },
    { "--logits a,b --target t", 2, "--target names 1 arrays, another option names 2" },
    { "-o /proc/nothing", 1, "cannot make folder '/proc/nothing'" },
    { "-o inTheWay", 1, "cannot make folder 'inTheWay': File exists" },
    { "nosuch.npz", 3, "nosuch.npz: no such file" },
    { "''", 3, "error: '': no such file, expected a dump file" },
    { "'no*.npz'", 3, "no*.npz: no such file, expected a dump file, a folder of them or a glob" },
    { "emptyFolder", 3, "emptyFolder: the folder holds no dump" },
    { "synth:detektor", 2, "no preset 'detektor': did you mean 'detector'?" },
    { "synth:x", 2, "no preset 'x': expected one of detector, converged, fresh, uniform, drift" },
    { "synth:", 2, "expected synth:NAME" },
    { "synth:detector,rowz=3", 2, "unknown key 'rowz': did you mean 'rows'?" },
    { "synth:detector,rows", 2, "expected key=value, not 'rows'" },
    { "synth:detector,rows=3,rows=4", 2, "key 'rows' is given twice" },
    { "synth:detector,rows=-1", 2, "rows is '-1', expected a whole number" },
    { "synth:detector,steps=1e9", 2, "steps is '1e9', expected a whole number from 0 to 1000000" },
    { "synth:detector,cols=0", 2, "cols is 0, expected at least 1" },
    { "synth:detector,hard_share=2", 2, "a share of the mixture" },
    { "synth:detector --labels x", 2, "--labels chooses an array of a dump" },
    { "synth:detector,rows=0", 3, "no valid samples" },
    { "synth:drift,steps=0", 3, "no steps in it" },
}

function TestCommandLine:test_refuses_what_cannot_be_meant()
    self.place.folder:write("inTheWay", "")
    assert(posix.make_folder(self.place.folder.path .. "/emptyFolder"))
    for _, case in ipairs(refusals) do
        self.place:refused(case[2], { "error: ", case[3] }, "sweep_bins", case[1])
    end
end

function TestCommandLine:test_what_keeps_ghm_from_loading_is_one_line()
    for _, name in ipairs { "sweep_bins", "inspect", "repl", "bench", "merge" } do
        self.place:refused(1, { "error: /nosuch.so cannot be loaded (run make)" }, name, "-h",
            "GHM_LIBRARY=/nosuch.so")
        self.place:refused(1, { "error: the Lua module 'argparse' is missing: make demo installs "
            .. "it" }, name, "-h", "LUA_PATH=/nowhere/?.lua")
    end
end

function TestCommandLine:test_evaluate_refuses_what_its_loss_does_not_take()
    for words, part in pairs {
        ["mu=0.1"] = "GHMC: unknown key 'mu': expected one of bins, momentum",
        ["--loss ghmr gamma=3"] = "GHMR: unknown key 'gamma'",
        ["--loss bce bins=3"] = "BCE: unknown key 'bins'",
        ["bins=5,6"] = "bins=5,6: expected one value, not 2",
        ["reduction=none"] = "expected one of mean, sum",
        ["--csv x"] = "unknown option '--csv'",
    } do
        self.place:refused(2, { part }, "evaluate", words)
    end
end

function TestCommandLine:test_what_reads_no_steps_or_asks_step_by_step_has_no_fail_fast()
    for _, name in ipairs { "bench", "repl", "inspect", "compare", "merge" } do
        self.place:refused(2, { "unknown option '--fail-fast'" }, name, "--fail-fast")
    end
end

function TestCommandLine:test_no_device_is_exit_code_4()
    local got = self.place:run("sweep_bins", small .. "--device cuda:7")
    lu.assertEquals(got.code, 4, "an eighth GPU, or: " .. got.err)
    self.place:refused(4, { "cuda:7" }, "sweep_bins", "--device cuda:7")
end

function TestCommandLine:test_a_run_prints_what_it_read_a_table_a_plot_and_an_answer()
    local out = self.place:fine("sweep_bins", "--plot term")
    lu.assertStrMatches(out:match "^[^\n]*", "8 calls of cls_logits%[6144,10%]  492 k samples, "
        .. "478 k valid, 1.42 k positive  on .*")
    lu.assertStrContains(out, "labels: labels, zero_based  weight: label_weights")
    lu.assertStrContains(out, "\ngradient density GD/N at M = ")
    lu.assertStrMatches(out:match "\n(bins = [^\n]*)", "bins = %d+: beta is off by .*%.")
    local dir = out:match "\nrun folder: (runs/[^\n]*)$"
    local kept = "./sketches"
    for k = 1, 8 do
        kept = kept .. ("\n./sketches/%06d.sketch"):format(k)
    end
    lu.assertEquals(self.place:listing(dir),
        "./provenance.json\n./results.csv\n./run.json\n" .. kept)
end

function TestCommandLine:test_a_run_folder_says_how_to_get_it_again()
    self.place:fine("sweep_bins", "bins=5,10 momentum=0,0.75 --seed 3 " .. quick)
    local run = assert(json.decode(self.place:read "runs/latest/run.json"))
    lu.assertEquals(run.argv, { "bins=5,10", "momentum=0,0.75", "--seed", "3", "--plot", "none" })
    lu.assertEquals({ #run.configurations, run.seed }, { 4, 3 })
    local rows, names = csv.read(self.place.folder.path .. "/runs/latest/results.csv")
    lu.assertEquals({ #rows, names[1], names[2], rows[2].bins, rows[2].momentum },
        { 4, "bins", "momentum", 5, 0.75 })
    local from = assert(json.decode(self.place:read "runs/latest/provenance.json"))
    lu.assertEquals(#from.dumps, 8)
    for _, dump in ipairs(from.dumps) do
        local sum = posix.capture("sha256sum " .. posix.quote(dump.path))
        lu.assertEquals(dump.sha256, sum:match "^%x+")
    end
    lu.assertEquals(from.dumps[1].calls[1].arrays, { pred = "cls_logits", labels = "labels",
        base = "zero_based", weight = "label_weights" })
end

-- Every script's intervals come from resampling, and that from --seed.
function TestCommandLine:test_the_seed_draws_the_intervals_and_nothing_else()
    for _, script in ipairs { "sweep_bins", "sweep_momentum", "sweep_mu", "density",
        "compare_losses" } do
        local function row(seed)
            self.place:fine(script, ("--seed %d --plot none"):format(seed))
            return csv.read(self.place.folder.path .. "/runs/latest/results.csv")[1]
        end
        local one, again, other = row(1), row(1), row(2)
        lu.assertEquals(one, again, script)
        local differ = {}
        for key, value in pairs(one) do
            local metric = key:match "^(.*)_low$" or key:match "^(.*)_high$"
            differ[#differ + 1] = value ~= other[key] and (metric and "interval" or key) or nil
        end
        lu.assertTrue(#differ > 0, script .. ": the seed changes nothing")
        for _, key in ipairs(differ) do
            lu.assertEquals(key, "interval", script)
        end
    end
end

function TestCommandLine:test_dry_run_touches_nothing()
    local out = self.place:fine("sweep_bins", "-n bins=5,10 momentum=0,0.5")
    lu.assertStrContains(out, "4 configurations of bins, momentum\n    1  bins=5 momentum=0\n")
    lu.assertStrContains(out, "8 steps, the first step_000000.npz with 1 call of cls_logits")
    lu.assertEquals(self.place:listing(), "")
end

function TestCommandLine:test_json_and_csv_are_all_of_stdout()
    local got = self.place:run("sweep_bins", small .. "--json")
    local object = assert(json.decode(got.out))
    lu.assertEquals({ #object.rows, #object.answer, #object.failed }, { 2, 2, 0 })
    lu.assertEquals(got.err, "run folder: " .. object.run .. "\n")
    lu.assertStrContains(self.place:fine("sweep_bins", small .. "--json -q"), '"rows"')
    object = json.decode(self.place:fine("sweep_momentum", "momentum=0 --json -q " .. quick))
    lu.assertEquals(#object.rows[1].beta_stream, 8) -- numbers, not the letters of the table
    lu.assertEquals(type(object.rows[1].beta_stream[8]), "number")
    local rows = self.place:fine("sweep_bins", small .. "--csv - -q") .. "\n"
    lu.assertEquals(rows, self.place:read "runs/latest/results.csv")
    self.place:fine("sweep_bins", small .. "-q --csv rows.csv")
    lu.assertEquals(rows, self.place:read "rows.csv")
end

function TestCommandLine:test_a_csv_that_cannot_be_written_costs_nothing_but_itself()
    local got = self.place:run("sweep_bins", small .. "--csv nowhere/rows.csv")
    lu.assertEquals({ got.code, got.err },
        { 1, "error: cannot write 'nowhere/rows.csv': No such file or directory\n" })
    lu.assertStrMatches(got.out, ".*\nrun folder: runs/[^\n]*")
    lu.assertStrContains(self.place:listing "runs/latest/", "./results.csv")
end

function TestCommandLine:test_a_dump_that_is_read_is_not_written_over()
    local path = self.place:dump("a.npz", scripts.logits(), scripts.targets())
    local before = posix.read_file(path)
    assert(posix.link("a.npz", self.place.folder.path .. "/link.npz"))
    for _, name in ipairs { "a.npz", "./a.npz", "link.npz" } do
        local told = name .. ": that is a dump which is read here"
        self.place:refused(2, { told }, "sketch", "a.npz -o " .. name)
        self.place:refused(2, { told }, "sweep_bins", "a.npz bins=5 --csv " .. name)
    end
    lu.assertEquals(posix.read_file(path), before)
end

-- A folder in the way of results.csv: what a full disk does, without one.
function TestCommandLine:test_an_answer_is_printed_though_the_run_folder_cannot_be_written()
    self.place:fine("sweep_bins", small .. "--name a")
    local dir = posix.real_path(self.place.folder.path .. "/runs/latest")
    os.remove(dir .. "/results.csv")
    assert(posix.make_folder(dir .. "/results.csv"))
    local got = self.place:run("sweep_bins", { "--resume", "latest", "--report" })
    lu.assertEquals(got.code, 1)
    lu.assertStrMatches(got.err, "error: cannot write 'runs/[^\n]*/results.csv': [^\n]*; "
        .. "to go on: luajit [^\n]* %-%-resume runs/[^\n]*\n")
    lu.assertStrContains(got.out, "\nbins = ")
    lu.assertNotStrContains(got.out, "report:")
    got = self.place:run("sweep_bins", { "--resume", "latest", "--json", "-q" })
    lu.assertEquals({ got.code, #json.decode(got.out).rows }, { 1, 2 })
end

function TestCommandLine:test_quiet_and_verbose()
    local quiet = self.place:fine("sweep_bins", small .. "-q")
    lu.assertStrMatches(quiet, "\n  bins .*%.")
    lu.assertNotStrContains(self.place:fine("sweep_bins", "synth:detector,rows=300 bins=10 -q "
        .. quick), "resamplings") -- of an only choice
    self.place:dump("wide.npz", scripts.member("logits", "double", "<f8", "(40, 10)",
        scripts.logit), scripts.targets())
    local loud = self.place:fine("sweep_bins", "wide.npz bins=5 -v " .. quick)
    lu.assertStrContains(loud, "  wide.npz: logits[40,10]\n    pred f8[40,10] is converted to f4\n")
    lu.assertStrContains(self.place:read "runs/latest/provenance.json",
        '"converted": ["pred f8[40,10] is converted to f4"]')
end

function TestCommandLine:test_the_same_bytes_for_any_threads_and_instructions()
    for _, words in ipairs { "momentum=0,0.75 ", "--loss ghmr " } do
        words = words .. "--csv - -q " .. quick
        local rows = self.place:fine("sweep_bins", words .. " --threads 1")
        lu.assertEquals(self.place:fine("sweep_bins", words .. " --threads 2"), rows)
        lu.assertEquals(self.place:fine("sweep_bins", words, "GHM_ISA=plain"), rows)
    end
end

function TestCommandLine:test_the_seed_is_all_that_synthetic_samples_depend_on()
    local words = small .. "-q --csv - --seed "
    local one, two = self.place:fine("sweep_bins", words .. 1), self.place:fine("sweep_bins",
        words .. 2)
    lu.assertEquals(self.place:fine("sweep_bins", words .. 1), one)
    lu.assertNotEquals(one, two)
    local drift = self.place:fine("sweep_bins", "synth:drift,rows=50 bins=5 " .. quick)
    lu.assertStrContains(drift, "16 calls of pred[50,10]")
end

function TestCommandLine:test_two_runs_in_one_second_have_a_folder_each()
    local link = posix.quote(scripts.root .. "/experiments/sweep_bins.lua")
    local _, code = posix.capture(("cd %s; for i in 1 2 3; do luajit %s %s -q >/dev/null & done; "
        .. "wait"):format(posix.quote(self.place.folder.path), link, small))
    lu.assertEquals(code, 0)
    self.place:fine("sweep_bins", small .. "--name last")
    local _, folders = self.place:listing("runs"):gsub("run%.json", "")
    lu.assertEquals(folders, 4)
    local latest = posix.real_path(self.place.folder.path .. "/runs/latest")
    lu.assertStrMatches(latest, ".*%-last%-....")
end

function TestCommandLine:test_figures_are_drawn()
    self.place:fine("sweep_bins", "synth:detector,rows=300 bins=5,10 -q --plot svg")
    for _, name in ipairs { "density", "reformulated", "contribution", "metrics" } do
        lu.assertStrContains(self.place:read("runs/latest/plots/" .. name .. ".svg"), "</svg>")
    end
end

function TestCommandLine:test_without_gnuplot_the_rest_remains()
    local bin = self.place.folder.path .. "/bin"
    assert(posix.make_folder(bin))
    local sh = posix.capture "command -v sh"
    assert(posix.link(sh, bin .. "/sh"))
    local out = self.place:fine("sweep_bins", "synth:detector,rows=300 bins=5,10", "PATH=" .. bin)
    lu.assertStrContains(out, "\nfigures: gnuplot is not installed")
    lu.assertStrContains(out, "\ngradient density GD/N at M = ")
    local plots = self.place:listing "runs/latest/plots/"
    lu.assertStrContains(plots, "./density.gp\n./density.tsv")
    lu.assertNil(plots:find "svg")
end

function TestCommandLine:test_scripts_run_through_links_and_from_odd_places()
    local odd = self.place.folder.path .. "/it's an odd; place"
    assert(posix.make_folder(odd))
    self.place:dump("it's an odd; place/a \"b\".npz", scripts.logits(), scripts.targets())
    for _, name in ipairs { "sweep_bins", "evaluate", "inspect" } do
        local script = ("%s/experiments/%s.lua"):format(scripts.root, name)
        assert(posix.link(script, ("%s/%s.lua"):format(odd, name)))
        local words = { "it's an odd; place/a \"b\".npz", name == "sweep_bins" and "-n" or nil }
        lu.assertNotEquals(self.place:fine(("%s/%s.lua"):format(odd, name), words), "")
    end
end

function TestCommandLine:test_help_fits_80_columns()
    for _, name in ipairs { "sweep_bins", "evaluate", "inspect" } do
        local out = self.place:fine(name, "-h")
        lu.assertStrContains(out, "Usage: luajit " .. name .. ".lua [DUMP...]")
        for line in out:gmatch "[^\n]+" do
            lu.assertTrue(text.width(line) <= 80, line)
        end
    end
end

function TestCommandLine:test_ctrl_c_while_modules_load_is_one_line_too()
    self.place.folder:write("pressed.lua", [[
        local ffi = require "ffi"
        ffi.cdef "int raise(int signal);"
        package.preload.argparse = function()
            ffi.C.raise(2)
            return dofile(assert(package.searchpath("argparse", package.path)))
        end]])
    for _, name in ipairs { "sweep_bins", "inspect", "merge", "repl" } do
        lu.assertEquals({ posix.capture(("cd %s; LUA_PATH='?.lua;;' luajit -l pressed %s 2>&1")
            :format(posix.quote(self.place.folder.path),
            posix.quote(scripts.root .. "/experiments/" .. name .. ".lua"))) },
            { "interrupted", 130 }, name)
    end
end

function TestCommandLine:test_ctrl_c_ends_with_130_within_half_a_second()
    local path = posix.quote(scripts.root .. "/experiments/sweep_bins.lua") .. " --device cpu"
    for _, delay in ipairs { 0.5, 1 } do
        local out = posix.capture(([[cd %s; luajit %s synth:detector,rows=4000000,steps=50 2>said &
            sleep %g; kill -INT $!; t=$(date +%%s%%N); wait $!
            echo $? $(( ($(date +%%s%%N) - t) / 1000000 )); cat said]]):format(
            posix.quote(self.place.folder.path), path, delay))
        local code, milliseconds, said = out:match "^(%d+) (%d+)\n(.*)$"
        lu.assertEquals({ code, said }, { "130", said:match "^interrupted[^\n]*$" })
        lu.assertTrue(tonumber(milliseconds) < 500, milliseconds .. " ms")
    end
end
