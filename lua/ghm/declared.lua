-- What a sketch was made to answer exactly: lists of bins, mu and knots, ascending.

local clib = require "ghm.clib"
local fault = require "ghm.fault"
local ffi = require "ffi"
local text = require "ghm.show.text"

local C = clib.C
local M = {}

local kinds = { bins = C.GHM_DECLARED_BINS, mu = C.GHM_DECLARED_MU, knots = C.GHM_DECLARED_KNOTS }
local order = { "bins", "mu", "knots" }
local words = { bins = "bins", mu = "mu", knots = "beta" } -- on the command line

-- sketch -> { bins, mu, knots }, remembered by the sketches of the same edges.
function M.of(sketch)
    if not sketch.shared.declared then
        local lists = {}
        for name, kind in pairs(kinds) do
            local n = tonumber(C.ghm_sketch_declared(sketch.c, kind, nil))
            local values = ffi.new("double[?]", math.max(n, 1))
            C.ghm_sketch_declared(sketch.c, kind, values)
            lists[name] = {}
            for k = 1, n do
                lists[name][k] = values[k - 1]
            end
        end
        sketch.shared.declared = lists
    end
    return sketch.shared.declared
end

-- "bins 1:100:1, 200; mu 0.02"
function M.text(sketch)
    local parts = {}
    for _, name in ipairs(order) do
        local values = M.of(sketch)[name]
        parts[#parts + 1] = #values > 0
            and ("%s %s"):format(words[name], text.ranges(values)) or nil
    end
    return table.concat(parts, "; ")
end

-- Whether two sketches were made to answer the same.
function M.alike(a, b)
    if a.shared == b.shared then
        return true
    end
    for name, values in pairs(M.of(a)) do
        local others = M.of(b)[name]
        for k = 1, math.max(#values, #others) do
            if values[k] ~= others[k] then
                return false
            end
        end
    end
    return a.task == b.task
end

-- Throws where a sketch, which comes from `where`, cannot tell exactly what `asked` was made to
-- answer.
function M.must_answer(sketch, asked, where)
    if sketch.task ~= asked.task then
        fault.raise("dump", "%s: a sketch of %s, expected one of %s", where, sketch.task,
            asked.task)
    elseif sketch.shared == asked.shared then
        return
    end
    for _, name in ipairs(order) do
        if name == "knots" and asked.task ~= "regression" then
            break -- no loss of classes bends
        end
        local known = {}
        for _, value in ipairs(M.of(sketch)[name]) do
            known[value] = true
        end
        for _, value in ipairs(M.of(asked)[name]) do
            if not known[value] then
                fault.raise("usage", "%s: the sketch was not made for %s = %.15g, only for %s: "
                    .. "another would be a guess; sketch the dump again to ask for it", where,
                    words[name], value, text.ranges(M.of(sketch)[name]))
            end
        end
    end
end

return M
