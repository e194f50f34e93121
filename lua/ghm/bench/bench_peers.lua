-- The peers as cases for the race: what the process of bench_peers.py is asked to time.
--
--   cases, problems = bench_peers.cases(child, asked, place, about)
--
-- asked: "all", "few" or "quick"; place, about: as of bench_cases. A peer whose loss is not the
-- reference's (within float32's reach) or that fails is left out and told in `problems`.

local check = require "ghm.bench.bench_check"
local data = require "ghm.bench.bench_data"
local fault = require "ghm.fault"

local M = {}

local function peer(sets, maker, what, bins, grad)
    local name = ("%s_%s%s%s"):format(maker, what, grad and "_grad" or "", bins and "_" .. bins
        or "")
    return { name = name, maker = maker, sets = sets, request = { ["do"] = "time", maker = maker,
        what = what, bins = bins, grad = grad or false } }
end

local list = {
    peer("all quick few", "eager", "ghmc", 10), peer("all quick", "eager", "ghmc", 30),
    peer("all quick", "eager", "ghmc", 10, true), peer("all quick", "eager", "ghmc", 30, true),
    peer("all quick", "eager", "ghmr", 10), peer("all quick", "eager", "ghmr", 30),
    peer("all quick few", "eager", "bce"), peer("all", "eager", "bce", nil, true),
    peer("all quick", "eager", "focal"), peer("all", "eager", "focal", nil, true),
    peer("all quick few", "numpy", "ghmc", 30),
    peer("all", "compiled", "ghmc", 10), peer("all", "compiled", "ghmc", 30),
    peer("all", "compiled", "ghmc", 10, true),
    peer("all", "eager", "sweep", 65), -- M = 2..65, one momentum
}
list[#list].name = "eager_sweep"

-- The loss that a peer must find, by the reference.
local function expected(request, place, about)
    local reference = request.what == "ghmr" and about.boxes or about.logits
    if request.what == "bce" or request.what == "focal" then
        return reference[request.what] / place.data.n -- a mean over all samples, without weights
    end
    for _, c in ipairs(reference) do
        if c.bins == request.bins then
            return c.loss
        end
    end
    error "not in the reference"
end

-- Hands the arrays to the process, which then has them to itself.
-- device: "cuda" where PyTorch shall hold them on its GPU.
function M.load(child, place, device)
    local arrays = {}
    for kind, batch in pairs { logits = place.data, boxes = place.boxes } do
        for part, path in pairs(data.write(batch, place.folder)) do
            arrays[kind .. "_" .. part] = { path = path, shape = batch.arrays.pred.shape }
        end
    end
    local reply = child:ask { ["do"] = "load", arrays = arrays, device = device }
    for _, a in pairs(arrays) do
        os.remove(a.path)
    end
    if reply.error then
        fault.raise("failed", "the peers cannot load %d samples: %s", place.data.n, reply.error)
    end
end

-- nil and the reason where the peer fails or is wrong; its first call also compiles.
local function try(child, case, place, about)
    case.request.calls = 1
    local reply = child:ask(case.request)
    if reply.error then
        return nil, ("%s: %s"):format(case.name, reply.error)
    end
    local ok, problem = pcall(check.near, reply.value, expected(case.request, place, about),
        check.PEER, case.name .. ": the loss")
    return ok, not ok and tostring(problem) or nil
end

function M.cases(child, asked, place, about)
    child:ask { ["do"] = "threads", threads = place.threads }
    local cases, problems = {}, {}
    for _, one in ipairs(list) do
        local has_maker = one.maker == "numpy" or child.versions.torch
        if has_maker and one.sets:find(asked, 1, true) then
            local case = setmetatable({ remote = true, samples = place.data.n },
                { __index = one })
            local ok, problem = try(child, case, place, about)
            problems[#problems + 1] = problem
            cases[#cases + 1] = ok and case or nil
            case.time = function(calls)
                case.request.calls = calls
                local reply = child:ask(case.request)
                return reply.seconds or fault.raise("failed", "%s: %s", case.name, reply.error)
            end
        end
    end
    return cases, problems
end

return M
