-- Text for people: aligned tables, short numbers, widths of Unicode strings, wrapped paragraphs.
--
--   text.table(rows, columns, opts) -> string (lines, each ended with \n)
--   text.number(12400000) "12.4 M"   text.count(1, "call") "1 call"   text.loss(7e-13) "7e-13"
--   text.percent(0.125) "12.5 %"   text.bytes(n) "1.2 GB"   text.seconds(t) "3.2 ms"
--   text.bar(fraction, width)        text.width(s)  text.pad(s, width, align)  text.wrap(...)

local aligned = require "ghm.show.aligned"
local screen = require "ghm.show.screen"
local utf8 = require "ghm.utf8"

local M = {}

local LEAST = 12 -- columns that a table leaves to a word when it is cut
M.TAIL = 9 -- of a file's name that is cut: its number and its ending tell it apart

-- ranges drawn two columns wide (East Asian wide forms, emoji) or none (combining marks)
local wide = { { 0x1100, 0x115F }, { 0x2E80, 0xA4CF }, { 0xAC00, 0xD7A3 }, { 0xF900, 0xFAFF },
    { 0xFE30, 0xFE6F }, { 0xFF00, 0xFF60 }, { 0x1F300, 0x1FAFF }, { 0x20000, 0x3FFFD } }
local none = { { 0x0300, 0x036F }, { 0x200B, 0x200F }, { 0x20D0, 0x20FF }, { 0xFE00, 0xFE0F } }

local function within(code, ranges)
    for _, range in ipairs(ranges) do
        if code >= range[1] and code <= range[2] then
            return true
        end
    end
    return false
end

-- Calls visit(first_byte, last_byte, columns) for each character; a stray byte is one column.
local function each_character(s, visit)
    local i = 1
    while i <= #s do
        local n, code = utf8.at(s, i)
        local columns = 1
        if n and n > 1 then
            columns = within(code, none) and 0 or within(code, wide) and 2 or 1
        end
        visit(i, i + (n or 1) - 1, columns)
        i = i + (n or 1)
    end
end

-- Columns that a string takes on a terminal.
function M.width(s)
    local total = 0
    each_character(s, function(_, _, columns)
        total = total + columns
    end)
    return total
end

-- Cuts to `width` columns, with an ellipsis where something is lost: at the end, or before the
-- last `tail` columns.
function M.fit(s, width, tail)
    local whole = M.width(s)
    if whole <= width then
        return s
    end
    local total, last, from = 0, 0, #s + 1
    each_character(s, function(start, stop, columns)
        from = total >= whole - (tail or 0) and math.min(from, start) or from
        total = total + columns
        if total <= width - 1 - (tail or 0) then
            last = stop
        end
    end)
    return s:sub(1, last) .. "…" .. s:sub(from)
end

-- Fills with blanks to `width` columns; align is "left" (default), "right" or "center".
function M.pad(s, width, align)
    local room = width - M.width(s)
    if room <= 0 then
        return s
    elseif align == "right" then
        return (" "):rep(room) .. s
    elseif align == "center" then
        local left = math.floor(room / 2)
        return (" "):rep(left) .. s .. (" "):rep(room - left)
    end
    return s .. (" "):rep(room)
end

-- A paragraph with `blank` where no line should end: "97 %", "M = 30", "g >= 0.9".
function M.bound(paragraph, blank)
    local bound = paragraph:gsub("(%S) (%%)", "%1" .. blank .. "%2")
    return (bound:gsub("(%S) ([<>=]=?) (%S)", "%1" .. blank .. "%2" .. blank .. "%3"))
end

-- Breaks a paragraph into lines of at most `width` columns -> list of strings. One in which some
-- blanks are two or more is a list of fields: it breaks there alone, and inside a field that is too
-- wide.
function M.wrap(paragraph, width)
    local lines, line = {}, nil
    local fields = paragraph:find "%S  +%S" ~= nil
    local function add(word, gap)
        word = word:gsub("\1", " ")
        if line and M.width(line) + #gap + M.width(word) > width then
            lines[#lines + 1] = line
            line = nil
        end
        line = line and line .. gap .. word or word
    end
    for part in (fields and paragraph:gsub("  +", "\n") or M.bound(paragraph, "\1")):gmatch(
        fields and "[^\n]+" or "%S+") do
        if fields and M.width(part) > width then
            for _, piece in ipairs(M.wrap(part, width)) do
                add(piece, "  ")
            end
        else
            add(part, fields and "  " or " ")
        end
    end
    lines[#lines + 1] = line
    return lines
end

-- Lines of any length -> text; a terminal that stdout is breaks them between words.
function M.broken(lines)
    local columns, out = screen.columns(), {}
    for i, line in ipairs(lines) do
        out[i] = columns and M.width(line) > columns
            and table.concat(M.wrap(line, columns), "\n") or line
    end
    return table.concat(out, "\n")
end

-- Any text as one printable line: control characters become blanks.
function M.one_line(s)
    return (s:gsub("%c+", " "):gsub("^ +", ""):gsub(" +$", ""))
end

-- A number in a short form that %g users expect: nan, inf, four digits, but below 1e7 those before
-- the point in full.
local function plain(x)
    if x ~= x then
        return "nan"
    elseif x == math.huge or x == -math.huge then
        return x > 0 and "inf" or "-inf"
    elseif math.abs(x) < 1e7 and (x == math.floor(x) or math.abs(x) >= 999.95) then
        return ("%.0f"):format(x)
    end
    return ("%.4g"):format(x)
end

local function scaled(x, units, base, spell)
    local size = math.abs(x)
    if size ~= size or size == math.huge then
        return spell(x)
    end
    local k = 0
    -- 0.9995 of a unit prints as 1000 of the smaller one, so it moves up already
    while k < #units and size >= base * 0.9995 do
        size, k = size / base, k + 1
    end
    if k == 0 or size >= base then -- below the units or beyond them
        return spell(x)
    end
    local digits = size >= 99.95 and "%.0f" or size >= 9.995 and "%.1f" or "%.2f"
    return (x < 0 and "-" or "") .. digits:format(size) .. " " .. units[k]
end

M.plain = plain

-- A count in three digits: 999, 1.24 k, 12.4 M, 3.10 G. Fractions below 1000: four digits.
function M.number(x)
    return scaled(x, { "k", "M", "G", "T", "P" }, 1000, plain)
end

-- A loss in four decimals; where these say next to nothing, in two digits: 1.3836, 7e-13.
function M.loss(x)
    return (x ~= 0 and math.abs(x) < 9.5e-4 and "%.2g" or "%.4f"):format(x)
end

-- A count with its noun, "1 sample", "12.4 M samples"; in full where it is to be exact.
function M.count(n, noun, exact)
    return (exact and "%.0f" or "%s"):format(exact and n or M.number(n)) .. " " .. noun
        .. (n == 1 and "" or "s")
end

-- A share, or another ratio, in three digits.
function M.percent(x)
    return ("%.3g %%"):format(100 * x)
end

-- Ascending numbers in a short form: "1:100:1, 200", "log:0.001:1:4", "0.5, 0.75", "none". Four and
-- more of even steps or ratios are a range; long lists lose their middle.
function M.ranges(list)
    local words, k = {}, 1
    local function run_end(next_of) -- last of the values from k on that follow each other so
        local last = k + 1
        while list[last + 1] and math.abs(list[last + 1] - next_of(list[last]))
            <= 1e-9 * math.abs(list[last + 1] - list[last]) do
            last = last + 1
        end
        return list[last] and last or k
    end
    while k <= #list do
        local a, b = list[k], list[k + 1]
        local even = run_end(function(x) return x + (b - a) end)
        local log = a > 0 and b and run_end(function(x) return x * (b / a) end) or k
        if even - k >= 3 then
            words[#words + 1] = ("%.6g:%.6g:%.6g"):format(a, list[even], b - a)
            k = even + 1
        elseif log - k >= 3 then
            words[#words + 1] = ("log:%.6g:%.6g:%d"):format(a, list[log], log - k + 1)
            k = log + 1
        else
            words[#words + 1] = ("%.6g"):format(a)
            k = k + 1
        end
    end
    if #words > 16 then
        words = { words[1], words[2], words[3], "...", words[#words - 1], words[#words] }
    end
    return words[1] and table.concat(words, ", ") or "none"
end

-- Bytes in decimal units: 17 B, 1.50 kB, 12.4 MB.
function M.bytes(n)
    return scaled(n, { "kB", "MB", "GB", "TB", "PB" }, 1000, function(x)
        return plain(x) .. " B"
    end)
end

-- A duration in seconds: 830 ns, 12.4 µs, 3.20 ms, 1.50 s, 2 min 05 s, 1 h 02 min.
function M.seconds(t)
    if t ~= t or math.abs(t) > 1e12 then
        return plain(t) .. " s"
    elseif t >= 3599.5 then
        local minutes = math.floor(t / 60 + 0.5)
        return ("%d h %02d min"):format(math.floor(minutes / 60), minutes % 60)
    elseif t >= 59.95 then
        local whole = math.floor(t + 0.5)
        return ("%d min %02d s"):format(math.floor(whole / 60), whole % 60)
    elseif t == 0 or t < 0 then
        return ("%g s"):format(t)
    end
    local ns = t * 1e9
    return scaled(ns, { "µs", "ms", "s" }, 1000, function(x)
        return ("%.0f ns"):format(x)
    end)
end

-- A horizontal bar: fraction 0..1 of `width` columns in eighths, blank to its full width.
-- A fraction above zero shows at least one eighth. ascii: '#' alone, by default where the locale
-- has no UTF-8.
function M.bar(fraction, width, ascii)
    if ascii == nil then
        ascii = not screen.is_utf8()
    end
    local eighths = 0
    if fraction > 0 then -- false for NaN too
        local wanted = math.floor(math.min(fraction, 1) * width * 8 + 0.5)
        eighths = math.max(1, wanted)
    end
    if ascii then
        return M.pad(("#"):rep(math.ceil(eighths / 8)), width)
    end
    local full, part = math.floor(eighths / 8), eighths % 8
    local parts = { "▏", "▎", "▍", "▌", "▋", "▊", "▉" }
    local drawn = ("█"):rep(full) .. (parts[part] or "")
    return M.pad(drawn, width)
end

-- What a table shows of a row in a column { key, format }.
function M.cell(column, row)
    local value = row[column.key]
    if value == nil then
        return ""
    elseif type(column.format) == "function" then
        return tostring(column.format(value, row))
    elseif type(value) == "number" then
        if column.format and value == value and math.abs(value) < math.huge then
            return column.format:format(value)
        end
        return plain(value)
    end
    return tostring(value)
end

-- What a table shows of each row in a column, in lines of their own; and whether it is a column of
-- numbers, which are filled up with these blanks (see ghm.show.aligned).
function M.cells(column, rows, blanks)
    local cells, values, numeric = {}, {}, #rows > 0
    for r, row in ipairs(rows) do
        cells[r] = M.one_line(M.cell(column, row))
        values[r] = row[column.key]
        numeric = numeric and (values[r] == nil or type(values[r]) == "number")
    end
    if numeric and (column.align or "right") == "right" then
        cells = aligned.numbers(cells, values, column.format, blanks)
    end
    return cells, numeric
end

-- The columns of a table as it is laid out, { title, align, width, cells, wordy } each: cells[r] is
-- the text of row r, wordy a column of words.
local function laid_out(rows, columns)
    local list = {}
    for c, given in ipairs(columns) do
        given = type(given) == "string" and { key = given } or given
        local cells, numeric = M.cells(given, rows)
        local column = { title = given.title or given.key, tail = given.tail, cells = cells }
        column.width = M.width(column.title)
        for _, shown in ipairs(cells) do
            column.width = math.max(column.width, M.width(shown))
        end
        column.align, column.wordy = given.align or numeric and "right" or "left", not numeric
        list[c] = column
    end
    return list
end

-- Makes laid out columns fit: a column whose words keep their tail is cut, then those at the right
-- that `room` has no place for are left out, but for the first half, and then the widest one of
-- words is cut where they are still wider than `most`. Both without the margin. Returns how many
-- are left out.
local function fit_columns(list, room, most)
    local total, half, left_out, tailed, widest = -2, #list / 2, 0, nil, nil
    for _, column in ipairs(list) do
        total = total + column.width + 2
        tailed = tailed or column.tail and column
    end
    local whole = tailed and tailed.width
    local function cut(column, limit)
        local width = math.max(LEAST, column.width - math.max(0, total - limit))
        width = math.min(width, column.width)
        total, column.width = total - column.width + width, width
    end
    if tailed then
        cut(tailed, room)
    end
    while total > room and #list > half do
        total, left_out = total - table.remove(list).width - 2, left_out + 1
    end
    if tailed and total < room then -- what was left out may have made more room than it took
        local width = math.min(whole, tailed.width + room - total)
        total, tailed.width = total - tailed.width + width, width
    end
    for _, column in ipairs(list) do
        if column.wordy and (not widest or column.width > widest.width) then
            widest = column
        end
    end
    if widest then
        cut(widest, most)
    end
    return left_out
end

-- An aligned table with a title line and a rule under it.
--   rows     list of tables
--   columns  list of { key, title = key, format = "%.4f" | function(value, row), align, tail }, or
--            of keys; numbers stand right and words left unless align says otherwise; tail: how
--            many columns at the end of a word stay when it is cut
--   opts     width: widest line (the screen's): the widest column of words is cut with an ellipsis;
--            spare: before that, what a terminal has no room for at the right is left out, but
--            for the first half of the columns;
--            ascii: rule of '-' instead of '─', by default where the locale has no UTF-8;
--            mark(row) -> a sign before the row
-- With spare also returns how many columns are left out.
function M.table(rows, columns, opts)
    opts = opts or {}
    local ascii = opts.ascii
    if ascii == nil then
        ascii = not screen.is_utf8()
    end
    local list, margin, lines = laid_out(rows, columns), opts.mark and 2 or 0, {}
    local room = opts.spare and (opts.width or screen.columns()) or math.huge
    local left_out = fit_columns(list, room - margin, (opts.width or screen.width()) - margin)
    local function add(sign, value_of)
        local parts = {}
        for c, column in ipairs(list) do
            parts[c] = M.pad(M.fit(value_of(column), column.width, column.tail), column.width,
                column.align)
        end
        local lead = margin > 0 and M.pad(sign, margin) or ""
        lines[#lines + 1] = ((lead .. table.concat(parts, "  ")):gsub(" +$", ""))
    end
    add("", function(column) return column.title end)
    add("", function(column) return (ascii and "-" or "─"):rep(column.width) end)
    for r, row in ipairs(rows) do
        local sign = opts.mark and opts.mark(row) or ""
        add(sign ~= "" and ascii and ">" or sign, function(column) return column.cells[r] end)
        lines[#lines] = sign ~= "" and screen.paint("strong", lines[#lines]) or lines[#lines]
    end
    local letters = table.concat(lines, "\n") .. "\n"
    if opts.spare then
        return letters, left_out
    end
    return letters
end

return M
