-- The study of densities: how a stream's gradient norms are spread over unit regions - all of them,
-- by group, by level, by class, by step - how far such spreads lie apart, and whether predicted
-- probabilities are observed shares. Arithmetic on sketches.
--
--   local found = density_study.of(x)     x: as a study gets it; found.parts: see below
--
-- A part is { kind, name, R, G, N }: counts and sums of g of its regions, lists of `bins` numbers,
-- and of hard targets its sketch. kind: all, group, level, class or step, which is their order too.

local columns = require "ghm.columns"
local distances = require "ghm.studies.distances"
local harmonise = require "ghm.harmonise"
local metrics = require "ghm.studies.metrics"
local nearest = require "ghm.nearest"
local sketches = require "ghm.sketches"
local sweep = require "ghm.studies.sweep"

local M = {}

-- The value of --by: "group,level" -> { group = true, level = true }; nil and the reason otherwise.
function M.splits(word)
    local set, known = {}, { "group", "level", "class", "none" }
    for split in word:gmatch "[^,]+" do
        if not nearest.is_one_of(split, known) then
            return nil, ("--by: unknown split '%s'%s"):format(split, nearest.hint(split, known))
        end
        set[split] = true
    end
    return set
end

-- As views of sweep.read: a sketch of every class (column), where there is more than one.
function M.views(batch, call, args)
    if batch.cols > 1 and call.facts.soft == 0 and args.by.class then
        for c, one in columns.each(batch) do
            local name = ("%s %d"):format(batch.task == "regression" and "column" or "class", c)
            local view = call.views[name] or { sketch = call.sketch:like() }
            view.sketch:add(one, { nonfinite = args.nonfinite })
            call.views[name] = view
        end
        for _, view in pairs(call.views) do
            view.facts = view.sketch:facts()
        end
    end
    return {}
end

-- As collect of sweep.read: adds up the classes of all calls in `totals` (at first { calls = 0,
-- classes = {} }), and lets go of the call's own.
function M.collect(call, totals)
    totals.calls = totals.calls + (next(call.views) and 1 or 0)
    for name, view in pairs(call.views) do
        local sum = totals.classes[name]
        totals.classes[name] = sum and sum:merge(view.sketch) or view.sketch
        call.views[name] = nil
    end
end

-- -- parts ---------------------------------------------------------------------------------------

local function lists_of(sketch, x, group)
    local bins, mu = x.args.keys.bins, x.args.keys.mu
    local cut = sketch:cut(bins, mu)
    return harmonise.list(sketches.fold(sketch:counts(group), cut, bins, "int64_t"), bins),
        harmonise.list(sketches.fold(sketch:sums("norm", mu, 0, group), cut, bins, "double"), bins)
end

local function add_lists(part, R, G)
    for j, count in ipairs(R) do
        part.R[j], part.G[j] = (part.R[j] or 0) + count, (part.G[j] or 0) + G[j]
        part.N = part.N + count
    end
end

-- Adds the calls that `name_of` gives a name to parts by that name, in the order in which names
-- appear; their sketches are added too, where all are of hard targets.
local function parts_by(x, kind, name_of, hard)
    local list, by_name = {}, {}
    for i, call in ipairs(x.calls) do
        local name, key = name_of(call, i)
        if name then
            local part = by_name[key or name]
            if not part then
                part = { kind = kind, name = name, R = {}, G = {}, N = 0, order = #list + 1,
                    sketch = hard and call.sketch:like() or nil }
                list[#list + 1], by_name[key or name] = part, part
            end
            add_lists(part, lists_of(call.sketch, x))
            if hard then
                part.sketch:merge(call.sketch)
            end
        end
    end
    return list
end

local function group_parts(x, whole)
    local list = {}
    for _, group in ipairs { "positives", "negatives" } do
        local part = { kind = "group", name = group, R = {}, G = {}, N = 0, of = group }
        add_lists(part, lists_of(whole, x, group))
        list[#list + 1] = part.N > 0 and part or nil
    end
    return list
end

local function class_parts(x, totals)
    local list = {}
    local whole = totals.calls == #x.calls -- a saved sketch may know of no classes
    for name, sketch in pairs(whole and totals.classes or {}) do
        local part = { kind = "class", name = name, R = {}, G = {}, N = 0, sketch = sketch }
        add_lists(part, lists_of(sketch, x))
        list[#list + 1] = part.N > 0 and part or nil
    end
    table.sort(list, function(a, b)
        return tonumber(a.name:match "%d+") < tonumber(b.name:match "%d+")
    end)
    return list
end

-- -- what is told of them ------------------------------------------------------------------------

-- Of a sketch of hard targets, per region of the predicted probability p: { n, predicted (mean p),
-- observed (share of positives) }, and the expected calibration error. A negative's p is its g, a
-- positive's is 1 - g.
function M.calibration(sketch, bins)
    local cut = sketch:cut(bins)
    local function fold(what, group, ctype)
        local values = what == "counts" and sketch:counts(group) or sketch:sums("norm", 0, 0, group)
        return harmonise.list(sketches.fold(values, cut, bins, ctype), bins)
    end
    local negatives = fold("counts", "negatives", "int64_t")
    local positives = fold("counts", "positives", "int64_t")
    local p, g = fold("norm", "negatives", "double"), fold("norm", "positives", "double")
    local regions, error, all = {}, 0, 0
    for j = 1, bins do
        local k = bins + 1 - j
        local n = negatives[j] + positives[k]
        local predicted = p[j] + positives[k] - g[k]
        regions[j] = { n = n, predicted = n > 0 and predicted / n or nil,
            observed = n > 0 and positives[k] / n or nil }
        error, all = error + math.abs(predicted - positives[k]), all + n
    end
    return regions, all > 0 and error / all or nil
end

local kinds = { first_share = "mean", last_share = "mean", mean_g = "mean" }
M.columns = metrics.columns({ "kind", "name", "samples", "n", "first_share", "last_share",
    "mean_g", "distance", "step_distance", "chance", "calibration" }, kinds)

-- A part's entries of the metrics, sums over sums.
local function entries(part)
    local sum = 0
    for j = 1, #part.G do
        sum = sum + part.G[j]
    end
    return { first_share = { part.R[1], part.N, most = 0 },
        last_share = { part.R[#part.R], part.N, most = 0 }, mean_g = { sum, part.N, most = 0 } }
end

local function row_of(part, all)
    local n = 0
    for _, count in ipairs(part.R) do
        n = n + (count > 0 and 1 or 0)
    end
    local name = part.kind == "step" and "step " .. part.name or part.name
    local row = { kind = part.kind, name = name, samples = part.N, n = n }
    if part ~= all then
        row.distance = distances.of(part.R, all.R)
    end
    for key, entry in pairs(entries(part)) do
        row[key] = entry[2] > 0 and entry[1] / entry[2] or nil
    end
    return row
end

-- A dumped step's name without what all share: "step_000500.npz" of several is "500".
local function short_name(name)
    local digits = name:match "(%d+)%D*$"
    return digits and ("%d"):format(digits) or name
end

-- Rows that a table for people shows: of a long stream so many steps, evenly chosen, and of many
-- classes those that lie farthest from all.
local LISTED = 24

local function listed(rows, n_steps)
    local list, first, left_out = {}, #rows - n_steps, {}
    local classes = {}
    for _, row in ipairs(rows) do
        classes[#classes + 1] = row.kind == "class" and row or nil
    end
    table.sort(classes, function(a, b)
        return (a.distance or 0) > (b.distance or 0)
    end)
    for k = LISTED + 1, #classes do
        left_out[classes[k]] = true
    end
    for i, row in ipairs(rows) do
        local k = i - first -- a step is shown where the number of those shown moves on
        local step = row.kind ~= "step" or n_steps <= LISTED or k == 1
            or math.floor((k - 1) * (LISTED - 1) / (n_steps - 1))
            > math.floor((k - 2) * (LISTED - 1) / (n_steps - 1))
        list[#list + 1] = step and not left_out[row] and row or nil
    end
    return list
end

-- The error of each row with positives, and the regions of the first one: all samples.
local function add_calibration(found)
    for _, row in ipairs(found.rows) do
        local sketch = found.part_of[row].sketch
        if sketch and sketch:facts().positive > 0 then
            local regions, error = M.calibration(sketch, found.bins)
            row.calibration = error
            found.calibration = found.calibration or regions
        end
    end
end

local function sum_of(R, S)
    local sum = {}
    for j, count in ipairs(R) do
        sum[j] = count + S[j]
    end
    return sum
end

-- Fills in row.chance of classes and levels -> by kind, those farther from all than by chance, as
-- of distances.beyond, with their rows.
local function far_from_all(found)
    local lists, far = { class = {}, level = {} }, {}
    for k, row in ipairs(found.rows) do
        local list = row.distance and lists[row.kind]
        if list then
            local drawn = distances.drawn(found.part_of[row].R, found.all.R,
                { from_all = true, k = k })
            row.chance = distances.chance(drawn)
            list[#list + 1] = { row = row, distance = row.distance, drawn = drawn }
        end
    end
    for kind, list in pairs(lists) do
        far[kind] = list[1] and distances.beyond(list)
    end
    return far
end

-- Fills in step_distance and chance of the steps' rows -> { n (steps held against the one before),
-- last (row), beyond (those farther from it than by chance, with their rows), halves (the steps'
-- second half held against the first, where it is farther than by chance) }.
function M.drift(found)
    local list, first, second, before = {}, nil, nil, nil
    for k, row in ipairs(found.rows) do
        local part = row.kind == "step" and found.part_of[row]
        row.step_distance = part and before and distances.of(before.R, part.R) or nil
        if row.step_distance then
            local drawn = distances.drawn(part.R, sum_of(before.R, part.R), { k = k })
            row.chance = distances.chance(drawn)
            list[#list + 1] = { row = row, distance = row.step_distance, drawn = drawn }
        end
        before = part
    end
    for k, part in ipairs(found.steps) do
        if k <= #found.steps / 2 then
            first = first and sum_of(first, part.R) or part.R
        else
            second = second and sum_of(second, part.R) or part.R
        end
    end
    local moved = { n = #list, last = list[#list] and list[#list].row, beyond = {} }
    local halves = #list > 1 and distances.of(first, second) -- of two steps they are these again
    if halves then
        list[#list + 1] = { distance = halves,
            drawn = distances.drawn(second, sum_of(first, second)) }
    end
    for _, one in ipairs(distances.beyond(list)) do
        if one.row then
            table.insert(moved.beyond, one)
        else
            moved.halves = one
        end
    end
    return moved
end

-- Everything: { all, groups, levels, classes, steps (lists of parts), rows (M.columns), part_of
-- (row -> part), listed (rows for a person), whole (a sketch of all, nil for soft targets), far (of
-- far_from_all), moved (of M.drift), classes_unknown (true where they were asked of a saved
-- sketch), calibration (regions) }. totals: of M.collect.
function M.of(x, totals)
    local hard, first, calls_of = not sweep.is_soft(x.calls), {}, {}
    for _, call in ipairs(x.calls) do
        calls_of[call.step] = (calls_of[call.step] or 0) + 1
        first[call] = calls_of[call.step]
    end
    local found = { bins = x.args.keys.bins, mu = x.args.keys.mu, task = x.task }
    found.all = parts_by(x, "all", function() return "all samples" end, hard)[1]
    found.whole = found.all.sketch
    found.steps = parts_by(x, "step", function(call)
        return short_name(call.step.name), call.step
    end)
    found.groups = hard and x.task == "classification" and x.args.by.group
        and group_parts(x, found.whole) or {}
    found.levels = x.args.by.level and #x.calls > #found.steps and parts_by(x, "level",
        function(call) return call.level or ("call %d"):format(first[call]) end, hard) or {}
    found.classes = class_parts(x, totals)
    found.classes_unknown = hard and x.args.by.class and totals.calls < #x.calls
        and x.calls[1].step.saved
    found.rows, found.part_of = {}, {}
    for _, list in ipairs { { found.all }, found.groups, found.levels, found.classes,
        #found.steps > 1 and found.steps or {} } do
        for _, part in ipairs(list) do
            local row = row_of(part, found.all)
            found.rows[#found.rows + 1], found.part_of[row] = row, part
        end
    end
    found.listed = listed(found.rows, #found.steps > 1 and #found.steps or 0)
    local by_step = {}
    for k, part in ipairs(found.steps) do
        by_step[k] = entries(part)
    end
    found.far, found.moved = far_from_all(found), M.drift(found)
    metrics.fill({ found.rows[1] }, { by_step }, kinds)
    if hard and x.task == "classification" then
        add_calibration(found)
    end
    return found
end

return M
