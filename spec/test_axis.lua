-- Axes, and the short numbers and tables that show them.

local lu = require "luaunit"
local axis = require "ghm.runner.axis"
local fault = require "ghm.fault"
local nearest = require "ghm.nearest"
local text = require "ghm.show.text"

local TestAxis = {}
_G.TestAxis = TestAxis

function TestAxis.test_every_form_gives_its_numbers()
    local cases = {
        { "10", { 10 } },
        { "-1.5e-1", { -0.15 } },
        { "5,10,20", { 5, 10, 20 } },
        { "5:25:5", { 5, 10, 15, 20, 25 } },
        { "5:24:5", { 5, 10, 15, 20 } },
        { "25:5:-10", { 25, 15, 5 } },
        { "0:0.3:0.1", { 0, 0.1, 0.2, 0.3 } }, -- 0.3, and not 0.30000000000000004
        { "lin:0:1:5", { 0, 0.25, 0.5, 0.75, 1 } },
        { "log:1:100:3", { 1, 10, 100 } },
        { "1,10:30:10,2", { 1, 10, 20, 30, 2 } },
        { "5,5,5:10:5", { 5, 10 } }, -- a configuration is run once
    }
    for _, case in ipairs(cases) do
        lu.assertEquals(axis.parse(case[1]), case[2], case[1])
    end
    lu.assertEquals(axis.parse("log:1:10:4", { integer = true }), { 1, 2, 5, 10 })
end

function TestAxis.test_stop_is_included_when_the_division_rounds_down()
    lu.assertEquals(#axis.parse "0:0.9:0.1", 10)
    lu.assertEquals(#axis.parse "0.5:0.99:0.07", 8)
end

function TestAxis.test_bad_words_are_usage_faults_that_name_the_key()
    for _, word in ipairs { "", "x", "5,", ",5", "5:10", "5:10:0", "10:5:1", "1:2:3:4", "5:x:5",
        "0x10", "nan", "inf", "1e999", "lin:0:1", "lin:0:1:1", "lin:0:1:2.5", "log:0:1:3",
        "log:-1:1:3", "rand:1:0", "rand:0:1", "lin", "1..2", "1:1e9:1", "lin:0:1:1e9", "1 2",
        "cub:0:1:5" } do
        local ok, problem = pcall(axis.parse, word, { name = "mu" })
        lu.assertFalse(ok, ("accepted %q"):format(word))
        lu.assertEquals(fault.exit_code(problem), 2, word)
        lu.assertEquals(problem.message:sub(1, 3), "mu=")
        lu.assertNil(problem.message:find "\n")
    end
end

function TestAxis.test_whole_number_axis_refuses_fractions()
    lu.assertFalse((pcall(axis.parse, "2.5", { integer = true })))
    lu.assertFalse((pcall(axis.parse, "5:6:0.5", { integer = true })))
end

function TestAxis.test_random_axis_is_the_same_everywhere_for_a_seed()
    local opts = { samples = 3, seed = 7 }
    local a = axis.parse("rand:0.5:0.99", opts)
    lu.assertEquals(a, axis.parse("rand:0.5:0.99", opts))
    lu.assertNotEquals(a, axis.parse("rand:0.5:0.99", { samples = 3, seed = 8 }))
    -- golden: a change of the generator changes every recorded random sweep
    local u = axis.uniform(7)
    local first = ("%.17g"):format(u())
    lu.assertEquals(first, "0.90278679750303314")
end

function TestAxis.test_uniform_numbers_are_uniform()
    local n, sum, squares, low, high = 20000, 0, 0, 1, 0
    local u = axis.uniform(2 ^ 40 + 1)
    for _ = 1, n do
        local x = u()
        sum, squares = sum + x, squares + x * x
        low, high = math.min(low, x), math.max(high, x)
    end
    lu.assertTrue(low >= 0 and high < 1)
    lu.assertAlmostEquals(sum / n, 1 / 2, 4 * math.sqrt(1 / 12 / n))
    lu.assertAlmostEquals(squares / n, 1 / 3, 4 * math.sqrt(4 / 45 / n))
end

function TestAxis.test_random_whole_numbers_reach_both_ends()
    local list = axis.parse("rand:1:4", { integer = true, samples = 200, seed = 1 })
    table.sort(list)
    lu.assertEquals(list, { 1, 2, 3, 4 })
end

local TestNearest = {}
_G.TestNearest = TestNearest

function TestNearest.test_near_words_are_suggested_and_far_ones_are_not()
    local known = { "bins", "momentum", "mu", "loss_weight" }
    for typed, meant in pairs { binz = "bins", bin = "bins", momentun = "momentum",
        mom = "momentum", lossweight = "loss_weight", Bins = "bins", bnis = "bins" } do
        lu.assertEquals(nearest.find(typed, known), meant)
    end
    lu.assertNil(nearest.find("temperature", known))
    lu.assertStrContains(nearest.hint("temperature", known), "bins, momentum, mu")
end

local TestText = {}
_G.TestText = TestText

function TestText.test_numbers_are_short()
    for _, case in ipairs { { 0, "0" }, { 999, "999" }, { 999.9, "1.00 k" },
        { 12400000, "12.4 M" }, { -5000, "-5.00 k" },
        { 0 / 0, "nan" }, { -math.huge, "-inf" }, { 0.25, "0.25" }, { 1e30, "1e+30" } } do
        lu.assertEquals(text.number(case[1]), case[2])
    end
    lu.assertEquals(text.bytes(1500), "1.50 kB")
end

function TestText.test_a_count_agrees_with_its_noun()
    lu.assertEquals({ text.count(0, "step"), text.count(1, "step"), text.count(1240, "step"),
        text.count(1240, "step", true) }, { "0 steps", "1 step", "1.24 k steps", "1240 steps" })
end

function TestText.test_lines_break_between_fields_and_not_before_a_per_cent_sign()
    lu.assertEquals(text.wrap("5 calls  492 k samples, 478 k valid  on cpu", 25),
        { "5 calls", "492 k samples, 478 k", "valid  on cpu" })
    lu.assertEquals(text.wrap("chosen in 87 % of all", 13), { "chosen in", "87 % of all" })
    lu.assertEquals(text.wrap("off by 57 %", 10), { "off by", "57 %" })
    lu.assertEquals(text.wrap("19 % with M = 30, g >= 0.9", 13), { "19 % with", "M = 30,",
        "g >= 0.9" })
end

function TestText.test_spare_columns_make_room_on_the_right()
    local rows = { { a = "word", b = 1, c = 22, d = 333 } }
    local shown, left_out = text.table(rows, { "a", "b", "c", "d" }, { width = 11, spare = true })
    lu.assertEquals({ shown:match "word[^\n]*", left_out }, { "word  1  22", 1 })
    lu.assertEquals(select(2, text.table(rows, { "a", "b", "c", "d" },
        { width = 2, spare = true })), 2)
end

function TestText.test_durations_choose_their_unit()
    for _, case in ipairs { { 0, "0 s" }, { 8.3e-7, "830 ns" }, { 1.24e-5, "12.4 µs" },
        { 0.0032, "3.20 ms" }, { 1.5, "1.50 s" }, { 125, "2 min 05 s" }, { 3720, "1 h 02 min" },
        { 3599.9, "1 h 00 min" } } do
        lu.assertEquals(text.seconds(case[1]), case[2])
    end
end

function TestText.test_a_cut_word_keeps_its_tail_where_that_tells_it_apart()
    for _, case in ipairs { { 18, nil, "density_error_mean" }, { 10, nil, "density_e…" },
        { 10, 4, "densi…mean" }, { 17, 5, "density_err…_mean" } } do
        lu.assertEquals(text.fit("density_error_mean", case[1], case[2]), case[3])
    end
    lu.assertEquals(text.fit("日本日本", 5, 2), "日…本")
end

function TestText.test_losses_keep_what_four_decimals_say()
    for _, case in ipairs { { 1.38361, "1.3836" }, { 0.00766, "0.0077" }, { 7.1e-13, "7.1e-13" },
        { 0, "0.0000" }, { 0 / 0, "nan" } } do
        lu.assertEquals(text.loss(case[1]):gsub("^-nan", "nan"), case[2])
    end
end

function TestText.test_table_lines_up_whatever_the_letters()
    local shown = text.table({ { name = "désirée β", loss = 0.5 }, { name = "日本", loss = 0 / 0 } },
        { { key = "name" }, { key = "loss", format = "%.3f" } })
    local widths = {}
    for line in shown:gmatch "[^\n]+" do
        widths[#widths + 1] = text.width(line)
    end
    lu.assertEquals(widths, { 16, 16, 16, 16 })
    lu.assertStrContains(shown, "nan")
end

function TestText.test_table_keeps_to_its_width_and_to_one_line_for_a_row()
    local shown = text.table({ { path = ("x"):rep(300), n = 12 }, { path = "a\nb\27[31m", n = 3 } },
        { "path", "n" }, { width = 80 })
    local n = 0
    for line in shown:gmatch "[^\n]+" do
        lu.assertTrue(text.width(line) <= 80)
        n = n + 1
    end
    lu.assertEquals(n, 4)
    lu.assertNil(shown:find "\27")
end

-- { format, values, what is shown of them }
local columns_of_numbers = {
    { "%.4g", { 14.6, 19.87, 3 }, { "14.60", "19.87", " 3.00" } }, -- %g took their zeros
    { "%.4g", { 69.07, 0.0001392, 12 }, { "69.07", " 0.0001392", "12" } },
    { "%.3g", { 0.5, 7e-13, 12 }, { " 0.5", " 7e-13", "12" } },
    { "%.6g", { 949435, 3, 0 / 0 }, { "949435", "     3", "   nan" } },
    { text.loss, { 0.1234, 7e-13, 10.5 }, { " 0.1234", " 7e-13", "10.5000" } },
    { text.plain, { 451.6, 15571.4, 1 / 0, nil, 75 },
        { "  451.6", "15571", "    inf", "", "   75" } },
    { text.percent, { 0.5, 0.123 }, { "  50 %", "12.3 %" } },
}

function TestText.test_numbers_of_a_column_have_their_points_below_one_another()
    for i, case in ipairs(columns_of_numbers) do
        local rows, shown = {}, {}
        for r = 1, #case[3] do
            rows[r] = { x = case[2][r] }
        end
        for line in text.table(rows, { { key = "x", format = case[1], title = "" } })
            :gsub("%-nan", " nan"):gmatch "[^\n]*\n" do
            shown[#shown + 1] = line:sub(1, -2)
        end
        lu.assertEquals({ unpack(shown, 3) }, case[3], "case " .. i)
    end
end

function TestText.test_a_table_that_is_too_wide_anyway_cuts_no_short_word()
    local shown = text.table({ { start = "corrected", n = 123 } }, { "start", "n" }, { width = 8 })
    lu.assertStrContains(shown, "corrected  123")
end

function TestText.test_bar_shows_the_smallest_share_and_no_more_than_the_whole()
    lu.assertEquals(text.bar(0, 4, false), "    ")
    lu.assertEquals(text.bar(1e-9, 4, false), "▏   ")
    lu.assertEquals(text.bar(2, 4, false), "████")
    lu.assertEquals(text.bar(0 / 0, 4, false), "    ")
    lu.assertEquals({ text.bar(1e-9, 4, true), text.bar(2, 4, true) }, { "#   ", "####" })
end
