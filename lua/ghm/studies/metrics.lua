-- Metrics of a table's rows, from what each step of the stream adds to them, with intervals by
-- resampling the steps.
--
--   metrics.fill(rows, parts, { loss = "mean", beta_largest = "most", ahead = "root" })
--
-- parts[i][step] is what a step adds to row i, built by metrics.add; a step that says nothing of a
-- metric has no entry for it.

local bootstrap = require "ghm.studies.bootstrap"

local M = {}

-- One value more for a step's metric.
function M.add(part, key, value)
    local entry = part[key]
    if not entry then
        part[key] = { value, 1, most = value }
    else
        entry[1], entry[2] = entry[1] + value, entry[2] + 1
        entry.most = math.max(entry.most, value)
    end
end

-- A metric of these steps (a list of numbers; all of them where nil): nil where none has it.
--   mean   of the values      root   of the mean of squares, the values being squares
--   most   the largest value
function M.of(part, key, kind, steps)
    local sum, count, most = 0, 0, nil
    for i = 1, steps and #steps or #part do
        local entry = part[steps and steps[i] or i][key]
        if entry then
            sum, count = sum + entry[1], count + entry[2]
            most = math.max(most or entry.most, entry.most)
        end
    end
    if kind == "most" then
        return most
    elseif count > 0 then
        return kind == "root" and math.sqrt(sum / count) or sum / count
    end
end

-- Sets row[key], row[key_low] and row[key_high] for every row and metric; the last two only where
-- there are steps to resample.
function M.fill(rows, parts, kinds, opts)
    for i, row in ipairs(rows) do
        for key, kind in pairs(kinds) do
            row[key] = M.of(parts[i], key, kind)
        end
    end
    local n = #parts[1]
    if n < 2 then
        return
    end
    local drawn = {}
    for i in ipairs(rows) do
        drawn[i] = {}
        for key in pairs(kinds) do
            drawn[i][key] = {}
        end
    end
    for _, steps in bootstrap.draws(n, opts) do
        for i, lists in ipairs(drawn) do
            for key, list in pairs(lists) do
                list[#list + 1] = M.of(parts[i], key, kinds[key], steps)
            end
        end
    end
    for i, row in ipairs(rows) do
        for key in pairs(kinds) do
            row[key .. "_low"], row[key .. "_high"] = bootstrap.middle(drawn[i][key])
        end
    end
end

-- One end ("low" or "high") of a row's intervals as a row of its own for a table, with a label.
function M.ends(row, kinds, which, label_key, label)
    local ends = { [label_key] = label }
    for key in pairs(kinds) do
        ends[key] = row[key .. "_" .. which]
    end
    return ends
end

-- The columns of results.csv for a list of keys: each metric's interval stands behind it.
function M.columns(keys, kinds)
    local columns = {}
    for _, key in ipairs(keys) do
        columns[#columns + 1] = key
        if kinds[key] then
            columns[#columns + 1], columns[#columns + 2] = key .. "_low", key .. "_high"
        end
    end
    return columns
end

return M
