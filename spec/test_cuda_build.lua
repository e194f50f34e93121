-- The CUDA backend where there is no GPU: what the build says, how a device is refused, what the
-- kernels take of a GPU; and all of it at work on the emulated device of spec/emulated.

local lu = require "luaunit"
local clib = require "ghm.clib"
local cuda = require "on_cuda"
local device = require "ghm.device"
local posix = require "ghm.posix"
local report = require "kernel_report"

local TestCudaBuild = {}
_G.TestCudaBuild = TestCudaBuild

local root = assert(debug.getinfo(1, "S").source:match "^@(.*)/spec/test_cuda_build%.lua$")
local has_cuda = clib.build:find "CUDA for" ~= nil

local function run(command)
    return posix.capture("cd " .. posix.quote(root) .. " && " .. command .. " 2>&1")
end

-- One line that says why, and exit code 4: never a silent step to the CPU.
function TestCudaBuild.test_a_script_refuses_a_device_that_is_not_there()
    lu.skipIf(pcall(device.open, "cuda"), "there is a GPU")
    local out, status = run "luajit experiments/sweep_bins.lua -n --device cuda"
    lu.assertEquals(status, 4)
    lu.assertNil(out:find "\n", out)
    lu.assertStrContains(out, has_cuda and "error: cuda:0: " or "built without CUDA")
end

function TestCudaBuild.test_auto_says_what_it_took()
    local name = device.name(device.open "auto")
    lu.assertStrMatches(name, pcall(device.open, "cuda") and "cuda:0 .*" or "cpu .*")
end

function TestCudaBuild.test_the_library_needs_no_driver_to_load()
    local out, status = run("ldd " .. posix.quote(os.getenv "GHM_LIBRARY" or "build/libghm.so"))
    lu.assertEquals(status, 0, out)
    lu.assertNil(out:find "libcuda")
end

function TestCudaBuild.test_cuda_1_without_nvcc_is_one_clear_line()
    local out, status = run("env -u MAKEFLAGS -u SANITIZE make --no-print-directory -n CUDA=1 "
        .. "NVCC= lib")
    lu.assertNotEquals(status, 0)
    lu.assertStrContains(out, "CUDA=1 needs nvcc, which is not found")
    lu.assertNil(out:find "\n", out)
end

function TestCudaBuild.test_the_shared_memory_that_a_sketch_asks_for_is_told()
    local list, told = report.shared(), run "luajit spec/kernel_report.lua"
    lu.assertTrue(#list > 0, "cuda/jobs.h does not compile by itself")
    for _, one in ipairs(list) do
        lu.assertStrContains(told, ("\n  %d lines: %d bytes"):format(one.lines, one.bytes))
    end
end

function TestCudaBuild.test_no_kernel_spills_registers_to_memory()
    lu.skipIf(not has_cuda, "this library was built without CUDA")
    local kernels = report.ours()
    lu.assertTrue(#kernels >= 11, #kernels)
    for _, kernel in ipairs(kernels) do
        local name = kernel.name .. " on " .. kernel.arch
        lu.assertEquals(kernel.spilled, 0, name)
        lu.assertEquals(kernel.stack, 0, name)
        -- more, and fewer threads than its launch asks for fit a multiprocessor
        lu.assertTrue(kernel.registers <= (kernel.name:find "^ghm_sketch" and 64 or 128), name)
    end
end

-- Whether races of ours are reported but the one that is meant: a read and a write of the sketch
-- kernel, which looks whose a line of its table is while another thread may take it (owner_of).
local function races(out)
    out = out:gsub("reported between Read access at ghm_sketch_[^\n]*", "meant")
    out = out:gsub("reported between Write access at ghm_sketch_[^\n]*\n[= ]*and Read ", "meant")
    return out:find "Race reported[^\n]* ghm_"
end

-- A few of the specs below NVIDIA's checkers, which need a GPU themselves, one that they support.
local checked = "luajit spec/run.lua TestCudaSketch.test_classes_of_every_size"
    .. " TestCudaSketch.test_soft_targets_of_every_size TestCudaSketch.test_any_edges"
    .. " TestCudaPasses.test_gradients_of_every_form_of_batch TestCudaPasses.test_exact_densities"
local find = 'export PATH="$PATH:/usr/local/cuda/bin"; ' -- where the Makefile looks for nvcc, too

for tool, options in pairs { memcheck = "--error-exitcode 9", racecheck = "" } do
    TestCudaBuild["test_" .. tool .. "_finds_nothing"] = function()
        cuda.device()
        lu.skipIf(select(2, run(find .. "command -v compute-sanitizer")) ~= 0,
            "no compute-sanitizer here")
        local out, status = run(("%scompute-sanitizer %s --tool %s %s"):format(find, options,
            tool, checked))
        lu.skipIf(out:find("Device not supported", 1, true),
            "compute-sanitizer does not support the GPU of this machine")
        lu.assertEquals(status, 0, out)
        lu.assertStrContains(out, "5 passed, 0 failed, 0 skipped")
        lu.assertNil(races(out), out)
    end
end

function TestCudaBuild.test_the_one_race_that_is_meant_is_told_from_others()
    local read, write = "Read access at %s+0x10", "Write access at %s+0x20 [4 hazards]"
    local function told(first, second, kernel)
        return ("========= Error: Race reported between %s\n=========     and %s\n"):format(
            first:format(kernel), second:format(kernel))
    end
    for _, kernel in ipairs { "ghm_sketch_classes", "ghm_sketch_boxes" } do
        lu.assertNil(races(told(read, write, kernel) .. told(write, read, kernel)))
        lu.assertEvalToTrue(races(told(write, write, kernel)))
    end
    lu.assertEvalToTrue(races(told(read, write, "ghm_exact_share")))
end

-- A script sees no difference but the device's name: synthetic data made, kept and read there.
function TestCudaBuild.test_a_script_answers_the_same_on_the_emulated_device()
    local library = root .. "/build/emulated/libghm.so"
    lu.skipIf(os.getenv "GHM_LIBRARY" or not io.open(library),
        "build/emulated/libghm.so is not built: make emulated")
    local command = "luajit experiments/sweep_bins.lua synth:detector,rows=99,cols=7 -q --csv -"
        .. " bins=5,30 -o " .. posix.quote(os.tmpname() .. "-runs") .. " --device "
    local out, status = run("GHM_LIBRARY=" .. posix.quote(library) .. " " .. command .. "cuda")
    lu.assertEquals({ out, status }, { run(command .. "cpu") })
    lu.assertEquals(status, 0, out)
end

-- The specs of the CUDA backend, and those of the core whose passes go to the default device.
local emulated = { "cuda_sketch", "cuda_passes", "core_gradient", "core_hostile", "golden",
    "exact_density", "synth", "losses" }

function TestCudaBuild.test_every_pass_on_the_emulated_device()
    local library = root .. "/build/emulated/libghm.so"
    lu.skipIf(os.getenv "GHM_LIBRARY" or not io.open(library),
        "build/emulated/libghm.so is not built: make emulated")
    local out, status = run(("GHM_LIBRARY=%s luajit spec/run.lua %s"):format(
        posix.quote(library), table.concat(emulated, " ")))
    lu.assertEquals(status, 0, out)
    local passed, skipped = out:match "(%d+) passed, 0 failed, (%d+) skipped$"
    lu.assertEquals(skipped, "0", out)
    lu.assertTrue(tonumber(passed) > 150, out)
end
