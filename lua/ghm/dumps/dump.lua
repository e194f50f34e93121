-- Dumps: which files the user means, and what arrays they hold. Which array plays which role:
-- ghm.dumps.roles.

local ffi = require "ffi"
local fault = require "ghm.fault"
local mapfile = require "ghm.dumps.mapfile"
local natural = require "ghm.dumps.natural"
local posix = require "ghm.posix"
local roles = require "ghm.dumps.roles"

ffi.cdef [[
typedef struct {
    size_t count; char **paths; size_t offset; int flags;
    void *functions[5];
} ghm_glob;
int glob(const char *pattern, int flags, void *on_error, ghm_glob *result);
void globfree(ghm_glob *result);
]]

local C = ffi.C
local M = {}

-- The formats, tried in order. A reader has
--   format             its name
--   extensions         what its files in a folder are called; a file given by its path is read
--                      whatever it is called
--   claims(head, file) whether a file (mapfile) that begins with this string is its own
--   open(file, opts)   mapfile -> list of { name, dtype, shape, n, bytes, stored, offset,
--                      read() -> array,
--                      pieces() -> function(count) -> the next count elements as a list, in C
--                      order; a count of 0 lets go of what was given last }, list of warnings,
--                      nil or a list of { name, reason } of arrays that are not read
local readers = {
    require "ghm.dumps.npy", require "ghm.dumps.pt", require "ghm.dumps.npz",
    require "ghm.dumps.safetensors",
}

-- Files of saved sketches (ghm.dumps.saved) lie in folders too, but hold no arrays.
local extensions, formats = { sketch = true }, nil
for _, reader in ipairs(readers) do
    formats = formats and formats .. " or " .. reader.format or reader.format
    for _, extension in ipairs(reader.extensions) do
        extensions[extension] = true
    end
end

local GLOB_ERR, GLOB_NOSPACE, GLOB_ABORTED = 1, 1, 2

-- The paths that a pattern matches, in natural order; nil and the reason when a folder on the way
-- cannot be read.
local function expand(pattern)
    local result = ffi.new "ghm_glob"
    local code = C.glob(pattern, GLOB_ERR, nil, result)
    local reason = ffi.errno()
    local paths = {}
    for k = 1, code == 0 and tonumber(result.count) or 0 do
        paths[k] = ffi.string(result.paths[k - 1])
    end
    C.globfree(result)
    if code == GLOB_ABORTED or code == GLOB_NOSPACE then
        return nil, ffi.string(C.strerror(reason))
    end
    table.sort(paths, natural)
    return paths
end

local function add_folder(files, folder)
    local pattern = folder:gsub("/+$", ""):gsub("[%*%?%[%]\\]", "\\%0") .. "/*"
    local all, reason = expand(pattern)
    if not all then
        fault.raise("dump", "%s: the folder cannot be read: %s", folder, reason)
    end
    local before = #files
    local kept = folder .. "/sketches" -- of a run folder
    if posix.real_path(folder .. "/run.json") and posix.is_folder(kept) then
        return add_folder(files, kept)
    end
    for _, path in ipairs(all) do
        if extensions[path:match "%.([^./]*)$"] and not posix.is_folder(path) then
            files[#files + 1] = path
        end
    end
    if #files == before then
        fault.raise("dump", "%s: the folder holds no dump, expected %s files", folder,
            formats)
    end
end

-- The paths that one word means: what is called so, else what it matches as a glob.
local function matches(word)
    if posix.real_path(word) then
        return { word }
    end
    local paths, reason = expand(word)
    if not paths or #paths == 0 then
        fault.raise("dump", "%s: %s, expected a dump file, a folder of them or a glob",
            word == "" and "''" or word, reason or "no such file")
    end
    return paths
end

-- The files that the user's words mean, in the order of the words: each a file, a glob or a
-- folder; what a glob or folder holds comes in natural order. A file that several words mean, or a
-- link to it, comes once, where it came first; known (a table, empty at first) remembers it for
-- further calls. Fault "dump" when a word matches nothing. The files are not opened.
function M.list(words, known)
    local files = {}
    for _, word in ipairs(words) do
        for _, path in ipairs(matches(word)) do
            if posix.is_folder(path) then
                add_folder(files, path)
            else
                files[#files + 1] = path
            end
        end
    end
    local once = {}
    known = known or {}
    for _, path in ipairs(files) do
        local real = posix.real_path(path) or path
        if not known[real] then
            known[real], once[#once + 1] = true, path
        end
    end
    return once
end

-- Refuses files of which two differ in nothing but the format: a stream would have that step twice.
function M.check_each_once(files)
    local known, twice, first = {}, 0, nil
    for _, path in ipairs(files) do
        local stem, extension = path:match "^(.*[^/])%.([^./]*)$"
        if extensions[extension] then
            local other = known[stem]
            twice, first = twice + (other and 1 or 0), first or other and { other, path, extension }
            known[stem] = path
        end
    end
    if first then
        fault.raise("dump", "%s and .%s%s look like the same step, expected each once: a glob,"
            .. " *.%s, chooses", first[1], first[3],
            twice > 1 and (" and %d more such pairs"):format(twice - 1) or "", first[3])
    end
end

local File = {}
File.__index = File

-- Opens a dump and reads its directory, no data.
--   opts.check_crc   check the CRC of stored members too when they are read
-- -> { path, format, names (list, in the file's order), entries (name -> { dtype, shape, n, bytes,
-- stored = "mapped" | "inflated" | "converted", offset }), unread (nil or list of { name, reason },
-- arrays of words, dates, ...), warnings (list of lines) }.
-- Fault "dump": anything malformed, in one line.
function M.open(path, opts)
    local file = mapfile.open(path)
    local head = file:read(0, math.min(file.size, 16))
    for _, reader in ipairs(readers) do
        if reader.claims(head, file) then
            local self = setmetatable({ path = path, format = reader.format, names = {},
                entries = {}, cache = {}, source = file }, File)
            local entries
            entries, self.warnings, self.unread = reader.open(file, opts or {})
            for k, entry in ipairs(entries) do
                self.names[k] = entry.name
                self.entries[entry.name] = entry
            end
            return self
        end
    end
    return file:refuse(nil, 0, "the first bytes are of no known format, expected %s",
        formats)
end

-- The array of that name, read at the first call and kept until close() or its :free(). Mapped
-- arrays are read-only and stay valid after close(), but not when someone cuts the file short:
-- reading them then ends the process by SIGBUS (the blocks of ghm.dumps.blocks are guarded; a file
-- that is removed or replaced does no harm). Fault "dump": no such array, damaged data, a file that
-- has shrunk.
function File:get(name)
    local entry = self.entries[name] or roles.no_array(self, name)
    local a = self.cache[name]
    if not a or not a.ptr then
        a = entry.read()
        self.cache[name] = a
    end
    return a
end

-- Closes the file and lets go of its arrays; those in use elsewhere stay valid.
function File:close()
    self.source:close()
    self.cache = {}
end

return M
