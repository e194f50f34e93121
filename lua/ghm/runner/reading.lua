-- Reading: all steps of a source as sketches, each kept in the run folder as soon as it is there.
-- So a run that was stopped goes on where it was, and one that is done has all that a study asks.

local fault = require "ghm.fault"
local json = require "ghm.json"
local posix = require "ghm.posix"
local progress = require "ghm.runner.progress"
local provenance = require "ghm.runner.provenance"
local resume = require "ghm.runner.resume"
local runs = require "ghm.runner.runs"
local saved = require "ghm.dumps.saved"
local shards = require "ghm.runner.shards"
local sweep = require "ghm.studies.sweep"
local telling = require "ghm.runner.telling"

local M = {}

-- Where a run keeps its k-th step; where a merged run says why a shard refused it.
function M.kept_name(k)
    return ("sketches/%06d.%s"):format(k, saved.EXTENSION)
end

function M.refused_name(k)
    return ("sketches/%06d.refused"):format(k)
end

-- A dump that is no longer what a sketch was made from; one that is gone is none.
local function check_unchanged(run, step, file)
    local now = file and step.path and posix.stamp(step.path)
    if now and (now.size ~= file.size or now.mtime ~= file.mtime)
        and provenance.sha256(step.path) ~= file.sha256 then
        fault.raise("mismatch", "cannot go on: %s has changed since %s read it", step.path, run.dir)
    end
end

-- Lets the steps that the run has give their kept sketches. A damaged one is made again.
local function reuse(run, source)
    for _, step in ipairs(source.steps) do
        local path = run:path(M.kept_name(step.index))
        local refused = posix.read_file(run:path(M.refused_name(step.index)))
        local there = not step.saved and posix.stamp(path) ~= nil
        local ok, kept = false, nil
        if there then
            ok, kept = pcall(saved.read, path, source.saved)
        end
        if refused then
            step.load = function()
                fault.raise("dump", "%s", refused:match "^[^\n]*")
            end
        elseif ok and #kept == 1 and kept[1].name == step.name then
            check_unchanged(run, step, kept[1].file)
            step.kept, step.file = true, kept[1].file
            step.load = function()
                return kept[1].calls
            end
            if not source.saved then
                source.saved, source.saved_path = kept[1].calls[1].saved, path
            end
        end
    end
end

-- What a process that was killed was writing.
local function remove_scraps(run)
    posix.capture(("rm -f -- %s/*.part-* %s/*.tmp-* 2>/dev/null"):format(
        posix.quote(run:path "sketches"), posix.quote(run.dir)))
end

-- Has the file of each step hashed while it is read, so that the disk gives it once for both.
function M.hash_beside(source)
    for _, step in ipairs(source.steps) do
        if step.path and not (step.saved or step.kept) then
            local load, close, give_up = step.load, step.close, nil
            function step.load()
                step.hash, give_up = provenance.start_sha256(step.path)
                return load()
            end
            function step.close()
                close()
                if step.hash then -- nobody asked for it: the step was refused
                    give_up()
                    step.hash = nil
                end
            end
        end
    end
end

-- Says in step.file which file a step is read from.
function M.identify(step)
    if step.path and not step.file then
        step.file = posix.stamp(step.path)
        step.file.path = posix.real_path(step.path)
        step.file.sha256 = (step.hash or provenance.sha256)(step.path)
        step.hash = nil
    end
end

local function keep(run, step, calls, shard)
    if step.kept or step.saved and not shard then -- a sketch file is there to be read again
        return
    end
    M.identify(step)
    posix.make_folders(run:path "sketches")
    saved.write(run:path(M.kept_name(step.index)),
        { { name = step.name, file = step.file, calls = calls } })
end

-- Numbers the steps, leaves those of the shard, and lets a run's kept ones be used.
function M.prepare(args, source, run)
    local names = json.array {}
    for k, step in ipairs(source.steps) do
        step.index, names[k] = k, step.name
    end
    if run and #run.info.steps ~= #names then
        fault.raise("mismatch", "cannot go on: %s has %d steps, its dumps give %d now", run.dir,
            #run.info.steps, #names)
    end
    source.names = names
    if args.shard then
        local first, last = shards.range(#names, shards.parse(args.shard))
        if first > last then
            fault.raise("usage", "--shard %s: there are only %d steps", args.shard, #names)
        end
        local part = {}
        for k = first, last do
            part[#part + 1] = source.steps[k]
        end
        source.steps = part
    end
    if run then
        remove_scraps(run)
        reuse(run, source)
    end
end

-- What a study must have of its calls, as sweep.read takes it: what sketches answer exactly, and
-- its own views of the data.
function M.asked(spec, args)
    local asked = spec.edges and spec.edges(args) or args.keys
    return { bins = asked.bins, mu = asked.mu, knots = asked.knots,
        views = spec.views and function(batch, call)
            return spec.views(batch, call, args)
        end,
        collect = spec.collect and function(call)
            return spec.collect(call, args)
        end }
end

-- Reads all steps -> the calls. The run folder, unless it is given, is made when there is something
-- to study, so that a refused dump leaves none, and not later, so that an unwritable place is told
-- before minutes are spent; made(run) is told at once.
function M.read(spec, args, source, configurations, run, made)
    local waiting = {}
    local function keep_all(step, calls, valid)
        waiting[#waiting + 1] = { step, calls }
        if not run and valid > 0 then
            local info = resume.settings(args)
            info.argv, info.seed = args.argv, args.seed
            info.axes = json.array(spec.rows_by or spec.axes)
            info.configurations, info.loss = json.array(configurations), args.loss
            info.device, info.steps, info.inputs = args.device, source.names, source.inputs
            local part = args.shard and "-" .. args.shard:gsub("/", "-of-") or ""
            run = runs.create { out = args.out, experiment = spec.name, name = args.name,
                label = (args.name or spec.name) .. part, info = info }
            made(run)
        end
        for _, one in ipairs(run and waiting or {}) do
            keep(run, one[1], one[2], args.shard)
        end
        waiting = run and {} or waiting
    end
    local asked = M.asked(spec, args)
    asked.nonfinite, asked.keep = args.nonfinite, keep_all
    asked.progress, asked.tell = progress.of(args, "steps"), telling.refusals()
    M.hash_beside(source)
    return sweep.read(source, asked)
end

return M
