-- Figures by gnuplot and plots made of letters.

local lu = require "luaunit"
local fault = require "ghm.fault"
local gnuplot = require "ghm.show.gnuplot"
local posix = require "ghm.posix"
local termplot = require "ghm.show.termplot"
local text = require "ghm.show.text"
local utf8 = require "ghm.utf8"

local folder

local function contents(path)
    return assert(posix.read_file(path))
end

local function steps(label, edges, values)
    return { label = label, x = edges, y = values, style = "steps" }
end

local function figure()
    return {
        title = "density", xlabel = "g", ylabel = "GD", ylog = true, xrange = { 0, 1 },
        series = {
            steps("M = 4", { 0, 0.25, 0.5, 0.75, 1 }, { 100, 0, 0 / 0, 3 }),
            { label = "exact", x = { 0, 0.5, 1 }, y = { 90, 5, 2 }, style = "reference" },
        },
    }
end

local function need_gnuplot()
    local _, missing = posix.capture "command -v gnuplot"
    if missing ~= 0 then
        lu.skip "gnuplot is not installed: apt-get install gnuplot-nox"
    end
end

local TestGnuplot = {}
_G.TestGnuplot = TestGnuplot

function TestGnuplot.setUp()
    folder = os.tmpname()
    os.remove(folder)
    assert(posix.make_folder(folder))
end

function TestGnuplot.tearDown()
    posix.capture("rm -rf " .. posix.quote(folder))
end

function TestGnuplot.test_every_format_is_drawn()
    need_gnuplot()
    local base = folder .. "/density"
    local images, reason = gnuplot.draw(base, figure(), { svg = true, png = true, pdf = true,
        term = true })
    lu.assertEquals(images, { base .. ".svg", base .. ".png", base .. ".pdf" }, reason)
    lu.assertStrContains(contents(images[1]), "<svg")
    lu.assertStrContains(contents(images[1]), "M = 4")
    lu.assertEquals(contents(images[2]):sub(2, 4), "PNG")
    lu.assertEquals(contents(images[3]):sub(1, 5), "%PDF-")
end

-- Beside its plot a long legend leaves no room for it, and of one higher than the plot gnuplot
-- leaves out lines.
function TestGnuplot.test_legends_are_whole_and_leave_room_for_the_plot()
    local series, panels = {}, {}
    for k = 1, 12 do
        series[k] = { label = ("focal, alpha 0.25, gamma 2, line %02d"):format(k), x = { 1, 2 },
            y = { k, k + 1 } }
        panels[k % 4 + 1] = { title = "panel", series = series }
    end
    need_gnuplot()
    local base = folder .. "/legend"
    for _, one in ipairs { { series = series }, { panels = panels, columns = 2, width = 1000,
        height = 700 } } do
        lu.assertEquals(#gnuplot.draw(base, one, { svg = true }), 1)
        local svg = contents(base .. ".svg")
        for k = 1, 12 do
            lu.assertStrContains(svg, ("line %02d</text>"):format(k))
        end
    end
end

function TestGnuplot.test_png_has_twice_the_points()
    need_gnuplot()
    local plot = figure()
    plot.width, plot.height = 400, 300
    local images = assert(gnuplot.draw(folder .. "/small", plot, { png = true }))
    -- the header's width and height: big-endian words at bytes 17 and 21
    lu.assertEquals(contents(images[1]):sub(17, 24), "\0\0\3\32\0\0\2\88")
end

function TestGnuplot.test_steps_stand_on_edges_and_empty_regions_are_gaps()
    gnuplot.draw(folder .. "/d", figure(), {})
    lu.assertEquals(contents(folder .. "/d.tsv"),
        "# M = 4\n0\t100\n0.25\t100\n\n0.75\t3\n1\t3\n\n\n# exact\n0\t90\n0.5\t5\n1\t2\n")
end

function TestGnuplot.test_zero_is_no_gap_on_a_linear_axis()
    local plot = figure()
    plot.ylog = false
    gnuplot.draw(folder .. "/d", plot, {})
    lu.assertStrContains(contents(folder .. "/d.tsv"), "0.25\t0\n0.5\t0\n\n0.75")
end

-- With powers of ten alone a range within one of them had a tick or none.
function TestGnuplot.test_a_short_logarithmic_axis_has_ticks_at_1_2_and_5()
    for tics, y in pairs { ["100, 200, 500, 1000"] = { 140, 900 }, ["0.2, 0.5"] = { 0.2, 0.5 },
        ["1, 2"] = { 1, 1 }, ["5, 10"] = { 7, 7 }, ["2, 5, 10, 20, 50, 100"] = { 2, 90 } } do
        gnuplot.draw(folder .. "/d", { ylog = true, series = { { x = { 1, 2 }, y = y } } }, {})
        lu.assertStrContains(contents(folder .. "/d.gp"), "set ytics (" .. tics .. ")\n")
    end
    gnuplot.draw(folder .. "/d", { ylog = true, series = { { x = { 1, 2 }, y = { 1, 100 } } } }, {})
    lu.assertNotStrContains(contents(folder .. "/d.gp"), "set ytics (")
    for tics, range in pairs { [false] = { 1e-4 }, ["0.05, 0.1, 0.2, 0.5, 1, 2"] = { 0.05, 2 } } do
        gnuplot.draw(folder .. "/d", { ylog = true, yrange = range,
            series = { { x = { 1, 2, 3 }, y = { 0.01, 0.9, tics and 50 } } } }, {})
        local drawn = contents(folder .. "/d.gp"):match "set ytics %(([^)]*)%)"
        lu.assertEquals(drawn or false, tics, "what is asked for decides, not what is drawn")
    end
end

function TestGnuplot.test_script_runs_from_any_folder_by_itself()
    need_gnuplot()
    local base = folder .. "/it's"
    assert(gnuplot.draw(base, figure(), { svg = true }))
    os.remove(base .. ".svg")
    local _, status = posix.capture("cd / && gnuplot " .. posix.quote(base .. ".gp"))
    lu.assertEquals(status, 0)
    lu.assertStrContains(contents(base .. ".svg"), "<svg")
    local name = posix.quote "./it's.gp"
    os.remove(base .. ".svg")
    _, status = posix.capture("cd " .. posix.quote(folder) .. " && gnuplot " .. name)
    lu.assertEquals(status, 0)
    lu.assertStrContains(contents(base .. ".svg"), "<svg")
end

function TestGnuplot.test_text_runs_no_command_and_breaks_no_script()
    need_gnuplot()
    local trap = folder .. "/trap"
    for _, nasty in ipairs {
        "`touch " .. trap .. "`", "$(touch " .. trap .. ")", "x\nsystem('touch " .. trap .. "')",
        "x\r!touch " .. trap, "'; system('touch " .. trap .. "'); '", "} # { ''", "\\", "'", '"',
        "100 % %s %d", "@trap", "a_b^c{d}", "''", "' '",
        "x'\nset output '" .. trap .. "'\n", "\0\27[31m", "s\233\255.npz" } do
        local plot = figure()
        plot.title, plot.xlabel, plot.ylabel = nasty, nasty, nasty
        plot.series[1].label = nasty
        plot.marks = { { x = 0.5, label = nasty }, { y = 5, label = nasty } }
        for _, whole in ipairs { plot, { title = nasty, panels = { plot, plot } } } do
            local images, reason = gnuplot.draw(folder .. "/d", whole, { svg = true })
            lu.assertNotNil(images, ("%q: %s"):format(nasty, tostring(reason)))
            lu.assertNil(io.open(trap), nasty)
            local drawn = contents(folder .. "/d.svg")
            lu.assertEquals(utf8.clean(drawn), drawn) -- or it is no XML
        end
    end
end

function TestGnuplot.test_panels_with_nothing_in_them_are_drawn()
    need_gnuplot()
    local empty = { title = "empty", ylog = true, series = { steps("x", { 0, 1 }, { 0 }) } }
    lu.assertNotNil((gnuplot.draw(folder .. "/d", { panels = { figure(), empty, figure() } },
        { svg = true })))
end

function TestGnuplot.test_awkward_data_are_drawn()
    need_gnuplot()
    local cases = {
        { series = { { x = { 1 }, y = { 5 } } } },
        { series = { { x = { 1, 2 }, y = { 5, 5 }, style = "points" } } },
        { series = { { x = { 1, 2 }, y = { 1e-300, 1e300 } } }, ylog = true },
        { series = { { x = { 1, 2 }, y = { 3, 4 }, style = "linespoints", dash = true } } },
        { series = { { x = { 1, 10, 100 }, y = { 1, nil, 2 } } }, xlog = true },
        { series = { { x = { 0, 1, 2 }, y = { 3e6, 5e6 }, style = "boxes" } }, key = "below" },
        { series = { { x = { -1, 1 }, y = { -5, math.huge } } }, key = "inside" },
    }
    for i, plot in ipairs(cases) do
        local images, reason = gnuplot.draw(folder .. "/d", plot, { svg = true, png = true })
        lu.assertNotNil(images, i .. ": " .. tostring(reason))
    end
end

local function heat(also)
    local map = { x = { 0, 0.5, 1 }, y = { 0, 1, 2 }, z = { { 1, 0 / 0 }, { 0, 1000 } } }
    for key, value in pairs(also or {}) do
        map[key] = value
    end
    return { title = "map", heat = map }
end

function TestGnuplot.test_cells_of_a_heat_map_have_sides_and_a_value()
    gnuplot.draw(folder .. "/d", heat { label = "density" }, {})
    lu.assertEquals(contents(folder .. "/d.tsv"), "# density\n0.25\t0.5\t0\t0.5\t0\t1\t1\n"
        .. "0.25\t1.5\t0\t0.5\t1\t2\t0\n0.75\t1.5\t0.5\t1\t1\t2\t1000\n")
    gnuplot.draw(folder .. "/d", heat { log = true }, {}) -- 0 has no logarithm
    lu.assertEquals(contents(folder .. "/d.tsv"), "# \n0.25\t0.5\t0\t0.5\t0\t1\t1\n"
        .. "0.75\t1.5\t0.5\t1\t1\t2\t1000\n")
end

function TestGnuplot.test_heat_maps_are_drawn()
    need_gnuplot()
    local whole = heat { log = true, mark = { 2, 2 }, ynames = { "`id`", "it's" } }
    for i, plot in ipairs { heat(), whole, heat { z = { { 7, 7 }, { 7, 7 } } },
        heat { z = { { 7, 7 }, { 7, 7 } }, log = true }, heat { range = { 0, 1 } },
        { panels = { whole, figure() } } } do
        local images, reason = gnuplot.draw(folder .. "/d", plot, { svg = true, png = true })
        lu.assertNotNil(images, i .. ": " .. tostring(reason))
    end
    lu.assertNil((gnuplot.draw(folder .. "/d", heat { z = { {}, {} } }, { svg = true })))
end

function TestGnuplot.test_names_at_a_heat_map_are_no_markup()
    need_gnuplot()
    local whole = heat { xnames = { "P3_logits", "a^b & {c}" } }
    gnuplot.draw(folder .. "/d", { panels = { whole, figure() } }, { svg = true })
    local drawn = contents(folder .. "/d.svg")
    lu.assertStrContains(drawn, "<text>P3_logits</text>")
    lu.assertStrContains(drawn, "<text>a^b &amp; {c}</text>")
    lu.assertNil(drawn:find("10^{", 1, true)) -- the numbers of the next panel are
end

function TestGnuplot.test_nothing_to_draw_is_said_and_leaves_no_image()
    local plot = { series = { steps("x", { 0, 1 }, { 0 / 0 }) } }
    local images, reason = gnuplot.draw(folder .. "/d", plot, { svg = true })
    lu.assertNil(images)
    lu.assertStrContains(reason, "can be drawn")
    lu.assertNil(io.open(folder .. "/d.svg"))
end

function TestGnuplot.test_without_gnuplot_data_and_script_remain()
    local path = folder .. "/lone.lua"
    posix.write_file(path, ("package.path = %q\n"):format(package.path) .. ([[
        local figure = { series = { { x = { 0, 1 }, y = { 1, 2 } } } }
        print(require("ghm.show.gnuplot").draw(%q, figure, { svg = true }))
        ]]):format(folder .. "/d"))
    local said = posix.capture(("L=$(command -v luajit); PATH=/nothing; $L %s 2>&1"):format(
        posix.quote(path)))
    lu.assertEquals(said, "nil\tgnuplot is not installed: apt-get install gnuplot-nox")
    lu.assertStrContains(contents(folder .. "/d.tsv"), "1\t2")
    lu.assertStrContains(contents(folder .. "/d.gp"), "plot data")
end

-- What drawing d.svg says where gnuplot leaves half of it and then ends so.
local function said_of_half_a_figure(ending)
    local path = folder .. "/gnuplot"
    posix.write_file(path, "#!/bin/sh\necho '<svg>' > " .. folder .. "/d.svg\n" .. ending .. "\n")
    posix.capture("chmod +x " .. posix.quote(path))
    local script = folder .. "/lone.lua"
    posix.write_file(script, ("package.path = %q\n"):format(package.path) .. ([[
        local figure = { series = { { x = { 0, 1 }, y = { 1, 2 } } } }
        local ok, a, b = pcall(require("ghm.show.gnuplot").draw, %q, figure, { svg = true })
        print(ok, tostring(a), b)]]):format(folder .. "/d"))
    return (posix.capture(("PATH=%s:$PATH luajit %s 2>&1"):format(posix.quote(folder),
        posix.quote(script))))
end

function TestGnuplot.test_failure_of_gnuplot_is_seen_and_leaves_no_image()
    lu.assertEquals(said_of_half_a_figure "echo 'line 3: no'; exit 1",
        "true\tnil\tgnuplot could not draw 'd': line 3: no")
    lu.assertNil(io.open(folder .. "/d.svg"))
end

function TestGnuplot.test_half_a_figure_is_a_fault_though_gnuplot_says_nothing()
    lu.assertStrContains(said_of_half_a_figure "exit 0", "d.svg': gnuplot left less than a figure")
    lu.assertNil(io.open(folder .. "/d.svg"))
end

function TestGnuplot.test_folder_that_cannot_be_written_is_a_fault()
    local ok, problem = pcall(gnuplot.draw, folder .. "/missing/d", figure(), { svg = true })
    lu.assertFalse(ok)
    lu.assertEquals(fault.exit_code(problem), 1)
end

local TestTermplot = {}
_G.TestTermplot = TestTermplot

local function lines_of(s)
    local lines = {}
    for line in s:gmatch "([^\n]*)\n" do
        lines[#lines + 1] = line
    end
    return lines
end

function TestTermplot.test_bars_are_as_high_as_their_logarithms()
    local lines = lines_of(termplot.steps { edges = { 0, 0.25, 0.5, 0.75, 1 }, log = true,
        values = { 1000, 100, 0, 10 }, width = 8, height = 6, ascii = false, xlabel = "g" })
    -- 10 is a whole power: the axis begins one power below, so that it keeps a bar
    -- and a label names the lower side of its row
    local expected = { "10³ ┤", "    │██", "10² ┤██", "    │████", "10¹ ┤████", "    │████  ██",
        "10⁰ ┤████··██" }
    for i, line in ipairs(expected) do
        lu.assertEquals(lines[i], line)
    end
end

function TestTermplot.test_every_sample_shows_however_few()
    local shown = termplot.steps { edges = { 0, 0.5, 1 }, values = { 1e6, 1e-3 }, width = 4,
        height = 3, ascii = false }
    lu.assertStrContains(shown, "██▁▁\n")
end

function TestTermplot.test_plot_without_utf8_is_ascii()
    local shown = termplot.steps { edges = { 0, 0.5, 1 }, values = { 5, 0 }, log = true,
        title = "t", reference = { edges = { 0, 1 }, values = { 2 } }, ascii = true }
    lu.assertNil(shown:find "[\128-\255]")
    lu.assertStrContains(shown, "1e0")
    lu.assertStrContains(shown, ". empty region")
end

function TestTermplot.test_notes_stand_below_a_label_that_leaves_them_no_room()
    for width, expected in pairs { [20] = " g of all\n +%. empty region\n",
        [30] = " g of all +%. empty region\n" } do
        local shown = termplot.steps { edges = { 0, 0.5, 1 }, values = { 5, 0 }, log = true,
            xlabel = "g of all", width = width, ascii = true }
        lu.assertStrMatches(shown, ".*" .. expected)
    end
end

function TestTermplot.test_lines_keep_to_the_width()
    for _, m in ipairs { 1, 7, 72, 500 } do
        local edges, values = { 0 }, {}
        for j = 1, m do
            edges[j + 1], values[j] = j / m, j % 3 * 1000 ^ (j % 4)
        end
        for _, line in ipairs(lines_of(termplot.steps { edges = edges, values = values,
            log = true, title = "t", xlabel = "g", ylabel = "density" })) do
            lu.assertTrue(text.width(line) <= 80, line)
        end
    end
end

function TestTermplot.test_shades_follow_the_values()
    local map = { x = { 0, 1, 2, 3 }, z = { { 1, 10, 100 }, { 0, 1e4, 1e4 } },
        names = { "a", "b" }, log = true, width = 6, ascii = false, label = "R" }
    local lines = lines_of(termplot.heat(map))
    lu.assertEquals({ lines[1], lines[2] }, { " a │  ░░▒▒", " b │··████" })
    lu.assertStrContains(lines[5], "' ' 1  to  █ 10 k  R   · empty region")
    map.xnames = { "5", "10", "15" }
    lu.assertEquals(lines_of(termplot.heat(map))[4], "    5   15")
end

function TestTermplot.test_rows_of_a_heat_map_are_chosen_evenly()
    local map = { x = { 0, 1 }, z = {}, names = {}, width = 4, height = 3 }
    for k = 1, 101 do
        map.z[k], map.names[k] = { k }, tostring(k)
    end
    local lines = lines_of(termplot.heat(map))
    for i, name in ipairs { "1", "51", "101" } do
        lu.assertEquals(lines[i]:match "%d+", name)
    end
    lu.assertEquals(#lines, 6)
end

function TestTermplot.test_nothing_at_all_is_said()
    lu.assertStrContains(termplot.heat { x = { 0, 1 }, z = { { 0 / 0 } }, names = { "" } },
        "every cell is empty")
    lu.assertStrContains(termplot.steps { edges = { 0, 1 }, values = { 0 }, log = true },
        "every region is empty")
end

function TestTermplot.test_sparkline_has_one_letter_for_each_value()
    lu.assertEquals(termplot.sparkline({ 1, 2, 3, 0 / 0, 8 }, { ascii = false }), "▁▂▃ █")
    lu.assertEquals(termplot.sparkline({ 1, 5 }, { ascii = true }), "_#")
    lu.assertEquals(text.width(termplot.sparkline({ 1, 1, 1 }, { ascii = false })), 3)
end
