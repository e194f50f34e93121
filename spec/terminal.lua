-- A pseudo-terminal with a program in it: what a person types, and what is then on the screen.
--
--   local t = terminal.run("luajit repl.lua", { folder = "/tmp/x", environment = "TERM=xterm" })
--   t:type "1 + 1\n"      t:expect "2"       t:leave()
--
-- opts: folder, environment, columns (120). t.seen: the letters; t.raw: and what moves and colours.

local ffi = require "ffi"
local lu = require "luaunit"
local posix = require "ghm.posix"
local scripts = require "scripts"

ffi.cdef [[
int posix_openpt(int flags);
int grantpt(int fd);
int unlockpt(int fd);
char *ptsname(int fd);
long read(int fd, void *buffer, unsigned long size);
long write(int fd, const void *buffer, unsigned long size);
int close(int fd);
]]

local C = ffi.C
local M = {}
local Terminal = {}
Terminal.__index = Terminal

local O_RDWR, O_NOCTTY = 2, 256 -- of Linux
local PATIENCE = 8000 -- milliseconds until a test gives up

M.CTRL_D, M.UP = "\4", "\27[A"

-- A session of its own takes the terminal as its own, so that Ctrl-C means its programs. sh lives
-- on and says how the program ended.
function M.run(command, opts)
    local fd = C.posix_openpt(O_RDWR + O_NOCTTY)
    assert(fd >= 0 and C.grantpt(fd) == 0 and C.unlockpt(fd) == 0, "no pseudo-terminal")
    local name = ffi.string(C.ptsname(fd))
    local script = ("trap : INT; stty rows 50 cols %d; cd %s; %s; echo left $?"):format(
        opts.columns or 120, posix.quote(opts.folder), command)
    os.execute(("env -i PATH=%s HOME=%s LANG=C.UTF-8 %s %s setsid --fork --ctty sh -c %s <%s >%s "
        .. "2>&1"):format(posix.quote(os.getenv "PATH"), posix.quote(opts.folder), scripts.kept(),
        opts.environment or "TERM=xterm", posix.quote(script), name, name))
    return setmetatable({ fd = fd, seen = "", raw = "", at = 1 }, Terminal)
end

function Terminal:type(text)
    assert(C.write(self.fd, text, #text) == #text)
end

-- Ctrl-C, so many times, and on until the prompt is there and all is said: a press just while the
-- prompt is being put up finds nobody, and a person presses again. Each throws away what was typed
-- and lies unread.
function Terminal:interrupt(times)
    local pressed = 0
    repeat
        self:type "\3"
        pressed = pressed + 1
        local prompted = self:find("ghm> ", pressed < (times or 1) and 20 or 1000)
    until prompted or pressed == 10
    lu.assertNotNil(self:find("ghm> ", 0), "no prompt after Ctrl-C:\n" .. self.seen)
    self:settle()
end

-- Waits until nothing more comes.
function Terminal:settle()
    repeat
        local before = #self.seen
    until not self:read(150) or #self.seen == before
    self.at = #self.seen + 1
end

-- Reads on for so many seconds, of a command that may never be silent.
function Terminal:watch(seconds)
    local begun = posix.now()
    repeat
        self:read(20)
    until posix.now() - begun > seconds
    self.at = #self.seen + 1
end

-- Reads what is there within so many milliseconds. -> false at the end
function Terminal:read(milliseconds)
    local buffer = ffi.new "char[4096]"
    if not posix.wait_to_read(self.fd, milliseconds) then
        return true
    end
    local n = tonumber(C.read(self.fd, buffer, 4096))
    if n <= 0 then
        return false
    end
    local fresh = (self.rest or "") .. ffi.string(buffer, n)
    -- a half sequence at the end waits for its other half
    local half = fresh:match "\27%[?[%d;?]*$" or ""
    fresh, self.rest = fresh:sub(1, #fresh - #half), half
    self.raw = self.raw .. fresh
    self.seen = self.seen .. fresh:gsub("\27%[[%d;?]*%a", ""):gsub("[\r\a]", "")
    return true
end

-- Where a text (no pattern) stands on the screen after what was expected before; nil where nothing
-- comes for so many milliseconds, or the end.
function Terminal:find(text, patience)
    local waited, open = 0, true
    while true do
        local from, to = self.seen:find(text, self.at, true)
        if from or waited > patience or not open then
            return from, to
        end
        local before = #self.seen
        open = self:read(20)
        waited = #self.seen == before and waited + 20 or waited
    end
end

-- Waits until a text stands there -> all from what was expected before to its end.
function Terminal:expect(text)
    local from, to = self:find(text, PATIENCE)
    lu.assertNotNil(from, ("'%s' does not come after:\n%s"):format(text, self.seen))
    local part = self.seen:sub(self.at, to)
    self.at = to + 1
    return part
end

-- Types a line and waits for the next prompt -> what came between.
function Terminal:say(line)
    self:type(line .. "\n")
    local answer = self:expect "ghm> "
    return answer:gsub("\n?ghm> $", "")
end

-- Ctrl-D at an empty line -> the exit code.
function Terminal:leave()
    self:type(M.CTRL_D)
    self:expect "left "
    local code = self:expect "\n":match "^%d+"
    self:close()
    return tonumber(code)
end

function Terminal:close()
    if self.fd then
        C.close(self.fd)
        self.fd = nil
    end
end

return M
