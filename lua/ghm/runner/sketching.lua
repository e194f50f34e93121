-- sketch.lua's work: a dump's steps, or a shard of them, as one file of sketches.

local declared = require "ghm.declared"
local device = require "ghm.device"
local fault = require "ghm.fault"
local loss_option = require "ghm.runner.loss_option"
local mu_study = require "ghm.studies.mu_study"
local posix = require "ghm.posix"
local progress = require "ghm.runner.progress"
local reading = require "ghm.runner.reading"
local saved = require "ghm.dumps.saved"
local shards = require "ghm.runner.shards"
local sources = require "ghm.dumps.source"
local sweep = require "ghm.studies.sweep"
local telling = require "ghm.runner.telling"
local text = require "ghm.show.text"

local M = {}

-- "runs/dump/" -> "dump.sketch"; a shard's file says which it is, in an order that sorts.
local function default_name(args)
    local word = args.dumps[1] or args.default_dump
    local stem = word:gsub("/+$", ""):match "[^/]*$":gsub("^synth:", ""):gsub("[^%w._-].*", "")
    local part = ""
    if args.shard then
        local i, of = shards.parse(args.shard)
        part = ("-%0" .. #tostring(of) .. "d-of-%d"):format(i, of)
    end
    return ("%s%s.%s"):format(stem ~= "" and stem or "dump", part, saved.EXTENSION)
end

-- Where |d| is cut beside the edges of regions: at these values of beta, and where the study of mu
-- wants it.
local function knots_of(keys)
    local knots = mu_study.knots()
    for _, beta in ipairs(keys.beta) do
        table.insert(knots, beta)
    end
    return knots
end

-- Returns the exit code. Fault "failed" where the file cannot be written.
function M.main(args)
    local task = loss_option.task(args.loss)
    if task == "classification" and (args.given.mu or args.given.beta) then
        fault.raise("usage", "%s: GHM-C has none; --loss ghmr has",
            args.given.mu and "mu" or "beta")
    elseif args.file == "" then
        fault.raise("usage", "--file: expected a path, not an empty word")
    end
    device.default(device.open(args.device, args.threads))
    args.shard = args.shard or shards.from_environment()
    local path = args.file or default_name(args)
    local boxes = task == "regression"
    local source = sources.open(args, task)
    source:spare(args.file, "--file")
    reading.prepare(args, source)
    if args.dry_run then
        print(("%d of %d steps, from %s to %s, to %s"):format(#source.steps, #source.names,
            source.steps[1].name, source.steps[#source.steps].name, path))
        return 0
    end
    local steps = {}
    reading.hash_beside(source)
    local calls = sweep.read(source, { bins = args.keys.bins, mu = boxes and args.keys.mu or nil,
        knots = boxes and knots_of(args.keys) or nil, nonfinite = args.nonfinite,
        progress = progress.of(args, "steps"), tell = telling.refusals(),
        keep = function(step, fresh)
            reading.identify(step)
            steps[#steps + 1] = { name = step.name, file = step.file, calls = fresh }
        end })
    saved.write(path, steps)
    if not args.quiet then
        print(telling.heading(calls, args))
        print(("answers %s"):format(declared.text(calls[1].sketch)))
        print(("%s: %s, %s"):format(path, text.count(#steps, "step", true),
            text.bytes(posix.stamp(path).size)))
    end
    return source:exit_code()
end

return M
