-- Run folders: what one command found, kept as plain files that survive NFS, rsync and crashes.
--
--   runs.create { out = "runs", experiment = "sweep_bins", name = nil, info = {...} } -> run
--   runs.open(dir, out) -> run               an existing folder; "latest" is out/latest
--   run.dir  run.info                       the folder; what run.json says
--   run:path(name)                          where a file of the run lies
--   run:write(name, text)                   whole or not at all; folders in `name` are made
--   run:write_json(name, value)   run:read_json(name)   run:write_csv(name, rows, columns)
--
-- A folder that cannot be made or a disk that is full is the fault "failed" (exit 1), not a usage
-- error: the same command works once the disk is mended. One line, nothing half-written.

local csv = require "ghm.show.csv"
local fault = require "ghm.fault"
local json = require "ghm.json"
local posix = require "ghm.posix"

local M = {}

M.SCHEMA = 1 -- of run.json; readers refuse other versions

local Run = {}
Run.__index = Run

function Run:path(name)
    return self.dir .. "/" .. name
end

-- name may hold folders ("plots/density.gp"); text is bytes. Fault "failed".
function Run:write(name, text)
    local folder = name:match "^(.*)/"
    if folder then
        posix.make_folders(self:path(folder))
    end
    posix.write_file(self:path(name), text)
end

function Run:write_json(name, value)
    self:write(name, json.encode(value, { indent = 2 }) .. "\n")
end

-- What a file of the run says; {} where it is not there or was cut short.
function Run:read_json(name)
    local value = json.decode(posix.read_file(self:path(name)) or "")
    return type(value) == "table" and value or {}
end

function Run:write_csv(name, rows, columns)
    self:write(name, csv.encode(rows, columns))
end

-- A word fit for a folder's name: no separators, blanks or hidden files, at most 60 characters.
local function slug(word)
    return (word:gsub("[^%w._-]+", "-"):gsub("^[.-]+", ""):sub(1, 60))
end

local function make_fresh(out, label)
    for _ = 1, 20 do
        local dir = ("%s/%s-%s-%s"):format(out, os.date "%Y%m%d-%H%M%S", label,
            posix.random_name(4))
        local ok, reason, exists = posix.make_folder(dir)
        if ok then
            return dir
        elseif not exists then
            fault.raise("failed", "cannot make a run folder in '%s': %s", out, reason)
        end
    end
    fault.raise("failed", "cannot make a run folder in '%s': every name tried is taken", out)
end

-- Makes OUT/YYYYMMDD-HHMMSS-NAME-xxxx (local time; an exclusive mkdir, so two runs never share
-- one), writes run.json and points OUT/latest at it.
--   spec.out         folder of runs, made when missing ("runs")
--   spec.experiment  the script's name; spec.name: the user's own label instead; spec.label: what
--                    the folder is called, if not one of them
--   spec.info        goes into run.json: argv, axes, configurations, seed, ...
function M.create(spec)
    local out = spec.out or "runs"
    posix.make_folders(out)
    local label = slug(spec.label or spec.name or spec.experiment)
    local dir = make_fresh(out, label ~= "" and label or "run")
    local info = { schema = M.SCHEMA, experiment = spec.experiment, name = spec.name,
        created = os.date "!%Y-%m-%dT%H:%M:%SZ" }
    for key, value in pairs(spec.info or {}) do
        info[key] = value
    end
    local self = setmetatable({ dir = dir, info = info }, Run)
    local ok, problem = pcall(self.write_json, self, "run.json", info)
    if not ok then
        os.remove(dir) -- an empty folder would look like a run
        error(problem, 0)
    end
    -- best effort: some file systems have no symbolic links, and no result depends on this one
    posix.link(dir:match "[^/]+$", out .. "/latest")
    return self
end

-- Opens a run folder to go on with it or to read it. Fault "mismatch" when it is none or is of
-- another schema.
function M.open(dir, out)
    if dir == "latest" then
        local latest = (out or "runs") .. "/latest"
        local newest = posix.real_path(latest)
        dir = newest and latest:match "^.*/" .. newest:match "[^/]*$" or latest
    end
    dir = #dir > 1 and dir:gsub("/+$", "") or dir
    local said = posix.read_file(dir .. "/run.json")
    if not said then
        fault.raise("mismatch", "'%s' is no run folder: it has no run.json", dir)
    end
    local info, reason = json.decode(said)
    if type(info) ~= "table" then
        fault.raise("mismatch", "%s/run.json: %s", dir, reason or "expected an object")
    elseif info.schema ~= M.SCHEMA then
        fault.raise("mismatch", "%s/run.json: schema %s; expected %d", dir,
            tostring(info.schema), M.SCHEMA)
    end
    return setmetatable({ dir = dir, info = info }, Run)
end

return M
