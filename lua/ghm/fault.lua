-- Faults: failures that are the user's to mend, told in one line and ended with an exit code of
-- their own. Everything else that is thrown is a bug in ghm and ends with 70.

local M = {}

-- kind -> exit code; the one place where the numbers stand
M.exit_codes = {
    failed = 1, -- the run finished, something in it failed
    usage = 2, -- an argument, key or value is wrong
    dump = 3, -- a dump was refused
    device = 4, -- no such device
    mismatch = 5, -- a resume or merge does not fit
    fail_if = 6, -- a --fail-if condition holds
    bug = 70,
    interrupted = 130,
}

local Fault = {}
Fault.__index = Fault
Fault.__tostring = function(self)
    return self.message
end

-- A fault object. kind: a key of exit_codes; message: one line (what, where, what was expected).
-- fault.about: what called.advice has a word on, if anything.
function M.new(kind, message, ...)
    assert(M.exit_codes[kind], "unknown fault kind")
    if select("#", ...) > 0 then
        message = message:format(...)
    end
    return setmetatable({ kind = kind, message = message }, Fault)
end

-- Throws M.new(kind, message, ...).
function M.raise(kind, message, ...)
    error(M.new(kind, message, ...), 0)
end

function M.is(value)
    return getmetatable(value) == Fault
end

-- What a fault says behind "where: ", where it begins so.
function M.reason(problem, where)
    local said, before = problem.message, where .. ": "
    return said:sub(1, #before) == before and said:sub(#before + 1) or said
end

function M.exit_code(value)
    return M.exit_codes[M.is(value) and value.kind or "bug"]
end

return M
