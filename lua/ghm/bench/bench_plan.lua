-- The bench's plan: which data, which things beside each other, in which order; and what was found.
--
--   found = bench_plan.run { sizes, threads (lists), grown, rounds, quick, child, folder, say }
--   found.sizes      all sizes
--   found.cases      list of timed cases (bench_clock), each with samples, threads, data, group
--   found.find(name, samples, threads [, data])
--   found.memory     list of { samples, threads, data, working }: bytes
--   found.digests    number of different sketches from 1, 2, 3 and 16 threads
--   found.problems   list: peers that failed

local cases = require "ghm.bench.bench_cases"
local check = require "ghm.bench.bench_check"
local clock = require "ghm.bench.bench_clock"
local data = require "ghm.bench.bench_data"
local device = require "ghm.device"
local ffi = require "ffi"
local gates = require "ghm.bench.bench_gates"
local losses = require "ghm.losses"
local peers = require "ghm.bench.bench_peers"
local sketches = require "ghm.sketches"
local text = require "ghm.show.text"

ffi.cdef "int malloc_trim(size_t pad);"

local M = {}

local PEERS_MOST = 2e7 -- samples; beyond, a peer takes minutes
M.USUAL = "spread f4"
local variants = { { "skewed" }, { "equal" }, { "spread", "f2" }, { "spread", "labels" } }

-- VmHWM or VmRSS of this process in bytes.
local function memory(field)
    for line in io.lines "/proc/self/status" do
        local kilobytes = line:match("^" .. field .. ":%s*(%d+)")
        if kilobytes then
            return tonumber(kilobytes) * 1024
        end
    end
end

-- Bytes that a first loss on a fresh device takes beside its data; nil where the system does not
-- tell.
local function working_memory(batch)
    collectgarbage()
    collectgarbage()
    ffi.C.malloc_trim(0) -- memory that is only kept would be taken again unseen
    local file = io.open("/proc/self/clear_refs", "w")
    if not file then
        return nil
    end
    file:write "5" -- the peak begins anew
    file:close()
    local before = memory "VmRSS"
    losses.GHMC { bins = 10 }:forward_batch(batch)
    return math.max(0, memory "VmHWM" - before)
end

local function digests(batch)
    local seen, different = {}, 0
    for _, threads in ipairs { 1, 2, 3, 16 } do
        local sketch = sketches.new { bins = { 10, 30 } }
        sketch:add(batch, { device = device.open("cpu", threads) })
        different = different + (seen[sketch:digest()] and 0 or 1)
        seen[sketch:digest()] = true
        sketch:free()
    end
    return different
end

local function place_for(spec, threads)
    local place = { device = device.open("cpu", threads), threads = threads,
        folder = spec.folder }
    device.default(place.device)
    return place
end

-- Checks ghm's cases, adds the peers, times all of them and keeps them in found.cases.
local function race(spec, found, list, place, about, asked, label)
    for _, case in ipairs(list) do
        case.check(about)
    end
    if spec.child and asked then
        local others, problems = peers.cases(spec.child, asked, place, about)
        for _, case in ipairs(others) do
            list[#list + 1] = case
        end
        for _, problem in ipairs(problems) do
            found.problems[#found.problems + 1] = ("%d samples, %d threads: %s"):format(
                place.data.n, place.threads, problem)
        end
    end
    spec.say(("%s samples, %s, %d thread%s: %d things"):format(text.number(place.data.n), label,
        place.threads, place.threads == 1 and "" or "s", #list))
    clock.race(list, spec.rounds)
    for _, case in ipairs(list) do
        case.threads, case.data = place.threads, label
        case.keep, case.run, case.check, case.time = nil, nil, nil, nil -- lets go of the memory
        found.cases[#found.cases + 1] = case
    end
end

-- What a loss takes of memory, for the table of growth.
local function note_memory(found, place)
    local one = place.data
    found.memory[#found.memory + 1] = { samples = one.n, threads = place.threads,
        data = one.n * one.bytes, working = working_memory(one.batch) }
end

local function at_size(spec, found, size)
    local logits, boxes = data.logits("spread", size), data.boxes(size)
    local about = { logits = check.reference(logits, cases.class_configurations),
        boxes = check.reference(boxes, cases.box_configurations) }
    local asked = size == gates.PEER_SIZE and (spec.quick and "quick" or "all") or "few"
    if spec.child and size <= PEERS_MOST then
        peers.load(spec.child, { data = logits, boxes = boxes, folder = spec.folder })
    end
    for _, threads in ipairs(spec.threads) do
        local place = place_for(spec, threads)
        place.data, place.boxes = logits, boxes
        note_memory(found, place)
        race(spec, found, cases.all(place), place, about, size <= PEERS_MOST and asked, M.USUAL)
    end
    found.digests = math.max(found.digests or 0, digests(logits.batch))
    if spec.child then
        spec.child:ask { ["do"] = "drop" }
    end
    logits:free()
    boxes:free()
end

-- The passes alone, over other logits and forms of target or a size too large for all else.
local function passes(spec, found, name, size, form, usual)
    local logits = data.logits(name, size, form)
    local about = { logits = check.reference(logits, { { bins = 10 } }) }
    for _, threads in ipairs(spec.threads) do
        local place = place_for(spec, threads)
        place.data = logits
        if usual then
            note_memory(found, place)
        end
        race(spec, found, cases.passes(place), place, about, nil,
            usual or name .. " " .. (form or "f4"))
    end
    logits:free()
end

-- The size at which data of other kinds is timed: the largest one that is not enormous.
function M.varied_size(sizes)
    local size = sizes[1]
    for _, other in ipairs(sizes) do
        size = other <= PEERS_MOST and math.max(size, other) or size
    end
    return size
end

function M.run(spec)
    local found = { cases = {}, memory = {}, problems = {}, sizes = { unpack(spec.sizes) } }
    found.sizes[#found.sizes + 1] = spec.grown
    for _, size in ipairs(spec.sizes) do
        at_size(spec, found, size)
        collectgarbage()
    end
    for _, variant in ipairs(variants) do
        passes(spec, found, variant[1], M.varied_size(spec.sizes), variant[2])
    end
    if spec.grown then
        passes(spec, found, "spread", spec.grown, nil, M.USUAL)
    end
    function found.find(name, samples, threads, label)
        for _, case in ipairs(found.cases) do
            -- whole rows make 99 840 or 100 000 samples of 1e5
            if case.name == name and case.threads == threads
                and case.data == (label or M.USUAL)
                and math.abs(case.samples - samples) <= 80 then
                return case
            end
        end
    end
    return found
end

return M
