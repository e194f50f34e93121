-- Shards: one part of a run's steps for each of several machines or jobs.
--
--   shards.parse "2/8" -> 2, 8      nil and the reason for other words
--   shards.from_environment() -> "2/8" in a job array of Slurm, else nil
--   shards.range(n, i, of)          the steps of shard i: first, last; contiguous, so in order

local fault = require "ghm.fault"

local M = {}

function M.parse(word)
    local i, of = word:match "^(%d+)/(%d+)$"
    i, of = tonumber(i), tonumber(of)
    if not i or i < 1 or of < i or of > 1e6 then
        return nil, ("--shard: expected I/N with I from 1 to N, not '%s'"):format(word)
    end
    return i, of
end

-- Slurm numbers the tasks of an array as its user did: from _MIN on, in steps of _STEP.
function M.from_environment(get)
    get = get or os.getenv
    local function number(name)
        return tonumber(get("SLURM_ARRAY_TASK_" .. name) or "")
    end
    local id, of = number "ID", number "COUNT"
    if not id or not of then
        return nil
    end
    local i = (id - (number "MIN" or 0)) / (number "STEP" or 1) + 1
    if i ~= math.floor(i) or i < 1 or i > of then
        fault.raise("usage", "SLURM_ARRAY_TASK_ID is %d, of %d tasks: name the part with --shard "
            .. "I/N", id, of)
    end
    return ("%d/%d"):format(i, of)
end

function M.range(n, i, of)
    return math.floor((i - 1) * n / of) + 1, math.floor(i * n / of)
end

return M
