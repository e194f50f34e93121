-- Devices: where passes run. One default device is opened when first needed.

local array = require "ghm.array"
local clib = require "ghm.clib"
local ffi = require "ffi"

local C = clib.C
local M = {}
local default

-- name: "auto", "cpu", "cuda", "cuda:1"; threads: nil or 0 for all. Throws fault "device" (4).
-- Returns a ghm_device*, freed by the collector.
function M.open(name, threads)
    local out = clib.place "ghm_device *"
    clib.check(C.ghm_device_open(name or "auto", math.min(threads or 0, 2 ^ 31 - 1), out))
    return clib.own(out[0], C.ghm_device_free)
end

-- What passes use when they are not told; set by the command line.
function M.default(device)
    default = device or default or M.open()
    return default
end

-- "cpu avx2, 2 threads"
function M.name(device)
    return ffi.string(C.ghm_device_name(device or M.default()))
end

function M.threads(device)
    return C.ghm_device_threads(device or M.default())
end

-- Whether passes of a device read the memory of this process.
function M.is_here(device)
    return M.name(device):find "^cpu " ~= nil
end

-- An array in the memory where a device computes (the default one unless given): passes there use
-- it without a copy, and asking for its elements here makes one. On "cpu" it is an ordinary array.
function M.array(dtype, shape, device)
    device = device or M.default()
    if M.is_here(device) then
        return array.new(dtype, shape)
    end
    local bytes, out = array.count(shape) * array.itemsize[dtype], clib.place "void *"
    array.account(bytes)
    clib.check(C.ghm_memory_new(device, bytes, out))
    local memory = ffi.gc(out[0], function(pointer)
        C.ghm_memory_free(device, pointer)
    end)
    return array.remote(memory, dtype, shape, function(here)
        clib.check(C.ghm_memory_copy(device, here, memory, bytes))
    end, function()
        C.ghm_memory_free(device, ffi.gc(memory, nil))
    end)
end

return M
