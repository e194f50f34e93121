-- The things that the bench times on ghm's side, each with the check that must pass first.
--
--   cases = bench_cases.all(place)         place = { data, boxes, device, folder, threads }
--   case.name, case.samples, case.bytes    of the data read per sample; nil: reads none
--   case.time(calls)                       for bench_clock.race
--   case.check(about)                      about = { logits =, boxes = } of bench_check.reference
--
-- What is timed is what users call: losses, sweeps, sketches. Each starts cold, from an empty
-- sketch; only outputs of gradients are made beforehand, as a training loop keeps them.

local array = require "ghm.array"
local check = require "ghm.bench.bench_check"
local clib = require "ghm.clib"
local clock = require "ghm.bench.bench_clock"
local ffi = require "ffi"
local harmonise = require "ghm.harmonise"
local limits = require "ghm.bench.bench_limits"
local losses = require "ghm.losses"
local sketches = require "ghm.sketches"
local sweep = require "ghm.studies.sweep"

local C = clib.C
local M = {}

local function range(first, last, step)
    local list = {}
    for value = first, last, step or 1 do
        list[#list + 1] = value
    end
    return list
end

local SWEEP = range(2, 65) -- 64 values of M; with few regions a peer that loops over them is fast
local GENERAL = 300 -- an M of so many edges that a pass takes no short cut for few
M.MOMENTA = { 0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.75, 0.9 }
local BOX_BINS = range(5, 80, 5)
local BOX_MU = {}
for k = 0, 15 do
    BOX_MU[k + 1] = 1e-3 * 1000 ^ (k / 15)
end
local MU = harmonise.defaults("regression").mu
local EPS = 0.1 -- window of the exact density: one of ten regions
local EXACT_MOST = 2e7 -- samples; sorting more takes minutes

-- What bench_check.reference must know: configurations of logits, and of boxes.
M.class_configurations = { { bins = 10 }, { bins = 30 }, { bins = 2 }, { bins = 65 },
    { bins = GENERAL } }
M.box_configurations = { { bins = 10, mu = MU }, { bins = 30, mu = MU },
    { bins = 5, mu = BOX_MU[1] }, { bins = 80, mu = BOX_MU[16] } }

local function wanted(reference, bins, mu)
    for _, c in ipairs(reference) do
        if c.bins == bins and (not mu or c.mu == mu) then
            return c
        end
    end
    error "not in the reference"
end

local function loss_case(name, data, bins, kind)
    local loss = losses[kind] { bins = bins }
    local key, mu = data.name == "boxes" and "boxes" or "logits", loss.config.mu
    return { name = name, samples = data.n, bytes = data.bytes, run = function()
        return (loss:forward_batch(data.batch))
    end, check = function(about)
        check.near((loss:forward_batch(data.batch)), wanted(about[key], bins, mu).loss, check.LOSS,
            name .. ": the loss")
    end }
end

-- Loss and gradient, by the loss's own forward and the core's gradient pass into kept memory.
local function gradient_case(name, data, bins, device)
    local loss, grad = losses.GHMC { bins = bins }, array.new("f4", data.batch.shape)
    local places = ffi.new("ghm_outputs", { grad = grad.ptr })
    local function run()
        local value, call = loss:forward_batch(data.batch)
        clib.check(C.ghm_gradient(device, data.batch.c, C.GHM_BCE, 0, 0, bins, 1, call.beta,
            call.grad_scale, 1, places))
        return value + grad.ptr[0]
    end
    return { name = name, bytes = 2 * data.bytes + 4, run = run, check = function(about)
        run()
        check.gradient(data, wanted(about.logits, bins), grad.ptr, name .. ": the gradient")
    end, keep = grad }
end

-- One batch as a source for sweep.read.
local function source_of(data)
    return { task = data.batch.task, steps = { 1 }, words = { "bench" }, each = function(_, visit)
        visit({ name = "bench" }, { data.batch })
    end }
end

-- Every loss of a sweep from one read: losses[bins][momentum or mu].
local function swept(data, bins, momenta, mu)
    local call = sweep.read(source_of(data), { bins = bins, mu = mu })[1]
    local found, sum = {}, 0
    for _, m in ipairs(bins) do
        found[m] = {}
        for _, other in ipairs(momenta or mu) do
            local h = harmonise.new(data.batch.task, { bins = m, momentum = momenta and other,
                mu = mu and other })
            found[m][other] = h:step(call.sketch).loss
            sum = sum + found[m][other]
        end
    end
    call.sketch:free()
    return sum, found
end

local function sweep_case(name, data, bins, momenta, mu)
    return { name = name, samples = data.n, bytes = data.bytes, run = function()
        return (swept(data, bins, momenta, mu))
    end, check = function(about)
        local _, found = swept(data, bins, momenta, mu)
        for _, c in ipairs(mu and about.boxes or about.logits) do
            for other, loss in pairs(found[c.bins] or {}) do
                local what = ("%s: the loss of %d bins, %g"):format(name, c.bins, other)
                if mu and other == c.mu then
                    check.near(loss, c.loss, check.LOSS, what)
                elseif momenta then -- S begins at 0, so a first call sees (1 - m) R
                    check.near(loss, c.loss / (1 - other), check.LOSS, what)
                end
            end
        end
    end }
end

local function sketch_case(data)
    local empty = sketches.new { bins = 10 }
    return { name = "sketch", bytes = data.bytes, run = function()
        local sketch = empty:like()
        local valid = sketch:add(data.batch).valid
        sketch:free()
        return valid
    end, check = function(about)
        local sketch, c = empty:like(), wanted(about.logits, 10)
        sketch:add(data.batch)
        local R = sketch:regions(10)
        sketch:free()
        for j = 0, 9 do
            check.near(tonumber(R[j]), c.R[j], 0, "sketch: the count of region " .. j)
        end
    end }
end

-- A new question to a saved sketch of the 64 M: load it, and what is the loss with 30 regions?
local function question_case(data, folder)
    local path = folder .. "/saved.sketch"
    local sketch = sketches.new { bins = SWEEP }
    sketch:add(data.batch)
    sketch:save(path)
    sketch:free()
    local function run()
        local loaded = sketches.load(path)
        local loss = harmonise.new("classification", { bins = 30 }):step(loaded).loss
        loaded:free()
        return loss
    end
    return { name = "question", run = run, check = function(about)
        check.near(run(), wanted(about.logits, 30).loss, check.LOSS, "question: the loss")
    end }
end

local function exact_case(data, device)
    local loss, density = ffi.new "double[1]", array.new("f8", { data.n })
    local function run()
        clib.check(C.ghm_exact_density(device, data.batch.c, 1, EPS, density.ptr, loss))
        return loss[0]
    end
    return { name = "exact", bytes = data.bytes, run = run, check = function()
        run()
        check.density(data, EPS, density.ptr, "exact: the density")
    end, keep = density }
end

local function finish(cases, place)
    for _, case in ipairs(cases) do
        local run = case.run
        case.maker, case.samples = case.maker or "ghm", case.samples or place.data.n
        case.time = case.time or function(calls)
            return clock.time(run, calls)
        end
    end
    return cases
end

-- A pass over other logits than the usual ones, and its gradient.
function M.passes(place)
    local data = place.data
    return finish({ sketch_case(data), loss_case("ghmc_10", data, 10, "GHMC"),
        gradient_case("ghmc_grad_10", data, 10, place.device) }, place)
end

-- Everything; place.device must be the default device, too.
function M.all(place)
    local data, boxes, device = place.data, place.boxes, place.device
    local cases = {
        limits.read(data.n * 12, place.threads),
        limits.copy(data.n * 12),
        sketch_case(data),
        loss_case("ghmc_10", data, 10, "GHMC"),
        loss_case("ghmc_30", data, 30, "GHMC"),
        gradient_case("ghmc_grad_10", data, 10, device),
        gradient_case("ghmc_grad_30", data, 30, device),
        loss_case("ghmr_10", boxes, 10, "GHMR"),
        loss_case("ghmr_30", boxes, 30, "GHMR"),
        sweep_case("sweep_1", data, { GENERAL }, { 0 }),
        sweep_case("sweep_64", data, SWEEP, { 0 }),
        sweep_case("sweep_64x8", data, SWEEP, M.MOMENTA),
        sweep_case("mu_16x16", boxes, BOX_BINS, nil, BOX_MU),
        question_case(data, place.folder),
        data.n <= EXACT_MOST and exact_case(data, device) or nil,
    }
    return finish(cases, place)
end

return M
