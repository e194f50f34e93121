-- Merging shards: their kept sketches lie together in one run folder, which is then gone on with as
-- after --resume. So the merged results come from the code, and the numbers, of a single run.

local called = require "ghm.called"
local cli = require "ghm.runner.cli"
local fault = require "ghm.fault"
local json = require "ghm.json"
local options = require "ghm.runner.options"
local posix = require "ghm.posix"
local reading = require "ghm.runner.reading"
local resume = require "ghm.runner.resume"
local runs = require "ghm.runner.runs"
local shards = require "ghm.runner.shards"

local M = {}

-- The steps that a shard which is done says it refused: name -> reason.
local function refused_by(run)
    local refused = {}
    for _, one in ipairs(run:read_json("provenance.json").failed or {}) do
        refused[one.step] = one.reason
    end
    return refused
end

-- Opens the folders, which must be shards of one run.
local function open_all(dirs)
    local list, first = {}, nil
    for k, dir in ipairs(dirs) do
        local run = runs.open(dir)
        resume.check(run)
        if not shards.parse(tostring(run.info.options.shard)) then
            fault.raise("mismatch", "%s is a whole run, not a shard of one", run.dir)
        end
        first = first or run
        local difference = run.info.experiment ~= first.info.experiment
            and ("%s is a run of %s, %s of %s"):format(first.dir, first.info.experiment, run.dir,
                run.info.experiment)
            or resume.difference(first.info, run.info, first.dir, run.dir)
        local _, of = shards.parse(first.info.options.shard)
        local i, own = shards.parse(run.info.options.shard)
        if not difference and (own ~= of or #run.info.steps ~= #first.info.steps) then
            difference = ("%s is 1 of %d parts of %d steps, %s of %d parts of %d"):format(first.dir,
                of, #first.info.steps, run.dir, own, #run.info.steps)
        end
        if difference then
            fault.raise("mismatch", "these are not shards of one run: %s", difference)
        end
        list[k] = { run = run, i = i, refused = refused_by(run) }
    end
    return list, first.info
end

-- For each step the shard that has it; and what is missing, in words.
local function collect(list, info)
    local owner, missing = {}, {}
    local _, of = shards.parse(info.options.shard)
    local by_shard = {}
    for _, shard in ipairs(list) do
        by_shard[shard.i] = shard
        for k, name in ipairs(info.steps) do
            if posix.stamp(shard.run:path(reading.kept_name(k))) then
                owner[k] = shard
            elseif shard.refused[name] then
                owner[k] = owner[k] or shard
            end
        end
    end
    for i = 1, of do
        local first, last = shards.range(#info.steps, i, of)
        local lacking = 0
        for k = first, last do
            lacking = lacking + (owner[k] and 0 or 1)
        end
        if lacking > 0 and by_shard[i] then
            missing[#missing + 1] = ("%d/%d (%d of its %d steps: go on with --resume %s)"):format(i,
                of, lacking, last - first + 1, by_shard[i].run.dir)
        elseif lacking > 0 then
            missing[#missing + 1] = ("%d/%d"):format(i, of)
        end
    end
    return owner, missing
end

-- dirs: run folders -> a new run folder in `out` that has all their steps. Fault "mismatch": they
-- are not shards of one run, or some are missing.
function M.merge(dirs, out, name)
    if #dirs == 0 then
        fault.raise("usage", "expected the run folders of all shards")
    end
    local list, info = open_all(dirs)
    local owner, missing = collect(list, info)
    if #missing > 0 then
        fault.raise("mismatch", "missing of the shards: %s", table.concat(missing, ", "))
    end
    local whole = { merged = json.array(dirs) }
    for key, value in pairs(info) do
        whole[key] = value
    end
    whole.options.shard, whole.created, whole.name = nil, nil, nil
    local run = runs.create { out = out, experiment = info.experiment, name = name, info = whole }
    posix.make_folders(run:path "sketches")
    for k, step in ipairs(info.steps) do
        local shard = owner[k]
        local bytes = posix.read_file(shard.run:path(reading.kept_name(k)))
        if bytes then
            run:write(reading.kept_name(k), bytes)
        else
            run:write(reading.refused_name(k), shard.refused[step] .. "\n")
        end
    end
    return run
end

-- An option of args as a word of a command line.
local function option_word(name, value)
    local word = "--" .. name:gsub("_", "-")
    if type(value) == "table" then -- --plot
        local formats = {}
        for format in pairs(value) do
            formats[#formats + 1] = format
        end
        table.sort(formats)
        value = formats[1] and table.concat(formats, ",") or "none"
    end
    return value == true and word or ("%s=%s"):format(word, value)
end

-- Goes on with the merged run by its own script, which takes this one's options. Never returns.
function M.finish(run, spec, args)
    local path = ("%s/%s.lua"):format(cli.script_dir(), run.info.experiment)
    local words = { [0] = path, "--resume", run.dir,
        command = arg.command and called.script(run.info.experiment) }
    for name in pairs(options.typed(spec, args.argv)) do
        if name ~= "out" and name ~= "name" then
            words[#words + 1] = option_word(name, args[name])
        end
    end
    arg = words -- luacheck: ignore
    assert(loadfile(path))()
end

return M
