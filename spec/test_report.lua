-- The report: one HTML file that is whole, says only what it was given, and can neither load nor
-- run anything else. test_report_page.lua looks at it in a browser.

local lu = require "luaunit"
local gnuplot = require "ghm.show.gnuplot"
local html = require "ghm.show.html"
local posix = require "ghm.posix"
local report = require "ghm.show.report"
local scripts = require "scripts"
local svg = require "ghm.show.svg"

local TestReport = {}
_G.TestReport = TestReport

local HOSTILE = "<script>alert(1)</script>.npz"

-- What a report is made of, with `more` fields.
local function page(more)
    local t = { name = "sweep_bins", question = "Which?", lines = { "bins = 20." },
        tables = { { title = "Results", columns = { "bins", "loss", "calls" }, rows = {
            { bins = 5, loss = 0.1, calls = 8 }, { bins = 20, loss = 1 / 3, calls = 8 } } } } }
    for key, value in pairs(more or {}) do
        t[key] = value
    end
    return report.html(t)
end

function TestReport.test_policy_allows_its_own_style_and_script_and_nothing_else()
    local text = page()
    local policy = text:match 'http%-equiv="Content%-Security%-Policy" content="([^"]*)"'
    local kinds = { style = text:match "<style>(.*)</style>", script =
        text:match "<script>(.*)</script>" }
    for kind, body in pairs(kinds) do
        local file = scripts.place()
        local path = file.folder:write(kind, body)
        local sum = posix.capture("sha256sum " .. path):match "^%x+"
        file:remove()
        local hash = policy:match(kind .. "%-src 'sha256%-([%w+/=]+)';")
        local bytes = posix.capture("echo " .. hash .. " | base64 -d | od -An -v -tx1")
        lu.assertEquals(bytes:gsub("%s", ""), sum)
    end
    lu.assertStrContains(policy, "default-src 'none';")
    lu.assertNil(policy:find "unsafe")
    lu.assertNil(text:find "https?://", "the page names a place on the network")
    lu.assertNil(text:find ' style="', "the policy forbids the styles of single elements")
end

function TestReport.test_columns_that_differ_come_first_and_the_others_stand_aside()
    local text = page()
    local heads = {}
    for head in text:gmatch '<th scope="col"[^>]*>([^<]*)</th>' do
        heads[#heads + 1] = head
    end
    lu.assertEquals(heads, { "bins", "loss" })
    lu.assertStrContains(text, "The same in every row:</p>\n<dl>\n"
        .. "<div><dt>calls</dt><dd>8</dd></div>")
end

function TestReport.test_numbers_keep_all_their_digits_for_sorting()
    lu.assertStrContains(page(), '<data value="0.3333333333333333">0.3333</data>')
    local odd = html.table({ { x = 0 / 0 }, { x = math.huge }, { x = -math.huge }, {} }, { "x" },
        { label = "odd" })
    lu.assertStrContains(odd, '<data value="NaN">nan</data>')
    lu.assertStrContains(odd, '<data value="Infinity">inf</data>')
    lu.assertStrContains(odd, '<data value="-Infinity">-inf</data>')
    lu.assertStrContains(odd, '<td class="number"></td>')
end

function TestReport.test_spare_columns_are_marked_as_not_for_paper()
    local text = html.table({ { x = 1.5, y = 1, z = "a" }, { x = 22, y = 2, z = "b" } },
        { "x", { key = "y", spare = true }, { key = "z", spare = true } }, { label = "spare" })
    for _, part in ipairs { '<th scope="col" class="number" title="x">',
        '<th scope="col" class="number spare" title="y">', '<td class="spare">a</td>',
        '<td class="number spare"><data value="1">1</data></td>',
        '<data value="22">22\226\128\135\226\128\136</data>' } do -- as wide as ".5"
        lu.assertStrContains(text, part)
    end
end

function TestReport.test_one_row_is_a_list()
    local text = html.table({ { bins = 5, loss = 0.1 } }, { "bins", "loss", "mu" }, { label = "" })
    lu.assertEquals(text, "<dl>\n<div><dt>bins</dt><dd>5</dd></div>\n" -- no row has mu
        .. "<div><dt>loss</dt><dd>0.1</dd></div>\n</dl>\n")
end

function TestReport.test_warnings_and_recommendations_are_told_with_their_uncertainty()
    local text = page { warnings = { { name = "singleton_region",
            text = "singleton region: one sample at g = 1" } },
        recommendations = { { key = "bins", value = 30, low = 25, high = 35, share = 0.86,
            as_good = { 25, 35 }, reason = "the finest" },
            { key = "start", value = "zero", share = 0.859, as_good = {} },
            { key = "mu", value = 0.1, reason = "told above", share = 0.5 },
            { key = "empty", value = "keep", reason = "told above" } },
        lines = { "It is told above." } }
    lu.assertStrContains(text, "one sample at g\194\160=\194\1601</li>") -- on one line
    text = text:gsub("\194\160", " ")
    lu.assertStrContains(text, "<dt>mu = 0.1</dt><dd>50 % of the resamplings agree</dd>")
    lu.assertStrContains(text, "<dt>empty = keep</dt><dd>told above</dd>")
    lu.assertStrContains(text, "<li>singleton region: one sample at g = 1</li>")
    lu.assertStrContains(text, "<dt>bins = 30</dt><dd>the finest<br>86 % of the resamplings agree; "
        .. "most lie between 25 and 35; as good: 25, 35</dd>")
    lu.assertStrContains(text, "<dt>start = zero</dt><dd>86 % of the resamplings agree</dd>")
end

local escapes = {
    { HOSTILE, "&lt;script&gt;alert(1)&lt;/script&gt;.npz" },
    { "a\"b'c&d", "a&quot;b&#39;c&amp;d" },
    { "a\27[2Jb\0c\127", "a�[2Jb�c�" },
    { "a\tb\nc", "a b c" },
    { "C1 \194\155 \194\160", "C1 � \194\160" }, -- 0xA0 is a blank, no control character
    { "bad \255\128 end", "bad �� end" },
    { "npz\226\128\174cod", "npz�cod" }, -- from here on written right to left
}

function TestReport.test_text_of_any_kind_is_escaped()
    for _, case in ipairs(escapes) do
        lu.assertEquals(html.escape(case[1]), case[2])
    end
end

local drawing = '<?xml version="1.0"?>\n<svg width="9" viewBox="0 0 86 46" '
    .. 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
    .. "<title>Gnuplot</title><defs><path id='gpPt0' d='M0,0'/></defs>"
    .. "<g clip-path=\"url(#a)\"><use xlink:href='#gpPt0' x=\"1\"/><text>a &lt; b</text></g></svg>"

function TestReport.test_ids_of_figures_do_not_meet()
    lu.assertEquals(svg.inline(drawing, "f2-", ' role="img"'),
        '<svg viewBox="0 0 86 46" width="86" height="46" role="img">'
        .. '<defs><path id="f2-gpPt0" d="M0,0"/></defs><g clip-path="url(#f2-a)">'
        .. '<use href="#f2-gpPt0" x="1"/><text>a &lt; b</text></g></svg>')
end

local refusals = {
    { "<script>alert(1)</script>", "element 'script'" },
    { "<foreignObject/>", "element 'foreignObject'" },
    { "<SCRIPT/>", "element 'SCRIPT'" },
    { '<g onload="alert(1)"/>', "attribute 'onload'" },
    { '<g style="fill:red"/>', "attribute 'style'" },
    { '<use xlink:href="http://a.example/#b"/>', "attribute 'xlink:href'" },
    { '<use href="javascript:alert(1)"/>', "attribute 'href'" },
    { '<g fill="url(http://a.example/#b)"/>', "attribute 'fill'" },
    { '<g fill="&#117;rl(http://a.example)"/>', "attribute 'fill'" },
    { "<g x=1/>", "what stands in 'g'" },
    { "<![CDATA[ x ]]>", "element '![CDATA['" },
    { "<g <script>", "what stands in 'g'" },
}

function TestReport.test_nothing_but_drawing_comes_in_with_a_figure()
    for _, case in ipairs(refusals) do
        local drawn, reason = svg.inline(drawing:gsub("<defs>", case[1] .. "<defs>"), "f1-")
        lu.assertNil(drawn, case[1])
        lu.assertStrContains(reason, case[2])
    end
    lu.assertEquals({ svg.inline("half a figure", "f1-") }, { nil, "no svg element" })
end

function TestReport.test_all_that_gnuplot_draws_for_us_comes_in()
    if select(2, posix.capture "command -v gnuplot") ~= 0 then
        lu.skip "gnuplot is not installed"
    end
    local x, y, series = { 0.1, 0.2, 0.4 }, { 1, 10, 100 }, {}
    for i, style in ipairs { "lines", "points", "linespoints", "reference", "steps", "boxes" } do
        series[i] = { label = "<" .. style .. " & more>", style = style, x = x,
            y = i > 4 and { 1, 10 } or y, dash = i == 1 }
    end
    local mixed = { title = "t", xlabel = "g", ylog = true, series = series,
        marks = { { x = 0.2, label = "here" } } }
    local place = scripts.place()
    for name, figure in pairs { mixed = mixed, panels = { panels = { mixed, mixed } },
        heat = { heat = { x = x, y = x, z = { { 1, 2 }, { 3, 0 / 0 } }, mark = { 1, 1 } } } } do
        assert(gnuplot.draw(place.folder.path .. "/" .. name, figure, { svg = true }))
        local drawn, reason = svg.inline(place:read(name .. ".svg"), "f1-")
        lu.assertNil(reason, name)
        lu.assertEquals(drawn:find "<boxes", nil)
    end
    place:remove()
end

function TestReport.test_figure_that_is_not_drawn_is_told_of()
    lu.assertStrContains(page { figures = { { title = "Density", problem = "no gnuplot" },
        { title = "Loss", svg = "<svg><b></svg>" } } },
        "Density: not shown, no gnuplot</p>\n<p class=\"soft\">Loss: not shown, element")
end

local TestReportOfRun = {}
_G.TestReportOfRun = TestReportOfRun

function TestReportOfRun:setUp()
    self.place = scripts.place()
end

function TestReportOfRun:tearDown()
    self.place:remove()
end

local words = { "bins=5,10", "--report", "-q" }

function TestReportOfRun:test_all_of_a_run_is_in_its_report()
    self.place:dump("a.npz", scripts.logits(), scripts.targets())
    self.place:fine("sweep_bins", { "a.npz", unpack(words) })
    local text = self.place:read "runs/latest/report.html"
    local _, figures = text:gsub('<svg [^>]*role="img"', "")
    local _, drawn = self.place:listing("runs/latest/plots"):gsub("%.svg", "")
    lu.assertTrue(drawn >= 4)
    lu.assertEquals(figures, 2 * drawn) -- each for a phone too
    lu.assertNotStrContains(self.place:listing "runs/latest/plots", "narrow")
    local seen = {}
    for id in text:gmatch ' id="([^"]*)"' do
        lu.assertNil(seen[id], id .. " stands for two things")
        seen[id] = true
    end
    for target in text:gmatch 'href="#([^"]*)"' do
        lu.assertTrue(seen[target], target)
    end
    local sum = posix.capture("sha256sum " .. self.place.folder.path .. "/a.npz"):sub(1, 64)
    for _, part in ipairs { "How many unit regions", sum, "divide</dt><dd>nonempty",
        "experiments/sweep_bins.lua a.npz bins=5,10 --report -q</code>",
        "cd " .. posix.real_path(self.place.folder.path), "library build" } do
        lu.assertStrContains(text, part)
    end
end

function TestReportOfRun:test_the_calls_of_a_file_are_one_row()
    for _, name in ipairs { "a.npz", "b.npz" } do
        self.place:dump(name, scripts.member("P3_logits", "float", "<f4", "(40, 10)",
            scripts.logit), scripts.member("P4_logits", "float", "<f4", "(40, 10)",
            function(i) return scripts.logit(i) - (name == "a.npz" and 1 or 2) end),
            scripts.targets())
    end
    self.place:fine("sweep_bins", { "a.npz", "b.npz", unpack(words) })
    local text = self.place:read "runs/latest/report.html"
    local sum = posix.capture("sha256sum " .. self.place.folder.path .. "/a.npz"):sub(1, 64)
    local _, times = text:gsub(sum, "")
    lu.assertEquals(times, 1)
    lu.assertStrContains(text, "<dt>samples</dt><dd>800</dd>")
    lu.assertStrContains(text, "level: P3, pred: P3_logits, target: target; level: P4")
end

function TestReportOfRun:test_dump_that_was_refused_is_a_warning()
    self.place:dump("a.npz", scripts.logits(), scripts.targets())
    self.place.folder:write("b.npz", "no archive")
    lu.assertEquals(self.place:run("sweep_bins", { "a.npz", "b.npz", unpack(words) }).code, 1)
    lu.assertStrContains(self.place:read "runs/latest/report.html",
        "<li>left out: b.npz: byte 0: the first bytes are of no known format")
end

function TestReportOfRun:test_command_of_the_report_gets_it_again()
    self.place:dump("it's $(a).npz", scripts.logits(), scripts.targets())
    self.place:fine("sweep_bins", { "it's $(a).npz", "--plot", "none", unpack(words) })
    local rows = self.place:read "runs/latest/results.csv"
    local command = self.place:read("runs/latest/report.html"):match "<pre><code>(.-)</code>"
    command = command:gsub("&#39;", "'"):gsub("&quot;", '"'):gsub("&amp;", "&")
    posix.capture("rm -r " .. self.place.folder.path .. "/runs")
    lu.assertEquals(select(2, posix.capture(command)), 0)
    lu.assertEquals(self.place:read "runs/latest/results.csv", rows)
end

function TestReportOfRun:test_command_of_merged_shards_makes_the_whole_run()
    for _, name in ipairs { "a.npz", "b.npz" } do
        self.place:dump(name, scripts.logits(), scripts.targets())
    end
    for _, shard in ipairs { "--shard=1/2", "--shard 2/2" } do
        self.place:fine("sweep_bins", shard .. " a.npz b.npz bins=5 -q --plot none")
    end
    self.place:fine("merge", "runs/2* --report -q")
    lu.assertStrContains(self.place:read "runs/latest/report.html",
        "experiments/sweep_bins.lua a.npz b.npz bins=5 -q --plot none</code>")
end

function TestReportOfRun:test_name_of_a_dump_is_no_part_of_the_page()
    local name = HOSTILE:gsub("/", "\27") -- no file can have a slash in its name
    self.place:dump(name, scripts.logits(), scripts.targets())
    self.place:fine("sweep_bins", { name, "--name", "<b>&", unpack(words) })
    local text = self.place:read "runs/latest/report.html"
    local _, n = text:gsub("<script", "")
    lu.assertEquals(n, 1)
    lu.assertNil(text:find "[%z\1-\8\11-\31\127]")
    lu.assertStrContains(text, "&lt;script&gt;alert(1)&lt;�script&gt;.npz")
    lu.assertStrContains(text, "<title>&lt;b&gt;&amp;: How many")
end

function TestReportOfRun:test_report_has_figures_whatever_else_is_plotted()
    self.place:dump("a.npz", scripts.logits(), scripts.targets())
    self.place:fine("sweep_bins", { "a.npz", "--plot", "term", unpack(words) })
    lu.assertStrContains(self.place:read "runs/latest/report.html", "<svg")
    self.place:fine("sweep_bins", { "a.npz", "--plot", "none", unpack(words) })
    local text = self.place:read "runs/latest/report.html"
    lu.assertNil(text:find "<svg")
    lu.assertNil(text:find "not shown") -- none were asked for
end

function TestReportOfRun:test_report_tells_why_there_are_no_figures()
    self.place:dump("a.npz", scripts.logits(), scripts.targets())
    posix.capture("chmod +x " .. self.place.folder:write("gnuplot", "#!/bin/sh\necho no; exit 1"))
    self.place:fine("sweep_bins", { "a.npz", unpack(words) },
        ("PATH=%s:$PATH"):format(self.place.folder.path))
    lu.assertStrContains(self.place:read "runs/latest/report.html",
        "Gradient density by number of unit regions: not shown, gnuplot could not draw")
end

function TestReportOfRun:test_scripts_without_a_report_refuse_the_option()
    self.place:refused(2, { "unknown option '--report'" }, "inspect", { "--report" })
end
