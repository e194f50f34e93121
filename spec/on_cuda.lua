-- The device of the CUDA specs, and what they compare: a pass there with the same pass on the CPU.

local lu = require "luaunit"
local clib = require "ghm.clib"
local device = require "ghm.device"
local ffi = require "ffi"
local sketches = require "ghm.sketches"

local M = {}

local opened, reason

-- The device; without one the test is skipped, or fails where GHM_REQUIRE_CUDA=1.
function M.device()
    if not opened and not reason then
        local ok, result = pcall(device.open, "cuda")
        opened, reason = ok and result or nil, not ok and tostring(result)
    end
    if reason then
        if os.getenv "GHM_REQUIRE_CUDA" == "1" then
            error("GHM_REQUIRE_CUDA=1, but " .. reason, 2)
        end
        lu.skip(reason)
    end
    return opened
end

-- Whether it is the stand-in of spec/emulated, to which large data would be a long time.
function M.is_emulated()
    return device.name(M.device()):find("emulated", 1, true) ~= nil
end

local cpu
function M.cpu()
    cpu = cpu or device.open("cpu", 1)
    return cpu
end

-- An array of n float32 on the device; `skip` elements before it stay unused.
function M.array(n, skip)
    local all = device.array("f4", { n + (skip or 0) }, M.device())
    all.n, all.shape = n, { n }
    all.remote = ffi.cast("float *", all.remote) + (skip or 0)
    return all
end

-- A copy of an array of float32 on the device.
function M.sent(a, skip)
    local there = M.array(a.n, skip)
    clib.check(clib.C.ghm_memory_copy(M.device(), there.remote, a.ptr, 4 * a.n))
    return there
end

-- A sketch of a batch on a device, and the facts of the pass.
function M.sketch(spec, one, where, opts)
    local s = sketches.new(spec)
    local facts = s:add(one, { device = where, nonfinite = opts and opts.nonfinite })
    return s, facts
end

-- Asserts that a batch leaves the same sketch and facts on both devices. The CPU is the second: it
-- fetches what lies on the other one, for good.
function M.same_sketch(spec, one, opts, what)
    local form = one.form -- which the first reading may find to be soft
    local got, facts = M.sketch(spec, one, M.device(), opts)
    one.form = form
    local wanted, wanted_facts = M.sketch(spec, one, M.cpu(), opts)
    lu.assertEquals(facts, wanted_facts, what)
    lu.assertEquals(got:facts(), wanted:facts(), what)
    lu.assertEquals(got:digest(), wanted:digest(), what)
    wanted:free()
    got:free()
end

return M
