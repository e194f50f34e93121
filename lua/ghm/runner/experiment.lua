-- Experiments: what every script does around its question. A script gives keys, axes and a study;
-- this reads the data once, calls the study, and puts what it found on the terminal and into a run
-- folder.
--
--   experiment.main {
--     name, question, epilog, options   as of ghm.cli
--     keys = ghm.keys {...}             the key=SPEC words
--     axes = {"bins", "momentum"}       the keys whose values are combined into configurations
--     rows_by = {"loss"}                the columns that tell rows apart, where axes do not
--     edges = function(args) ... end    what sketches must answer exactly, { bins, mu, knots };
--                                       by default the keys bins and mu
--     views, collect                    as of sweep.read, with args as a last argument
--     distinct = function(configurations, n_calls, args) ... end    those of which rows are made
--     study = function(x) ... end       x = { task, calls, configurations, args, progress, dump,
--                                       failed, tell }; x.progress(done, total) after each
--                                       configuration; dump: the args that say what was read;
--                                       failed: the steps that were refused, also by the study,
--                                       which says so by x.tell(message, fault)
--   }
-- A study returns { rows, columns (of results.csv), shown (of the terminal's table), listed (the
-- rows of that table, where not all), unreported (columns that the report leaves to results.csv),
-- lines (its answer, last of all), figures = { {name, figure}, ... }, term = text of a terminal
-- plot, warnings = { {name, text}, ... }, recommendations = { { key, value, reason, and how sure it
-- is: low, high, share (of the resamplings that chose value), as_good (a list) }, ... } }.

local bootstrap = require "ghm.studies.bootstrap"
local called = require "ghm.called"
local cli = require "ghm.runner.cli"
local clib = require "ghm.clib"
local device = require "ghm.device"
local fault = require "ghm.fault"
local gnuplot = require "ghm.show.gnuplot"
local harmonise = require "ghm.harmonise"
local json = require "ghm.json"
local loss_option = require "ghm.runner.loss_option"
local posix = require "ghm.posix"
local progress = require "ghm.runner.progress"
local provenance = require "ghm.runner.provenance"
local reading = require "ghm.runner.reading"
local resume = require "ghm.runner.resume"
local run_report = require "ghm.runner.run_report"
local shards = require "ghm.runner.shards"
local sources = require "ghm.dumps.source"
local sweep = require "ghm.studies.sweep"
local telling = require "ghm.runner.telling"
local warnings_of = require "ghm.studies.warnings"

local M = {}

-- What was read, once for each distinct file: the dumps of provenance.json.
local function dumps_of(calls)
    local list, at = {}, {}
    for _, call in ipairs(calls) do
        local step = call.step
        local key = step.path or step.name
        if not at[key] then
            local file = not step.saved and step.file or {}
            at[key] = { path = step.path and posix.real_path(step.path) or step.path or step.name,
                sha256 = file.sha256, size = file.size, calls = json.array {} }
            if not step.path then
                at[key].sha256 = false
            end
            list[#list + 1] = at[key]
        end
        local facts = call.facts
        table.insert(at[key].calls, { arrays = call.names, shape = json.array(call.shape),
            samples = facts.samples, valid = facts.valid, positive = facts.positive,
            nonfinite = facts.nonfinite, soft = facts.soft, converted = json.array(call.notes),
            sketched_from = step.saved and step.file or nil })
    end
    return list
end

-- Draws the figures into the run folder; returns a line for the user where that failed.
local function draw(run, figures, formats)
    local complaint
    if #gnuplot.images(formats) == 0 or #figures == 0 then
        return nil
    end
    posix.make_folders(run:path "plots")
    for _, entry in ipairs(figures) do
        local made, reason = gnuplot.draw(run:path("plots/" .. entry.name), entry.figure, formats)
        if clib.interrupted() then -- Ctrl-C reaches gnuplot too, so its complaint means nothing
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
    end
end

-- What args ask of a study: the task, and every combination of the axes' values, with the other
-- keys that are the loss's.
function M.plan(spec, args)
    local task = loss_option.task(args.loss)
    if task == "classification" and args.loss ~= "both" then
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

-- What came of it, for provenance.json; failed: the steps that were refused.
local function facts_of(source, calls)
    local facts = provenance.collect { dumps = dumps_of(calls), device = device.name(),
        threads = device.threads(), library = { version = clib.version, build = clib.build } }
    facts.failed = json.array(source.failed)
    return facts
end

-- What the study finds, everything in it drawn by --seed. What spoils every study is said first.
function M.ask(spec, x)
    bootstrap.seed, x.tell = x.args.seed or 0, telling.refusals()
    local found = spec.study(x)
    local warnings = { warnings_of.probabilities(x.calls) }
    warnings[#warnings + 1] = warnings_of.labels(x.calls)
    for _, warning in ipairs(found.warnings or {}) do
        warnings[#warnings + 1] = warning
    end
    found.warnings = warnings
    return found
end

-- Writes all that is made of what was found into the run folder; returns a line for the user where
-- figures failed.
local function write(spec, args, run, source, x, found)
    run:write_csv("results.csv", found.rows, found.columns)
    local facts = facts_of(source, x.calls)
    run:write_json("provenance.json", facts)
    if args.report and next(args.plot) then
        args.plot.svg = true -- the form in which the report shows figures
    end
    local complaint = draw(run, found.figures or {}, args.plot)
    if args.report then
        run_report.write(run, found, facts, { question = spec.question, note = spec.epilog,
            summary = telling.heading(x.calls, args), complaint = complaint,
            figures = next(args.plot) and found.figures or {} })
    end
    return complaint
end

-- The study and all that is made of it. A full disk costs the files, not the answer.
local function study(spec, args, run, source, x)
    local found = M.ask(spec, x)
    local written, problem = pcall(write, spec, args, run, source, x, found)
    if not written and not (fault.is(problem) and problem.kind == "failed") then
        error(problem, 0)
    end
    telling.tell(found, x.calls, args, run, source.failed, written, written and problem)
    if not written then
        error(problem, 0)
    end
end

local function body(spec, args, made)
    local run
    if args.resume then
        args, run = resume.open(spec, args)
        made(run)
    else
        args.shard = args.shard or shards.from_environment()
    end
    refuse_contradictions(args)
    local task, configurations = M.plan(spec, args)
    device.default(device.open(args.device, args.threads))
    local source = sources.open(args, task)
    source:spare(args.csv, "--csv")
    reading.prepare(args, source, run)
    if args.dry_run then
        return telling.dry_run(spec, args, source, configurations)
    end
    local calls = reading.read(spec, args, source, configurations, run, function(fresh)
        run = fresh
        made(run)
    end)
    if args.shard then
        run:write_json("provenance.json", facts_of(source, calls))
        telling.shard(args, run, source)
    else
        study(spec, args, run, source, { task = task, calls = calls, args = args, dump = args,
            failed = source.failed, configurations = configurations,
            progress = progress.of(args, "configurations") })
    end
    return source:exit_code()
end

-- Runs the script, by cli.main.
function M.main(spec)
    spec.default_dump, spec.report = spec.default_dump or "digits", true
    spec.resumes, spec.shards = true, true
    cli.main(spec, function(args)
        local run
        local ok, result = pcall(body, spec, args, function(made)
            run = made
        end)
        local resumable = not ok and run and fault.is(result) and (result.kind == "interrupted"
            or result.kind == "failed" and result.message:find(run.dir, 1, true))
        if resumable then
            result = fault.new(result.kind, "%s; to go on: %s", result.message,
                called.command { "--resume", run.dir })
        end
        return ok and result or not ok and error(result, 0) or nil
    end)
end

return M
