-- Devices: where passes run. One default device is opened when first needed.

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

return M
