-- The report of one run: what ghm.show.report needs, gathered from the run folder and the study.

local bootstrap = require "ghm.studies.bootstrap"
local called = require "ghm.called"
local narrow = require "ghm.show.narrow"
local nearest = require "ghm.nearest"
local posix = require "ghm.posix"
local report = require "ghm.show.report"
local text = require "ghm.show.text"

local M = {}

local function sorted_keys(t)
    local keys = {}
    for key in pairs(t) do
        keys[#keys + 1] = key
    end
    table.sort(keys, function(a, b)
        if type(a) == "number" and type(b) == "number" then
            return a < b
        end
        return tostring(a) < tostring(b)
    end)
    return keys
end

-- Plain values of a nested table as { "library build", value }, sorted by name.
local function flat(t, prefix, out)
    for _, key in ipairs(sorted_keys(t)) do
        local value, name = t[key], prefix .. tostring(key)
        if type(value) == "table" then
            flat(value, name .. " ", out)
        else
            out[#out + 1] = { name, value }
        end
    end
    return out
end

-- The values of a list or table in a line: "6144, 10"; "labels: labels, pred: cls_logits".
local function one_line(value)
    local words = {}
    for _, entry in ipairs(flat(value, "", {})) do
        words[#words + 1] = value[1] ~= nil and tostring(entry[2])
            or ("%s: %s"):format(entry[1], tostring(entry[2]))
    end
    return table.concat(words, ", ")
end

-- The fields of provenance.json's dumps in the order of the table. One that is not here comes last.
local titles = { "path", "shape", "samples", "valid", "positive", "nonfinite", "soft", "arrays",
    "converted", "sha256" }

-- What the calls of a file say together: numbers are added up, of other things each stands once.
local function together(calls, key)
    local sum, words, known = nil, {}, {}
    for _, call in ipairs(calls) do
        local value = call[key]
        if type(value) == "number" then
            sum = (sum or 0) + value
        elseif value then
            local word = type(value) == "table" and one_line(value) or tostring(value)
            words[#words + 1] = word ~= "" and not known[word] and word or nil
            known[word] = true
        end
    end
    return sum or words[1] and table.concat(words, "; ") or nil
end

-- A row for each file.
local function dump_table(dumps)
    local rows, columns, known = {}, {}, {}
    for _, key in ipairs(titles) do
        columns[#columns + 1], known[key] = { key = key }, true
    end
    for k, dump in ipairs(dumps or {}) do
        rows[k] = {}
        for _, calls in ipairs { { dump }, dump.calls or {} } do
            local keys = {}
            for _, call in ipairs(calls) do
                for key in pairs(call) do
                    keys[key] = key ~= "calls" or nil
                end
            end
            for _, key in ipairs(sorted_keys(keys)) do
                rows[k][key] = together(calls, key)
                if not known[key] and rows[k][key] then
                    columns[#columns + 1], known[key] = { key = key }, true
                end
            end
        end
    end
    return { rows = rows, columns = columns }
end

-- What the terminal shows, then the other columns of results.csv, then the rest of what the
-- configurations were made with; the ends of intervals, two for each metric, are left to the file.
-- Paper has room for what the terminal shows and the axes alone.
local function columns_of(run, found)
    local columns, known = {}, {}
    for _, key in ipairs(found.unreported or {}) do
        known[key] = true
    end
    for _, list in ipairs { found.shown or {}, found.columns,
        sorted_keys((run.info.configurations or {})[1] or {}) } do
        for _, column in ipairs(list) do
            local key = type(column) == "table" and column.key or column
            local of = bootstrap.field_of(key)
            if not known[key] and not (of and known[of]) then
                columns[#columns + 1], known[key] = list == found.shown and column
                    or { key = key, spare = not nearest.is_one_of(key, run.info.axes or {}) }, true
            end
        end
    end
    return columns
end

-- The words that make the whole run at once, where these made one shard of it.
local function whole(words)
    local kept, shard = {}, false
    for _, word in ipairs(words) do
        if not shard and word ~= "--shard" and not word:find "^%-%-shard=" then
            kept[#kept + 1] = word
        end
        shard = word == "--shard"
    end
    return kept
end

-- Writes report.html into the run folder. found: what the study returned; facts: of
-- provenance.json; about: { question, note (what the columns mean), summary (lines of what was
-- read), figures (those of found that were to be drawn), complaint (why one is not) }.
function M.write(run, found, facts, about)
    local figures = {}
    for k, entry in ipairs(about.figures) do
        local drawn = posix.read_file(run:path("plots/" .. entry.name .. ".svg"))
        figures[k] = { title = entry.figure.title or entry.name, svg = drawn,
            narrow = drawn and narrow.svg(run:path("plots/" .. entry.name .. ".narrow"),
            entry.figure),
            problem = not drawn and about.complaint or nil }
    end
    local warnings, scalars = {}, {}
    for _, failed in ipairs(facts.failed or {}) do
        warnings[#warnings + 1] = { name = "left_out", text = "left out: " .. failed.reason }
    end
    for _, warning in ipairs(found.warnings or {}) do
        warnings[#warnings + 1] = warning
    end
    for key, value in pairs(facts) do
        scalars[key] = key ~= "dumps" and key ~= "failed" and value or nil
    end
    local summary = {}
    for line in about.summary:gmatch "[^\n]+" do
        summary[#summary + 1] = text.one_line(line):gsub("  +", " · ")
    end
    run:write("report.html", report.html {
        name = run.info.name or run.info.experiment,
        created = run.info.created:gsub("[TZ]", { T = " ", Z = " UTC" }),
        question = about.question, summary = summary, lines = found.lines,
        warnings = warnings, recommendations = found.recommendations,
        tables = { { title = "Results", rows = found.rows, columns = columns_of(run, found),
            mark = found.mark, note = about.note } },
        figures = figures,
        command = { "cd " .. posix.word(posix.real_path "."),
            called.command(whole(run.info.argv)) },
        provenance = flat(scalars, "", {}), dumps = dump_table(facts.dumps) })
end

return M
