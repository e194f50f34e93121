-- The few things of POSIX that plain Lua lacks: folders, files that appear whole or not at all,
-- shell words, a command's output with its exit status, a clock.

local bit = require "bit"
local ffi = require "ffi"
local fault = require "ghm.fault"

local M = {}

ffi.cdef [[
int mkdir(const char *path, unsigned int mode);
int symlink(const char *target, const char *path);
int fsync(int fd);
int fileno(void *file);
int isatty(int fd);
struct ghm_pollfd { int fd; short events, revents; };
int poll(struct ghm_pollfd *fds, unsigned long n, int timeout);
char *realpath(const char *path, char *resolved);
char *strerror(int code);
void free(void *p);
int kill(int pid, int signal);
int sigprocmask(int how, const uint64_t *signals, uint64_t *before);
struct ghm_timespec { long seconds, nanoseconds; };
int clock_gettime(int clock, struct ghm_timespec *out);
/* Linux's struct statx, the same on every architecture, as far as it is read here. */
struct ghm_statx {
    uint32_t before[7];
    uint16_t mode, unused;
    uint64_t inode, size, blocks, more;
    struct { int64_t seconds; uint32_t nanoseconds; int32_t unused; } times[4];
    uint64_t rest[16];
};
int statx(int folder, const char *path, int flags, unsigned int mask, struct ghm_statx *out);
]]

local C = ffi.C
local EEXIST = 17 -- the same number on Linux, the BSDs and macOS

local function last_error()
    return ffi.string(C.strerror(ffi.errno()))
end

-- Seconds of the monotonic clock.
function M.now()
    local time = ffi.new "struct ghm_timespec"
    C.clock_gettime(1, time)
    return tonumber(time.seconds) + tonumber(time.nanoseconds) * 1e-9
end

-- What there is at a path, links followed; nil for nothing.
local function facts_of(path)
    local facts = ffi.new "struct ghm_statx"
    local AT_FDCWD, BASIC = -100, 0x7ff
    return C.statx(AT_FDCWD, path, 0, BASIC, facts) == 0 and facts or nil
end

-- What tells a file from an older one of its name: { size, mtime = text in nanoseconds }; nil where
-- there is none.
function M.stamp(path)
    local facts = facts_of(path)
    if not facts then
        return nil
    end
    local changed = facts.times[3]
    return { size = tonumber(facts.size),
        mtime = ("%d.%09d"):format(tonumber(changed.seconds), changed.nanoseconds) }
end

-- One shell word that stands for `text`, whatever is in it. A NUL would end the command early.
function M.quote(text)
    assert(not text:find("\0", 1, true), "a shell word cannot hold NUL")
    return "'" .. text:gsub("'", [['\'']]) .. "'"
end

-- The same as a person would type it: bare where no quotes are needed.
function M.word(text)
    return text:find "^[%w@%%+=:,./_-]+$" and text or M.quote(text)
end

-- Runs a shell command -> its output without the last line ends, its exit status.
-- The status is printed by the shell, because LuaJIT's popen():close() always says true.
function M.capture(command)
    local pipe = assert(io.popen("( " .. command .. "\n); printf '\\n%d' $?", "r"))
    local all = pipe:read "*a" or "" -- nil where a signal ended the wait
    pipe:close()
    local output, status = all:match "^(.*)\n(%d+)$"
    if not output then
        return "", 127
    end
    return (output:gsub("\n+$", "")), tonumber(status)
end

-- Asks a process, by its id, to end.
function M.stop(id)
    C.kill(id, 15)
end

-- Makes Ctrl-C wait, or lets it come: now, if it waits. For what must not be left half-way.
function M.hold_interrupts(held)
    local SIG_BLOCK, SIG_UNBLOCK, SIGINT = 0, 1, 2
    C.sigprocmask(held and SIG_BLOCK or SIG_UNBLOCK,
        ffi.new("uint64_t[16]", { 2 ^ (SIGINT - 1) }), nil)
end

-- The absolute path with links resolved, or nil and the reason.
function M.real_path(path)
    local resolved = C.realpath(path, nil)
    if resolved == nil then
        return nil, last_error()
    end
    local copy = ffi.string(resolved)
    C.free(resolved)
    return copy
end

-- Whether the descriptor (0, 1, 2) is a terminal.
function M.is_terminal(fd)
    return C.isatty(fd) == 1
end

-- Waits until there is something to read from a descriptor, or its end, for at most `milliseconds`
-- (nil: for ever) -> whether there is; false too when a signal came.
function M.wait_to_read(fd, milliseconds)
    local POLLIN = 1
    local place = ffi.new("struct ghm_pollfd[1]", { { fd = fd, events = POLLIN } })
    return C.poll(place, 1, milliseconds or -1) > 0
end

function M.is_folder(path)
    return M.real_path(path .. "/.") ~= nil
end

-- Makes one folder that must not exist yet -> true, or nil, reason, whether it was there already.
function M.make_folder(path)
    if C.mkdir(path, 511) == 0 then -- 0777, narrowed by the umask
        return true
    end
    local code = ffi.errno()
    return nil, ffi.string(C.strerror(code)), code == EEXIST
end

-- Makes a folder and those above it, where missing. Fault "failed" when that cannot be.
function M.make_folders(path)
    local made = path:sub(1, 1) == "/" and "/" or ""
    for part in path:gmatch "[^/]+" do
        made = made .. part
        if not M.is_folder(made) then
            local ok, reason, exists = M.make_folder(made)
            -- another process may have made it in between; a file in the way is still refused
            if not ok and not (exists and M.is_folder(made)) then
                fault.raise("failed", "cannot make folder '%s': %s", made, reason)
            end
        end
        made = made .. "/"
    end
end

-- `n` characters of a-z0-9 from the system's randomness: for names, never for numbers in results.
function M.random_name(n)
    local file = assert(io.open("/dev/urandom", "rb"))
    local bytes = file:read(n)
    file:close()
    local alphabet = "abcdefghijklmnopqrstuvwxyz0123456789"
    return (bytes:gsub(".", function(c)
        local k = c:byte() % #alphabet + 1
        return alphabet:sub(k, k)
    end))
end

-- The bytes of a whole file, or nil and why not: "PATH: reason", as io.open says it.
function M.read_file(path)
    local file, reason = io.open(path, "rb")
    if not file then
        return nil, reason
    end
    local all
    all, reason = file:read "*a" -- a folder opens, and has nothing to read
    file:close()
    if not all then
        return nil, path .. ": " .. reason
    end
    return all
end

local function fill(file, text)
    local ok, reason = file:write(text)
    if ok then
        ok, reason = file:flush()
    end
    if ok and C.fsync(C.fileno(file)) ~= 0 then
        -- pipes and devices have nothing to sync (EINVAL, ENOTSUP); a real failure counts
        local code = ffi.errno()
        if code ~= 22 and code ~= 95 then
            ok, reason = nil, ffi.string(C.strerror(code))
        end
    end
    file:close()
    return ok, reason
end

-- Whether there is a device or a pipe at `path`: a file renamed into its place would take it away
-- from everybody. So are this process's own descriptors, whatever they lead to.
local function is_no_file(path)
    local FORMAT, REGULAR = 0xf000, 0x8000
    local facts = facts_of(path)
    return facts ~= nil and bit.band(facts.mode, FORMAT) ~= REGULAR
        or path:find "^/dev/std" ~= nil or path:find "^/dev/fd/" ~= nil
end

-- Replaces the file at `path`, or at the end of the links there, by `text` (bytes): a temporary
-- file beside it is filled, synced and renamed, so a reader or a crash sees the old file or the new
-- one, never a part. Devices and pipes are written where they are. Fault "failed": the command is
-- well-formed and works once the disk is mended, so it is not a usage error.
function M.write_file(path, text)
    local in_place = is_no_file(path)
    local final = not in_place and M.real_path(path) or path
    local target = in_place and path or final .. ".tmp-" .. M.random_name(6)
    local file, reason = io.open(target, "wb")
    if not file then
        fault.raise("failed", "cannot write '%s': %s", path, (reason:gsub("^.*: ", "")))
    end
    local ok
    ok, reason = fill(file, text)
    if ok and not in_place then
        ok, reason = os.rename(target, final)
    end
    if not ok then
        if not in_place then
            os.remove(target)
        end
        fault.raise("failed", "cannot write '%s': %s", path, (reason:gsub("^.*: ", "")))
    end
end

-- Points the symbolic link `path` at `target`, replacing an older link in one step.
-- -> true, or nil and the reason (some file systems have no links).
function M.link(target, path)
    local fresh = path .. ".tmp-" .. M.random_name(6)
    if C.symlink(target, fresh) ~= 0 then
        return nil, last_error()
    end
    local ok, reason = os.rename(fresh, path)
    if not ok then
        os.remove(fresh)
    end
    return ok, reason
end

return M
