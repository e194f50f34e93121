-- Runs side by side: the settings and the results in which they differ, by how much, and whether
-- that is too much. The runs are called A, B, C, ... in the order given; changes are against A.
-- The ends of a column's intervals belong to it: they are no results of their own.

local bootstrap = require "ghm.studies.bootstrap"
local condition = require "ghm.runner.condition"
local csv = require "ghm.show.csv"
local fault = require "ghm.fault"
local nearest = require "ghm.nearest"
local resume = require "ghm.runner.resume"
local runs = require "ghm.runner.runs"
local text = require "ghm.show.text"

local M = {}

-- What made a run's numbers: name -> { shown, same }, texts; equal where `same` is.
local function settings_of(run, facts)
    local settings = {}
    local function put(name, shown, same)
        settings[name] = shown and { shown = shown, same = same or shown } or nil
    end
    put("experiment", run.info.experiment)
    for _, part in ipairs { run.info.keys or {}, run.info.options or {} } do
        for name, value in pairs(part) do
            if part == run.info.keys or resume.matters(name) then
                put(name, type(value) ~= "table" and tostring(value)
                    or type(value[1]) == "number" and text.ranges(value)
                    or table.concat(value, ","))
            end
        end
    end
    local contents = {} -- the same data under another name is the same
    for k, dump in ipairs(facts.dumps or {}) do
        contents[k] = dump.sha256 or dump.path
    end
    local words = table.concat(run.info.dumps or {}, " ")
    put("dumps", words ~= "" and words or "bundled", table.concat(contents, " "))
    put("library", facts.library and facts.library.version)
    put("commit", facts.git and facts.git.commit:sub(1, 12)
        .. (facts.git.dirty and " with changes" or ""))
    put("device", facts.device)
    return settings
end

-- "bins=5 momentum=0", from the axes that both runs' rows have.
local function row_name(row, axes)
    local words = {}
    for _, axis in ipairs(axes) do
        words[#words + 1] = ("%s=%s"):format(axis, type(row[axis]) == "number"
            and ("%.15g"):format(row[axis]) or tostring(row[axis]))
    end
    return table.concat(words, " ")
end

local function open(dir, out)
    local run = runs.open(dir, out)
    local path = run:path "results.csv"
    local ok, rows, names = pcall(csv.read, path)
    if not ok then
        fault.raise("mismatch", "%s has no results to compare: %s", run.dir, rows.message)
    end
    return { run = run, rows = rows, names = names,
        settings = settings_of(run, run:read_json "provenance.json") }
end

-- The axes by which rows are told apart: those of A that the others have too, and along which some
-- run has more than one value. (An axis with one value in each run is a setting.)
local function common_axes(list)
    local axes = {}
    for _, axis in ipairs(list[1].run.info.axes or {}) do
        local everywhere, several = true, false
        for _, one in ipairs(list) do
            everywhere = everywhere and nearest.is_one_of(axis, one.run.info.axes or {})
            for _, row in ipairs(one.rows) do
                several = several or row[axis] ~= one.rows[1][axis]
            end
        end
        axes[#axes + 1] = everywhere and several and axis or nil
    end
    return axes
end

-- Rows that stand for the same configuration in all runs: list of { name, rows = {A's, B's, ...} }.
local function match(list, axes)
    for _, one in ipairs(list) do
        one.by_name = {}
        for _, row in ipairs(one.rows) do
            local name = row_name(row, axes)
            if one.by_name[name] then -- runs of different experiments
                fault.raise("mismatch", "the rows of %s are told apart by %s, which not all runs "
                    .. "have: nothing can be compared", one.run.dir,
                    table.concat(one.run.info.axes or {}, ", "))
            end
            one.by_name[name] = row
        end
    end
    local matched, alone = {}, 0
    for _, row in ipairs(list[1].rows) do
        local name = row_name(row, axes)
        local entry, everywhere = { name = name, rows = {} }, true
        for k, one in ipairs(list) do
            entry.rows[k] = one.by_name[name]
            everywhere = everywhere and entry.rows[k] ~= nil
        end
        matched[#matched + 1] = everywhere and entry or nil
    end
    for _, one in ipairs(list) do
        alone = alone + #one.rows - #matched
    end
    return matched, alone
end

local function number(value)
    return type(value) == "number" and value or nil
end

-- (b - a) / |a|; nil where one is missing or a is 0.
local function change(a, b)
    return a and b and a ~= 0 and (b - a) / math.abs(a) or nil
end

local function interval(row, name)
    local low, high = bootstrap.fields(name)
    return number(row[low]), number(row[high])
end

-- Whether two rows have intervals of this column that do not meet; nil where one has none.
local function are_apart(one, other, name)
    local low, high = interval(one, name)
    local from, to = interval(other, name)
    if low and high and from and to then
        return from > high or to < low
    end
end

-- Runs that declared other bins sum over other cells, which rounds otherwise: of what the studies
-- derive from sums no more than this share is sure.
local ROUNDING = 1e-8

local function rounded_otherwise(a, b)
    return a and b and math.abs(a - b) <= ROUNDING * math.max(math.abs(a), math.abs(b))
end

-- One column over the matched rows: means of each run, changes of the means, and the largest change
-- of one configuration, with its place. `differs`: whether any configuration does, by more than
-- rounding where not `rounded`. apart: how many of the `held` intervals that were held against A's
-- do not meet it.
local function column_of(name, matched, n_runs)
    local column = { column = name, mean = {}, change = {}, largest = nil, at = nil,
        differs = false, rounded = true, apart = 0, held = 0 }
    for k = 1, n_runs do
        local sum, n = 0, 0
        for _, entry in ipairs(matched) do
            local a, b = number(entry.rows[1][name]), number(entry.rows[k][name])
            if b then
                sum, n = sum + b, n + 1
            end
            local equal = a == b or a ~= a and b ~= b
            column.differs = column.differs or not equal
            column.rounded = column.rounded and (equal or rounded_otherwise(a, b))
            local apart, by = are_apart(entry.rows[1], entry.rows[k], name), k > 1 and change(a, b)
            if k > 1 and apart ~= nil then
                column.held, column.apart = column.held + 1, column.apart + (apart and 1 or 0)
            end
            if by and (not column.largest or math.abs(by) > math.abs(column.largest)) then
                column.largest, column.at = by, entry.name
            end
        end
        column.mean[k] = n > 0 and sum / n or nil
        column.change[k] = change(column.mean[1], column.mean[k])
    end
    return column
end

-- list of { setting, A, B, ... }; all: also those that are the same everywhere.
local function settings_that_differ(list, all)
    local rows, seen = {}, {}
    for _, one in ipairs(list) do
        for name in pairs(one.settings) do
            local row, differs = { setting = name }, false
            for _, other in ipairs(list) do
                local setting = other.settings[name] or { shown = "", same = "" }
                row[other.letter] = setting.shown
                differs = differs or setting.same ~= (list[1].settings[name] or {}).same
            end
            if not seen[name] and (differs or all) then
                rows[#rows + 1] = row
            end
            seen[name] = true
        end
    end
    table.sort(rows, function(a, b)
        return a.setting < b.setting
    end)
    return rows
end

-- dirs -> { runs (each with its letter), settings, columns, ends_differ (of intervals), matched,
-- alone, axes, all, rounding }; all: also what does not differ, and, for a terminal, what differs
-- by rounding.
function M.compare(dirs, out, all)
    if #dirs < 2 or #dirs > 26 then
        fault.raise("usage", "expected the folders of two or more runs, at most 26, not %d", #dirs)
    end
    local list = {}
    for k, dir in ipairs(dirs) do
        list[k] = open(dir, out)
        list[k].letter = string.char(64 + k)
    end
    local axes = common_axes(list)
    local matched, alone = match(list, axes)
    if #matched == 0 then
        fault.raise("mismatch", "no configuration of %s is in all the other runs: nothing can be "
            .. "compared", list[1].run.dir)
    end
    local settings = settings_that_differ(list, all)
    local columns, ends_differ, names = {}, false, list[1].names
    for _, name in ipairs(names) do
        local column = column_of(name, matched, #list)
        local of = bootstrap.field_of(name)
        if of and nearest.is_one_of(of, names) then
            ends_differ = ends_differ or column.differs
        elseif not nearest.is_one_of(name, list[1].run.info.axes or {})
            and (column.differs or all) and column.mean[1] then
            columns[#columns + 1] = column
        end
    end
    return { runs = list, settings = settings, columns = columns, ends_differ = ends_differ,
        matched = matched, alone = alone, axes = axes, all = all, rounding = ROUNDING }
end

-- Where a condition holds: list of { run = "B", name, dir }, for every run but A.
function M.tripped(found, source)
    local holds, columns = condition.parse(source)
    for _, name in ipairs(columns) do
        if not nearest.is_one_of(name, found.runs[1].names) then
            fault.raise("usage", "--fail-if: unknown column '%s'%s", name,
                nearest.hint(name, found.runs[1].names))
        end
    end
    local list = {}
    for k = 2, #found.runs do
        for _, entry in ipairs(found.matched) do
            local tripped = holds(function(name, run)
                local at = run and run:byte() - 64 or k
                if not entry.rows[at] then
                    fault.raise("usage", "--fail-if: there is no run %s", run)
                end
                return number(entry.rows[at][name]) or 0 / 0
            end)
            if tripped then
                list[#list + 1] = { run = found.runs[k].letter, name = entry.name,
                    dir = found.runs[k].run.dir }
            end
        end
    end
    return list
end

-- What M.compare found, for --json and --csv: a row for each column and configuration, with the
-- intervals where there are any.
function M.rows(found)
    local rows = {}
    for _, column in ipairs(found.columns) do
        for _, entry in ipairs(found.matched) do
            local row = { column = column.column, configuration = entry.name }
            for k in ipairs(found.runs) do
                local name = found.runs[k].letter
                local low, high = bootstrap.fields(name)
                local a, b = number(entry.rows[1][column.column]),
                    number(entry.rows[k][column.column])
                row[name] = b
                row[low], row[high] = interval(entry.rows[k], column.column)
                row["change_" .. name] = k > 1 and change(a, b) or nil
            end
            rows[#rows + 1] = row
        end
    end
    local columns = { "column", "configuration" }
    for k, one in ipairs(found.runs) do
        columns[#columns + 1] = one.letter
        columns[#columns + 1], columns[#columns + 2] = bootstrap.fields(one.letter)
        columns[#columns + 1] = k > 1 and "change_" .. one.letter or nil
    end
    return rows, columns
end

return M
