-- What compare_losses puts side by side: the logits of a dump, their rows under softmax where every
-- row has one class, and its boxes. And what it says of them.

local bootstrap = require "ghm.studies.bootstrap"
local callings = require "ghm.studies.calls"
local curves = require "ghm.studies.curves"
local fault = require "ghm.fault"
local losses_study = require "ghm.studies.losses_study"
local posix = require "ghm.posix"
local softmax = require "ghm.softmax"
local sources = require "ghm.dumps.source"
local sweep = require "ghm.studies.sweep"
local text = require "ghm.show.text"
local warnings = require "ghm.studies.warnings"

local M = {}

-- As of sweep.read: the margins of the rows' own classes, where every valid row has one.
function M.views(batch, call)
    local facts = call.facts
    if batch.task == "regression" or batch.cols < 2 or facts.positive * batch.cols ~= facts.valid
        or facts.positive == 0 then
        return {}
    end
    -- one positive for each valid row may still not be one in each: then there is no such view
    local ok, margins = pcall(softmax.margins, batch, "true_class")
    if not ok and not fault.is(margins) then
        error(margins, 0)
    end
    return ok and { { name = "softmax", batch = margins, optional = true } } or {}
end

local function part_of(x, what, prefix, task, calls, list)
    local keys = x.args.keys
    local rows, details = losses_study.rows(calls, list)
    return { what = what, prefix = prefix, task = task, calls = calls, rows = rows,
        details = details, eps = losses_study.window(keys),
        mu = task == "regression" and keys.mu or nil }
end

-- What call() returns; nil and the fault where it refuses a dump.
local function unless_refused(call)
    local ok, result = pcall(call)
    if ok then
        return result
    elseif fault.is(result) and result.kind == "dump" then
        return nil, result
    end
    error(result, 0)
end

-- The calls of the boxes that lie beside the logits; nil where there are none, and where they
-- cannot be used. What is refused is told and put into x.failed. Beside sketches there are none.
local function boxes_beside(x)
    local dump = x.dump
    local args = { keys = x.args.keys, given = {}, seed = dump.seed, dumps = dump.dumps,
        default_dump = dump.default_dump, inputs = dump.inputs, fail_fast = dump.fail_fast }
    local source = unless_refused(function() return sources.open(args, "regression") end)
    if not source or source.saved then
        return nil
    end
    local there = unless_refused(source.steps[1].load)
    source.steps[1].close()
    local path = source.steps[1].path
    if not there and path and not posix.real_path(path) then -- as a run that goes on may find it
        fault.raise("dump", "%s is gone: boxes beside its logits are read from it", path)
    elseif not there or path and there[1].names.pred == x.calls[1].names.pred then
        return nil -- an array of logits is none of boxes, though its name, "pred", may be both
    end
    local edges = losses_study.edges("regression", x.args.keys)
    local calls, refusal = unless_refused(function()
        return sweep.read(source, { bins = edges.bins, mu = edges.mu, knots = edges.knots,
            nonfinite = x.args.nonfinite, tell = x.tell })
    end)
    if refusal and dump.fail_fast then
        error(refusal, 0)
    elseif refusal then
        x.tell("boxes are left out: " .. refusal.message, refusal)
    end
    local refused = source.failed -- not the only step, nor steps without a valid sample
    if refusal and #refused == 0 then
        refused = { { step = table.concat(source.words, ", "), reason = refusal.message } }
    end
    for _, one in ipairs(refused) do
        table.insert(x.failed, { step = one.step, reason = "boxes: " .. one.reason })
    end
    return calls
end

-- x: as a study gets it. A list of { what (in words), prefix (of figures' names), task, calls,
-- rows, details (of losses_study.rows), eps, mu }.
function M.of(x)
    local keys = x.args.keys
    if x.task == "regression" then
        return { part_of(x, "boxes", "", x.task, x.calls, losses_study.list(x.task, keys)) }
    end
    local parts = { part_of(x, "logits", "", x.task, x.calls, losses_study.list(x.task, keys)) }
    local rows = {}
    for _, call in ipairs(x.calls) do
        local view = call.views and call.views.softmax
        rows[#rows + 1] = view and { step = call.step, sketch = view.sketch, facts = view.facts }
    end
    if #rows == #x.calls then
        parts[#parts + 1] = part_of(x, "softmax rows", "softmax_", x.task, rows,
            losses_study.softmax_list(keys))
    end
    local boxes = x.args.loss == "both" and boxes_beside(x)
    if boxes then
        parts[#parts + 1] = part_of(x, "boxes", "boxes_", "regression", boxes,
            losses_study.list("regression", keys))
    end
    return parts
end

-- What to know before GHM is trained on a part, for its first configuration.
function M.warnings(parts)
    local found = {}
    for _, part in ipairs(parts) do
        for _, row in ipairs(part.rows) do
            local config = part.details[row].loss.config
            if config then
                local steps = callings.regions(part.calls, config.bins, config.mu)
                for _, one in ipairs(warnings.of(callings.trace(part.task, config, steps))) do
                    found[#found + 1] = { name = one.name,
                        text = #parts > 1 and part.what .. ", " .. one.text or one.text }
                end
                break
            end
        end
    end
    return found
end

local TOLD = 5 -- losses that one sentence tells of; the table has all

-- Where the part's losses take their gradient from, in one sentence.
local function shares_line(part)
    local rows, words, differ = {}, {}, false
    local function shares_of(row, what)
        return ("%s and %s%s"):format(text.percent(row.easy_share), text.percent(row.outlier_share),
            what)
    end
    for _, row in ipairs(part.rows) do
        rows[#rows + 1] = row.easy_share and not row.eps and row or nil
    end
    for i, row in ipairs(curves.some(rows, TOLD)) do
        differ = differ or shares_of(row, "") ~= shares_of(rows[1], "")
        words[i] = shares_of(row, i == 1 and " of the gradient" or "") .. " with " .. row.loss
    end
    words = (differ or #words < 2) and words
        or { shares_of(rows[1], " of the gradient with each loss") }
    return ("%s: easy samples (g < 0.1) and outliers (g >= 0.9) give %s."):format(
        part.what:gsub("^%l", string.upper), table.concat(words, "; "))
end

-- The loss that spreads its gradient most evenly over g.
local function flattest_line(parts)
    local words, narrow = {}, {}
    for _, part in ipairs(parts) do
        local best -- none, where no loss has more than one region of g to spread it over
        for _, row in ipairs(part.rows) do
            best = (not best or row.entropy > best.entropy) and row or best
        end
        local plain = part.rows[1]
        local own, its = ("%.2f"):format(best.entropy), ("%.2f"):format(plain.entropy)
        if tonumber(own) == 0 then
            narrow[#narrow + 1] = part.what
        else
            words[#words + 1] = ("of %s %s (entropy %s%s)"):format(part.what, best.loss, own,
                best == plain and "" or own == its and ", as of " .. plain.loss
                or ("; %s: %s"):format(plain.loss, its))
        end
    end
    local lines = {}
    lines[1] = #words > 0 and "The most even over g: " .. table.concat(words, "; ") .. "." or nil
    lines[#lines + 1] = #narrow > 0 and ("All gradient of %s comes from one narrow range of g, "
        .. "with each loss: there is nothing to even out."):format(table.concat(narrow, " and "))
        or nil
    return table.concat(lines, " ")
end

-- The answer: a line for each part, and one for all.
function M.answer(parts)
    local lines = {}
    for i, part in ipairs(parts) do
        lines[i] = shares_line(part)
    end
    lines[#lines + 1] = flattest_line(parts)
    if #parts[1].rows > 0 and parts[1].rows[1].value_low then
        lines[#lines] = lines[#lines] .. (" Intervals (%d %%, steps resampled) are in results.csv.")
            :format(100 * bootstrap.LEVEL)
    end
    return lines
end

return M
