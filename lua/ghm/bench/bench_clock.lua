-- Time, and how things are timed beside each other: in rounds, warm, the collector held back.
--
-- A case is { name, time = function(calls) -> seconds of so many calls in a row, remote = bool }.
-- race() adds: calls, seconds (list: one entry per round, of one call).

local ffi = require "ffi"
local posix = require "ghm.posix"

ffi.cdef "int usleep(unsigned int microseconds);"

local C = ffi.C
local M = {}

M.ROUNDS = 11 -- of each case; an odd number has a median that was measured
M.FEW = 3 -- rounds of what takes longer than SLOW
local SLOW = 2 -- seconds
local LEAST = 5e-3 -- a shorter call is repeated until a round takes so long
local WARM_BELOW = 0.25 -- seconds; a longer call is not hurt by what ran before it
local SPIN = 30000 -- µs until the idle threads of another process have stopped spinning

local consumed = 0 -- what timed functions return goes here, so that nothing they do is in vain

-- Seconds that `calls` calls of run() take; run returns a number.
function M.time(run, calls)
    collectgarbage()
    collectgarbage "stop"
    local ok, result = pcall(function()
        local begun = posix.now()
        for _ = 1, calls do
            consumed = consumed + run()
        end
        return posix.now() - begun
    end)
    collectgarbage "restart"
    if not ok then
        error(result, 0)
    end
    return result
end

-- How many calls make a round of a case, and how many rounds there are; seconds of one call.
local function calibrate(case, rounds)
    case.calls, case.seconds = 1, {}
    local once = case.time(1) -- pages, code, tables: not the usual time of a short call
    for _ = 1, once > SLOW and 0 or 3 do
        once = case.time(case.calls) / case.calls
        local calls = math.max(1, math.min(1000, math.ceil(LEAST / once)))
        if calls == case.calls then
            break
        end
        case.calls = calls
    end
    case.rounds = once > SLOW and math.min(M.FEW, rounds) or rounds
    return once
end

-- Times cases in turn, round after round, so that a noisy moment meets all of them. As many untimed
-- calls precede the timed ones: what ran before has the caches, and a CPU that slept is slow.
-- rounds: nil for M.ROUNDS.
function M.race(cases, rounds)
    rounds = rounds or M.ROUNDS
    local before, once = false, {}
    local function turn_to(case)
        local remote = case.remote or false
        if before ~= remote then
            C.usleep(SPIN)
        end
        before = remote
    end
    for _, case in ipairs(cases) do
        turn_to(case)
        once[case] = calibrate(case, rounds)
    end
    for round = 1, rounds do
        for _, case in ipairs(cases) do
            if round <= case.rounds then
                turn_to(case)
                if once[case] < WARM_BELOW then
                    case.time(case.calls)
                end
                case.seconds[round] = case.time(case.calls) / case.calls
            end
        end
    end
    return cases
end

local function at(sorted, share)
    local place = 1 + share * (#sorted - 1)
    local low = math.floor(place)
    local high = math.min(low + 1, #sorted)
    return sorted[low] + (place - low) * (sorted[high] - sorted[low])
end

-- median of a list, and its spread: the distance of the quartiles over the median.
function M.median(list)
    local sorted = { unpack(list) }
    table.sort(sorted)
    local median = at(sorted, 0.5)
    return median, (at(sorted, 0.75) - at(sorted, 0.25)) / median
end

-- How many times longer `slow` takes than `fast`: the median of the rounds' own ratios, its spread.
function M.ratio(slow, fast)
    local ratios = {}
    for round = 1, math.min(#slow.seconds, #fast.seconds) do
        ratios[round] = slow.seconds[round] / fast.seconds[round]
    end
    return M.median(ratios)
end

return M
