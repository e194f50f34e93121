-- Pieces of an HTML page from plain data. Whatever comes in is escaped: the names of files and
-- arrays are anyone's.
--
--   html.escape(value)            text, safe between tags and within quoted attributes
--   html.sentence(value)          the same of a sentence, with blanks that do not break
--   html.table(rows, columns, opts)    the columns that differ, as a table; the others as a list
--   html.list { {name, value or lines}, ... }   a description list

local json = require "ghm.json"
local text = require "ghm.show.text"
local utf8 = require "ghm.utf8"

local M = {}

local entities = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;",
    ["'"] = "&#39;" }
local FILLING = { "\226\128\135", "\226\128\136" } -- U+2007, U+2008: as wide as a digit, a point
local REPLACEMENT = "\239\191\189" -- U+FFFD

-- Control characters and the marks that turn the direction of writing, with which one name can pass
-- for another, become U+FFFD; tabs and line ends become blanks.
function M.escape(value)
    local s = utf8.clean(tostring(value)):gsub("[\t\r\n]", " "):gsub("%c", REPLACEMENT)
    s = s:gsub("\194[\128-\159]", REPLACEMENT):gsub("\226\128[\170-\174]", REPLACEMENT)
        :gsub("\226\129[\166-\169]", REPLACEMENT)
    return (s:gsub("[&<>\"']", entities))
end

local escape = M.escape

-- A sentence, whose lines end where they may.
function M.sentence(value)
    return escape(text.bound(value, "\194\160"))
end

-- A number's exact value beside its short form, for sorting; spelled as JavaScript reads it.
local function exact(x)
    return x ~= x and "NaN" or x == math.huge and "Infinity" or x == -math.huge and "-Infinity"
        or json.number(x)
end

-- class="number spare", for a list of words, of which there may be none.
local function classes_text(words)
    return #words > 0 and (' class="%s"'):format(table.concat(words, " ")) or ""
end

local function cell(value, shown, classes, before)
    shown = before .. escape(shown)
    if type(value) == "number" then
        shown = ('<data value="%s">%s</data>'):format(exact(value), shown)
    elseif #shown > 40 then
        classes = { "words", unpack(classes) }
    end
    return ("<td%s>%s</td>"):format(classes_text(classes), shown)
end

-- -> the columns in which rows differ, and those in which all are alike. What no row has is in
-- neither.
local function split(rows, columns)
    local differing, alike = {}, {}
    for _, column in ipairs(columns) do
        local first, differs, some = rows[1][column.key], false, false
        for _, row in ipairs(rows) do
            local value = row[column.key]
            local both_nan = value ~= value and first ~= first
            differs = differs or value ~= first and not both_nan
            some = some or value ~= nil
        end
        if some then
            local list = differs and differing or alike
            list[#list + 1] = column
        end
    end
    return differing, alike
end

function M.list(entries)
    local lines = { "<dl>" }
    for _, entry in ipairs(entries) do
        local words = {}
        for i, line in ipairs(type(entry[2]) == "table" and entry[2] or { entry[2] }) do
            words[i] = M.sentence(tostring(line))
        end
        lines[#lines + 1] = ("<div><dt>%s</dt><dd>%s</dd></div>"):format(escape(entry[1]),
            table.concat(words, "<br>"))
    end
    lines[#lines + 1] = "</dl>"
    return #entries > 0 and table.concat(lines, "\n") .. "\n" or ""
end

-- rows, columns: as text.table takes them; those that are `spare` are not
-- printed. opts: label (what the table holds, in words), mark(row) -> a sign of the rows to pick
-- out.
function M.table(rows, columns, opts)
    if #rows == 0 then
        return "<p>none</p>\n"
    end
    local normal = {}
    for c, column in ipairs(columns) do
        normal[c] = type(column) == "table" and column or { key = column }
    end
    local differing, alike = split(rows, normal)
    local entries = {}
    for k, column in ipairs(alike) do
        entries[k] = { column.key, text.cell(column, rows[1]) }
    end
    if #differing == 0 then -- one row, or several of which each says the same
        return M.list(entries)
    end
    local lines = { ('<div class="scroll" tabindex="0" role="region" aria-label="%s"><table%s>')
        :format(escape(opts.label), #rows > 1 and ' class="sorts"' or ""), "<thead><tr>" }
    local function add(...)
        lines[#lines + 1] = (...):format(select(2, ...))
    end
    local classes, shown = {}, {}
    for c, column in ipairs(differing) do
        local numeric
        shown[c], numeric = text.cells(column, rows, FILLING)
        classes[c] = { numeric and "number" or nil }
        classes[c][#classes[c] + 1] = column.spare and "spare" or nil
        add('<th scope="col"%s title="%s">%s</th>', classes_text(classes[c]), escape(column.key),
            escape(column.title or column.key))
    end
    add "</tr></thead>\n<tbody>"
    for r, row in ipairs(rows) do
        local sign, cells = opts.mark and opts.mark(row) or "", {}
        local before = sign ~= "" and escape(sign) .. " " or ""
        for c, column in ipairs(differing) do
            cells[c] = cell(row[column.key], shown[c][r], classes[c], c == 1 and before or "")
        end
        add("<tr%s>%s</tr>", sign ~= "" and ' class="chosen"' or "", table.concat(cells))
    end
    add "</tbody></table></div>"
    if #alike > 0 then
        add "<p class=\"soft\">The same in every row:</p>"
        add("%s", M.list(entries))
    end
    return table.concat(lines, "\n") .. "\n"
end

return M
