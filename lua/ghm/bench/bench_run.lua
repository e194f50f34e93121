-- The bench as experiments/bench.lua runs it: options, peers' process, plan, report, run folder.

local axis = require "ghm.runner.axis"
local child = require "ghm.bench.bench_child"
local clib = require "ghm.clib"
local clock = require "ghm.bench.bench_clock"
local csv = require "ghm.show.csv"
local device = require "ghm.device"
local fault = require "ghm.fault"
local gates = require "ghm.bench.bench_gates"
local gnuplot = require "ghm.show.gnuplot"
local json = require "ghm.json"
local plan = require "ghm.bench.bench_plan"
local posix = require "ghm.posix"
local provenance = require "ghm.runner.provenance"
local report = require "ghm.bench.bench_report"
local runs = require "ghm.runner.runs"
local text = require "ghm.show.text"

local M = {}

local SIZES, QUICK_SIZES, QUICK_ROUNDS = "1e5,1e6,1e7", "1e6", 5
local GROWN, GROWN_BYTES = 1e8, 4e9 -- samples of which passes alone are timed; memory for them
local LEAST, MOST = 1000, 1e9 -- samples: fewer leave regions empty, more do not fit most machines

local function sizes_of(args)
    local sizes = axis.parse(args.sizes or args.quick and QUICK_SIZES or SIZES,
        { name = "--sizes", integer = true })
    table.sort(sizes)
    for _, size in ipairs(sizes) do
        if size < LEAST or size > MOST then
            fault.raise("usage", "--sizes: %.15g is outside %g to %g", size, LEAST, MOST)
        end
    end
    return sizes
end

-- The size for the end of the table of growth; nil where sizes were named or memory is scarce.
local function grown_of(args)
    local file = not args.sizes and not args.quick and io.open "/proc/meminfo"
    local kilobytes = file and file:read("*a"):match "MemAvailable:%s*(%d+)"
    if file then
        file:close()
    end
    return kilobytes and kilobytes * 1024 >= GROWN_BYTES and GROWN or nil
end

-- One thread and all, or what --threads says.
local function threads_of(args)
    local all = device.threads(device.open "cpu")
    return args.threads and { args.threads } or all > 1 and { 1, all } or { 1 }
end

-- The process of the peers, and what is missing without it.
local function start_peers(args, defaults, folder, threads)
    if args.no_peers then
        return nil, { "peers: --no-peers" }
    end
    local process, reason = child.start(args.python or defaults.python, defaults.script, folder,
        math.max(unpack(threads)))
    if not process then
        return nil, { "peers: " .. reason }
    end
    return process, not process.versions.torch and { "PyTorch: not in "
        .. (args.python or defaults.python) .. ": make bench-peers" } or {}
end

-- Runs work(folder) with a folder of its own below the system's temporary one, gone afterwards.
local function with_folder(work)
    local folder, status = posix.capture "mktemp -d"
    if status ~= 0 then
        fault.raise("failed", "cannot make a temporary folder")
    end
    local ok, result = pcall(work, folder)
    posix.capture("rm -rf -- " .. posix.quote(folder))
    if not ok then
        error(result, 0)
    end
    return result
end

local function heading(facts, spec, versions, missing)
    local lines = { ("%s, %s"):format(facts.cpu or facts.architecture, device.name(device.open(
        "cpu", spec.threads[#spec.threads]))), clib.build }
    lines[#lines + 1] = versions and ("peers: PyTorch %s, numpy %s"):format(
        versions.torch or "(none)", versions.numpy) or nil
    for _, line in ipairs(missing) do
        lines[#lines + 1] = "missing: " .. line
    end
    return table.concat(lines, "\n")
end

local function dry_run(spec)
    local sizes = { unpack(spec.sizes) }
    sizes[#sizes + 1] = spec.grown
    for _, size in ipairs(sizes) do
        for _, threads in ipairs(spec.threads) do
            print(("%g samples on %s, %d rounds%s"):format(size, text.count(threads, "thread"),
                spec.rounds or clock.ROUNDS, size == spec.grown and ", passes alone" or ""))
        end
    end
end

local function measure(args, defaults, spec)
    return with_folder(function(folder)
        local process, missing = start_peers(args, defaults, folder, spec.threads)
        spec.child, spec.folder = process, folder
        local ok, found = pcall(plan.run, spec)
        if process then
            process:stop()
        end
        if not ok then
            error(found, 0)
        end
        found.missing, found.versions = missing, process and process.versions
        for _, problem in ipairs(found.problems) do
            table.insert(missing, problem)
        end
        return found
    end)
end

local function nullable(judged)
    local list = json.array {}
    for i, gate in ipairs(judged) do
        list[i] = json.object { { "name", gate.name }, { "claim", gate.claim },
            { "value", gate.value or json.null }, { "gate", gate.gate }, { "sense", gate.sense },
            { "holds", gate.holds == nil and json.null or gate.holds },
            { "threads", gate.threads }, { "samples", gate.samples }, { "spread", gate.spread } }
    end
    return list
end

-- args: of cli.parse; defaults: { python, script }. Returns the exit code. Gates that do not hold
-- are told, they are no failure; a wrong result is one (fault "failed").
function M.run(args, defaults)
    if args.device and args.device:find "^cuda" then
        return require("ghm.bench.bench_cuda").run(args, defaults,
            args.sizes and sizes_of(args) or { 1e6, 1e7, 1e8 })
    end
    local spec = { sizes = sizes_of(args), threads = threads_of(args), quick = args.quick,
        grown = grown_of(args),
        rounds = args.quick and QUICK_ROUNDS or nil, say = function(line)
            if not args.quiet then
                io.stderr:write(line, "\n")
            end
        end }
    if args.dry_run then
        return dry_run(spec)
    end
    clib.check(clib.C.ghm_interrupt_catch())
    local found = measure(args, defaults, spec)
    local judged = gates.evaluate(found.find, spec.threads, spec.sizes, found.digests)
    local rows = report.rows(found)
    local run = runs.create { out = args.out, experiment = "bench", name = args.name,
        info = { argv = args.argv, sizes = json.array(spec.sizes),
            threads = json.array(spec.threads) } }
    local facts = provenance.collect { device = device.name(), threads = spec.threads,
        library = { version = clib.version, build = clib.build } }
    facts.peers = found.versions
    run:write_csv("results.csv", rows, report.columns)
    run:write_json("gates.json", nullable(judged))
    run:write_json("provenance.json", facts)
    local complaint
    if #gnuplot.images(args.plot) > 0 then
        posix.make_folders(run:path "plots")
        local made, reason = gnuplot.draw(run:path "plots/cost_by_size",
            report.figure(found, spec), args.plot)
        complaint = not made and reason or nil
    end
    if args.csv then
        csv.write(args.csv, rows, report.columns)
    end
    if args.json then
        print(json.encode({ run = run.dir, machine = facts, missing = json.array(found.missing),
            measurements = json.array(rows), memory = json.array(found.memory),
            gates = nullable(judged) }, { indent = 2 }))
    elseif args.csv ~= "-" then
        print(heading(facts, spec, found.versions, found.missing) .. "\n\n"
            .. report.text(found, judged, spec))
    end
    io.stdout:flush()
    if complaint then
        spec.say("figure: " .. complaint)
    end
    spec.say("run folder: " .. run.dir)
    return 0
end

return M
