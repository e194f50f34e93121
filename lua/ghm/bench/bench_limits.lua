-- What memory allows: the time to read a buffer once, and to copy it. glibc's strlen looks at every
-- byte with the CPU's widest loads, and is a function that a thread can be started with.

local array = require "ghm.array"
local check = require "ghm.bench.bench_check"
local fault = require "ghm.fault"
local ffi = require "ffi"

ffi.cdef [[
size_t strlen(const char *text);
int pthread_create(unsigned long *thread, const void *attributes, void *start, void *argument);
int pthread_join(unsigned long thread, void **result);
void *memcpy(void *to, const void *from, size_t n);
]]

local C = ffi.C
local M = {}

-- Reads `bytes` bytes, one slice per thread; its value is the number of bytes that were read.
function M.read(bytes, threads)
    local buffer = array.new("u1", { bytes })
    ffi.fill(buffer.ptr, bytes, 1)
    local ends, slices = {}, {}
    for k = 0, threads do
        ends[k] = math.floor(bytes * k / threads)
    end
    for k = 1, threads do
        slices[k] = ffi.cast("char *", buffer.ptr) + ends[k - 1]
        buffer.ptr[ends[k] - 1] = 0
    end
    local thread, length = ffi.new("unsigned long[?]", threads), ffi.new "void *[1]"
    local start = ffi.cast("void *", C.strlen)
    local function run()
        local total = threads -- the zeros
        for k = 2, threads do
            if C.pthread_create(thread + (k - 1), nil, start, slices[k]) ~= 0 then
                fault.raise("failed", "cannot start %d threads", threads)
            end
        end
        total = total + tonumber(C.strlen(slices[1]))
        for k = 2, threads do
            C.pthread_join(thread[k - 1], length)
            total = total + tonumber(ffi.cast("uintptr_t", length[0]))
        end
        return total
    end
    return { name = "read", maker = "machine", bytes = 12, run = run, check = function()
        check.near(run(), bytes, 0, "read: the number of bytes")
    end, keep = buffer }
end

-- Copies `bytes` bytes with memcpy, on one thread.
function M.copy(bytes)
    local from, to = array.new("u1", { bytes }), array.new("u1", { bytes })
    ffi.fill(from.ptr, bytes, 1)
    local function run()
        C.memcpy(to.ptr, from.ptr, bytes)
        return to.ptr[bytes - 1]
    end
    return { name = "copy", maker = "machine", bytes = 12, run = run, check = function()
        check.near(run(), 1, 0, "copy: the last byte")
    end, keep = { from, to } }
end

return M
