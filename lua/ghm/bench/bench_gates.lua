-- What ghm claims about its speed on a CPU, and whether a run of the bench bears it out.
--
--   gates.judge(gate, value) -> { name, claim, value, gate, sense, holds }
--                               value nil: not measured, so holds is nil too
--   gates.evaluate(find, threads, sizes) -> list of them
--
-- find(thing, size, threads) is a timed case, or nil.

local cases = require "ghm.bench.bench_cases"
local clock = require "ghm.bench.bench_clock"

local M = {}

M.PEER_SIZE = 1e6 -- where claims against peers are made
local MOMENTA = #cases.MOMENTA -- of the sweep; a peer's time for one counts so many times

-- How many times longer `slow` takes than `fast`, at PEER_SIZE unless a size is given; largest: at
-- the largest size that was timed.
local ratios = {
    { name = "ghmc_10", claim = "GHM-C loss against mmdetection's, 10 bins", gate = 40,
        slow = "eager_ghmc_10", fast = "ghmc_10" },
    { name = "ghmc_30", claim = "GHM-C loss against mmdetection's, 30 bins", gate = 60,
        slow = "eager_ghmc_30", fast = "ghmc_30" },
    { name = "ghmc_grad_10", claim = "its loss and gradient, 10 bins", gate = 25,
        slow = "eager_ghmc_grad_10", fast = "ghmc_grad_10" },
    { name = "ghmc_grad_30", claim = "its loss and gradient, 30 bins", gate = 40,
        slow = "eager_ghmc_grad_30", fast = "ghmc_grad_30" },
    { name = "ghmr_10", claim = "GHM-R loss against mmdetection's, 10 bins", gate = 20,
        slow = "eager_ghmr_10", fast = "ghmr_10" },
    { name = "ghmr_30", claim = "GHM-R loss against mmdetection's, 30 bins", gate = 40,
        slow = "eager_ghmr_30", fast = "ghmr_30" },
    { name = "bce", claim = "GHM-C loss against plain BCE", gate = 5,
        slow = "eager_bce", fast = "ghmc_10" },
    { name = "focal", claim = "GHM-C loss against plain focal", gate = 10,
        slow = "eager_focal", fast = "ghmc_10" },
    { name = "bce_small", claim = "GHM-C loss against plain BCE, few samples", gate = 1,
        slow = "eager_bce", fast = "ghmc_10", size = 1e5 },
    { name = "sweep_peer", claim = "64 M x 8 momenta against PyTorch's loop", gate = 2000,
        slow = "eager_sweep", fast = "sweep_64x8", factor = MOMENTA },
    { name = "exact", claim = "exact density against mmdetection's, 10 bins", gate = 1,
        slow = "eager_ghmc_10", fast = "exact" },
    { name = "read_share", claim = "GHM-C loss, share of read bandwidth", gate = 0.55,
        slow = "read", fast = "ghmc_10", largest = true, one_thread = true },
    { name = "sweep_general", claim = "64 M against one general pass", gate = 1.3,
        slow = "sweep_64", fast = "sweep_1", largest = true, sense = "at most" },
    { name = "sweep_fastest", claim = "64 M against one GHM-C loss", gate = 2.2,
        slow = "sweep_64", fast = "ghmc_10", largest = true, sense = "at most" },
    { name = "mu_sweep", claim = "16 mu x 16 M against one GHM-R loss", gate = 5,
        slow = "mu_16x16", fast = "ghmr_10", largest = true, sense = "at most" },
}

-- sense: "at least" (default) or "at most".
function M.judge(gate, value)
    local holds
    if value ~= nil then
        if gate.sense == "at most" then
            holds = value <= gate.gate
        else
            holds = value >= gate.gate
        end
    end
    return { name = gate.name, claim = gate.claim, value = value, gate = gate.gate,
        sense = gate.sense or "at least", threads = gate.threads, samples = gate.samples,
        spread = gate.spread, holds = holds }
end

local function at(gate, threads, size)
    return setmetatable({ name = ("%s_t%d"):format(gate.name, threads), threads = threads,
        samples = size }, { __index = gate })
end

-- threads: list of thread counts; sizes: list of sample counts, rising.
-- digests: number of different sketches that different thread counts gave, or nil.
function M.evaluate(find, threads, sizes, digests)
    local list = {}
    local largest = sizes[#sizes]
    for _, t in ipairs(threads) do
        for _, ratio in ipairs(ratios) do
            if t == 1 or not ratio.one_thread then
                local size = ratio.largest and largest or ratio.size or M.PEER_SIZE
                local gate = at(ratio, t, size)
                local slow, fast = find(ratio.slow, size, t), find(ratio.fast, size, t)
                local value
                if slow and fast then
                    value, gate.spread = clock.ratio(slow, fast)
                    value = value * (ratio.factor or 1)
                end
                list[#list + 1] = M.judge(gate, value)
            end
        end
        local question = find("question", largest, t)
        list[#list + 1] = M.judge(at({ name = "question", gate = 5, sense = "at most",
            claim = "a later question to a saved sketch, ms" }, t, largest),
            question and clock.median(question.seconds) * 1e3)
    end
    list[#list + 1] = M.judge({ name = "same_bits", gate = 1, sense = "at most",
        claim = "different sketches from 1, 2, 3 and 16 threads" }, digests)
    return list
end

return M
