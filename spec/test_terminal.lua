-- The prompt in a real terminal: what is typed, what Ctrl-C and Tab do, what stays.

local lu = require "luaunit"
local posix = require "ghm.posix"
local scripts = require "scripts"
local terminal = require "terminal"
local text = require "ghm.show.text"

local TestTerminal = {}
_G.TestTerminal = TestTerminal

local repl = posix.quote(scripts.root .. "/experiments/repl.lua")
local PLAIN, EDITED = "TERM=dumb", "TERM=xterm"
local LARGE = 'd = load "synth:detector,rows=2000000,steps=100"'

function TestTerminal:setUp()
    self.place = scripts.place()
    self.place:dump("coco_val.npz", scripts.logits(), scripts.targets())
end

function TestTerminal:tearDown()
    if self.terminal then
        self.terminal:close()
    end
    self.place:remove()
end

-- The prompt, ready for a line.
function TestTerminal:prompt(words, environment)
    lu.skipIf((environment or EDITED) == EDITED and not pcall(require, "readline"),
        "lua-readline is not installed: nothing edits lines")
    self.terminal = terminal.run(("luajit %s %s"):format(repl, words or ""),
        { folder = self.place.folder.path, environment = environment })
    self.terminal:expect "ghm> "
    return self.terminal
end

-- { a line of the transcript, what its answer holds }
local transcript = {
    { 'd = load "coco_val.npz"',
        "logits f4[40,10]  target f4[40,10]  400 samples  0 non-finite  (inflated)" },
    { "s = sketch(d)" },
    { "density(s, {bins = 30})            -- log-scale Unicode plot in the terminal",
        "gradient density GD/N at M = 30", "10⁰ ┤", "━ exact density" },
    { 'r = sweep(s, {bins = "5:50:5", momentum = {0, 0.75}})' },
    { 'r:best "error"        compare(r[3], r[9])        plot(r, "bins", "loss", '
        .. '{save = "fig.svg"})', "density_error_mean  ", "bins = 10, momentum = 0", "change",
        "loss by bins", "● momentum 0   ○ momentum 0.75", "fig.svg" },
    { "sweep(s, {binz = 5})", "error: unknown key 'binz': did you mean 'bins'?" },
    { 'save "session.lua"                 -- what was typed, runnable with luajit',
        "7 statements in session.lua" },
}

function TestTerminal:test_the_transcript_works_as_it_is_typed()
    for _, environment in ipairs { PLAIN, EDITED } do
        local t = self:prompt("", environment)
        for _, line in ipairs(transcript) do
            local answer = t:say(line[1])
            for k = 2, #line do
                lu.assertStrContains(answer, line[k])
            end
            lu.assertEquals(line[2] == nil and answer:match "\n(.*)$" or "", "")
        end
        lu.assertEquals(t:leave(), 0)
    end
    lu.assertStrContains(self.place:read "fig.svg", "</svg>")
    lu.assertStrContains(self.place:read "session.lua", "\n-- sweep(s, {binz = 5})\n")
    self.place.folder:write("fig.svg", "")
    local again = self.place:fine(self.place.folder.path .. "/session.lua", "", "LANG=C.UTF-8")
    for k = 1, 5 do
        for part = 2, #transcript[k] do
            lu.assertStrContains(again, transcript[k][part])
        end
    end
    lu.assertStrContains(self.place:read "fig.svg", "</svg>")
end

function TestTerminal:test_ctrl_c_stops_kernels_and_loops_and_the_prompt_lives()
    for _, environment in ipairs { PLAIN, EDITED } do
        local t = self:prompt("", environment)
        t:say "kept = 41"
        for _, line in ipairs { LARGE, "while true do end", "x = 0 repeat x = x + 1 until false",
            "local function f() return f() end f()", "while true do sketch(load()) end" } do
            t:type('print "at work" ' .. line .. "\n") -- Ctrl-C before that is another matter
            t:expect "\nat work"
            t:watch(0.2)
            local begun, from = posix.now(), t.at
            t:interrupt(3)
            lu.assertTrue(posix.now() - begun < 2, line)
            lu.assertStrContains(t.seen:sub(from), "\ninterrupted", nil, nil, line)
        end
        t:type "kept + 1\n"
        t:expect "\n42" -- the prompts of some Ctrl-C may come late
        t:settle()
        lu.assertEquals(t:leave(), 0)
    end
end

function TestTerminal:test_ctrl_c_drops_the_line_and_the_lines_before_it()
    for _, environment in ipairs { PLAIN, EDITED } do
        local t = self:prompt("", environment)
        t:type "1 + "
        t:expect "1 + "
        t:interrupt()
        t:type "for i = 1, 3 do\n"
        t:expect "...> "
        t:type "print(i"
        t:expect "print(i"
        t:interrupt()
        lu.assertStrContains(t:say "2 * 3", "\n6")
        lu.assertEquals(t:leave(), 0)
    end
end

function TestTerminal:test_statements_take_as_many_lines_as_they_need()
    local t = self:prompt()
    t:type "for i = 1, 3 do\n"
    t:expect "...> "
    t:type "show(i * 7)\n"
    t:expect "...> "
    lu.assertStrContains(t:say "end", "7\n14\n21")
    lu.assertStrContains(t:say "1 +\n2", "\n3")
    lu.assertEquals(t:leave(), 0)
end

function TestTerminal:test_tab_completes_names_fields_options_and_files()
    posix.make_folders(self.place.folder.path .. "/a b")
    self.place.folder:write("a b/step_1.npz", "")
    local t = self:prompt "coco_val.npz"
    t:expect "(inflated)"
    t:expect "ghm> "
    t:say "my_longest_name = 3 r = sweep(d, {bins = 5})"
    for typed, becomes in pairs {
        ["dens\t"] = "density",
        ["my_lo\t"] = "my_longest_name",
        ["density(d, {bi\t"] = "density(d, {bins",
        ["r:be\t"] = "r:best",
        ["r[1].density_error_me\t"] = "r[1].density_error_mean",
        ['load "coco\t'] = 'load "coco_val.npz"',
        ['load "a b/st\t'] = 'load "a b/step_1.npz',
    } do
        t:type(typed)
        t:expect(becomes)
        t:interrupt()
    end
    lu.assertEquals(t:leave(), 0)
end

function TestTerminal:test_history_is_kept_from_one_session_to_the_next()
    local t = self:prompt()
    t:say "6 * 7"
    t:type(terminal.UP .. "\n")
    t:expect "\n42"
    t:expect "ghm> "
    lu.assertEquals(t:leave(), 0)
    t = self:prompt()
    t:type(terminal.UP .. "\n")
    t:expect "\n42"
    t:expect "ghm> "
    lu.assertEquals(t:leave(), 0)
end

function TestTerminal:test_a_terminal_without_lua_readline_has_a_plain_prompt()
    local t = self:prompt("", "TERM=dumb LUA_CPATH=/nowhere/?.so")
    lu.assertStrContains(t:say "1 + 1", "\n2")
    lu.assertEquals(t:leave(), 0)
end

local BOLD, YELLOW = "\27[1m", "\27[33m"

-- A script's whole output on a terminal of so many columns.
function TestTerminal:answer(columns, environment, words)
    local t = terminal.run(("luajit %s %s"):format(posix.quote(scripts.root
        .. "/experiments/sweep_bins.lua"), words or ""), { folder = self.place.folder.path,
        environment = environment, columns = columns })
    t:expect "left 0"
    return t
end

function TestTerminal:test_an_answer_keeps_to_the_width_of_its_terminal()
    for _, columns in ipairs { 50, 80 } do
        local t = self:answer(columns, "TERM=xterm")
        local shown = t.seen:match "calls? of.*run folder"
        for line in shown:gmatch "[^\n]+" do
            lu.assertTrue(text.width(line) <= columns, line)
        end
        lu.assertStrMatches(shown, ".*%d+ of 12 columns are listed, results.csv has all.*")
    end
    lu.assertNotStrContains(self:answer(120, "TERM=xterm").seen, "columns are listed")
end

function TestTerminal:test_tables_of_files_keep_their_numbers_on_a_narrow_terminal()
    local words = {}
    for k = 1, 2 do
        words[k] = ("iteration_of_training_000%d.npz"):format(k)
        self.place:dump(words[k], scripts.logits(), scripts.targets())
    end
    for name, said in pairs { evaluate = "mean +", inspect = "" } do
        local t = terminal.run(("luajit %s %s; echo left"):format(posix.quote(scripts.root
            .. "/experiments/" .. name .. ".lua"), table.concat(words, " ")),
            { folder = self.place.folder.path, environment = "TERM=xterm", columns = 40 })
        t:expect "left"
        for line in t.seen:gmatch "[^\r\n]+" do
            lu.assertTrue(text.width(line) <= 40, line)
        end
        lu.assertStrMatches(t.seen, name == "inspect" and ".*0002.npz.*" or ".*…_0002.npz.*" .. said
            .. ".*")
        t:close()
    end
end

function TestTerminal:test_what_runs_have_in_common_is_told_within_the_width()
    for out, weight in pairs { a = 1, b = 2 } do
        self.place:fine("sweep_bins", ("synth:detector,rows=200,steps=4 bins=5,10 --plot none -q "
            .. "loss_weight=%d -o %s"):format(weight, out))
    end
    local t = terminal.run(("luajit %s a/2* b/2*"):format(posix.quote(scripts.root
        .. "/experiments/compare.lua")), { folder = self.place.folder.path, columns = 60 })
    t:expect "left 0"
    local told = t.seen:match "means over.*left 0"
    lu.assertStrContains((told:gsub("%s+", " ")), "means over 2 configurations that all runs have; "
        .. "apart: 90 % intervals that do not meet A's")
    for line in told:gmatch "[^\r\n]+" do
        lu.assertTrue(text.width(line) <= 60, line)
    end
end

function TestTerminal:test_an_interrupt_is_told_on_a_line_of_its_own()
    local t = terminal.run(("luajit %s synth:detector,rows=400000,steps=500 bins=5"):format(
        posix.quote(scripts.root .. "/experiments/sweep_bins.lua")),
        { folder = self.place.folder.path })
    t:expect "1/500 steps"
    t:type "\3"
    t:expect "interrupted: stopped at"
    lu.assertStrContains(t.raw, "\r\27[Kinterrupted: stopped at")
    t:expect "left 130"
end

function TestTerminal:test_colours_are_left_out_where_they_are_not_wanted()
    local t = self:answer(120, "TERM=xterm")
    lu.assertStrContains(t.raw, BOLD)
    lu.assertStrContains(t.raw, YELLOW .. "warning:")
    lu.assertStrContains(self:answer(120, "TERM=xterm NO_COLOR=").raw, BOLD) -- empty says nothing
    for _, plain in ipairs { { "TERM=xterm", "--no-color" }, { "TERM=xterm NO_COLOR=1" },
        { "TERM=dumb" } } do
        t = self:answer(120, unpack(plain))
        lu.assertNil(t.raw:find "\27%[[%d;]*m", plain[2] or plain[1])
    end
    lu.assertNil(t.raw:find("\27", 1, true), "TERM=dumb")
end

function TestTerminal:test_dumps_of_the_command_line_are_loaded_and_saved()
    local t = self:prompt "coco_val.npz --target target"
    local line = 'd = load("coco_val.npz", { target = { "target" } })\n'
    lu.assertEquals(t:expect(line), line)
    t:expect "logits f4[40,10]  target f4[40,10]"
    t:expect "ghm> "
    lu.assertStrContains(t:say 'save "s.lua"', "1 statement in s.lua")
    lu.assertStrContains(self.place:read "s.lua", '\nd = load("coco_val.npz", ')
    t:type "exit()\n"
    t:expect "left 0"
end
