-- What ghm.runner.comparing found in runs, for a terminal.

local bootstrap = require "ghm.studies.bootstrap"
local text = require "ghm.show.text"

local M = {}

local function percent(x)
    return x == 0 and "=" or x and ("%+.3g %%"):format(100 * x) or ""
end

function M.text(found)
    local n, single = #found.runs, #found.matched == 1
    local parts, shown = {}, { "setting" }
    for k, one in ipairs(found.runs) do
        parts[#parts + 1] = ("%s  %s"):format(one.letter, one.run.dir)
        shown[k + 1] = one.letter
    end
    parts[#parts + 1] = ""
    parts[#parts + 1] = #found.settings > 0 and text.table(found.settings, shown)
        or "the settings are the same\n"
    shown = { "column" }
    local rows = {}
    for k = 1, n do
        shown[#shown + 1] = { key = "mean" .. k, title = found.runs[k].letter, format = "%.6g" }
    end
    for k = 2, n do
        shown[#shown + 1] = { key = "change" .. k, title = n == 2 and "change"
            or ("%s against A"):format(found.runs[k].letter), align = "right" }
    end
    if not single then
        shown[#shown + 1] = { key = "largest", title = "largest", align = "right" }
        shown[#shown + 1] = { key = "at", title = "at" }
    end
    local held = false
    for r, column in ipairs(found.columns) do
        held = held or column.held > 0
        rows[r] = { column = column.column, at = column.at, largest = percent(column.largest),
            apart = column.held > 0 and ("%d of %d"):format(column.apart, column.held) or "" }
        for k = 1, n do
            rows[r]["mean" .. k], rows[r]["change" .. k] = column.mean[k], percent(column.change[k])
        end
    end
    shown[#shown + 1] = held and { key = "apart", align = "right" } or nil
    local over = single and "" or text.count(#found.matched, "configuration", true)
        .. " that all runs have"
    local told, level = {}, 100 * bootstrap.LEVEL
    if #rows == 0 then
        told[1] = ("the results are the same%s%s"):format(single and "" or " in the " .. over,
            found.ends_differ and (", but for their %g %% intervals"):format(level) or "")
    else
        parts[#parts + 1] = text.table(rows, shown)
        told[1] = not single and "means over " .. over or nil
        told[#told + 1] = held and ("apart: %g %% intervals that do not meet A's"):format(level)
            or nil
    end
    if found.alone > 0 then
        told[#told + 1] = ("%s of some runs %s not in all"):format(
            text.count(found.alone, "row", true), found.alone == 1 and "is" or "are")
    end
    parts[#parts + 1] = told[1] and table.concat(told, "; ")
    return table.concat(parts, "\n")
end

return M
