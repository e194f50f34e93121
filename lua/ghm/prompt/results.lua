-- What a study found, at the prompt: a table that prints itself, with a row for each configuration.
--
--   r              the table, the plot, the answer, as the script prints them
--   r[3]           a row; r[3].loss one of its values
--   r:best()       the row that the study recommends; r:best "error", by one of its columns
--   results.column(r, "error")   the field that a word means

local bootstrap = require "ghm.studies.bootstrap"
local differences = require "ghm.show.differences"
local display = require "ghm.prompt.display"
local fault = require "ghm.fault"
local nearest = require "ghm.nearest"
local telling = require "ghm.runner.telling"
local text = require "ghm.show.text"

local M = {}
local Result, Row = {}, {}
Result.__index = Result

-- The columns of which the greatest value is the best one; of the others it is the least.
local greatest = { cosine = true, entropy = true, effective = true, knuth = true }

local function key_of(column)
    return type(column) == "table" and column.key or column
end

-- found: of a study; axes: the keys that its configurations differ in.
function M.new(name, found, axes)
    local rows, self = found.rows, setmetatable({ name = name, found = found, axes = axes }, Result)
    for i, row in ipairs(rows) do
        self[i] = setmetatable(row, Row)
        Row.made[row] = { result = self, number = i }
    end
    return self
end

Row.made = setmetatable({}, { __mode = "k" })

-- A value of a row, in full as far as a person reads it.
local function cell(value)
    return type(value) == "number" and ("%.6g"):format(value) or tostring(value)
end

function M.is(value)
    return getmetatable(value) == Result
end

local function is_row(value)
    return getmetatable(value) == Row
end

-- "bins = 15, momentum = 0.75": what tells a row from the others of its result.
local function name_of(row)
    local made, words = Row.made[row], {}
    for _, axis in ipairs(made.result.axes) do
        words[#words + 1] = row[axis] ~= nil and ("%s = %s"):format(axis, tostring(row[axis]))
            or nil
    end
    return #words > 0 and table.concat(words, ", ") or "row " .. made.number
end

-- The fields of a result's rows, in the order of its columns.
function M.columns(result)
    local names = {}
    for i, column in ipairs(result.found.columns) do
        names[i] = key_of(column)
    end
    return names
end

-- The field that a word means: its name, the title that the table shows, or a word of that title.
function M.column(result, word)
    local names = M.columns(result)
    if nearest.is_one_of(word, names) then
        return word
    end
    local by_word
    for _, column in ipairs(result.found.shown) do
        local title = type(column) == "table" and column.title or key_of(column)
        if title == word then
            return key_of(column)
        end
        by_word = by_word or (" " .. title .. " "):find(" " .. word .. " ", 1, true)
            and key_of(column) or nil
    end
    return by_word or fault.raise("usage", "unknown column '%s'%s", tostring(word),
        nearest.hint(tostring(word), names))
end

-- Without the ends of intervals.
local function metrics_of(names)
    local known, list = {}, {}
    for _, name in ipairs(names) do
        known[name] = true
        list[#list + 1] = not known[bootstrap.field_of(name) or false] and name or nil
    end
    return list
end

-- The row where a column is best; without one, the row that the study marks.
function Result:best(word)
    if not word then
        for _, row in ipairs(self) do
            if self.found.mark and self.found.mark(row) ~= "" then
                return row
            end
        end
        fault.raise("usage", "%s recommends no row: name a column, r:best \"loss\"", self.name)
    end
    local key, best = M.column(self, word), nil
    for _, row in ipairs(self) do
        local x = row[key]
        if type(x) == "number" and x == x and (not best
                or greatest[key] and x > best[key] or not greatest[key] and x < best[key]) then
            best = row
        end
    end
    return best or fault.raise("usage", "no row has a number as '%s'", key)
end

local Comparison = {}

function Comparison:__tostring()
    return self.letters
end

-- compare(r[3], r[9], ..., { all = true }): rows side by side, of one result or of several.
function M.compare(...)
    local things, keys, seen, options = {}, {}, {}, {}
    for i = 1, select("#", ...) do
        local row = select(i, ...)
        if M.is(row) and #row == 1 then
            row = row[1]
        elseif i == select("#", ...) and i > 2 and type(row) == "table" and not is_row(row) then
            options = row
            break
        end
        if not is_row(row) then
            fault.raise("usage", "compare takes rows, compare(r[3], r[9]), not %s",
                row == nil and "nil" or "a " .. type(row))
        end
        things[i] = { name = name_of(row), values = row }
        for _, key in ipairs(M.columns(Row.made[row].result)) do
            keys[#keys + 1] = not seen[key] and key or nil
            seen[key] = true
        end
    end
    if not options.all then
        keys = metrics_of(keys)
    end
    if #things < 2 then
        fault.raise("usage", "compare takes at least two rows, compare(r[3], r[9])")
    end
    return setmetatable({ letters = differences.text(things, keys, options) }, Comparison)
end

-- What help(value) says of a result or a row; nil of anything else.
function M.about(value)
    if M.is(value) then
        return ("what %s found: %s of %s; loss_low and loss_high are the ends of an interval. "
            .. "r[3] is a row, r[3].loss a value of it, r:best() the row that the study "
            .. "recommends, r:best \"loss\" the best by a column; compare(r[1], r[2]), "
            .. "plot(r, X, Y)."):format(value.name,
            text.count(#value, "row", true), table.concat(metrics_of(M.columns(value)), ", "))
    elseif is_row(value) then
        return ("row %d of what %s found: r[%d].loss is a value of it, compare(r[1], r[2]) sets "
            .. "rows side by side."):format(Row.made[value].number, Row.made[value].result.name,
            Row.made[value].number)
    end
end

function Result:__tostring()
    return telling.text(self.found, false, #self == 1 and "r[1] has all"
        or ("r[1] to r[%d] are all"):format(#self))
end

function Row:__tostring()
    local result, rows = Row.made[self].result, {}
    for _, key in ipairs(metrics_of(M.columns(result))) do
        local low, high = bootstrap.fields(key)
        if self[key] ~= nil then
            rows[#rows + 1] = { name = key, value = cell(self[key]) .. (self[low] ~= nil
                and ("  (%s to %s)"):format(cell(self[low]), cell(self[high])) or "") }
        end
    end
    return display.fields(rows)
end

return M
