-- Values as the prompt shows them: what can show itself does; arrays and lists are summed up,
-- tables laid out in lines.

local array = require "ghm.array"
local ffi = require "ffi"
local text = require "ghm.show.text"

local M = {}

local FIRST, LINES = 8, 40 -- elements of a list and entries of a table that are shown

local function number(x)
    return ("%.6g"):format(x)
end

-- { 1, 2, 3 } of n numbers -> "3 numbers: 1 2 3"; beyond FIRST their range stands for the rest.
local function numbers(n, get, what)
    local parts, least, most = {}, math.huge, -math.huge
    for i = 1, n do
        local x = get(i)
        least, most = math.min(least, x), math.max(most, x)
        parts[#parts + 1] = i <= FIRST and number(x) or nil
    end
    local rest = n > FIRST and ("  ...  least %s, greatest %s"):format(number(least), number(most))
    return ("%s: %s%s"):format(what, table.concat(parts, "  "), rest or "")
end

local function of_array(a)
    if not a.ptr then
        return "an array that was freed"
    end
    local sum = a:summary()
    local facts = sum.min and ("  least %s, mean %s, greatest %s, %s zeros"):format(number(sum.min),
        number(sum.mean), number(sum.max), text.number(sum.zeros)) or ""
    local lines = { tostring(a) .. facts .. ("  %s non-finite"):format(text.number(sum.nonfinite)) }
    local first = {}
    for i = 0, math.min(a.n, FIRST) - 1 do
        first[i + 1] = number(a:get(i))
    end
    lines[2] = "  " .. table.concat(first, "  ") .. (a.n > FIRST and "  ..." or "")
    return table.concat(lines, "\n")
end

-- A C array of numbers ("double [30]", "int64_t [?]") as a list; a 64-bit integer as a number.
local function of_cdata(value)
    local element = tostring(ffi.typeof(value)):match "^ctype<(.-) %[[%d?]+%]>$"
    local n = element and ffi.sizeof(value) / ffi.sizeof(element)
    if n == 0 or n and tonumber(value[0]) then
        return numbers(n, function(i)
            return tonumber(value[i - 1])
        end, ("%s[%d], from 0"):format(element, n))
    end
    return tostring(tonumber(value) or value)
end

local function is_list_of(list, kind)
    for _, entry in ipairs(list) do
        if type(entry) ~= kind then
            return false
        end
    end
    return #list > 0
end

-- One value in a line of its table.
local function brief(value)
    if type(value) == "string" then
        return text.fit(text.one_line(("%q"):format(value)), 70)
    elseif type(value) == "table" and not (getmetatable(value) or {}).__tostring then
        return is_list_of(value, "number") and text.fit(numbers(#value, function(i)
            return value[i]
        end, #value .. " numbers"), 70) or #value > 0 and ("a list of %d"):format(#value)
            or "a table"
    elseif type(value) == "cdata" then
        return text.fit(text.one_line(of_cdata(value)), 70)
    end
    return text.fit(text.one_line(tostring(value)), 70)
end

local function of_table(t)
    if is_list_of(t, "number") then
        return numbers(#t, function(i)
            return t[i]
        end, #t .. " numbers")
    end
    local keys = {}
    for key in pairs(t) do
        keys[#keys + 1] = key
    end
    if #keys == 0 then
        return "an empty table"
    end
    table.sort(keys, function(a, b)
        if type(a) == type(b) and (type(a) == "number" or type(a) == "string") then
            return a < b
        end
        return type(a) == "number" or type(b) ~= "number" and tostring(a) < tostring(b)
    end)
    local rows = {}
    for i = 1, math.min(#keys, LINES) do
        rows[i] = { name = tostring(keys[i]), value = brief(t[keys[i]]) }
    end
    return M.fields(rows) .. (#keys > LINES and ("\n... %d in all"):format(#keys) or "")
end

-- Rows { name, value }, both texts, in two columns; values are wrapped where a width is given.
function M.fields(rows, most)
    local width, lines = 0, {}
    for _, row in ipairs(rows) do
        width = math.max(width, text.width(row.name))
    end
    for i, row in ipairs(rows) do
        local value = most and table.concat(text.wrap(row.value, most - width - 2),
            "\n" .. (" "):rep(width + 2)) or row.value
        lines[i] = text.pad(row.name, width + 2) .. value
    end
    return table.concat(lines, "\n")
end

-- The text of a value, without a line end.
function M.text(value)
    if array.is(value) then
        return of_array(value)
    elseif type(value) == "cdata" then
        return of_cdata(value)
    elseif type(value) == "table" and not (getmetatable(value) or {}).__tostring then
        return of_table(value)
    end
    return (tostring(value):gsub("\n$", ""))
end

return M
