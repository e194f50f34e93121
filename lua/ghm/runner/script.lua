-- ghm, for a script that was just started: what keeps it from loading, a library that is not built
-- or a module that is not installed, is told in one line and ends it, as all that a script refuses.
--
--   local ghm = require "ghm.runner.script"
--
-- Ctrl-C waits until cli.main, which ends a script in one line: an error from amid a module would
-- be told with a traceback.

local fault = require "ghm.fault"
local posix = require "ghm.posix"

posix.hold_interrupts(true)

local loaded, ghm = pcall(function()
    local found = require "ghm"
    return found.cli and found
end)
if not loaded then
    local missing = tostring(ghm):match "module '([^']+)' not found"
    io.stderr:write("error: ", missing and ("the Lua module '%s' is missing: make demo installs it")
        :format(missing) or tostring(ghm):match "[^\n]*", "\n")
    os.exit(missing and fault.exit_codes.failed or fault.exit_code(ghm))
end
return ghm
