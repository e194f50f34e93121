-- Metrics of a table's rows, from what each step of the stream adds to them, with intervals by
-- resampling.
--
--   metrics.fill(rows, parts, { loss = "mean", beta_largest = "most", ahead = "root" })
--
-- parts[i][step] is what a step adds to row i, built by metrics.add; a step that says nothing of a
-- metric has no entry for it.

local bootstrap = require "ghm.studies.bootstrap"
local ffi = require "ffi"

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

-- The sums and counts of a metric by step, from 1, side by side in memory: resamplings look them up
-- hundreds of times, and of thousands of steps the entries do not stay in the CPU's caches.
local gathered = setmetatable({}, { __mode = "k" })

local function gather(part, key)
    local all = gathered[part] or {}
    if not all[key] then
        local sums, counts = ffi.new("double[?]", #part + 1), ffi.new("double[?]", #part + 1)
        for step, entries in ipairs(part) do
            local entry = entries[key]
            if entry then
                sums[step], counts[step] = entry[1], entry[2]
            end
        end
        all[key], gathered[part] = { sums, counts }, all
    end
    return all[key][1], all[key][2]
end

local function most_of(part, key, steps)
    local most
    for i = 1, steps and #steps or #part do
        local entry = part[steps and steps[i] or i][key]
        most = entry and math.max(most or entry.most, entry.most) or most
    end
    return most
end

-- A metric of these steps (a list of numbers; all of them where nil): nil where none has it. From
-- then on nothing may be added to the part.
--   mean   of the values      root   of the mean of squares, the values being squares
--   most   the largest value
function M.of(part, key, kind, steps)
    if kind == "most" then
        return most_of(part, key, steps)
    end
    local sums, counts = gather(part, key)
    local sum, count = 0, 0
    for i = 1, steps and #steps or #part do
        local step = steps and steps[i] or i
        sum, count = sum + sums[step], count + counts[step]
    end
    if count > 0 then
        return kind == "root" and math.sqrt(math.max(sum, 0) / count) or sum / count
    end
end

M.ANEW = 100 -- draws of samples, each of which is a study of its own

-- What other data would have added to the rows: a list of { parts, steps }, of resampled steps; for
-- a single step of anew(draw), the parts of samples that are drawn anew. opts.seed.
function M.resamplings(parts, anew, opts)
    local list, n = {}, #parts[1]
    if n > 1 then
        for _, steps in bootstrap.draws(n, opts) do
            list[#list + 1] = { parts = parts, steps = steps }
        end
    elseif anew then
        for draw = 0, M.ANEW - 1 do
            list[#list + 1] = { parts = anew(draw) }
        end
    end
    return list
end

-- How many steps tell of a metric, where steps are resampled: n of bootstrap.middle.
function M.telling(part, key, resamplings)
    if not resamplings[1] or not resamplings[1].steps then
        return nil
    end
    local n = 0
    for _, step in ipairs(part) do
        n = n + (step[key] and 1 or 0)
    end
    return n
end

-- Sets row[key], row[key_low] and row[key_high] for every row and metric; the last two only where
-- there are resamplings: opts.resamplings, or those of the steps by opts.seed. The largest value of
-- several steps has no interval: resampled steps never have a larger one, but other steps may.
function M.fill(rows, parts, kinds, opts)
    local resamplings = opts and opts.resamplings or M.resamplings(parts, nil, opts)
    for i, row in ipairs(rows) do
        for key, kind in pairs(kinds) do
            local values, n = {}, M.telling(parts[i], key, resamplings)
            row[key] = M.of(parts[i], key, kind)
            for _, drawn in ipairs(n and kind == "most" and {} or resamplings) do
                values[#values + 1] = M.of(drawn.parts[i], key, kind, drawn.steps)
            end
            local low, high = bootstrap.fields(key)
            row[low], row[high] = bootstrap.middle(values, n)
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
            columns[#columns + 1], columns[#columns + 2] = bootstrap.fields(key)
        end
    end
    return columns
end

return M
