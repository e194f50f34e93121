-- Where a result comes from: enough to get it again.
--
--   provenance.collect { dumps, device, threads, library } -> table for provenance.json
--   provenance.sha256(path) -> 64 hexadecimal digits, or nil; start_sha256(path) for later
--   provenance.crypto        the library that hashes small files; false: processes hash them all
--
-- What cannot be found out (no git, another system) is left out, never guessed.

local ffi = require "ffi"
local posix = require "ghm.posix"

ffi.cdef "unsigned char *SHA256(const unsigned char *data, size_t n, unsigned char *digest);"

local M = {}

local SMALL = 2 ^ 22 -- bytes that take less time to hash than a process takes to start

-- OpenSSL's library, which is nearly everywhere; false where it is not.
local function find_crypto()
    for _, name in ipairs { "libcrypto.so.3", "libcrypto.so.1.1" } do
        local ok, library = pcall(ffi.load, name)
        if ok and pcall(function() return library.SHA256 end) then
            return library
        end
    end
    return false
end

-- The SHA-256 of a small file, here and now; nil where it has to be found in another way. What says
-- to have no bytes may be a pipe, which must not be waited for.
local function hash_small(path)
    local facts = posix.stamp(path)
    if not facts or facts.size == 0 or facts.size > SMALL then
        return nil
    end
    if M.crypto == nil then
        M.crypto = find_crypto()
    end
    local all, digest = M.crypto and posix.read_file(path), ffi.new "unsigned char[32]"
    if not all or M.crypto.SHA256(all, #all, digest) == nil then
        return nil
    end
    return (ffi.string(digest, 32):gsub(".", function(c)
        return ("%02x"):format(c:byte())
    end))
end

-- Others by a process: OpenSSL, which uses the CPU's instructions for it (three times as fast), or
-- else coreutils.
-- Both read standard input: sha256sum marks names with backslashes or newlines in its output.
local SHA256 = "echo $$; "
    .. "command -v openssl >/dev/null && exec openssl dgst -sha256 -r 2>/dev/null <%s; "
    .. "exec sha256sum 2>/dev/null <%s"

-- Begins to hash a file, beside what the caller does -> wait, give_up. wait() returns the SHA-256,
-- or nil where the file or the program is missing, or where a signal ended the wait.
function M.start_sha256(path)
    local small = hash_small(path)
    if small then
        return function()
            return small
        end, function() end
    end
    local file = posix.quote(path)
    local pipe = assert(io.popen(SHA256:format(file, file), "r"))
    local id = pipe:read "*n"
    local function finish(said)
        if id and not said then -- close waits for it, and a large file takes long
            posix.stop(id)
        end
        pipe:close()
        return said and said:match "^%s*(%x+) "
    end
    return function()
        return finish(pipe:read "*a")
    end, finish
end

function M.sha256(path)
    return (M.start_sha256(path))()
end

local function first_match(path, pattern)
    local file = io.open(path, "r")
    if not file then
        return nil
    end
    local found
    for line in file:lines() do
        found = found or line:match(pattern)
    end
    file:close()
    return found
end

-- The work tree that this file belongs to, if it is one: { commit, dirty }, or nil.
local function git()
    local here = debug.getinfo(1, "S").source:match "^@(.*)/lua/ghm/runner/[^/]*$" or "."
    -- not by a search upwards: an installed ghm may lie in a work tree of something else
    local command = ("git -C %s --git-dir=.git --work-tree=. "):format(posix.quote(here))
    local commit, status = posix.capture(command .. "rev-parse HEAD 2>/dev/null")
    if status ~= 0 then
        return nil
    end
    local changes, told = posix.capture(command .. "status --porcelain -uno 2>/dev/null")
    return { commit = commit, dirty = told ~= 0 or changes ~= "" }
end

local function word(command)
    local output, status = posix.capture(command .. " 2>/dev/null")
    return status == 0 and output ~= "" and output or nil
end

-- facts, all optional and copied by reference into the result:
--   dumps     list of { path, arrays, ... }; each gains the sha256 of its file when it has none
--             (sha256 = false asks for none: a hash reads the whole file)
--   device, threads    as used
--   library   { version, build } of the core
function M.collect(facts)
    facts = facts or {}
    for _, dump in ipairs(facts.dumps or {}) do
        if dump.sha256 == nil then
            dump.sha256 = M.sha256(dump.path)
        end
    end
    return {
        date = os.date "!%Y-%m-%dT%H:%M:%SZ",
        git = git(),
        luajit = jit.version,
        architecture = jit.arch,
        host = word "uname -n",
        kernel = word "uname -sr",
        os = first_match("/etc/os-release", '^PRETTY_NAME="?([^"]*)"?'),
        cpu = first_match("/proc/cpuinfo", "^model name%s*:%s*(.*)"),
        library = facts.library,
        device = facts.device,
        threads = facts.threads,
        dumps = facts.dumps,
    }
end

return M
