-- What the prompt is made of: how lines are parted, values shown, options asked, names completed.

local lu = require "luaunit"
local array = require "ghm.array"
local asked = require "ghm.prompt.asked"
local cli = require "ghm.runner.cli"
local completion = require "ghm.prompt.completion"
local differences = require "ghm.show.differences"
local display = require "ghm.prompt.display"
local fault = require "ghm.fault"
local ffi = require "ffi"
local keys = require "ghm.runner.keys"
local scripts = require "scripts"
local session = require "ghm.prompt.session"
local termpoints = require "ghm.show.termpoints"
local text = require "ghm.show.text"
local typed = require "ghm.prompt.typed"

local TestTyped = {}
_G.TestTyped = TestTyped

-- { line, its pieces; "=" before those that give values }
local lines = {
    { "1 + 1", "=1 + 1" },
    { "return x", "= x" },
    { "a.b", "=a.b" },
    { "x = f (y)(z)", "x = f (y)(z)" },
    { "x = a and b", "x = a and b" },
    { "f(x) or g(y)", "=f(x) or g(y)" },
    { 'r:best "error"   compare(r[3], r[9])', '=r:best "error"', "=compare(r[3], r[9])" },
    { "a = 1; b = 2; a + b", "a = 1; b = 2; a + b", code = "near '+'" },
    { "a = 1 b = 2 f(a)", "a = 1", "b = 2", "=f(a)" },
    { "x = 1 -- then f(y)", "x = 1 -- then f(y)" },
    { 'x = "a f(y) b" g()', 'x = "a f(y) b"', "=g()" },
    { "x = [[\n f(y) ]] g()", "x = [[\n f(y) ]]", "=g()" },
    { "if a then b() end c()", "if a then b() end", "=c()" },
    { "local function f() return 1 end f()", "local function f() return 1 end", "=f()" },
    { "for i = 1, 2 do g(i) end", "for i = 1, 2 do g(i) end" },
    { "-- a remark", "=-- a remark" },
    { "  " },
}

function TestTyped.test_a_line_is_parted_into_its_statements()
    for _, case in ipairs(lines) do
        local pieces, problem = typed.read(case[1])
        if case.code then
            lu.assertNil(pieces)
            lu.assertStrContains(problem, case.code)
        else
            local found = {}
            for i, piece in ipairs(pieces) do
                found[i] = (piece.shows and "=" or "") .. piece.text
            end
            lu.assertEquals(found, { unpack(case, 2) }, case[1])
        end
    end
end

function TestTyped.test_an_open_statement_waits_for_more()
    for _, line in ipairs { "for i = 1, 2 do", "f(", "x =", "1 +", "t = {", "[[ab", "a.",
        "function f()", "if x then" } do
        local pieces, problem = typed.read(line)
        lu.assertEquals({ pieces, problem }, { nil, "more" }, line)
    end
    for _, line in ipairs { "f(]", "'ab", "x y", "end", "1 + + 2" } do
        local _, problem = typed.read(line)
        lu.assertStrContains(problem, "near")
    end
end

-- -- values --------------------------------------------------------------------------------------

local TestDisplay = {}
_G.TestDisplay = TestDisplay

function TestDisplay.test_values_are_summed_up()
    local long = {}
    for i = 1, 100 do
        long[i] = i
    end
    for _, case in ipairs {
        { 0.1, "0.1" }, { "a\nb", "a\nb" }, { {}, "an empty table" },
        { { 1, 2.5 }, "2 numbers: 1  2.5" },
        { long, "100 numbers: 1  2  3  4  5  6  7  8  ...  least 1, greatest 100" },
        { { b = { 1 }, a = "x\ny" }, 'a  "x\\ y"\nb  1 numbers: 1' },
        { ffi.new("int64_t[3]", { 1, -2, 3 }), "int64_t[3], from 0: 1  -2  3" },
        { ffi.new("double[?]", 0), "double[0], from 0: " },
        { 12LL, "12" },
        { array.from({ { 1, 2 }, { 0, 1 / 0 } }, "f4"),
            "f4[2,2]  least 0, mean 1, greatest 2, 1 zeros  1 non-finite\n  1  2  0  inf" },
        { array.new("u1", { 0 }), "u1[0]  0 non-finite" },
    } do
        lu.assertEquals((display.text(case[1]):gsub("%s+$", "")), (case[2]:gsub("%s+$", "")))
    end
end

function TestDisplay.test_what_differs_is_told_with_its_share()
    local things = { { name = "A", values = { x = 2, y = "p", z = 0 / 0, w = 1 } },
        { name = "B", values = { x = 3, y = "q", z = 0 / 0, w = 1 } } }
    local told = differences.text(things, { "x", "y", "z", "w" })
    lu.assertStrContains(told, "x  2  3  +50.00 %\ny  p  q\n2 more do not differ\n")
    lu.assertStrContains(differences.text(things, { "x", "w" }, { all = true }), "\nw  1  1\n")
    lu.assertEquals(differences.text(things, { "w" }), "nothing differs among 1 value\n")
end

function TestDisplay.test_points_stand_where_they_belong()
    local function draw(also)
        local figure = { width = 9, height = 5, ascii = true, title = "t", xlabel = "bins",
            series = { { label = "a", x = { 1, 2, 3 }, y = { 0, 2, 4 } },
                { label = "b", x = { 1, 3 }, y = { 4, 0 / 0 } } } }
        for key, value in pairs(also or {}) do
            figure[key] = value
        end
        return termpoints.draw(figure)
    end
    lu.assertEquals(draw(), table.concat({ "t", " 4 +x      .o", " 3 +     ..",
        " 2 +   .o", " 1 + ..", " 0 +o", "   ++---+---+", "    1   2   3",
        "    bins  o a   x b\n" }, "\n"))
    lu.assertStrContains(draw { ylog = true, series = { { label = "a", x = { 1, 2 },
        y = { 1, 100 } } } }, "1e2 +       .o\n")
    lu.assertEquals(draw { series = { { label = "a", x = {}, y = {} } } },
        "t\n(no point can be drawn)\n")
    lu.assertStrContains(draw { series = { { label = "a", x = { 7 }, y = { -3 } } } }, "o")
end

-- -- options -------------------------------------------------------------------------------------

local TestAsked = {}
_G.TestAsked = TestAsked

local spec = { name = "asked", keys = keys { "bins", "momentum", "mu", "labels", "divide",
    single = true, bins = "5:50:5", momentum = "0" }, common = { "labels", "seed", "samples" },
    options = function(parser)
        parser:option "--loss":choices { "ghmc", "ghmr" }
        parser:flag "--deep"
    end }

function TestAsked.test_options_mean_what_the_words_of_a_command_line_mean()
    for _, case in ipairs {
        { {}, {} },
        { { bins = 10, momentum = { 0, 0.75 }, mu = 0.1 }, { "bins=10", "momentum=0,0.75",
            "mu=0.1" } },
        { { bins = "5:20:5", divide = "all", loss = "ghmr", deep = true },
            { "bins=5:20:5", "divide=all", "--loss", "ghmr", "--deep" } },
        { { labels = "one_based" }, { "labels=one_based" } },
        { { labels = "gt", deep = false }, { "--labels", "gt" } },
        { { bins = "rand:1:9", samples = 3, seed = 2 }, { "bins=rand:1:9", "--samples", "3",
            "--seed", "2" } },
        { { momentum = 1 / 3 }, { "momentum=0.33333333333333331" } },
    } do
        local got, expected = asked.args(spec, case[1]), cli.parse(spec, case[2])
        got.argv, expected.argv = nil, nil
        lu.assertEquals(got, expected)
    end
end

function TestAsked.test_what_cannot_be_meant_is_refused()
    for part, options in pairs {
        ["unknown key 'binz': did you mean 'bins'?"] = { binz = 5 },
        ["unknown key '1': expected one of bins, momentum"] = { 5 },
        ["bins=0: expected a whole number from 1"] = { bins = 0 },
        ["momentum is a function, expected a number"] = { momentum = print },
        ["mu=0.1,0.2: expected one value"] = { mu = { 0.1, 0.2 } },
        ["asked: expected options such as {bins = 30}, not a number"] = 5,
        ["must be one of 'ghmc', 'ghmr'"] = { loss = "mse" },
    } do
        local ok, problem = pcall(asked.args, spec, options)
        lu.assertTrue(not ok and fault.is(problem) and problem.kind == "usage", part)
        lu.assertStrContains(problem.message, part)
    end
end

-- -- names ---------------------------------------------------------------------------------------

local TestSession = {}
_G.TestSession = TestSession

function TestSession:setUp()
    self.place = scripts.place()
end

function TestSession:tearDown()
    self.place:remove()
end

function TestSession.test_completion_knows_names_fields_and_options()
    local s = session.new()
    s.names.mine = { text = "a", deep = { er = 1 }, run = print }
    s.names.r = { { loss = 1 } }
    for line, expected in pairs {
        ["x = mi"] = { "x = mine" },
        ["mine.de"] = { "mine.deep" },
        ["mine.deep."] = { "mine.deep.er" },
        ["mine:"] = { "mine:run" },
        ["r[1].lo"] = { "r[1].loss" },
        ["f().x"] = {},
        ["sweep(mine, {mom"] = { "sweep(mine, {momentum" },
        ["sweep(mine, {bins = 5, los"] = { "sweep(mine, {bins = 5, loss", "sweep(mine, {bins = 5, "
            .. "loss_weight" },
        ["sweep(mine, {bins = mi"] = { "sweep(mine, {bins = mine" },
        ["sweep_b"] = { "sweep_bins" },
        ["whi"] = { "while" },
        ["load '/nowhere/x"] = {},
    } do
        local found = completion.candidates(line, s)
        table.sort(found)
        lu.assertEquals(found, expected, line)
    end
    lu.assertEquals(completion.candidates('load "' .. scripts.root .. "/Mak", s),
        { 'load "' .. scripts.root .. "/Makefile" })
end

-- Lines through a pipe: no prompt is shown, what fails is told, the code says so.
function TestSession:test_a_pipe_is_run_line_by_line()
    self.place.folder:write("lines", table.concat({ "x = 20", "local y = 1", "x + 1 + y",
        "swep(x)", "t = {} t.y.z = 1", "for i =", "1, 2 do show(i) end", "error('mine')",
        "exit()", "never()" }, "\n"))
    local got = self.place:run("repl", "<lines")
    lu.assertEquals(got.out, "22\n1\n2")
    lu.assertEquals(got.err, "error: attempt to call global 'swep' (a nil value): did you mean "
        .. "'sweep'?\nerror: attempt to index field 'y' (a nil value)\nerror: mine\n")
    lu.assertEquals(got.code, 1)
    self.place.folder:write("lines", "1\nfor i = 1, 2 do")
    got = self.place:run("repl", "<lines")
    lu.assertEquals({ got.out, got.err, got.code },
        { "1", "error: the input ends inside a statement\n", 1 })
end

function TestSession:test_what_cannot_be_written_is_a_failure()
    for _, typed_lines in ipairs { "1\n2", "1\nerror 'x'\n", "print(1) exit()" } do
        self.place.folder:write("lines", typed_lines)
        self.place:refused(1, { "error: cannot write to stdout: No space left" }, "repl",
            "<lines >/dev/full")
    end
end

function TestSession:test_studies_have_the_names_and_the_numbers_of_their_scripts()
    local dump = scripts.root .. "/experiments/digits/step_000*.npz"
    self.place.folder:write("lines", ("s = sketch(load(%q), {bins = {5, 10}})\n"
        .. "sweep_bins(s, {bins = {5, 10}, seed = 3})\nsweep_bins(s, {bins = 7})\ns\n"):format(
        dump))
    local said = self.place:fine("repl", "<lines", "LANG=C.UTF-8")
    local script = self.place:fine("sweep_bins", { dump, "bins=5,10", "--plot=term", "--seed=3" },
        "LANG=C.UTF-8")
    local from = script:find("  bins", 1, true)
    local to = script:find("\nrun folder: ", 1, true)
    lu.assertStrContains(said, script:sub(from, to - 1))
    lu.assertStrContains(said, "for bins 5, 7, 10", nil, nil, "read again for another M")
end

function TestSession:test_warnings_tell_what_can_be_typed_here()
    self.place.folder:write("lines", 'd = load({}, {loss = "ghmr"})\n'
        .. "sweep(d, {mu = 1e-4, bins = 5})\nsave 's.lua'\n")
    for _, out in ipairs { self.place:fine("repl", "<lines"),
        self.place:fine(self.place.folder.path .. "/s.lua", "") } do
        lu.assertStrContains(out:gsub("%s+", " "), "A larger mu; sweep_mu finds one.")
    end
end

function TestSession:test_sketch_files_are_data_too()
    self.place:dump("a.npz", scripts.logits(), scripts.targets())
    self.place:fine("sweep_bins", "a.npz bins=5,10 -q --plot none")
    self.place.folder:write("lines", 's = sketch(load "runs/latest/sketches")\n'
        .. "density(s, {bins = 5})\nsweep(s, {bins = 7})\n")
    local got = self.place:run("repl", "<lines")
    lu.assertStrContains(got.out, "logits[40,10]  target  400 samples  0 non-finite  (sketched)")
    lu.assertStrContains(got.out, "gradient density GD/N at M = 5")
    lu.assertStrContains(got.err, "was not made for bins = 7, only for 5, 10")
end

function TestSession:test_what_is_not_finite_is_counted_and_then_refused()
    self.place:dump("nan.npz", scripts.member("logits", "float", "<f4", "(40, 10)", function(i)
        return i == 7 and 0 / 0 or 1
    end), scripts.targets())
    self.place.folder:write("lines", 'd = load "nan.npz"\nsketch(d)\n'
        .. 's = sketch(d, {nonfinite = "ignore"})\ns\nsketch(5)\nsketch(d, {mu = 1})\n'
        .. 'density(s, {by = "class"})\n') -- which reads columns
    local got = self.place:run("repl", "<lines")
    lu.assertStrContains(got.out, "class 7")
    lu.assertStrContains(got.out, "400 samples  1 non-finite")
    lu.assertStrContains(got.out, "sketch of 1 call, 399 valid samples")
    lu.assertStrMatches(got.err, "error: nan%.npz: [^\n]*[^\n]*\nerror: sketch takes what load "
        .. "gave, or a DUMP in quotes, not a number\nerror: mu: GHM%-C has none[^\n]*\n")
end

function TestSession:test_only_a_saved_session_is_written_over()
    local s = session.new()
    local path = self.place.folder:write("mine.txt", "precious")
    local ok, problem = pcall(s.save, s, path)
    lu.assertFalse(ok)
    lu.assertStrContains(problem.message, "is there already and is no saved session")
    lu.assertEquals(self.place:read "mine.txt", "precious")
    self.place.folder:write("lines", 'x = 1\nsave "s.lua"\nx + 1 -- two\nsave "s.lua"\n')
    self.place:fine("repl", "<lines")
    lu.assertStrContains(self.place:read "s.lua", "\nx = 1\nshow(x + 1 -- two\n)\n\nend)\n")
    lu.assertEquals(self.place:fine(self.place.folder.path .. "/s.lua", ""), "2")
    local got = self.place:run(self.place.folder.path .. "/s.lua", "--device cuda:7")
    lu.assertEquals(got.code, 4)
end

-- The ends of the best row's interval are in the table, and are no rows.
function TestSession:test_rows_that_are_not_listed_are_counted()
    self.place.folder:write("lines", 's = sketch(load "synth:drift,rows=60,steps=4")\n'
        .. 'sweep(s, {bins = {5, 10}})\nsweep_momentum(s)\n')
    local out = self.place:fine("repl", "<lines")
    lu.assertStrMatches(out, ".*\n  from .*\n  +from .*")
    local n, of, all = out:match "\n(%d+) of (%d+) rows are listed, r%[1%] to r%[(%d+)%] are all%."
    lu.assertEquals({ n, of, all }, { "10", "41", "41" })
    lu.assertEquals(select(2, out:gsub("rows are listed", "")), 1)
end

function TestSession:test_a_row_has_its_intervals_beside_its_values()
    self.place.folder:write("lines", 'r = sweep(sketch(load "synth:drift,rows=60,steps=4"), '
        .. '{bins = {5, 10}})\nr[1]\ncompare(r[1], r[2])\n')
    local out = self.place:fine("repl", "<lines")
    lu.assertStrMatches(out, ".*\nloss  +[%d.]+  %([%d.]+ to [%d.]+%)\n.*")
    lu.assertStrMatches(out, ".*\nloss  +[%d.]+  +[%d.]+  +[+-][%d.]+ %%\n.*")
    lu.assertNotStrContains(out, "loss_low")
    self.place.folder:write("lines", 'r = sweep(sketch(load "synth:drift,rows=60,steps=4"), '
        .. '{bins = {5, 10}})\ncompare(r[1], r[2], {all = true})\n')
    lu.assertStrContains(self.place:fine("repl", "<lines"), "\nloss_low ")
end

function TestSession.test_help_fits_80_columns()
    local s = session.new()
    for _, call in ipairs { s.own.help(), s.own.help "load", s.own.help(s.own.save),
        s.own.help(s.names.sweep), s.own.help "sweep_momentum", s.own.help(s.names.plot) } do
        for line in call:gmatch "[^\n]+" do
            lu.assertTrue(text.width(line) <= 80, line)
        end
    end
    lu.assertStrContains(s.own.help(s.names.sweep), "How many unit regions (bins, M)")
    lu.assertStrContains(s.own.help "bims", "nothing is known of 'bims'")
end
