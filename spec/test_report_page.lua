-- The report as a browser shows it: sorted by mouse and keys, on a desk, on a phone, in the dark,
-- on paper. Without a browser this is skipped; with GHM_REQUIRE_BROWSER=1 it fails.
-- GHM_SCREENSHOTS=FOLDER keeps what was seen.

local lu = require "luaunit"
local browser = require "browser"
local json = require "ghm.json"
local posix = require "ghm.posix"
local report = require "ghm.show.report"
local scripts = require "scripts"

local TestReportPage = {}
_G.TestReportPage = TestReportPage

local DESK, PHONE = { width = 1200, height = 900 }, { width = 390, height = 844 }
local HOSTILE = "<img src=x onerror=alert(1)>.npz"

local b, place, run, made

local function decoded(base64)
    return (posix.capture("base64 -d " .. posix.quote(place.folder:write("base64", base64))))
end

-- Every kind of thing that a report shows, with cells that are hard to sort.
local function everything()
    return report.html { name = HOSTILE, question = "Which?", lines = { HOSTILE },
        warnings = { { name = "singleton_region", text = HOSTILE } },
        recommendations = { { key = "bins", value = 30, low = 25, high = 35, share = 0.86,
            as_good = { 25 }, reason = HOSTILE } },
        tables = { { title = "Results", columns = { "step", "loss" }, rows = {
            { step = "step 10", loss = 10 }, { step = "step 9", loss = 0 / 0 },
            { step = HOSTILE, loss = math.huge }, { step = "step 100", loss = 9.5 },
            { step = "a", loss = -math.huge }, { step = "b" }, { step = "step 1", loss = 9 } } } },
        command = { HOSTILE }, provenance = { { "host", HOSTILE }, { "commit", ("f"):rep(64) } } }
end

function TestReportPage.setupClass()
    if browser.missing() then
        return
    end
    b, place = browser.open(), scripts.place()
    place:dump(HOSTILE, scripts.logits(), scripts.targets())
    place:fine("sweep_bins", { HOSTILE, "bins=3:30:3", "momentum=0,0.75", "--report", "-q" })
    run = "file://" .. posix.real_path(place.folder.path .. "/runs/latest") .. "/report.html"
    made = "file://" .. place.folder:write("made.html", everything())
end

function TestReportPage.teardownClass()
    if b then
        b:close()
        place:remove()
    end
end

function TestReportPage.setUp()
    local missing = browser.missing()
    if missing then
        lu.assertNotEquals(os.getenv "GHM_REQUIRE_BROWSER", "1", missing)
        lu.skip(missing)
    end
end

-- The words of a column of the results, top to bottom.
local function column(n)
    return b:eval(([=[[...document.querySelectorAll("[aria-label=Results] tbody tr")].map(
        (row) => row.cells[%d].textContent.trim())]=]):format(n - 1))
end

local function pointed(n)
    return b:eval(([=[[...document.querySelectorAll("[aria-label=Results] th")].map(
        (head) => head.getAttribute("aria-sort") || "none")[%d]]=]):format(n - 1))
end

function TestReportPage.test_click_sorts_numbers_by_value_and_a_second_one_turns_them_round()
    b:visit(made, DESK)
    b:click "[aria-label=Results] th:nth-child(2) button"
    lu.assertEquals(column(2), { "-inf", "9", "9.5", "10", "inf", "nan", "" })
    lu.assertEquals({ pointed(1), pointed(2) }, { "none", "ascending" })
    b:click "[aria-label=Results] th:nth-child(2) button"
    lu.assertEquals(column(2), { "inf", "10", "9.5", "9", "-inf", "nan", "" })
    lu.assertEquals({ pointed(1), pointed(2) }, { "none", "descending" })
    lu.assertEquals(column(1), { HOSTILE, "step 10", "step 100", "step 1", "a", "step 9", "b" })
    lu.assertEquals(b:complaints(), {})
end

function TestReportPage.test_words_are_sorted_as_people_count_and_by_keys_alone()
    b:visit(made, PHONE)
    b:press "Tab" -- to the table of results, past the recommendations' one row
    for _ = 1, 9 do
        if b:eval "document.activeElement.textContent" == "step" then
            break
        end
        b:press "Tab"
    end
    b:press "Enter"
    lu.assertEquals(column(1), { HOSTILE, "a", "b", "step 1", "step 9", "step 10", "step 100" })
    lu.assertEquals(pointed(1), "ascending")
end

function TestReportPage.test_nothing_is_loaded_nothing_complains_and_no_name_runs()
    for _, url in ipairs { run, made } do
        b:visit(url, DESK)
        lu.assertEquals(b:complaints(), {})
        lu.assertEquals(b:requests(), {})
        lu.assertEquals(b:eval "document.images.length + document.scripts.length", 1)
        lu.assertStrContains(b:eval "document.body.textContent", HOSTILE)
        lu.assertEquals(b:eval "getComputedStyle(document.querySelector('th')).fontWeight", "600",
            "the policy does not let its own style in")
    end
end

function TestReportPage.test_without_scripts_the_page_says_the_same()
    b:visit(run, DESK)
    lu.assertTrue(b:eval "document.querySelectorAll('th button').length" > 5)
    local words = b:eval "document.querySelector('main').innerText"
    b:visit(run, { width = 1200, height = 900, scriptless = true })
    lu.assertEquals(b:eval "document.querySelectorAll('button').length", 0)
    lu.assertEquals(b:eval "document.querySelector('main').innerText", words)
end

function TestReportPage.test_the_policy_stops_what_does_come_in()
    local text = everything():gsub("</main>", "<script>document.title = 'run'</script>"
        .. "<img src='data:,'><p style='color: red' onclick='1'>%0")
    b:visit("file://" .. place.folder:write("spoilt.html", text), DESK)
    lu.assertNotEquals(b:eval "document.title", "run")
    lu.assertTrue(#b:complaints() >= 3, table.concat(b:complaints(), "\n"))
end

-- How legible the page is: its width against the window's, the least contrast of any text with what
-- lies behind it (WCAG's ratio), the smallest letters in its text and in its figures, in pixels. On
-- paper what is too wide is made smaller, all of it, by the browser.
local measure = [[(() => {
    const rgb = (colour) => colour.match(/[\d.]+/g).map(Number);
    const light = (colour) => rgb(colour).slice(0, 3).map((v) => v / 255)
        .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const behind = (element) => {
        const colour = element ? getComputedStyle(element).backgroundColor : "rgb(255, 255, 255)";
        return element && rgb(colour)[3] === 0 ? behind(element.parentElement) : colour;
    };
    let contrast = Infinity, letters = Infinity, drawn = Infinity;
    for (const element of document.querySelectorAll("main *")) {
        const own = [...element.childNodes].some((node) => node.nodeType === 3
            && node.textContent.trim());
        if (own && element instanceof HTMLElement) {
            const style = getComputedStyle(element);
            const pair = [light(style.color), light(behind(element))].sort((a, b) => a - b);
            contrast = Math.min(contrast, (pair[1] + 0.05) / (pair[0] + 0.05));
            letters = Math.min(letters, parseFloat(style.fontSize));
        } else if (own && !element.getAttribute("dy")
            && !(element.previousSibling && element.tagName === "tspan")) { // no exponents
            const to = element.getScreenCTM(); // some are turned
            drawn = Math.min(drawn,
                Math.hypot(to.b, to.d) * parseFloat(getComputedStyle(element).fontSize));
        }
    }
    // a phone widens innerWidth to what it shows, not the width that a page is laid out in
    const width = document.documentElement.scrollWidth;
    const room = document.documentElement.clientWidth;
    const scale = matchMedia("print").matches ? Math.min(1, room / width) : 1;
    return { over: scale * width - room, contrast, letters: scale * letters,
        drawn: drawn === Infinity ? 99 : scale * drawn };
})()]]

local looks = {
    { "desk", DESK, 14, 10 },
    { "phone", PHONE, 14, 10 },
    { "dark", { width = 1200, height = 900, dark = true }, 14, 10 },
    { "paper", { width = 688, height = 1000, print = true }, 8, 8 }, -- A4 within its margins
    { "dark phone", { width = 390, height = 844, dark = true }, 14, 10 },
    { "narrow", { width = 320, height = 600 }, 14, 10 },
    { "paper in the dark", { width = 688, height = 1000, print = true, dark = true }, 8, 8 },
}

function TestReportPage.test_every_look_is_legible()
    for _, url in ipairs { run, made } do
        for _, case in ipairs(looks) do
            local name, look, letters, drawn = unpack(case)
            b:visit(url, look)
            local seen = b:eval(measure)
            local told = ("%s, %s: %s"):format(name, url, json.encode(seen))
            lu.assertTrue(seen.over <= 0, told)
            lu.assertTrue(seen.contrast >= 4.5, told)
            lu.assertTrue(seen.letters >= letters, told)
            lu.assertTrue(seen.drawn >= drawn, told)
        end
    end
end

-- Of the drawings that are shown: how many there are, how many reach beyond the window.
local reach = [[(() => {
    const shown = [...document.querySelectorAll("figure svg")].map((svg) =>
        svg.getBoundingClientRect()).filter((box) => box.width > 0);
    return [shown.length, shown.filter((box) => box.left < 0 || box.right > innerWidth).length];
})()]]

function TestReportPage.test_every_figure_is_shown_once_and_as_wide_as_the_window_at_most()
    b:visit(run, DESK)
    local n = b:eval "document.querySelectorAll('figure').length"
    lu.assertTrue(n >= 4)
    for _, case in ipairs(looks) do
        b:visit(run, case[2])
        lu.assertEquals(b:eval(reach), { n, 0 }, case[1])
    end
end

-- Of a picture's pixels: the share lighter than middle grey, and whether a colour is among them.
local look_at = [[(async () => {
    const image = new Image();
    image.src = "data:image/png;base64,%s";
    await image.decode();
    const canvas = new OffscreenCanvas(image.width, image.height);
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const { data } = context.getImageData(0, 0, image.width, image.height);
    let light = 0, blue = 0;
    for (let i = 0; i < data.length; i += 4) {
        light += data[i] + data[i + 1] + data[i + 2] > 384;
        blue += data[i + 2] > 150 && data[i + 2] - data[i] > 80;
    }
    return { light: 4 * light / data.length, blue, height: image.height };
})()]]

function TestReportPage.test_screenshots_show_figures_on_light_and_dark_pages()
    local keep = os.getenv "GHM_SCREENSHOTS"
    for i = 1, 4 do
        local name, look = unpack(looks[i])
        b:visit(run, look)
        local shot = b:screenshot()
        if keep then
            posix.write_file(("%s/%s.png"):format(keep, name), decoded(shot))
        end
        b:visit("about:blank", DESK) -- the page's policy would not have its picture
        local seen = b:eval(look_at:format(shot))
        local told = name .. ": " .. json.encode(seen)
        lu.assertTrue(look.dark and seen.light < 0.2 or not look.dark and seen.light > 0.8, told)
        lu.assertTrue(seen.blue > 500, told) -- the first line of the figures
        lu.assertTrue(seen.height > 2000, told) -- the whole page, not its first screen
    end
end

function TestReportPage.test_it_prints()
    b:visit(run, DESK)
    local _, pages = decoded(b:pdf()):gsub("/Type%s*/Page%f[^%w]", "")
    lu.assertTrue(pages >= 2 and pages <= 10, pages .. " pages")
end
