-- Comma separated values for other tools (RFC 4180 quoting, a header of field names, numbers that
-- read back as the same double).
--
--   csv.encode(rows, columns) -> string      columns: list of names, or of { key = name, ... }
--   csv.write(file_or_path, rows, columns)   path "-" is stdout
--   csv.read(path) -> rows, names            fields that look like numbers are numbers
--
-- Lines end with \n alone: awk, cut and diff take RFC 4180's \r as part of the last field.

local fault = require "ghm.fault"
local json = require "ghm.json"
local posix = require "ghm.posix"

local M = {}

local function field(value)
    if value == nil or value == json.null then
        return ""
    elseif type(value) == "number" then
        return json.number(value)
    elseif type(value) == "boolean" then
        return tostring(value)
    elseif type(value) ~= "string" then
        error("csv: no form for a " .. type(value), 0)
    end
    if value:find '[,"\r\n]' then
        return '"' .. value:gsub('"', '""') .. '"'
    end
    return value
end

-- rows: list of tables; columns: the fields to write, in order. Missing fields are empty.
function M.encode(rows, columns)
    local names, lines = {}, {}
    for c, column in ipairs(columns) do
        names[c] = type(column) == "table" and column.key or column
    end
    local function line(value_of)
        local fields = {}
        for c, name in ipairs(names) do
            fields[c] = field(value_of(name))
        end
        -- a lone empty field would be an empty line, which readers skip
        lines[#lines + 1] = (#fields == 1 and fields[1] == "") and '""' or table.concat(fields, ",")
    end
    line(function(name)
        return name
    end)
    for _, row in ipairs(rows) do
        line(function(name)
            return row[name]
        end)
    end
    return table.concat(lines, "\n") .. "\n"
end

-- Writes to an open handle, to stdout ("-") or to a path (whole or not at all). Fault "failed"
-- when the text cannot be written.
function M.write(target, rows, columns)
    local encoded = M.encode(rows, columns)
    if type(target) == "string" and target ~= "-" then
        return posix.write_file(target, encoded)
    end
    local handle = target == "-" and io.stdout or target
    local ok, reason = handle:write(encoded)
    if ok then
        ok, reason = handle:flush()
    end
    if not ok then
        fault.raise("failed", "cannot write the CSV rows: %s", reason)
    end
end

-- What a field holds: nan and inf as M.encode spells them, decimal numbers, else the words.
local special = { nan = 0 / 0, inf = math.huge, ["-inf"] = -math.huge }

local function value_of(word)
    if special[word] then
        return special[word]
    elseif word:find "^[+-]?%.?%d[%d.eE+-]*$" then
        return tonumber(word) or word
    end
    return word
end

local function split_records(all, refuse)
    local records, record, i = {}, {}, 1
    while i <= #all do
        local word, quoted
        if all:sub(i, i) == '"' then
            local parts, at = {}, i + 1
            repeat
                local stop = all:find('"', at, true)
                if not stop then
                    refuse(i, "a quoted field has no end")
                end
                parts[#parts + 1] = all:sub(at, stop - 1)
                at = stop + 1
                local doubled = all:sub(at, at) == '"'
                if doubled then
                    parts[#parts + 1] = '"'
                    at = at + 1
                end
            until not doubled
            word, quoted, i = table.concat(parts), true, at
        else
            word, i = all:match('^([^,\r\n]*)()', i)
        end
        record[#record + 1] = quoted and word or value_of(word)
        local separator, after = all:match("^(,)()", i)
        if not separator then
            separator, after = all:match("^(\r?\n)()", i)
        end
        if not separator and i <= #all then
            refuse(i, "expected ',' or a line end after a field")
        end
        if separator ~= "," then
            if #record > 1 or quoted or word ~= "" then -- an empty line is no record
                records[#records + 1] = record
            end
            record = {}
        elseif after > #all then
            record[#record + 1] = ""
            records[#records + 1] = record
        end
        i = after or #all + 1
    end
    return records
end

-- path -> list of rows keyed by the names of the header, list of those names.
-- Fault "failed" for what cannot be opened, "usage" for a malformed file (line counted from 1).
function M.read(path)
    local all, reason = posix.read_file(path)
    if not all then
        fault.raise("failed", "cannot read %s", reason)
    end
    local function refuse(at, what)
        local _, breaks = all:sub(1, at - 1):gsub("\n", "")
        fault.raise("usage", "%s line %d: %s", path, breaks + 1, what)
    end
    local records = split_records(all:gsub("^\239\187\191", ""), refuse)
    local names = records[1]
    if not names then
        fault.raise("usage", "%s: empty; expected a header of field names", path)
    end
    for c, name in ipairs(names) do
        names[c] = tostring(name)
    end
    local rows = {}
    for r = 2, #records do
        local record, row = records[r], {}
        if #record ~= #names then
            fault.raise("usage", "%s record %d: %d fields; expected %d as in the header", path, r,
                #record, #names)
        end
        for c, name in ipairs(names) do
            row[name] = record[c]
        end
        rows[r - 1] = row
    end
    return rows, names
end

return M
