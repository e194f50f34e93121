-- Runs the scripts of experiments/ as a user does: a process of its own, in a folder of its own,
-- with nothing in its environment but PATH and HOME. And makes the small dumps that they read, by
-- itself or in Python.

local lu = require "luaunit"
local bytes = require "dump_bytes"
local posix = require "ghm.posix"

local M = {}
local Place = {}
Place.__index = Place

M.root = assert(posix.real_path((debug.getinfo(1, "S").source:match "^@(.*)/" or ".") .. "/.."))

-- The elements of a small dump: logits spread over -5..5, about one target in eleven is 1.
function M.logit(i)
    return (i * 37) % 101 / 10 - 5
end

function M.target(i)
    return i % 11 == 0 and 1 or 0
end

-- One member of an .npz: value(i) for i = 0, 1, ... in a C type. also: descr and shape, as for
-- bytes.npy.
function M.member(name, ctype, descr, shape, value, also)
    local n, values = 1, {}
    for extent in shape:gmatch "%d+" do
        n = n * tonumber(extent)
    end
    for i = 0, n - 1 do
        values[i + 1] = value(i)
    end
    local t = { descr = descr, shape = shape, data = bytes.pack(ctype, values) }
    for key, other in pairs(also or {}) do
        t[key] = other
    end
    return { name = name .. ".npy", data = bytes.npy(t), method = 8 }
end

function M.logits(also)
    return M.member("logits", "float", "<f4", "(40, 10)", M.logit, also)
end

function M.targets(value)
    return M.member("target", "float", "<f4", "(40, 10)", value or M.target)
end

-- A new folder: { path, write(name, bytes), dump(name, members...), run(...), remove() }.
function M.place()
    return setmetatable({ folder = bytes.folder() }, Place)
end

function Place:dump(name, ...)
    return self.folder:write(name, bytes.zip { ... })
end

function Place:remove()
    self.folder:remove()
end

-- What lies in the folder or in one below it, and below that, sorted.
function Place:listing(below)
    return (posix.capture(("cd %s && find . -mindepth 1 | LC_ALL=C sort"):format(
        posix.quote(self.folder.path .. "/" .. (below or "")))))
end

function Place:read(name)
    return assert(posix.read_file(self.folder.path .. "/" .. name))
end

-- What the environment of a script holds: a sanitized library needs these.
function M.kept()
    local words = {}
    for _, name in ipairs { "GHM_LIBRARY", "LD_PRELOAD", "ASAN_OPTIONS" } do
        local value = os.getenv(name)
        words[#words + 1] = value and ("%s=%s"):format(name, posix.quote(value))
    end
    return table.concat(words, " ")
end

-- script: a name in experiments/ or an absolute path; words: a list, or one string for a shell.
-- environment: more of it, "GHM_ISA=plain"; PATH there replaces the usual one.
-- -> { code, out, err }.
function Place:run(script, words, environment)
    if type(words) == "table" then
        local quoted = {}
        for i, word in ipairs(words) do
            quoted[i] = posix.quote(word)
        end
        words = table.concat(quoted, " ")
    end
    script = script:find "^/" and script or ("%s/experiments/%s.lua"):format(M.root, script)
    local luajit = posix.capture "command -v luajit"
    local errors = os.tmpname()
    local out, code = posix.capture(("cd %s && env -i PATH=%s HOME=%s %s %s %s %s %s 2>%s")
        :format(posix.quote(self.folder.path), posix.quote(os.getenv "PATH"),
        posix.quote(self.folder.path), M.kept(), environment or "", posix.quote(luajit),
        posix.quote(script), words, errors))
    local result = { code = code, out = out, err = assert(posix.read_file(errors)) }
    os.remove(errors)
    return result
end

-- The peers of the bench, or else what the system has.
local function python()
    local peers = M.root .. "/build/peers/bin/python"
    return posix.real_path(peers) and peers or "python3"
end

-- Runs a script of spec/ in the python that has the libraries which specs compare with, on a folder
-- -> its exit code, what it said; nil where there is no python.
function M.run_python(script, folder)
    local said, code = posix.capture(("%s %s %s 2>&1"):format(posix.quote(python()),
        posix.quote(M.root .. "/spec/" .. script), posix.quote(folder)))
    if code == 127 then -- the shell's word for a command that is not there
        return nil
    end
    return code, said
end

-- Skips the test where that python has not got a library; with GHM_REQUIRE_PEERS=1 it fails.
function M.skip_without(library, there)
    if not there then
        local absent = ("no %s in %s: make bench-peers"):format(library, python())
        lu.assertNotEquals(os.getenv "GHM_REQUIRE_PEERS", "1", absent)
        lu.skip(absent)
    end
end

-- Runs a command that must fail with this code and say exactly one line, which holds every text of
-- `parts`, leave stdout empty and the folder as it was.
function Place:refused(code, parts, script, words, environment)
    local before = self:listing()
    local got = self:run(script, words, environment)
    local told = type(words) == "table" and table.concat(words, " ") or words
    local what = ("%s %s\nsaid %s"):format(script, told, got.err)
    lu.assertEquals(got.code, code, what)
    lu.assertStrMatches(got.err, "[^\n]+\n", nil, nil, "one line: " .. what)
    for _, part in ipairs(parts) do
        lu.assertNotNil(got.err:find(part, 1, true), ("'%s' is not told: %s"):format(part, what))
    end
    lu.assertEquals(got.out, "", what)
    lu.assertEquals(self:listing(), before, what)
end

-- Runs a command that must end with 0 and say nothing on stderr -> its output.
function Place:fine(script, words, environment)
    local got = self:run(script, words, environment)
    lu.assertEquals({ got.code, got.err }, { 0, "" })
    return got.out
end

return M
