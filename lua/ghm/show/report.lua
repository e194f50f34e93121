-- A report: one HTML file that holds all it needs, for reading, mailing and printing. Its policy
-- lets it load nothing and run nothing but its own style and its own script, known by their hashes.
--
--   report.html(t) -> the text of the page
--
-- t = { name, created, question, summary = {lines},     what was asked, of what
--   lines = {the answer}, warnings, recommendations,    as a study returns them
--   tables = { { title, rows, columns, mark, note }, ... },   rows and columns as of text.table
--   figures = { { title, svg = text, narrow = text or nil } or { title, problem = text }, ... },
--     (narrow: the same for a phone, without its title)
--   command = {lines of a shell},
--   provenance = { { name, value }, ... }, dumps = table or nil }
-- All but name and question may be missing.

local html = require "ghm.show.html"
local posix = require "ghm.posix"
local svg = require "ghm.show.svg"

local M = {}

local here = debug.getinfo(1, "S").source:match "^@(.*)/[^/]*$" or "."
local escape = html.escape

-- The text of a file beside this one and its hash as a content security policy writes it.
local function asset(name)
    local path = here .. "/" .. name
    local text = assert(posix.read_file(path))
    local quoted = posix.quote(path)
    local hash, status = posix.capture(("sha256sum <%s | cut -c1-64 | tr a-f A-F "
        .. "| basenc --base16 -d | base64"):format(quoted))
    assert(status == 0 and #hash == 44, "no hash of " .. path) -- coreutils are missing
    return text, "'sha256-" .. hash .. "'"
end

local function paragraphs(lines, class)
    local out = {}
    for i, line in ipairs(lines or {}) do
        out[i] = ('<p class="%s">%s</p>\n'):format(class, html.sentence(line))
    end
    return table.concat(out)
end

local function short(value)
    return type(value) == "number" and ("%.4g"):format(value) or tostring(value)
end

-- "bins = 30" and how sure that is, in words; and why, where the answer does not tell it.
local function recommendation_list(recommendations, answer)
    local entries = {}
    answer = table.concat(answer or {}, "\n"):lower()
    for i, one in ipairs(recommendations) do
        local told = one.reason and answer:find(one.reason:lower(), 1, true)
        local lines, sure, as_good = { not told and one.reason or nil }, {}, {}
        if one.share then
            sure[1] = ("%.0f %% of the resamplings agree"):format(100 * one.share)
        end
        if one.low and one.low ~= one.high then
            sure[#sure + 1] = ("most lie between %s and %s"):format(short(one.low),
                short(one.high))
        end
        for k, value in ipairs(one.as_good or {}) do
            as_good[k] = short(value)
        end
        if #as_good > 0 then
            sure[#sure + 1] = "as good: " .. table.concat(as_good, ", ")
        end
        lines[#lines + 1] = #sure > 0 and table.concat(sure, "; ") or lines[1] == nil and one.reason
            or nil
        entries[i] = { ("%s = %s"):format(one.key, short(one.value)), lines }
    end
    return html.list(entries)
end

local function warning_list(warnings)
    local lines = {}
    for i, warning in ipairs(warnings) do
        lines[i] = ("<li>%s</li>"):format(html.sentence(warning.text))
    end
    return '<ul class="warnings">\n' .. table.concat(lines, "\n") .. "\n</ul>\n"
end

local function figure_of(figure, k)
    local title = escape(figure.title)
    local role = (' role="img" aria-label="%s"'):format(title)
    local drawing, refused = nil, figure.problem
    if figure.svg then
        drawing, refused = svg.inline(figure.svg, ("f%d-"):format(k), role)
    end
    if not drawing then
        return ('<p class="soft">%s: not shown, %s</p>\n'):format(title, escape(refused))
    end
    local narrow = figure.narrow and svg.inline(figure.narrow, ("n%d-"):format(k), role)
    return ('<figure>%s<div class="scroll%s" tabindex="0" role="region" aria-label="%s">%s</div>'
        .. "</figure>\n"):format(narrow and ('<div class="narrow"><figcaption>%s</figcaption>%s'
        .. "</div>\n"):format(title, narrow) or "", narrow and " wide" or "", title, drawing)
end

function M.html(t)
    local style, style_hash = asset "report.css"
    local script, script_hash = asset "report.js"
    local parts = {}
    local function add(...)
        parts[#parts + 1] = select("#", ...) > 1 and (...):format(select(2, ...)) or (...)
    end
    local function section(title, body)
        if body and body ~= "" then
            add("<section><h2>%s</h2>\n%s</section>\n", escape(title), body)
        end
    end
    add '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    add('<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; style-src %s; '
        .. "script-src %s; base-uri 'none'; form-action 'none'\">\n", style_hash, script_hash)
    add '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    add("<title>%s: %s</title>\n", escape(t.name), escape(t.question))
    add("<style>" .. style .. "</style>\n</head>\n<body>\n<main>\n<header>\n")
    add('<p class="soft">%s%s</p>\n<h1>%s</h1>\n', escape(t.name),
        t.created and ", " .. escape(t.created) or "", escape(t.question))
    add(paragraphs(t.summary, "soft") .. "</header>\n")
    section("Answer", paragraphs(t.lines, "answer"))
    if t.recommendations and #t.recommendations > 0 then
        add('<section class="chosen"><h2>Recommendations</h2>\n%s</section>\n',
            recommendation_list(t.recommendations, t.lines))
    end
    if t.warnings and #t.warnings > 0 then
        section("Warnings", warning_list(t.warnings))
    end
    for _, one in ipairs(t.tables or {}) do
        section(one.title, html.table(one.rows, one.columns, { label = one.title,
            mark = one.mark }) .. paragraphs({ one.note }, "soft"))
    end
    local figures = {}
    for k, figure in ipairs(t.figures or {}) do
        figures[k] = figure_of(figure, k)
    end
    section("Figures", table.concat(figures))
    if t.command then
        local lines = {}
        for i, line in ipairs(t.command) do
            lines[i] = escape(line)
        end
        section("The command to get it again", "<pre><code>" .. table.concat(lines, "\n")
            .. "</code></pre>\n")
    end
    section("Where it comes from", html.list(t.provenance or {}) .. (t.dumps and #t.dumps.rows > 0
        and html.table(t.dumps.rows, t.dumps.columns, { label = "Dumps" }) or ""))
    add("</main>\n<script>" .. script .. "</script>\n</body>\n</html>\n")
    return table.concat(parts)
end

return M
