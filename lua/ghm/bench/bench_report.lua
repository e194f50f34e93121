-- What the bench found, for people and for files: tables, rows of results.csv, a figure.
--
--   bench_report.rows(found), bench_report.columns     results.csv, and `measurements` of --json
--   bench_report.text(found, gates, spec)              the tables on the terminal
--   bench_report.figure(found, spec)                   cost against size

local clock = require "ghm.bench.bench_clock"
local plan = require "ghm.bench.bench_plan"
local text = require "ghm.show.text"

local M = {}

M.columns = { "thing", "maker", "samples", "threads", "data", "ns_per_sample", "seconds", "spread",
    "rounds", "calls", "read_share" }

-- Share of the bandwidth of reading memory, by the rounds' own ratios; nil for what reads no data.
local function read_share(found, case)
    local read = found.find("read", case.samples, case.threads)
    if not read or not case.bytes or case.maker ~= "ghm" then
        return nil
    end
    -- both race in the same rounds, unless the data is of another kind
    local times = case.data == plan.USUAL and clock.ratio(read, case)
        or clock.median(read.seconds) / clock.median(case.seconds)
    return times * case.bytes / read.bytes
end

function M.rows(found)
    local rows = {}
    for i, case in ipairs(found.cases) do
        local seconds, spread = clock.median(case.seconds)
        rows[i] = { thing = case.name, maker = case.maker, samples = case.samples,
            threads = case.threads, data = case.data, seconds = seconds, spread = spread,
            ns_per_sample = case.name ~= "question" and seconds / case.samples * 1e9 or nil,
            rounds = #case.seconds, calls = case.calls, read_share = read_share(found, case) }
    end
    return rows
end

local things = {
    { "read", "read 12 B per sample" }, { "copy", "copy 12 B (one thread)" },
    { "sketch", "sketch" },
    { "ghmc_10", "GHM-C loss, 10 bins" }, { "ghmc_30", "GHM-C loss, 30 bins" },
    { "ghmc_grad_10", "loss and gradient, 10 bins" },
    { "ghmc_grad_30", "loss and gradient, 30 bins" },
    { "ghmr_10", "GHM-R loss, 10 bins" }, { "ghmr_30", "GHM-R loss, 30 bins" },
    { "sweep_1", "one general pass, M = 300" }, { "sweep_64", "sweep of 64 M" },
    { "sweep_64x8", "64 M x 8 momenta" }, { "mu_16x16", "GHM-R, 16 mu x 16 M" },
    { "exact", "exact density" },
}

-- peer, what it is, the thing of ghm beside it
local peers = {
    { "eager_ghmc_10", "mmdetection's GHM-C, 10 bins", "ghmc_10" },
    { "eager_ghmc_30", "mmdetection's GHM-C, 30 bins", "ghmc_30" },
    { "eager_ghmc_grad_10", "with backward, 10 bins", "ghmc_grad_10" },
    { "eager_ghmc_grad_30", "with backward, 30 bins", "ghmc_grad_30" },
    { "compiled_ghmc_10", "torch.compile, 10 bins", "ghmc_10" },
    { "compiled_ghmc_30", "torch.compile, 30 bins", "ghmc_30" },
    { "compiled_ghmc_grad_10", "torch.compile with backward", "ghmc_grad_10" },
    { "eager_ghmr_10", "mmdetection's GHM-R, 10 bins", "ghmr_10" },
    { "eager_ghmr_30", "mmdetection's GHM-R, 30 bins", "ghmr_30" },
    { "eager_bce", "plain BCE", "ghmc_10" },
    { "eager_bce_grad", "plain BCE with backward", "ghmc_grad_10" },
    { "eager_focal", "plain focal", "ghmc_10" },
    { "eager_focal_grad", "plain focal with backward", "ghmc_grad_10" },
    { "numpy_ghmc_30", "GHM-C in numpy, 30 bins", "ghmc_30" },
    { "eager_sweep", "GHM-C looped over 64 M", "sweep_64" },
}

-- 1e5, 2.5e6
local function short(size)
    local digits, power = ("%.3e"):format(size):match "^(.-)%.?0*e%+0*(%d+)$"
    return digits .. "e" .. power
end

-- One column per (size, threads); cell(case, size, threads) -> text or nil.
local function pivot(title, entries, spec, cell)
    local rows, columns = {}, { { key = "thing", title = title } }
    for _, size in ipairs(spec.sizes) do
        for _, threads in ipairs(spec.threads) do
            columns[#columns + 1] = { key = size .. " " .. threads, align = "right",
                title = ("%s, %d thr"):format(short(size), threads) }
        end
    end
    for _, entry in ipairs(entries) do
        local row, any = { thing = entry[2] }, false
        for _, size in ipairs(spec.sizes) do
            for _, threads in ipairs(spec.threads) do
                local value = cell(entry, size, threads)
                row[size .. " " .. threads], any = value, any or value ~= nil
            end
        end
        rows[#rows + 1] = any and row or nil
    end
    return #rows > 0 and text.table(rows, columns) or nil
end

local function ns(case, digits)
    return case and (digits or "%.2f"):format(clock.median(case.seconds) / case.samples * 1e9)
end

local function cost_table(found, spec)
    return pivot("ns per sample (median)", things, spec, function(entry, size, threads)
        return ns(found.find(entry[1], size, threads))
    end)
end

local function share_table(found, spec)
    return pivot("share of read bandwidth", things, spec, function(entry, size, threads)
        local case = found.find(entry[1], size, threads)
        local share = case and entry[1] ~= "exact" and read_share(found, case)
        return share and ("%.0f %%"):format(100 * share) or nil
    end)
end

local function peer_table(found, spec)
    return pivot("peers: ns per sample", peers, spec, function(entry, size, threads)
        return ns(found.find(entry[1], size, threads))
    end)
end

local function ratio_table(found, spec)
    return pivot("peers: times what ghm takes", peers, spec, function(entry, size, threads)
        local peer, own = found.find(entry[1], size, threads), found.find(entry[3], size, threads)
        return peer and own and ("%.3gx"):format((clock.ratio(peer, own)))
    end)
end

local kinds = { { plan.USUAL, "spread, float32" },
    { "skewed f4", "99 % easy" }, { "equal f4", "all logits equal" },
    { "spread f2", "float16 logits" }, { "spread labels", "integer labels" } }

local passes = { { "sketch", "sketch" }, { "ghmc_10", "loss" }, { "ghmc_grad_10", "+grad" } }

local function kind_table(found, spec)
    local size = plan.varied_size(spec.sizes)
    local rows, columns = {}, { { key = "kind",
        title = ("%s: ns a sample"):format(short(size)) } }
    for _, thing in ipairs(passes) do
        for _, threads in ipairs(spec.threads) do
            columns[#columns + 1] = { key = thing[1] .. threads, align = "right",
                title = ("%s, %d thr"):format(thing[2], threads) }
        end
    end
    for i, kind in ipairs(kinds) do
        rows[i] = { kind = kind[2] }
        for _, thing in ipairs(passes) do
            for _, threads in ipairs(spec.threads) do
                rows[i][thing[1] .. threads] = ns(found.find(thing[1], size, threads, kind[1]))
            end
        end
    end
    return text.table(rows, columns)
end

local function growth_table(found, spec)
    local rows = {}
    for i, memory in ipairs(found.memory) do
        local case = found.find("ghmc_10", memory.samples, memory.threads)
        local one = found.find("ghmc_10", memory.samples, spec.threads[1])
        rows[i] = { samples = short(memory.samples), threads = memory.threads, cost = ns(case),
            time = text.seconds((clock.median(case.seconds))), data = text.bytes(memory.data),
            working = memory.working and text.bytes(memory.working),
            gain = case ~= one and ("%.2fx"):format((clock.median(one.seconds))
                / (clock.median(case.seconds))) or "" }
    end
    local right = "right"
    return text.table(rows, { { key = "samples", title = "growth: samples", align = right },
        { key = "threads" }, { key = "cost", title = "ns per sample", align = right },
        { key = "time", align = right }, { key = "gain", align = right },
        { key = "data", align = right }, { key = "working", title = "beside it", align = right } })
end

local function gate_table(judged)
    local rows = {}
    for i, gate in ipairs(judged) do
        rows[i] = { claim = gate.claim, threads = gate.threads,
            samples = gate.samples and short(gate.samples),
            value = gate.value and ("%.3g"):format(gate.value) or "not measured",
            gate = ("%s %g"):format(gate.sense, gate.gate),
            holds = gate.value == nil and "" or gate.holds and "yes" or "NO" }
    end
    return text.table(rows, { { key = "claim", title = "gate" }, "threads",
        { key = "samples", align = "right" }, { key = "value", align = "right" },
        { key = "gate", title = "wanted" }, "holds" })
end

-- How much the rounds differ, so that nobody believes a noisy run.
local function noise_line(found)
    local spreads = {}
    for i, case in ipairs(found.cases) do
        spreads[i] = select(2, clock.median(case.seconds))
    end
    table.sort(spreads)
    return ("spread (distance of the quartiles over the median): %.1f %% for the median thing, "
        .. "%.0f %% for the worst"):format(100 * clock.median(spreads), 100 * spreads[#spreads])
end

function M.text(found, judged, spec)
    local held, measured = 0, 0
    for _, gate in ipairs(judged) do
        measured = measured + (gate.value ~= nil and 1 or 0)
        held = held + (gate.holds and 1 or 0)
    end
    local parts = { cost_table(found, spec), share_table(found, spec) }
    parts[#parts + 1] = peer_table(found, spec)
    parts[#parts + 1] = ratio_table(found, spec)
    parts[#parts + 1] = kind_table(found, spec)
    parts[#parts + 1] = growth_table(found, spec)
    parts[#parts + 1] = gate_table(judged)
    parts[#parts + 1] = ("%s\n%d of %d gates measured, %d hold\n"):format(noise_line(found),
        measured, #judged, held)
    return table.concat(parts, "\n")
end

local drawn = { { "eager_ghmc_10", "mmdetection's GHM-C" }, { "eager_bce", "PyTorch BCE" },
    { "exact", "exact density" }, { "sweep_64", "sweep of 64 M" },
    { "ghmc_grad_10", "loss and gradient" }, { "ghmc_10", "GHM-C loss" }, { "read", "read 12 B" } }

-- Cost against size: whole lines for the fewest threads, broken ones for the most.
function M.figure(found, spec)
    local series = {}
    for colour, entry in ipairs(drawn) do
        for k, threads in ipairs(spec.threads) do
            local x, y = {}, {}
            for _, size in ipairs(found.sizes) do
                local case = found.find(entry[1], size, threads)
                if case then
                    x[#x + 1], y[#y + 1] = size, tonumber(ns(case, "%.17g"))
                end
            end
            if #x > 0 then
                series[#series + 1] = { label = ("%s, %d thread%s"):format(entry[2], threads,
                    threads == 1 and "" or "s"), x = x, y = y, style = "linespoints",
                    colour = colour, dash = k > 1 }
            end
        end
    end
    return { title = "Cost of a call against its size, 10 bins", xlabel = "samples",
        ylabel = "ns per sample", xlog = true, ylog = true, series = series, height = 520 }
end

return M
