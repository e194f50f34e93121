-- Things side by side: what differs among them, and by how much from the first.
--
--   differences.text(things, keys, opts) -> string (lines, each ended with \n)

local text = require "ghm.show.text"

local M = {}

local function cell(value)
    return type(value) == "number" and ("%.6g"):format(value) or value == nil and ""
        or tostring(value)
end

-- From a to b as a share of a, "+3.2 %"; "" where that means nothing.
local function change(a, b)
    if type(a) ~= "number" or type(b) ~= "number" or a == 0 or a - a ~= 0 or b - b ~= 0
        or a == b then
        return ""
    end
    local percent = 100 * (b - a) / math.abs(a)
    return (math.abs(percent) >= 1000 and "%+.3g %%" or "%+.2f %%"):format(percent)
end

-- NaN is like NaN.
local function differ(a, b)
    return a ~= b and (a == a or b == b)
end

-- things   list of { name, values = { key = value } }
-- keys     what to compare, in order
-- opts     all = true: also what does not differ
function M.text(things, keys, opts)
    local columns, rows, same = { { key = "key", title = "" } }, {}, 0
    for t, thing in ipairs(things) do
        columns[#columns + 1] = { key = "value" .. t, title = thing.name, align = "right" }
        if t > 1 then
            columns[#columns + 1] = { key = "change" .. t, title = "change", align = "right" }
        end
    end
    for _, key in ipairs(keys) do
        local row, differs, first = { key = key }, false, things[1].values[key]
        for t, thing in ipairs(things) do
            local value = thing.values[key]
            row["value" .. t], row["change" .. t] = cell(value), change(first, value)
            differs = differs or differ(first, value)
        end
        if differs or opts and opts.all then
            rows[#rows + 1] = row
        else
            same = same + 1
        end
    end
    if #rows == 0 then
        return ("nothing differs among %s\n"):format(text.count(same, "value", true))
    end
    return text.table(rows, columns)
        .. (same > 0 and ("%d more %s not differ\n"):format(same, same == 1 and "does" or "do")
        or "")
end

return M
