-- Roles: which arrays of a dump make the calls of a loss, and what each is in its call.
--
-- A step is one call, or one for each level of a feature pyramid. An array belongs to level P3 when
-- its name is a usual one with P3 before or behind it, joined by one of _ . / - and colon:
-- P3_logits, target.P3, P3/label_weights. What a level lacks it shares with the others: an array
-- of the usual name alone; logits are never shared. Where nobody names the levels and the file
-- has no logits without one, the levels are what stands before or behind them, in natural order,
-- when it is letters and a number: P3, level0, 4.

local batch = require "ghm.batch"
local fault = require "ghm.fault"
local natural = require "ghm.dumps.natural"
local nearest = require "ghm.nearest"

local M = {}

-- The usual names of each role's array, tried in this order.
M.usual = {
    logits = { "logits", "cls_logits", "cls_score", "cls_scores", "pred_logits", "pred" },
    target = { "target", "targets", "cls_target", "cls_targets" },
    labels = { "labels", "gt_labels", "label" },
    weight = { "label_weights", "label_weight", "weight", "weights" },
    box_pred = { "bbox_pred", "bbox_preds", "box_pred", "pred" },
    box_target = { "bbox_target", "bbox_targets", "box_target", "target" },
    box_weight = { "bbox_weights", "bbox_weight", "box_weight", "label_weights", "label_weight",
        "weight", "weights" },
}
M.roles = { "logits", "target", "labels", "weight", "box_pred", "box_target", "box_weight" }

-- The role that each part of a call has.
local parts = {
    classification = { pred = "logits", target = "target", labels = "labels", weight = "weight" },
    regression = { pred = "box_pred", target = "box_target", weight = "box_weight" },
}

local joints = { "_", ".", "/", "-", ":" }

-- entries: keyed by the names of arrays
local function with_level(entries, name, level)
    for _, joint in ipairs(joints) do
        for _, joined in ipairs { level .. joint .. name, name .. joint .. level } do
            if entries[joined] then
                return joined
            end
        end
    end
    return nil
end

local function refuse(file, reason, ...)
    fault.raise("dump", "%s", ((file.path .. ": " .. reason):format(...):gsub("%c", "?")))
end

local LISTED = 16 -- names in a line; a checkpoint has hundreds, which inspect lists

-- "a, b, c and 5 more"
local function listed(names)
    local more = #names - LISTED
    return table.concat(names, ", ", 1, math.min(#names, LISTED))
        .. (more > 0 and (" and %d more"):format(more) or "")
end

-- "logits, target; not read: names (dtype '<U5' is not read, ...)"
local function contents(file)
    local unread = {}
    for k, array in ipairs(file.unread or {}) do
        unread[k] = ("%s (%s)"):format(array.name, array.reason)
    end
    return listed(file.names) .. (#unread > 0 and "; not read: " .. listed(unread) or "")
end

-- Refuses a name that the user gave and that is no array of the open dump, or of a level in it.
function M.no_array(file, name, level)
    local near = nearest.find(name, file.names)
    refuse(file, "no array '%s'%s%s; it holds %s", name, level and " of level " .. level or "",
        near and (", did you mean '%s'?"):format(near) or "", contents(file))
end

-- The name of the array that plays a role (a key of M.usual): `wanted`, the user's own choice, or
-- else the first usual name that is there; nil when there is none. level: of its arrays only.
-- file: an open dump. Fault "dump" when `wanted` is not in the file.
function M.find(file, role, wanted, level)
    for _, name in ipairs(wanted and { wanted } or assert(M.usual[role], "unknown role")) do
        local found = level and with_level(file.entries, name, level)
            or not level and file.entries[name] and name
        if found then
            return found
        end
    end
    return wanted and not level and M.no_array(file, wanted) or nil
end

-- What stands before or behind a usual name in an array's, where it looks like a level, else nil.
local function level_in(name, usual)
    local rest = #name > #usual and (name:sub(-#usual) == usual and name:sub(1, -#usual - 1)
        or name:sub(1, #usual) == usual and name:sub(#usual + 1))
    return rest and (rest:match "^(%a*%d+)[_./:-]$" or rest:match "^[_./:-](%a*%d+)$") or nil
end

-- The levels of a role's arrays: a list in natural order.
local function levels_of(file, role)
    local levels = {}
    for _, name in ipairs(file.names) do
        for _, usual in ipairs(M.usual[role]) do
            local level = level_in(name, usual)
            if level and with_level(file.entries, usual, level) == name and not levels[level] then
                levels[level] = true
                levels[#levels + 1] = level
            end
        end
    end
    table.sort(levels, natural)
    return levels
end

-- The array that would play a role before `found` (a name, or nil for none) but is of a type that
-- is not read -> its name and the reason, or nil.
local function unread_before(file, role, level, found)
    local reasons = {}
    for _, array in ipairs(file.unread or {}) do
        reasons[array.name] = array.reason
    end
    for _, usual in ipairs(M.usual[role]) do
        local name = level and with_level(reasons, usual, level) or not level and usual
        if found and found == (level and with_level(file.entries, usual, level) or usual) then
            return nil
        elseif reasons[name] then
            return name, reasons[name]
        end
    end
end

-- The arrays of one call -> { pred, target or labels, weight, level }. A dense target is preferred
-- to labels unless labels were asked for.
local function call_of(file, task, wanted)
    local level = wanted.level
    local passed_over
    local function find(part, of)
        local role = parts[task][part]
        local found = role and M.find(file, role, wanted[part], of)
        if role and not wanted[part] and not passed_over then
            local name, reason = unread_before(file, role, of, found)
            passed_over = name and { part == "pred" and role == "logits" and "logits" or part,
                name, reason }
        end
        return found
    end
    local function targets(of)
        local target = not wanted.labels and find("target", of) or nil
        return target, not target and not wanted.target and find("labels", of) or nil
    end
    local names = { level = level, pred = find("pred", level),
        weight = find("weight", level) or level and find "weight" }
    names.target, names.labels = targets(level)
    if level and not names.target and not names.labels then
        names.target, names.labels = targets()
    end
    if level and wanted.pred and not names.pred then
        M.no_array(file, wanted.pred, level)
    elseif not names.pred or not (names.target or names.labels) then
        local boxes, of = task == "regression", level and " of level " .. level or ""
        local missing = not names.pred and (boxes and "predictions" or "logits")
            or (boxes and "targets" or "targets or labels")
        local instead = not boxes and M.find(file, "box_pred", nil, level)
            and M.find(file, "box_target", nil, level) and ", or take its boxes, --loss ghmr" or ""
        local levels = level and not names.pred and levels_of(file, parts[task].pred) or {}
        if #levels > 0 and instead == "" then
            refuse(file, "no array looks like %s%s; it has those of %s", missing, of,
                table.concat(levels, ", "))
        end
        refuse(file, "no array looks like %s%s; it holds %s: name one with --%s%s", missing, of,
            contents(file), not names.pred and (boxes and "pred" or "logits") or "target", instead)
    elseif passed_over then -- weights that are not read are not as good as none
        refuse(file, "array '%s' is there, but %s: save it again, or name another with --%s",
            passed_over[2], passed_over[3], passed_over[1])
    end
    return names
end

-- The roles that an array of this name may play, alone or as one of a level: list of { task, part,
-- role }.
function M.of(name)
    local found = {}
    for _, task in ipairs { "classification", "regression" } do
        for _, part in ipairs(batch.parts) do
            local role, fits = parts[task][part], false
            for _, usual in ipairs(M.usual[role] or {}) do
                fits = fits or name == usual or level_in(name, usual) ~= nil
            end
            found[#found + 1] = fits and { task = task, part = part, role = role } or nil
        end
    end
    return found
end

-- The calls of the loss that an open dump holds, in order: list of { pred, target or labels,
-- weight (nil: none), level (nil: none) }, names of its arrays.
--   wanted   what the user chose, one entry for each call: { pred, target, labels, weight, level }
-- Fault "dump" when an array is missing.
function M.calls(file, task, wanted)
    local only = wanted[1]
    if #wanted == 1 and not only.level and not only.pred
        and not M.find(file, parts[task].pred) then
        local found = {}
        for k, level in ipairs(levels_of(file, parts[task].pred)) do
            found[k] = setmetatable({ level = level }, { __index = only })
        end
        wanted = #found > 0 and found or wanted
    end
    local calls = {}
    for k, choice in ipairs(wanted) do
        calls[k] = call_of(file, task, choice)
    end
    return calls
end

-- The entries of a call's arrays in the open dump, by their parts.
function M.entries(file, names)
    local entries = {}
    for _, part in ipairs(batch.parts) do
        entries[part] = names[part] and file.entries[names[part]]
    end
    return entries
end

return M
