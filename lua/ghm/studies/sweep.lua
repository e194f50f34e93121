-- Sweeps: every configuration of some keys, answered from one sketch per step.

local clib = require "ghm.clib"
local declared = require "ghm.declared"
local fault = require "ghm.fault"
local ffi = require "ffi"
local sketches = require "ghm.sketches"

local M = {}

-- { bins = {5, 10}, momentum = {0, 0.5} }, { "bins", "momentum" } -> the four combinations, the
-- last axis varying fastest. Keys with one bare value are the same in all of them.
function M.configurations(keys, axes)
    local list = { {} }
    for _, axis in ipairs(axes) do
        local values = type(keys[axis]) == "table" and keys[axis] or { keys[axis] }
        local longer = {}
        for _, configuration in ipairs(list) do
            for _, value in ipairs(values) do
                local extended = { [axis] = value }
                for key, given in pairs(configuration) do
                    extended[key] = given
                end
                longer[#longer + 1] = extended
            end
        end
        list = longer
    end
    return list
end

-- Calls visit(i, configuration) for each of a list, and after it progress(i, all), if given. Fault
-- "interrupted" between two of them.
function M.each(configurations, progress, visit)
    for i, configuration in ipairs(configurations) do
        if clib.interrupted() then
            fault.raise("interrupted", "stopped after %d of %d configurations", i - 1,
                #configurations)
        end
        visit(i, configuration)
        if progress then
            progress(i, #configurations)
        end
    end
end

-- Reads a source once: a list of calls { step, level, sketch, facts, shape, notes, names }, one for
-- each batch. The data is let go: only the sketches stay.
--   spec.bins, spec.mu, spec.knots   what must be answered exactly
--   spec.nonfinite                   "error" or "ignore"
--   spec.views(batch, call)          further batches made of a call's data while that is at hand, a
--                                    list of { name, batch, optional }: call.views[name] =
--                                    { sketch, facts }. optional: none where the batch is refused
--   spec.keep(step, calls, valid)    called after each sound step with its calls; valid: samples so
--                                    far
--   spec.collect(call)               called after that for each of the calls, in order
--   spec.progress(done, total)       called at the start, and after each sound step
--   spec.tell(message, fault)        as of Source:each; nil: the first refusal is thrown
function M.read(source, spec)
    local asked = sketches.new { task = source.task, bins = spec.bins, mu = spec.mu,
        knots = spec.knots }
    local empty = asked
    if source.saved then -- samples are sketched as those that are sketched already
        declared.must_answer(source.saved, asked, source.saved_path)
        empty = source.saved:like()
    end
    local progress, keep = spec.progress or function() end, spec.keep or function() end
    local calls, done, valid = {}, 0, 0
    progress(0, #source.steps)
    source:each(function(step, batches)
        local fresh = {}
        for k, batch in ipairs(batches) do
            local call = { step = step, level = batch.level, shape = batch.shape,
                notes = batch.notes, names = batch.names, views = batch.views or {} }
            local opts = { nonfinite = spec.nonfinite, asked = asked,
                where = (step.path or step.name)
                    .. (batch.level and ": level " .. batch.level or "") }
            call.sketch, call.facts = empty:of(batch, opts)
            for _, view in ipairs(not batch.saved and spec.views and spec.views(batch, call)
                or {}) do
                local ok, sketch, facts = pcall(empty.of, empty, view.batch, opts)
                if not ok and not (view.optional and fault.is(sketch)
                    and sketch.kind ~= "interrupted") then
                    error(sketch, 0)
                end
                call.views[view.name] = ok and { sketch = sketch, facts = facts } or nil
            end
            fresh[k] = call
        end
        for _, call in ipairs(fresh) do -- all calls of a step, or none
            calls[#calls + 1] = call
            valid = valid + call.facts.valid
        end
        done = done + 1
        keep(step, fresh, valid)
        for _, call in ipairs(spec.collect and fresh or {}) do
            spec.collect(call)
        end
        progress(done, #source.steps)
    end, spec.tell)
    if valid == 0 then
        fault.raise("dump", "%s: no valid samples: every weight is 0, or there are no rows",
            table.concat(source.words, ", "))
    end
    return calls
end

-- Region counts of all calls together, whatever their targets: int64_t[bins] and their sum.
function M.counts(calls, bins, mu)
    local R, N = ffi.new("int64_t[?]", bins), 0
    for _, call in ipairs(calls) do
        local own = call.sketch:regions(bins, mu)
        for j = 0, bins - 1 do
            R[j] = R[j] + own[j]
        end
        N = N + call.facts.valid
    end
    return R, N
end

-- Whether some call has soft targets, which have no key.
function M.is_soft(calls)
    for _, call in ipairs(calls) do
        if call.sketch:is_soft() then
            return true
        end
    end
    return false
end

-- All calls, of hard targets, added into one sketch.
function M.merged(calls)
    local whole = calls[1].sketch:like()
    for _, call in ipairs(calls) do
        whole:merge(call.sketch)
    end
    return whole
end

return M
