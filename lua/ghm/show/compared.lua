-- What ghm.runner.comparing found in runs, for a terminal.

local bootstrap = require "ghm.studies.bootstrap"
local text = require "ghm.show.text"

local M = {}

local function percent(x)
    return x == 0 and "=" or x and ("%+.3g %%"):format(100 * x) or ""
end

-- all: with changes by no more than this share, which rounding makes.
local function row_of(column, n_runs, rounding, all)
    local row = { column = column.column, largest = percent(column.largest),
        at = column.largest ~= 0 and column.at or nil,
        apart = column.held > 0 and ("%d of %d"):format(column.apart, column.held) or "" }
    for k = 1, n_runs do
        local change = column.change[k]
        local rounded = not all and change and math.abs(change) <= rounding
        row["mean" .. k], row["change" .. k] = column.mean[k], percent(rounded and 0 or change)
    end
    return row
end

-- The rows of the table, whether some hold intervals against A's, and the names of the columns that
-- differ by rounding alone.
local function rows_of(found)
    local rows, held, rounded = {}, false, {}
    for _, column in ipairs(found.columns) do
        if column.differs and column.rounded then
            rounded[#rounded + 1] = column.column
        end
        if not column.differs or not column.rounded or found.all then
            held, rows[#rows + 1] = held or column.held > 0, row_of(column,
                #found.runs, found.rounding, found.all)
        end
    end
    return rows, held, rounded
end

local function shown_of(found, held)
    local n, shown = #found.runs, { { key = "column", tail = 6 } } -- _max or _mean
    for k = 1, n do
        shown[#shown + 1] = { key = "mean" .. k, title = found.runs[k].letter, format = "%.6g" }
    end
    for k = 2, n do
        shown[#shown + 1] = { key = "change" .. k, title = n == 2 and "change"
            or ("%s against A"):format(found.runs[k].letter), align = "right" }
    end
    if #found.matched > 1 then
        shown[#shown + 1] = { key = "largest", title = "largest", align = "right" }
        shown[#shown + 1] = { key = "at", title = "at" }
    end
    shown[#shown + 1] = held and { key = "apart", align = "right" } or nil
    return shown
end

-- What the table, which may be empty, does not say, in a line; nil where there is nothing.
local function told_of(found, n_rows, held, rounded)
    local single, level = #found.matched == 1, 100 * bootstrap.LEVEL
    local over = single and "" or text.count(#found.matched, "configuration", true)
        .. " that all runs have"
    local told, but = {}, {}
    but[1] = #rounded > 0 and ("for rounding, less than %s %% (%s)"):format(
        ("%g"):format(100 * found.rounding):gsub("e%-0", "e-"), table.concat(rounded, ", ")) or nil
    if n_rows == 0 then
        but[#but + 1] = found.ends_differ and ("for their %g %% intervals"):format(level) or nil
        told[1] = ("the results are the same%s%s"):format(single and "" or " in the " .. over,
            but[1] and ", but " .. table.concat(but, " and ") or "")
    else
        told[1] = not single and "means over " .. over or nil
        told[#told + 1] = held and ("apart: %g %% intervals that do not meet A's"):format(level)
            or nil
        told[#told + 1] = but[1] and "the same but " .. but[1] or nil
    end
    if found.alone > 0 then
        told[#told + 1] = ("%s %s not in all runs"):format(
            text.count(found.alone, "row", true), found.alone == 1 and "is" or "are")
    end
    return told[1] and table.concat(told, "; ")
end

function M.text(found)
    local parts, shown = {}, { "setting" }
    for k, one in ipairs(found.runs) do
        parts[#parts + 1] = ("%s  %s"):format(one.letter, one.run.dir)
        shown[k + 1] = one.letter
    end
    parts[#parts + 1] = ""
    parts[#parts + 1] = #found.settings > 0 and text.table(found.settings, shown)
        or "the settings are the same\n"
    local rows, held, rounded = rows_of(found)
    parts[#parts + 1] = #rows > 0 and text.table(rows, shown_of(found, held)) or nil
    local told = told_of(found, #rows, held, rounded)
    parts[#parts + 1] = told and text.broken { told }
    return table.concat(parts, "\n")
end

return M
