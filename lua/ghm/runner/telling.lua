-- What an experiment says: of what it will do, of what it read, of what it found.

local called = require "ghm.called"
local csv = require "ghm.show.csv"
local device = require "ghm.device"
local json = require "ghm.json"
local screen = require "ghm.show.screen"
local text = require "ghm.show.text"

local M = {}

local function shape_text(call)
    return ("%s[%s]"):format(call.names.pred, table.concat(call.shape, ","))
end

-- What --nonfinite ignore leaves out, which is never done in silence.
function M.ignored(n)
    local are = n == 1 and "is" or "are"
    return ("%s %s not finite and %s ignored (--nonfinite ignore)"):format(
        text.count(n, "sample", true), are, are)
end

-- A teller for Source:each, of steps that are refused; what to do about it is said once.
function M.refusals()
    local advised = false
    return function(message, problem)
        local advice = problem and not advised and called.advice(problem) or ""
        advised = advised or advice ~= ""
        screen.tell("error: " .. message .. advice)
    end
end

-- What was read. Boxes have no positives, and of soft targets nobody counts them.
function M.heading(calls, args)
    local totals = { samples = 0, valid = 0, positive = 0, nonfinite = 0 }
    local soft, steps, others = 0, 0, ""
    for k, call in ipairs(calls) do
        soft = soft + (call.facts.soft > 0 and 1 or 0)
        steps = steps + ((k == 1 or calls[k - 1].step ~= call.step) and 1 or 0)
        others = call.names.pred ~= calls[1].names.pred and ", ..." or others
        for key in pairs(totals) do
            totals[key] = totals[key] + call.facts[key]
        end
    end
    local positives = calls[1].sketch.task == "classification" and soft < #calls
        and (", %s positive"):format(text.number(totals.positive)) or ""
    local lines = { ("%s%s of %s  %s, %s valid%s  on %s"):format(text.count(#calls, "call"),
        steps < #calls and (" in %s"):format(text.count(steps, "step")) or "",
        shape_text(calls[1]) .. others, text.count(totals.samples, "sample"),
        text.number(totals.valid), positives, device.name()) }
    if totals.nonfinite > 0 then
        lines[#lines + 1] = M.ignored(totals.nonfinite)
    end
    if soft > 0 then
        lines[#lines + 1] = ("soft targets in %d of %s: of them the counts and losses of regions "
            .. "are known, so what takes more is left out"):format(soft, text.count(#calls, "call"))
    end
    local names = calls[1].names
    lines[#lines + 1] = ("%s  weight: %s"):format(names.target and "target: " .. names.target
        or ("labels: %s, %s"):format(names.labels, names.base), names.weight or "none")
    if args.verbose then
        for k, call in ipairs(calls) do
            local is_next = k == 1 or calls[k - 1].step ~= call.step
            for _, warning in ipairs(is_next and call.step.warnings or {}) do
                lines[#lines + 1] = ("  %s: warning: %s"):format(call.step.name, warning)
            end
            lines[#lines + 1] = ("  %s: %s"):format(call.step.name, shape_text(call))
            for _, note in ipairs(call.notes) do
                lines[#lines + 1] = "    " .. note
            end
        end
    end
    return table.concat(lines, "\n")
end

function M.dry_run(spec, args, source, configurations)
    local batches, all = source.steps[1].load(), #configurations
    if spec.distinct then
        configurations = spec.distinct(configurations, #batches, args)
    end
    print(("%s: %s of %s%s"):format(spec.name, text.count(#configurations, "configuration", true),
        table.concat(spec.axes, ", "), #configurations < all
        and ("; %d more cannot differ from these"):format(all - #configurations) or ""))
    for i, configuration in ipairs(configurations) do
        local words = {}
        for k, axis in ipairs(spec.axes) do
            words[k] = ("%s=%s"):format(axis, tostring(configuration[axis]))
        end
        print(("%5d  %s"):format(i, table.concat(words, " ")))
    end
    print(("%s, the first %s with %s of %s; device %s"):format(
        text.count(#source.steps, "step", true), source.steps[1].name,
        text.count(#batches, "call", true), shape_text(batches[1]), device.name()))
    if args.verbose then
        for _, step in ipairs(source.steps) do
            print("  " .. step.name)
        end
    end
end

-- Each warning as a paragraph, "warning: " hanging before it.
function M.warnings(list)
    local lines = {}
    for _, warning in ipairs(list or {}) do
        for i, line in ipairs(text.wrap(warning.text, screen.width() - 9)) do
            lines[#lines + 1] = (i == 1 and screen.paint("warning", "warning:") .. " "
                or "         ") .. line .. "\n"
        end
    end
    return table.concat(lines)
end

-- Where the table leaves rows or columns out: what it lists, and where all are, in words of the
-- caller's. The ends of an interval are listed too, but are no rows.
local function listed_text(found, n_columns, of_columns, all)
    local is_row, n = {}, 0
    for _, row in ipairs(found.rows) do
        is_row[row] = true
    end
    for _, row in ipairs(found.listed or found.rows) do
        n = n + (is_row[row] and 1 or 0)
    end
    local listed = {}
    for _, part in ipairs { { n, #found.rows, "rows" },
        { n_columns, of_columns, "columns" } } do
        listed[#listed + 1] = part[1] < part[2] and ("%d of %d %s"):format(unpack(part)) or nil
    end
    return listed[1] and ("%s are listed, %s."):format(table.concat(listed, " and "), all)
end

-- A table, on a terminal without the columns that it has no room for, and where all are.
function M.table(rows, columns, all)
    local letters, left_out = text.table(rows, columns, { spare = true })
    return letters .. (left_out > 0 and text.broken { ("%d of %d columns are listed, %s."):format(
        #columns - left_out, #columns, all) } .. "\n" or "")
end

-- Those of the columns that some row has a value of: soft targets, say, have no error of beta.
local function filled(columns, rows)
    local list = {}
    for _, column in ipairs(columns) do
        local key, some = type(column) == "table" and column.key or column, #rows == 0
        for _, row in ipairs(rows) do
            some = some or row[key] ~= nil
        end
        list[#list + 1] = some and column or nil
    end
    return list
end

-- What a study found, for a terminal: its table, its plot unless that is unwanted, its warnings
-- and its answer. all: says where the rows are that the table leaves out.
function M.text(found, unwanted, all)
    local rows = found.listed or found.rows
    local shown = filled(found.shown, rows)
    local letters, left_out = text.table(rows, shown, { mark = found.mark, spare = true })
    local listed = listed_text(found, #shown - left_out, #shown, all)
    local parts = { letters .. (listed and text.broken({ listed }) .. "\n" or "") }
    if found.term and not unwanted then
        parts[#parts + 1] = found.term
    end
    local warned = M.warnings(found.warnings)
    parts[#parts + 1] = warned ~= "" and warned or nil
    parts[#parts + 1] = text.broken(found.lines)
    return table.concat(parts, "\n") .. "\n"
end

-- What was found, with a first warning where some steps are not in it: the errors that told of them
-- are far up by now.
local function with_left_out(found, failed)
    if #failed == 0 then
        return found
    end
    local left_out = ("left out: %s, refused as told above; the answer is of the others."):format(
        text.count(#failed, "step", true))
    return setmetatable({ warnings = { { text = left_out }, unpack(found.warnings or {}) } },
        { __index = found })
end

-- What was found, on stdout: the table and the answer, or --json, or --csv -. written: whether the
-- run folder has it too; complaint: why it lacks figures.
function M.tell(found, calls, args, run, failed, written, complaint)
    if args.json then
        print(json.encode({ run = run.dir, rows = json.array(found.rows),
            answer = json.array(found.lines), warnings = json.array(found.warnings or {}),
            recommendations = json.array(found.recommendations or {}),
            failed = json.array(failed) }, { indent = 2 }))
    elseif args.csv ~= "-" then
        local heading = {}
        for line in (args.quiet and "" or M.heading(calls, args)):gmatch "[^\n]+" do
            heading[#heading + 1] = line
        end
        io.write(text.broken(heading), args.quiet and "" or "\n", "\n",
            M.text(with_left_out(found, failed), args.quiet or not args.plot.term,
            written and "results.csv has all" or "--csv - prints all"))
    end
    if not args.quiet then
        local where = (args.json or args.csv == "-") and io.stderr or io.stdout
        where:write(args.csv == "-" and M.warnings(with_left_out(found, failed).warnings) or "")
        where:write(complaint and "figures: " .. complaint .. "\n" or "", "run folder: ", run.dir,
            "\n", args.report and written and "report: " .. run:path "report.html" .. "\n" or "")
    end
    if args.csv then -- last: where it cannot be written, all else is said and in the run folder
        csv.write(args.csv, found.rows, found.columns)
    end
end

-- What one part of a run has done.
function M.shard(args, run, source)
    if args.json then
        print(json.encode({ run = run.dir, shard = args.shard, steps = #source.steps,
            failed = json.array(source.failed) }, { indent = 2 }))
    else
        print(("shard %s: %d of %d steps are sketched"):format(args.shard,
            #source.steps - #source.failed, #source.names))
        print("run folder: " .. run.dir)
        if not args.quiet then
            print("when all shards are there: " .. called.script "merge" .. " RUN_FOLDER...")
        end
    end
end

return M
