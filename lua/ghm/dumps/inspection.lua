-- Inspection of a dump: is it sound, what is in it, which of its arrays make the calls of a loss.

local array = require "ghm.array"
local batch = require "ghm.batch"
local clib = require "ghm.clib"
local dump = require "ghm.dumps.dump"
local fault = require "ghm.fault"
local probabilities = require "ghm.probabilities"
local roles = require "ghm.dumps.roles"
local warnings = require "ghm.studies.warnings"

local M = {}

M.tasks = { "classification", "regression" }

local PIECE = 2 ^ 20 -- elements that are looked at at once

-- The finite range, zeros and non-finite elements of an array, a piece in memory at a time: what
-- array:summary gives, but first_nonfinite as one index for each axis.
local function summary(file, entry)
    local found = { zeros = 0, nonfinite = 0 }
    local next_piece, at, finite, sum = entry.pieces(), 0, 0, 0
    repeat
        local count = math.min(PIECE, entry.n - at)
        local piece = next_piece(count) -- of none at last, which lets go
        local some = piece:summary()
        piece:free()
        if some.min then
            found.min = math.min(found.min or some.min, some.min)
            found.max = math.max(found.max or some.max, some.max)
            finite = finite + count - some.nonfinite
            sum = sum + some.mean * (count - some.nonfinite)
        end
        if some.first_nonfinite and not found.first_nonfinite then
            found.first_nonfinite = array.place(entry.shape, at + some.first_nonfinite)
        end
        found.zeros, found.nonfinite = found.zeros + some.zeros, found.nonfinite + some.nonfinite
        at = at + count
        if clib.interrupted() then
            fault.raise("interrupted", "stopped at %s, array '%s'", file.path, entry.name)
        end
    until count == 0
    found.mean = finite > 0 and sum / finite or nil
    return found
end

-- The calls of a task that the dump makes without further options -> list of { level, rows, cols,
-- names (part -> array), weight_per_row, notes }; or nil and why there is none.
local function calls_of(file, task)
    local calls = {}
    local ok, problem = pcall(function()
        for k, names in ipairs(roles.calls(file, task, { {} })) do
            local entries = roles.entries(file, names)
            local layout = batch.layout(task, entries)
            local call = { level = names.level, rows = layout.rows, cols = layout.cols, names = {},
                weight_per_row = layout.weight_per_row, notes = layout.notes }
            for part, entry in pairs(entries) do
                call.names[part] = entry.name
            end
            calls[k] = call
        end
    end)
    if ok then
        return calls
    elseif not fault.is(problem) then
        error(problem, 0)
    end
    return nil, fault.reason(problem, file.path)
end

-- What the array does in the calls -> the roles it plays; or, playing none, an empty list and why.
local function uses_of(name, losses)
    local played, reason = {}, nil
    for _, may in ipairs(roles.of(name)) do
        for _, call in ipairs(losses[may.task].calls or {}) do
            local other = call.names[may.part]
                or (may.part == "labels" and call.names.target)
            if call.names[may.part] == name and played[#played] ~= may.role then
                played[#played + 1] = may.role
            end
            reason = reason or other and other ~= name and ("as %s, %s goes first"):format(
                may.role, other)
        end
        reason = reason or not losses[may.task].calls and "see " .. may.task
    end
    return played, #played == 0 and (reason or "no usual name") or nil
end

-- Of a call's rows that count: how many, and how many have a class if labels are zero_based.
local function labelled_rows(call, labels, weight)
    local next_label, next_weight = labels.pieces(), weight and weight.pieces()
    local rows, positive, at = 0, 0, 0
    repeat
        local count = math.min(PIECE, labels.n - at)
        local piece, mask = next_label(count), next_weight and next_weight(count)
        local label, valid = piece:convert "i8", mask and mask:convert "f4"
        for i = 0, count - 1 do
            if not valid or valid.ptr[i] > 0 then
                rows = rows + 1
                positive = positive + (label.ptr[i] >= 0 and label.ptr[i] < call.cols and 1 or 0)
            end
        end
        for _, used in ipairs { piece, label, mask, valid } do
            used:free()
        end
        at = at + count
    until count == 0
    return rows, positive
end

-- Whether the background of a dump's calls seems to be taken for a class -> a line, or nil.
local function labels_warning(file, calls)
    local rows, positive, name = 0, 0, nil
    for _, call in ipairs(calls or {}) do
        local labels, weight = call.names.labels, call.names.weight
        if not labels then
            return nil
        end
        name = name or labels
        local of_call, with_class = labelled_rows(call, file.entries[labels],
            call.weight_per_row and file.entries[weight] or nil)
        rows, positive = rows + of_call, positive + with_class
    end
    local warning = warnings.crowded(positive, rows, name)
    return warning and warning.text
end

-- What the reader warned of, and the arrays that it does not read.
local function warnings_of(file)
    local lines = { unpack(file.warnings) }
    for _, unread in ipairs(file.unread or {}) do
        lines[#lines + 1] = ("array '%s': %s"):format(unread.name, unread.reason)
    end
    return lines
end

-- Reads a whole dump, every CRC checked, one piece of one array at a time -> { path, format,
-- warnings (lines),
--   arrays = list of { name, dtype, shape, n, bytes, stored, min, max, mean, zeros, nonfinite,
--     first_nonfinite, roles (list), unused (why it plays none, or nil) },
--   losses = { classification = { calls } or { problem }, regression = ... }, see calls_of }.
-- Faults "dump", "interrupted".
function M.inspect(path)
    clib.check(clib.C.ghm_interrupt_catch())
    local file = dump.open(path, { check_crc = true })
    local found = { path = path, format = file.format, warnings = warnings_of(file), arrays = {},
        losses = {} }
    for _, task in ipairs(M.tasks) do
        local calls, problem = calls_of(file, task)
        found.losses[task] = { calls = calls, problem = problem }
    end
    for k, name in ipairs(file.names) do
        local entry = file.entries[name]
        local row = summary(file, entry)
        for _, key in ipairs { "name", "dtype", "shape", "n", "bytes", "stored" } do
            row[key] = entry[key]
        end
        row.roles, row.unused = uses_of(name, found.losses)
        found.arrays[k] = row
        if row.roles[1] == "logits" and row.min and probabilities.in_range(row.min, row.max) then
            table.insert(found.warnings, ("array '%s': %s"):format(name, probabilities.said))
        end
    end
    table.insert(found.warnings, labels_warning(file, found.losses.classification.calls))
    file:close()
    return found
end

return M
