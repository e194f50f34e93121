-- Lines from a terminal or a file: by lua-readline where it is installed and the input is a
-- terminal, else as plain lines, which rlwrap can edit.
--
--   local input = line_input.open(complete)     complete(line up to the cursor) -> list of
--                                               what that line can become
--   input:read("ghm> ") -> line; nil at the end; nil, "interrupted" after Ctrl-C
--   input:close()       keeps the history in ~/.ghm_history

local clib = require "ghm.clib"
local ffi = require "ffi"
local posix = require "ghm.posix"

ffi.cdef [[
void *stdin, *stdout;
int fclose(void *file);
void *rl_instream, *rl_outstream;
void rl_reset_screen_size(void);
void rl_free_line_state(void);
void rl_callback_handler_remove(void);
]]

local C = clib.C
local M = {}
local Input = {}
Input.__index = Input

local HISTORY, KEPT = "~/.ghm_history", 1000

-- Waits for input -> true, or false when Ctrl-C came first. A signal ends a wait, but not one that
-- begins just after it: hence the looks in between. Ctrl-C within microseconds of a letter throws
-- the letter away when this has promised it: readline then waits for the next one, and sees Ctrl-C
-- after that.
local function wait()
    repeat
        if C.ghm_interrupted() ~= 0 then
            C.ghm_interrupt_set(0)
            return false
        end
    until posix.wait_to_read(0, 100)
    return true
end

-- lua-readline, and the readline that it has loaded; nil where one is missing.
local function readline_of(complete)
    local ok, readline = pcall(require, "readline")
    local found, library = pcall(ffi.load, "libreadline.so.8")
    if not ok or not found then
        return nil
    end
    readline.set_options { histfile = HISTORY, keeplines = KEPT, auto_add = false }
    readline.set_readline_name "ghm"
    readline.set_complete_function(function(line, from, to)
        readline.set_completion_append_character "" -- it is a blank again before each completion
        local matches = {}
        local fine, lines = pcall(complete, line:sub(1, to))
        for i, whole in ipairs(fine and lines or {}) do
            matches[i] = whole:sub(from)
        end
        return matches
    end)
    return readline, library
end

function M.open(complete)
    local interactive = posix.is_terminal(0)
    local self = setmetatable({ interactive = interactive }, Input)
    if interactive and os.getenv "TERM" ~= "dumb" then
        self.readline, self.library = readline_of(complete)
    end
    return self
end

-- Character by character, so that Ctrl-C is seen between two. lua-readline's own handler_remove is
-- passed by: it closes the terminal's stream before readline has written its last to it.
local function read_edited(self, prompt)
    local readline, library, line, done = self.readline, self.library, nil, false
    readline.handler_install(prompt, function(typed)
        line, done = typed, true
        library.rl_callback_handler_remove()
    end)
    library.rl_reset_screen_size()
    while not done and wait() do
        readline.read_char()
    end
    if not done then
        io.write "^C" -- where the cursor is, before readline goes to the line's begin
        io.stdout:flush()
        library.rl_free_line_state()
        readline.sigcleanup()
        library.rl_callback_handler_remove()
    end
    if library.rl_instream ~= ffi.C.stdin then -- handler_install has opened it
        ffi.C.fclose(library.rl_instream)
        library.rl_instream, library.rl_outstream = ffi.C.stdin, ffi.C.stdout
    end
    if not done then
        io.write "\n"
        return nil, "interrupted"
    elseif not line then
        io.write "\n" -- Ctrl-D: the shell's prompt begins a line of its own
    elseif line:find "%S" and line ~= self.last then
        readline.add_history(line)
        self.last = line
    end
    return line
end

local function read_plain(prompt)
    io.write(prompt)
    io.stdout:flush()
    if not wait() then
        io.write "\n"
        return nil, "interrupted"
    end
    local line = io.read "*l"
    io.write(line and "" or "\n")
    return line
end

function Input:read(prompt)
    io.stdout:flush()
    if self.readline then
        return read_edited(self, prompt)
    elseif self.interactive then
        return read_plain(prompt)
    end
    return io.read "*l"
end

function Input:close()
    if self.readline then
        self.readline.save_history()
    end
end

return M
