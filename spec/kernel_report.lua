-- What the kernels take of a GPU, as ptxas told when they were built (build/cuda/*.txt).
--
--   report.kernels() -> list of { name, arch, registers, stack, spilled }, ours and CUB's
--   report.shared() -> list of { lines, bytes }, what a sketch's block asks for at its launch
--   luajit spec/kernel_report.lua      a table of ours, and the device that "cuda" opens

local root = assert(debug.getinfo(1, "S").source:match "^@(.*)spec/kernel_report%.lua$")
root = root == "" and "./" or root

local M = {}

function M.kernels()
    local list, kernel = {}, nil
    for line in io.popen("cat '" .. root:gsub("'", "'\\''") .. "'build/cuda/*.txt 2>/dev/null")
        :lines() do
        local name, arch = line:match "Compiling entry function '(.-)' for '(.-)'"
        if name then
            kernel = { name = name, arch = arch }
            list[#list + 1] = kernel
        end
        local stack, stores, loads = line:match
            "(%d+) bytes stack frame, (%d+) bytes spill stores, (%d+) bytes spill loads"
        if stack and not kernel.stack then
            kernel.stack, kernel.spilled = tonumber(stack), stores + loads
        end
        local registers = line:match "Used (%d+) registers"
        if registers then
            kernel.registers = tonumber(registers)
        end
    end
    return list
end

-- The kernels of this project, not the library's.
function M.ours()
    local list = {}
    for _, kernel in ipairs(M.kernels()) do
        if kernel.name:find "^ghm_" then
            list[#list + 1] = kernel
        end
    end
    return list
end

local program = [[
#include "cuda/jobs.h"
#include <stdio.h>

int main(void)
{
    const size_t most = 227 << 10; /* that any GPU allows a block */
    for (uint32_t lines = 2048; job_sketch_shared(lines) <= most; lines *= 2) {
        printf("%u %zu\n", lines, job_sketch_shared(lines));
    }
}
]]

-- Of tables of so many lines, by cuda/jobs.h itself: compiled by CC, with the header of the
-- emulated CUDA, which is always there.
function M.shared()
    local built, list = os.tmpname(), {}
    local pipe = io.popen(("cd '%s' && printf %%s '%s' | ${CC:-cc} -I. -Ispec/emulated -x c "
        .. "-o %s - && %s"):format(root:gsub("'", "'\\''"), program, built, built))
    for lines, bytes in pipe:read "*a":gmatch "(%d+) (%d+)\n" do
        list[#list + 1] = { lines = tonumber(lines), bytes = tonumber(bytes) }
    end
    pipe:close()
    os.remove(built)
    return list
end

local function print_report()
    package.path = root .. "lua/?.lua;" .. root .. "lua/?/init.lua;" .. package.path
    local device = require "ghm.device"
    local ok, opened = pcall(device.open, "cuda")
    print("device: " .. (ok and device.name(opened) or tostring(opened)))
    local rows, names, spilled, stack = {}, {}, 0, 0
    for _, kernel in ipairs(M.ours()) do
        if not rows[kernel.name] then
            rows[kernel.name] = {}
            names[#names + 1] = kernel.name
        end
        table.insert(rows[kernel.name], ("%s: %d"):format(kernel.arch, kernel.registers))
        spilled, stack = spilled + kernel.spilled, stack + kernel.stack
    end
    table.sort(names)
    print(#names > 0 and "registers of a thread:" or "no kernels were built")
    for _, name in ipairs(names) do
        table.sort(rows[name], function(a, b)
            return tonumber(a:match "%d+") < tonumber(b:match "%d+")
        end)
        print(("  %-20s %s"):format(name, table.concat(rows[name], "  ")))
    end
    if #names > 0 then
        print(("spilled: %d bytes; stack: %d bytes"):format(spilled, stack))
    end
    print "shared memory of a sketch's block, whose table has the most lines that the GPU allows:"
    for _, one in ipairs(M.shared()) do
        print(("  %d lines: %d bytes"):format(one.lines, one.bytes))
    end
end

if arg and arg[0] and arg[0]:find "kernel_report%.lua$" then
    print_report()
end

return M
