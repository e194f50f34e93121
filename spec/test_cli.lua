-- The command line: words, keys, options, and how a script ends.

local lu = require "luaunit"
local cli = require "ghm.runner.cli"
local fault = require "ghm.fault"
local posix = require "ghm.posix"
local text = require "ghm.show.text"

local function spec()
    return {
        name = "sweep_bins",
        question = "How does the number of regions change the loss?",
        default_dump = "digits",
        keys = {
            { name = "bins", default = "5:50:5", integer = true, min = 1, max = 65536,
                help = "number of regions" },
            { name = "momentum", default = 0, min = 0, below = 1, help = "share of the old state" },
            { name = "mu", default = 0.02, above = 0, help = "mu of ASL1" },
            { name = "start", default = "zero", values = { "zero", "first" }, single = true,
                help = "where the momentum starts" },
        },
        options = function(parser)
            parser:option("--fail-if", "exit 6 when it holds"):argname "COND"
        end,
    }
end

local function refused(words, with)
    local ok, problem = pcall(cli.parse, with or spec(), words)
    lu.assertFalse(ok, "accepted " .. table.concat(words, " "))
    lu.assertTrue(fault.is(problem), tostring(problem))
    lu.assertEquals(fault.exit_code(problem), 2)
    lu.assertNil(problem.message:find "\n")
    return problem.message
end

local TestCli = {}
_G.TestCli = TestCli

function TestCli.test_defaults_stand_where_nothing_is_said()
    local args = cli.parse(spec(), {})
    lu.assertEquals(args.keys, { bins = { 5, 10, 15, 20, 25, 30, 35, 40, 45, 50 },
        momentum = { 0 }, mu = { 0.02 }, start = "zero" })
    lu.assertEquals(args.given, {})
    lu.assertEquals(#args.dumps, 0)
    lu.assertEquals(args.device, "auto")
    lu.assertEquals(args.out, "runs")
    lu.assertEquals(args.plot, { svg = true, png = true, term = true })
    lu.assertNil(args.threads)
    lu.assertNil(args.seed)
end

function TestCli.test_keys_are_told_from_dumps()
    local args = cli.parse(spec(), { "a.npz", "bins=5,7", "synth:focal,share=0.1", "-q",
        "start=first", "dir/" })
    lu.assertEquals({ unpack(args.dumps) }, { "a.npz", "synth:focal,share=0.1", "dir/" })
    lu.assertEquals(args.keys.bins, { 5, 7 })
    lu.assertEquals(args.keys.start, "first")
    lu.assertEquals(args.given, { bins = true, start = true })
    lu.assertTrue(args.quiet)
    lu.assertEquals(#args.argv, 6)
end

function TestCli.test_array_names_are_comma_separated_and_repeatable()
    local args = cli.parse(spec(), { "--logits", "a,b", "--logits=c", "--weight", "w" })
    lu.assertEquals(args.logits, { "a", "b", "c" })
    lu.assertEquals(args.weight, { "w" })
    lu.assertNil(args.labels)
end

function TestCli.test_options_of_the_script_are_in_args()
    lu.assertEquals(cli.parse(spec(), { "--fail-if", "x > 1" }).fail_if, "x > 1")
end

function TestCli.test_plot_is_a_set()
    lu.assertEquals(cli.parse(spec(), { "--plot", "pdf,term" }).plot, { pdf = true, term = true })
    lu.assertEquals(cli.parse(spec(), { "--plot", "none" }).plot, {})
    refused { "--plot", "none,svg" }
end

function TestCli.test_unknown_words_get_a_suggestion()
    lu.assertEquals(refused { "binz=5" }, "unknown key 'binz': did you mean 'bins'?")
    lu.assertEquals(refused { "--devise", "cpu" },
        "unknown option '--devise': did you mean '--device'?")
    lu.assertEquals(refused { "--bins=5" }, "unknown option '--bins': did you mean 'bins=SPEC'?")
    lu.assertStrContains(refused { "start=frist" }, "did you mean 'first'?")
    lu.assertStrContains(refused { "--plot", "sgv" }, "did you mean 'svg'?")
    lu.assertStrContains(refused { "--zzzzzzz" }, "-h lists the options")
end

function TestCli.test_limits_are_stated()
    local cases = {
        ["bins=0"] = "bins=0: expected a whole number from 1 to 65536",
        ["bins=65537"] = "bins=65537: expected a whole number from 1 to 65536",
        ["bins=2.5"] = "bins=2.5: 2.5 is not a whole number",
        ["momentum=1"] = "momentum=1: expected a number of at least 0 and below 1",
        ["mu=0"] = "mu=0: expected a number above 0",
        ["start=zero,first"] = "start=zero,first: expected one value, not 2",
    }
    for word, message in pairs(cases) do
        lu.assertEquals(refused { word }, message)
    end
    cli.parse(spec(), { "bins=1,65536", "momentum=0,0.999", "mu=1e-9" })
end

function TestCli.test_bad_options_are_refused()
    for _, words in ipairs { { "--device", "gpu" }, { "--device=cuda:x" }, { "--threads", "0" },
        { "--threads", "1.5" }, { "--seed", "abc" }, { "--seed" }, { "--nonfinite", "maybe" },
        { "bins=1", "bins=2" }, { "bins=" }, { "--json=x" }, { "bins=rand:1:5" } } do
        refused(words)
    end
end

function TestCli.test_left_out_parts_are_refused()
    local with = spec()
    with.without, with.no_dump, with.keys = { "--csv" }, true, {}
    lu.assertStrContains(refused({ "--csv", "x" }, with), "unknown option '--csv'")
    lu.assertStrContains(refused({ "a.npz" }, with), "takes no dump")
    lu.assertStrContains(refused({ "bins=3" }, with), "takes no keys")
end

function TestCli.test_values_come_from_a_column_of_a_file()
    local path = os.tmpname()
    posix.write_file(path, "mu,bins\n0.1,5\n0.2,7\n")
    local ok, args = pcall(cli.parse, spec(), { "bins=@" .. path, "mu=@" .. path })
    local message = refused { "momentum=@" .. path }
    os.remove(path)
    lu.assertTrue(ok)
    lu.assertEquals(args.keys.bins, { 5, 7 })
    lu.assertEquals(args.keys.mu, { 0.1, 0.2 })
    lu.assertStrContains(message, "no column 'momentum', only mu, bins")
    lu.assertStrContains(refused { "bins=@" .. path }, "bins=@" .. path .. ": cannot read ")
end

function TestCli.test_a_file_of_values_has_a_header_and_values()
    local path = os.tmpname()
    local told = {}
    for k, content in ipairs { "5\n10\n", "bins\n", "mu,bins\n" } do
        posix.write_file(path, content)
        told[k] = refused { "bins=@" .. path }:sub(#path + 9)
    end
    os.remove(path)
    lu.assertEquals(told, { "the first line is 5, expected a name, such as bins",
        "no values below the header", "no values below the header" })
end

-- Runs a script of its own in a process of its own -> stdout, stderr, exit code.
local function script(body, words, redirect)
    local folder = os.tmpname()
    os.remove(folder)
    assert(posix.make_folder(folder))
    local path, errors = folder .. "/script.lua", folder .. "/stderr"
    posix.write_file(path, ("package.path = %q\nlocal cli = require 'ghm.runner.cli'\n"):format(
        package.path) .. "local keys = { { name = 'bins', default = 5, help = 'regions' } }\n"
        .. "cli.main({ name = 'script', question = 'Why?', keys = keys }, function(args)\n"
        .. body .. "\nend)\n")
    local output, code = posix.capture(("luajit %s %s 2>%s %s"):format(posix.quote(path),
        words or "", posix.quote(errors), redirect or ""))
    local said = assert(posix.read_file(errors))
    os.remove(path)
    os.remove(errors)
    assert(os.remove(folder))
    return output, said, code
end

local TestCliMain = {}
_G.TestCliMain = TestCliMain

function TestCliMain.test_result_of_the_body_is_the_exit_code()
    local output, said, code = script "print(args.keys.bins[1])"
    lu.assertEquals({ output, said, code }, { "5", "", 0 })
    lu.assertEquals(select(3, script "return 6"), 6)
end

function TestCliMain.test_fault_is_one_line_and_its_exit_code()
    local output, said, code = script("require('ghm.fault').raise('dump', 'x.npy: bad\\nmagic')")
    lu.assertEquals({ output, said, code }, { "", "error: x.npy: bad magic\n", 3 })
    output, said, code = script("", "binz=3")
    lu.assertEquals({ output, said, code },
        { "", "error: unknown key 'binz': did you mean 'bins'?\n", 2 })
end

function TestCliMain.test_anything_else_is_a_bug_with_its_place()
    local _, said, code = script "local x; return x.y"
    lu.assertEquals(code, 70)
    lu.assertEquals(said:sub(1, 5), "bug: ")
    lu.assertStrContains(said, "script.lua:5")
    lu.assertStrContains(said, "stack traceback")
end

function TestCliMain.test_interrupt_ends_with_130()
    local _, said, code = script "error('interrupted!', 0)"
    lu.assertEquals({ said, code }, { "interrupted\n", 130 })
    _, said, code = script [[
        local ffi = require "ffi"
        ffi.cdef "int raise(int);"
        ffi.C.raise(2)
        for i = 1, 1e9 do args.x = tostring(i) end]]
    lu.assertEquals({ said, code }, { "interrupted\n", 130 })
end

function TestCliMain.test_result_that_cannot_be_written_is_a_failure()
    local _, said, code = script("print(1)", "", ">/dev/full")
    lu.assertEquals(code, 1)
    lu.assertStrContains(said, "error: cannot write to stdout: No space left")
end

function TestCliMain.test_help_fits_80_columns_and_exits_with_0()
    local output, said, code = script("error 'the body must not run'", "--help")
    lu.assertEquals({ said, code }, { "", 0 })
    lu.assertStrContains(output, "Why?")
    lu.assertStrContains(output, "bins=5")
    lu.assertStrContains(output, "--device D")
    for line in output:gmatch "[^\n]+" do
        lu.assertTrue(text.width(line) <= 80, line)
    end
end

function TestCliMain.test_thousands_of_dumps_are_taken()
    local output, _, code = script("print(#args.dumps)", "$(seq 20000)")
    lu.assertEquals({ output, code }, { "20000", 0 })
end

function TestCliMain.test_script_dir_is_absolute_from_any_folder()
    local output = script "print(cli.script_dir())"
    lu.assertEquals(output:sub(1, 1), "/")
end

function TestCliMain.test_the_spec_of_a_script_is_had_without_running_it()
    local output, said, code = script([[
        local spec, body = cli.spec_of(arg[0])
        print(spec.question, type(body), #args.dumps)]], "once")
    lu.assertEquals({ output, said, code }, { "Why?\tfunction\t1", "", 0 })
    output = script "print(cli.spec_of '/nowhere.lua')"
    lu.assertEquals(output, "nil")
end
