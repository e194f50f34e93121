-- What ghm.dumps.inspection found in a dump, for people and as JSON.

local array = require "ghm.array"
local batch = require "ghm.batch"
local inspection = require "ghm.dumps.inspection"
local json = require "ghm.json"
local roles = require "ghm.dumps.roles"
local screen = require "ghm.show.screen"
local text = require "ghm.show.text"

local M = {}

local columns = {
    { key = "name", title = "array", tail = text.TAIL },
    { key = "shape", title = "type", format = function(shape, row)
        return row.dtype .. array.shape_text(shape)
    end },
    { key = "roles", title = "used as", format = function(played)
        return #played > 0 and table.concat(played, " ") or "-"
    end },
    { key = "nonfinite", title = "non-finite", format = function(n, row)
        local first = row.first_nonfinite
        return text.number(n) .. (first and ", first at " .. array.shape_text(first) or "")
    end },
    { key = "min", format = "%.5g" }, { key = "max", format = "%.5g" }, { key = "zeros" },
    { key = "stored" },
}

-- "P3: 6144 rows of 10, logits from cls_logits, labels, weight of each row from label_weights"
local function call_text(task, call)
    local words = { ("%s%.0f rows of %.0f"):format(call.level and call.level .. ": " or "",
        call.rows, call.cols) }
    for _, part in ipairs(batch.parts) do
        local name = call.names[part]
        local word = part == "pred" and task == "classification" and "logits"
            or part == "weight" and call.weight_per_row and "weight of each row" or part
        if name then
            words[#words + 1] = name == word and word or word .. " from " .. name
        end
    end
    for _, note in ipairs(call.notes) do
        words[#words + 1] = note
    end
    return table.concat(words, ", ")
end

local function add(lines, title, said)
    for k, line in ipairs(text.wrap(text.one_line(said), screen.width() - 16)) do
        lines[#lines + 1] = text.pad(k == 1 and title or "", 16) .. line
    end
end

-- A table without the columns that a terminal has no room for.
local function listed(rows, shown)
    return (text.table(rows, shown, { spare = true }))
end

-- A table of the arrays, the calls that they make, what is not used and why, warnings.
function M.text(found)
    local lines = { text.one_line(found.path), listed(found.arrays, columns) }
    for _, task in ipairs(inspection.tasks) do
        local loss = found.losses[task]
        for k, call in ipairs(loss.calls or {}) do
            add(lines, k == 1 and task or "", call_text(task, call))
        end
        if loss.problem then
            add(lines, task, "no call: " .. loss.problem)
        end
    end
    local unused = {}
    for _, row in ipairs(found.arrays) do
        unused[#unused + 1] = row.unused and ("%s (%s)"):format(row.name, row.unused)
    end
    if #unused > 0 then
        add(lines, "not used", table.concat(unused, ", "))
    end
    for _, warning in ipairs(found.warnings) do
        add(lines, "warning", warning)
    end
    return table.concat(lines, "\n") .. "\n"
end

local of_calls = {
    { key = "step", tail = text.TAIL },
    { key = "shape", title = "call", format = function(shape, row)
        return row.arrays.pred .. array.shape_text(shape)
    end },
    "samples", "valid", "positive", "nonfinite", "from",
}

-- The same of a sketch file, as ghm.dumps.saved finds it.
function M.sketched(found)
    return table.concat({ text.one_line(found.path), ("sketches of %s, which answer %s"):format(
        found.task, found.answers), listed(found.calls, of_calls) }, "\n")
end

-- The usual names of the roles, for a help text.
function M.usual_names()
    local lines = { "Usual names; the first that is there plays the role:" }
    for _, role in ipairs(roles.roles) do
        for k, line in ipairs(text.wrap(table.concat(roles.usual[role], ", "), 60)) do
            lines[#lines + 1] = "   " .. text.pad(k == 1 and role or "", 12) .. line
        end
    end
    return table.concat(lines, "\n")
end

-- What was found, as json.encode wants it.
function M.json(found)
    local arrays, losses = json.array {}, {}
    for k, row in ipairs(found.arrays) do
        arrays[k] = json.object { { "name", row.name }, { "dtype", row.dtype },
            { "shape", json.array(row.shape) }, { "n", row.n }, { "bytes", row.bytes },
            { "stored", row.stored }, { "min", row.min }, { "max", row.max }, { "mean", row.mean },
            { "zeros", row.zeros }, { "nonfinite", row.nonfinite },
            { "first_nonfinite", row.first_nonfinite and json.array(row.first_nonfinite) },
            { "roles", json.array(row.roles) }, { "unused", row.unused } }
    end
    for _, task in ipairs(inspection.tasks) do
        local loss = found.losses[task]
        local calls = loss.calls and json.array {}
        for k, call in ipairs(loss.calls or {}) do
            calls[k] = { level = call.level, rows = call.rows, cols = call.cols, names = call.names,
                weight_per_row = call.weight_per_row, notes = json.array(call.notes) }
        end
        losses[task] = { calls = calls, problem = loss.problem }
    end
    return json.object { { "path", found.path }, { "format", found.format }, { "arrays", arrays },
        { "losses", losses }, { "warnings", json.array(found.warnings) } }
end

return M
