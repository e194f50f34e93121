-- The bench on a GPU: passes over data that lies on the device, timed by its own clock, beside the
-- copy that bounds them and PyTorch on the same GPU.

local child = require "ghm.bench.bench_child"
local clib = require "ghm.clib"
local csv = require "ghm.show.csv"
local data = require "ghm.bench.bench_data"
local device = require "ghm.device"
local fault = require "ghm.fault"
local ffi = require "ffi"
local peers = require "ghm.bench.bench_peers"
local posix = require "ghm.posix"
local provenance = require "ghm.runner.provenance"
local runs = require "ghm.runner.runs"
local sketches = require "ghm.sketches"
local text = require "ghm.show.text"

local C = clib.C
local M = {}

local WARM, ROUNDS = 3, 21
local KINDS = { "spread", "skewed", "equal" }
local CHECKED_MOST, PEER_SIZE = 2e7, 1e7
local GATED_LEAST = 1e8 -- samples for which the gates were set: below, what any pass costs shows
local SWEEP = {}
for i = 1, 64 do
    SWEEP[i] = i + 1
end

local columns = { "samples", "data", "what", "ms", "gb_per_s", "of_floor", "gate", "holds" }

local function digits(value)
    return value and ("%.3g"):format(value) or ""
end
local shown = { { key = "samples", format = text.number }, "data", "what",
    { key = "ms", format = digits }, { key = "gb_per_s", title = "GB/s", format = digits },
    { key = "of_floor", title = "x floor", format = digits }, { key = "gate", format = digits },
    { key = "holds", format = function(value)
        return value == nil and "" or value and "yes" or "no"
    end } }

local function median(list)
    table.sort(list)
    return list[math.ceil(#list / 2)]
end

-- Median seconds of a pass by the device's clock.
local function time(run)
    local seconds, list = ffi.new "double[1]", {}
    for round = 1 - WARM, ROUNDS do
        run()
        clib.check(C.ghm_device_elapsed(device.default(), seconds))
        list[#list + 1] = round > 0 and seconds[0] or nil
    end
    return median(list)
end

-- Bytes that a copy within the device moves in a second, read and written: what bounds a pass.
local function bandwidth(bytes)
    local from = device.array("u1", { bytes })
    local to = device.array("u1", { bytes })
    local seconds = time(function()
        clib.check(C.ghm_memory_copy(device.default(), to.remote, from.remote, bytes))
    end)
    from:free()
    to:free()
    return 2 * bytes / seconds
end

local function sketch_pass(one, spec)
    local like = sketches.new(spec)
    return function()
        local s = like:like()
        s:add(one)
        s:free()
    end
end

local function gradient_pass(one, grad)
    local beta, places = ffi.new("double[10]", 1), ffi.new "ghm_outputs"
    for j = 0, 9 do
        beta[j] = 1 + j
    end
    places.grad = grad.remote
    return function()
        clib.check(C.ghm_gradient(device.default(), one.c, C.GHM_BCE, 0, 0, 10, 1, beta, 1, 1,
            places))
    end
end

-- The sketch must be the CPU's to the bit before any time counts.
local function same_bits(one, spec, what)
    local digests = {}
    for i, where in ipairs { device.default(), device.open "cpu" } do
        local s = sketches.new(spec)
        s:add(one, { device = where })
        digests[i] = s:digest()
        s:free()
    end
    if digests[1] ~= digests[2] then
        fault.raise("failed", "%s: the sketch is %s, the CPU's is %s", what, digests[1], digests[2])
    end
end

local function measure_kind(found, kind, size, rate)
    if size <= CHECKED_MOST then
        local other = data.logits(kind, size) -- another one: the CPU's pass fetches it for good
        same_bits(other.batch, { bins = { 10, 30 } }, kind)
        other:free()
    end
    local one = data.logits(kind, size)
    local batch, n = one.batch, one.n
    local function row(what, seconds, bytes, gate)
        local of_floor = seconds / (n * bytes / rate)
        gate = n >= GATED_LEAST and gate or nil
        found[#found + 1] = { samples = n, data = kind, what = what, ms = seconds * 1e3,
            gb_per_s = n * bytes / seconds / 1e9, of_floor = of_floor, gate = gate,
            holds = gate and of_floor <= gate }
        return seconds
    end
    local loss = row("sketch", time(sketch_pass(batch, { bins = 10 })), 12, 1.4)
    row("sketch of 64 M", time(sketch_pass(batch, { bins = SWEEP })), 12, 2)
    local grad = device.array("f4", batch.shape)
    local slope = time(gradient_pass(batch, grad))
    row("gradient", slope, 16)
    row("loss and gradient", loss + slope, 28, 1.4)
    grad:free()
    one:free()
    return loss
end

-- What PyTorch takes for mmdetection's formula on the same data.
local function time_peers(found, process, folder, loss)
    local logits, boxes = data.logits("spread", PEER_SIZE), data.boxes(PEER_SIZE)
    peers.load(process, { data = logits, boxes = boxes, folder = folder }, "cuda")
    for maker, gate in pairs { eager = 100, compiled = 3 } do
        local request = { ["do"] = "time", maker = maker, what = "ghmc", bins = 10, calls = WARM }
        process:ask(request)
        request.calls = ROUNDS
        local reply = process:ask(request)
        local seconds = reply.seconds and reply.seconds / ROUNDS
        found[#found + 1] = { samples = logits.n, data = "spread", what = "PyTorch " .. maker
            .. (seconds and "" or ": " .. reply.error), ms = seconds and seconds * 1e3,
            gate = gate, holds = seconds and seconds / loss >= gate }
    end
    logits:free()
    boxes:free()
end

-- The same where PyTorch sees the GPU. Returns why there is nothing; our own times stand without.
local function measure_peers(found, args, defaults, loss)
    local folder = posix.capture "mktemp -d"
    local process, reason = child.start(args.python or defaults.python, defaults.script, folder, 1)
    if process and process.versions.cuda then
        local ok, problem = pcall(time_peers, found, process, folder, loss)
        if not ok and not (fault.is(problem) and problem.kind == "failed") then
            error(problem, 0)
        end
        reason = not ok and problem.message or nil
    else
        reason = reason or "PyTorch sees no GPU"
    end
    if process then
        process:stop()
    end
    posix.capture("rm -rf -- " .. posix.quote(folder))
    return reason
end

-- args: of cli.parse, args.device a CUDA device; sizes: list. Returns the exit code.
function M.run(args, defaults, sizes)
    if args.dry_run then
        for _, size in ipairs(sizes) do
            print(("%g samples of %s logits on %s, %d rounds"):format(size,
                table.concat(KINDS, ", "), args.device, ROUNDS))
        end
        return 0
    end
    device.default(device.open(args.device, args.threads))
    local found, peer_loss, missing = {}, nil, nil
    for _, size in ipairs(sizes) do
        local rate, least, most = bandwidth(size * 12), math.huge, 0
        for _, kind in ipairs(KINDS) do
            local loss = measure_kind(found, kind, size, rate)
            least, most = math.min(least, loss), math.max(most, loss)
            peer_loss = kind == "spread" and size == PEER_SIZE and loss or peer_loss
        end
        local gate = size >= GATED_LEAST and 1.3 or nil
        found[#found + 1] = { samples = size, data = "all", what = "slowest over fastest sketch",
            of_floor = most / least, gate = gate, holds = gate and most / least <= gate }
    end
    if not args.no_peers and peer_loss then
        missing = measure_peers(found, args, defaults, peer_loss)
    end
    local run = runs.create { out = args.out, experiment = "bench", name = args.name,
        info = { argv = args.argv } }
    run:write_csv("results.csv", found, columns)
    run:write_json("provenance.json", provenance.collect { device = device.name(),
        threads = device.threads(), library = { version = clib.version, build = clib.build } })
    if args.csv then
        csv.write(args.csv, found, columns)
    end
    print(("%s, %s%s\n\n%s"):format(device.name(), clib.build, missing and "\nmissing: " .. missing
        or "", text.table(found, shown)))
    return 0
end

return M
