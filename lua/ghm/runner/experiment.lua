-- Experiments: what every script does around its question. A script gives keys, axes and a study;
-- this reads the data once, calls the study, and puts what it found on the terminal and into a run
-- folder.
--
--   experiment.main {
--     name, question, epilog, options   as of ghm.cli
--     keys = ghm.keys {...}             the key=SPEC words
--     axes = {"bins", "momentum"}       the keys whose values are combined into configurations
--     edges = function(args) ... end    what sketches must answer exactly, { bins, mu, knots };
--                                       by default the keys bins and mu
--     views, collect                    as of sweep.read, with args as a last argument
--     study = function(x) ... end       x = { task, calls, configurations, args }
--   }
-- A study returns { rows, columns (of results.csv), shown (of the terminal's table), lines (its
-- answer, last of all), figures = { {name, figure}, ... }, term = text of a terminal plot,
-- warnings = { {name, text}, ... }, recommendations = { { key, value, reason, and how sure it is:
-- low, high, share (of the resamplings that chose value), as_good (a list) }, ... } }.

local cli = require "ghm.runner.cli"
local clib = require "ghm.clib"
local csv = require "ghm.show.csv"
local device = require "ghm.device"
local fault = require "ghm.fault"
local gnuplot = require "ghm.show.gnuplot"
local harmonise = require "ghm.harmonise"
local json = require "ghm.show.json"
local posix = require "ghm.posix"
local provenance = require "ghm.runner.provenance"
local run_report = require "ghm.runner.run_report"
local runs = require "ghm.runner.runs"
local sources = require "ghm.dumps.source"
local sweep = require "ghm.studies.sweep"
local text = require "ghm.show.text"

local M = {}

-- A line that is redrawn on a terminal, and one every ten seconds elsewhere. stderr only.
function M.progress(args)
    local live, last, begun = posix.is_terminal(2), os.time(), os.time()
    return function(done, total)
        if args.quiet or total < 2 then
            return
        elseif live then
            io.stderr:write(("\r%s %d/%d steps"):format(text.bar(done / total, 24), done, total),
                done == total and "\r" .. (" "):rep(50) .. "\r" or "")
        elseif os.time() - last >= 10 then
            last = os.time()
            local rate = done / math.max(last - begun, 1)
            io.stderr:write(("%d of %d steps, %s left\n"):format(done, total,
                text.seconds((total - done) / rate)))
        end
    end
end

local function shape_text(call)
    return ("%s[%s]"):format(call.names.pred, table.concat(call.shape, ","))
end

-- What was read, once for each distinct file: the dumps of provenance.json.
local function dumps_of(calls)
    local list, at = {}, {}
    for _, call in ipairs(calls) do
        local key = call.step.path or call.step.name
        if not at[key] then
            at[key] = { path = call.step.path and posix.real_path(call.step.path)
                or call.step.name, sha256 = not call.step.path and false or nil, calls = {} }
            list[#list + 1] = at[key]
        end
        local facts = call.facts
        table.insert(at[key].calls, { arrays = call.names, shape = json.array(call.shape),
            samples = facts.samples, valid = facts.valid, positive = facts.positive,
            nonfinite = facts.nonfinite, soft = facts.soft, converted = json.array(call.notes) })
    end
    return list
end

local function heading(calls, args)
    local totals = { samples = 0, valid = 0, positive = 0, nonfinite = 0 }
    local soft = 0
    for _, call in ipairs(calls) do
        soft = soft + (call.facts.soft > 0 and 1 or 0)
        for key in pairs(totals) do
            totals[key] = totals[key] + call.facts[key]
        end
    end
    local lines = { ("%d call%s of %s  %s samples, %s valid, %s positive  on %s"):format(#calls,
        #calls == 1 and "" or "s", shape_text(calls[1]), text.number(totals.samples),
        text.number(totals.valid), text.number(totals.positive), device.name()) }
    if totals.nonfinite > 0 then
        lines[#lines + 1] = ("%d samples are not finite and are ignored (--nonfinite ignore)")
            :format(totals.nonfinite)
    end
    if soft > 0 then
        lines[#lines + 1] = ("soft targets in %d of %d calls: what needs a sample's key is left "
            .. "out"):format(soft, #calls)
    end
    local names = calls[1].names
    lines[#lines + 1] = ("%s  weight: %s"):format(names.target and "target: " .. names.target
        or ("labels: %s, %s"):format(names.labels, names.base), names.weight or "none")
    if args.verbose then
        for _, call in ipairs(calls) do
            lines[#lines + 1] = ("  %s: %s"):format(call.step.name, shape_text(call))
            for _, note in ipairs(call.notes) do
                lines[#lines + 1] = "    " .. note
            end
        end
    end
    return table.concat(lines, "\n")
end

local function dry_run(spec, args, source, configurations)
    print(("%s: %d configurations of %s"):format(spec.name, #configurations,
        table.concat(spec.axes, ", ")))
    for i, configuration in ipairs(configurations) do
        local words = {}
        for k, axis in ipairs(spec.axes) do
            words[k] = ("%s=%s"):format(axis, tostring(configuration[axis]))
        end
        print(("%5d  %s"):format(i, table.concat(words, " ")))
    end
    local batches = source.steps[1].load()
    print(("%d steps, the first %s with %d call(s) of %s[%s]; device %s"):format(#source.steps,
        source.steps[1].name, #batches, batches[1].names.pred,
        table.concat(batches[1].shape, ","), device.name()))
    if args.verbose then
        for _, step in ipairs(source.steps) do
            print("  " .. step.name)
        end
    end
end

-- Draws the figures into the run folder; returns a line for the user where that failed.
local function draw(run, figures, formats)
    local complaint
    local images = { svg = formats.svg, png = formats.png, pdf = formats.pdf }
    if not next(images) or #figures == 0 then
        return nil
    end
    posix.make_folders(run:path "plots")
    for _, entry in ipairs(figures) do
        local made, reason = gnuplot.draw(run:path("plots/" .. entry.name), entry.figure, images)
        if sweep.interrupted() then -- Ctrl-C reaches gnuplot too, so its complaint means nothing
            fault.raise("interrupted", "stopped at the figures; the rows are in %s", run.dir)
        end
        complaint = complaint or not made and reason or nil
    end
    return complaint
end

-- What the words of a command ask for together and cannot have.
local function refuse_contradictions(args)
    if args.csv == "-" and args.json then
        fault.raise("usage", "--csv - and --json both write to stdout: give one of them")
    elseif args.out == "" or args.csv == "" then
        fault.raise("usage", "%s: expected a path, not an empty word",
            args.out == "" and "--out" or "--csv")
    end
end

-- What args ask of a study: the task, and every combination of the axes' values, with the other
-- keys that are the loss's.
function M.plan(spec, args)
    local task = args.loss == "ghmr" and "regression" or "classification"
    if task == "classification" then
        if args.given.mu then
            fault.raise("usage", "mu: GHM-C has none; --loss ghmr has")
        end
        args.keys.mu = nil
    end
    local list = sweep.configurations(args.keys, spec.axes)
    for _, configuration in ipairs(list) do
        for _, key in ipairs(harmonise.keys) do
            if configuration[key] == nil then
                configuration[key] = args.keys[key]
            end
        end
    end
    return task, list
end

-- Reads all steps. Returns the calls and the run folder, which is made when there is something to
-- study, so that a refused dump leaves none, and not later, so that an unwritable place is told
-- before minutes are spent.
local function read(spec, args, source, configurations)
    local run
    local show = M.progress(args)
    local asked = spec.edges and spec.edges(args) or args.keys
    local calls = sweep.read(source, { bins = asked.bins, mu = asked.mu, knots = asked.knots,
        views = spec.views and function(batch, call)
            return spec.views(batch, call, args)
        end,
        collect = spec.collect and function(call)
            return spec.collect(call, args)
        end,
        nonfinite = args.nonfinite, progress = function(done, total, valid)
            if not run and valid > 0 then
                run = runs.create { out = args.out, experiment = spec.name, name = args.name,
                    info = { argv = args.argv, axes = json.array(spec.axes),
                        configurations = json.array(configurations), seed = args.seed,
                        device = args.device, loss = args.loss } }
            end
            show(done, total)
        end })
    return calls, run
end

-- Each warning as a paragraph, "warning: " hanging before it.
local function warnings_text(found)
    local lines = {}
    for _, warning in ipairs(found.warnings or {}) do
        for i, line in ipairs(text.wrap(warning.text, 91)) do
            lines[#lines + 1] = (i == 1 and "warning: " or "         ") .. line .. "\n"
        end
    end
    return table.concat(lines)
end

-- What a study found, for a terminal: its table, its plot unless that is unwanted, its warnings
-- and its answer.
function M.text(found, unwanted)
    local parts = { text.table(found.rows, found.shown, { mark = found.mark }) }
    if found.term and not unwanted then
        parts[#parts + 1] = found.term
    end
    local warned = warnings_text(found)
    parts[#parts + 1] = warned ~= "" and warned or nil
    parts[#parts + 1] = table.concat(found.lines, "\n")
    return table.concat(parts, "\n") .. "\n"
end

-- What was found, on stdout: the table and the answer, or --json, or --csv -.
local function tell(found, calls, args, run, failed, complaint)
    if args.json then
        print(json.encode({ run = run.dir, rows = json.array(found.rows),
            answer = json.array(found.lines), warnings = json.array(found.warnings or {}),
            recommendations = json.array(found.recommendations or {}),
            failed = json.array(failed) }, { indent = 2 }))
    elseif args.csv ~= "-" then
        io.write(not args.quiet and heading(calls, args) .. "\n" or "", "\n",
            M.text(found, args.quiet or not args.plot.term))
    end
    if not args.quiet then
        local where = (args.json or args.csv == "-") and io.stderr or io.stdout
        where:write(args.csv == "-" and warnings_text(found) or "")
        where:write(complaint and "figures: " .. complaint .. "\n" or "", "run folder: ", run.dir,
            "\n")
    end
    if args.csv then -- last: where it cannot be written, all else is said and in the run folder
        csv.write(args.csv, found.rows, found.columns)
    end
end

local function body(spec, args)
    refuse_contradictions(args)
    local task, configurations = M.plan(spec, args)
    device.default(device.open(args.device, args.threads))
    local source = sources.open(args, task)
    if args.dry_run then
        return dry_run(spec, args, source, configurations)
    end
    local calls, run = read(spec, args, source, configurations)
    local found = spec.study { task = task, calls = calls, configurations = configurations,
        args = args }
    run:write_csv("results.csv", found.rows, found.columns)
    local facts = provenance.collect { dumps = dumps_of(calls),
        device = device.name(), threads = device.threads(),
        library = { version = clib.version, build = clib.build } }
    run:write_json("provenance.json", facts)
    if args.report and next(args.plot) then
        args.plot.svg = true -- the form in which the report shows figures
    end
    local complaint = draw(run, found.figures or {}, args.plot)
    if args.report then
        run_report.write(run, found, facts, { question = spec.question, note = spec.epilog,
            summary = heading(calls, args), complaint = complaint,
            figures = next(args.plot) and found.figures or {} })
    end
    tell(found, calls, args, run, source.failed, complaint)
    return source:exit_code()
end

-- Runs the script, by cli.main.
function M.main(spec)
    spec.default_dump, spec.report = spec.default_dump or "digits", true
    cli.main(spec, function(args)
        return body(spec, args)
    end)
end

return M
