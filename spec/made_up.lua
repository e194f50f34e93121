-- Streams made up in memory: parts are { x, t, w } of one call, sources hand out their batches.

local samples = require "samples"

local M = {}

-- A source of batches that are there already: one step for each list of batches.
function M.source_of(task, steps)
    local source = { task = task, steps = steps, words = { "made up" } }
    function source:each(visit)
        for k, batches in ipairs(self.steps) do
            for _, batch in ipairs(batches) do
                batch.names = { pred = "pred", target = "target" }
            end
            visit({ name = "step " .. k }, batches)
        end
    end
    return source
end

-- Parts of `n` calls, each { x, t, w } of [rows, 4].
function M.parts_of(task, n, rows)
    local parts = {}
    for k = 1, n do
        local make = task == "regression" and samples.boxes or samples.detector
        parts[k] = { make({ rows, 4 }) }
    end
    return parts
end

function M.steps_of(task, parts)
    local steps = {}
    for k, part in ipairs(parts) do
        steps[k] = { (task == "regression" and samples.box_batch or samples.class_batch)(
            unpack(part)) }
    end
    return steps
end

return M
