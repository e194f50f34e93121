-- The core library: its declarations, cut out of core/ghm.h, and the one way to call it.
--
--   clib.C             the library; functions of ghm.h by name
--   clib.check(status) nothing for GHM_OK; otherwise throws the fault that the status stands for
--   clib.own(ptr, free) ptr, freed by the collector
--   clib.interrupted() whether Ctrl-C was pressed
--   clib.version, clib.build

require "ghm.compiler" -- first, as it guards what follows
local ffi = require "ffi"
local fault = require "ghm.fault"
local posix = require "ghm.posix"

local M = {}

-- The checkout this file is in, or the folder that make install lays out like one.
local source = debug.getinfo(1, "S").source:sub(2)
local here = posix.real_path(source):match "^(.*)/lua/ghm/clib%.lua$"

local function declarations(path)
    local text, reason = posix.read_file(path)
    if not text then
        fault.raise("failed", "the library needs its header: %s", reason)
    end
    local from = select(2, text:find("/* cdef: begin */", 1, true))
    local to = text:find("/* cdef: end */", 1, true)
    assert(from and to, "ghm.h has lost its cdef marks")
    return text:sub(from + 1, to - 1)
end

ffi.cdef(declarations(here .. "/core/ghm.h"))

-- GHM_LIBRARY lets a sanitised or experimental build take the place of the usual one.
local path = os.getenv "GHM_LIBRARY" or here .. "/build/libghm.so"
local loaded, library = pcall(ffi.load, path)
if not loaded then
    fault.raise("failed", "%s cannot be loaded (run make): %s", path,
        tostring(library):gsub("\n.*", ""))
end

M.C = library
if library.ghm_abi() ~= library.GHM_ABI then
    fault.raise("failed", "%s has ABI %d, its header says %d: run make", path, library.ghm_abi(),
        tonumber(library.GHM_ABI))
end
M.version = ffi.string(library.ghm_version())
M.build = ffi.string(library.ghm_build())

-- What a status means to the user; anything else that fails is plain "failed".
local kinds = {
    [library.GHM_E_ARGUMENT] = "usage", [library.GHM_E_EDGES] = "usage",
    [library.GHM_E_NONFINITE] = "dump", [library.GHM_E_SOFT] = "dump",
    [library.GHM_E_LABEL] = "dump", [library.GHM_E_FILE] = "dump",
    [library.GHM_E_DEVICE] = "device", [library.GHM_E_MISMATCH] = "mismatch",
    [library.GHM_E_INTERRUPTED] = "interrupted",
}

-- where: put before the message (a path, a step), or nil.
function M.check(status, where)
    if status ~= 0 then
        local message = ffi.string(library.ghm_last_error())
        local problem = fault.new(kinds[status] or "failed", "%s",
            where and where .. ": " .. message or message)
        problem.about = status == library.GHM_E_NONFINITE and "nonfinite" or nil
        error(problem, 0)
    end
end

-- A place for a C object's pointer: out[0] after the call.
function M.place(ctype)
    return ffi.new(ctype .. "[1]")
end

function M.own(pointer, free)
    return ffi.gc(pointer, free)
end

-- The words of the switches, in one place for the command line, the losses and the sweeps.
M.words = {
    divide = { "nonempty", "all" },
    start = { "zero", "first", "uniform", "corrected" },
    empty = { "keep", "decay" },
    reduction = { "mean", "sum", "none" },
    labels = { "zero_based", "one_based" },
    nonfinite = { "error", "ignore" },
    form = { "true_class", "each_class", "l1" }, -- of softmax: see ghm.softmax
}

-- The value of an enum by a switch's word: M.enum("GHM_START_", "start", "first"). Fault "usage":
-- another word.
function M.enum(prefix, key, word)
    for _, known in ipairs(M.words[key]) do
        if known == word then
            return tonumber(library[prefix .. word:upper()])
        end
    end
    fault.raise("usage", "%s is '%s', expected %s", key, tostring(word),
        table.concat(M.words[key], ", "))
end

-- The core's word for a task: "regression", or else classification.
function M.task(task)
    return task == "regression" and library.GHM_REGRESSION or library.GHM_CLASSIFICATION
end

-- Whether Ctrl-C was pressed since the core began to catch it.
function M.interrupted()
    return library.ghm_interrupted() ~= 0
end

return M
