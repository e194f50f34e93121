-- Mutated dumps of every format, and what must hold of each: it is read, or refused in one line,
-- at once, and takes no memory that its size does not justify.

local ffi = require "ffi"
local array = require "ghm.array"
local bytes = require "dump_bytes"
local fault = require "ghm.fault"
local inflate = require "ghm.dumps.inflate"
local torch = require "torch_bytes"

local M = {}

local SECONDS = 1 -- for one file; they take less than a millisecond
local LUA_BYTES = 2 ^ 20 -- for strings and tables, of files of about one kilobyte

-- A small generator of its own, so that a seed means the same file on every machine.
local function generator(seed)
    local state = seed % 2147483646 + 1
    local function random(n) -- 0 .. n - 1
        state = tonumber((ffi.cast("uint64_t", state) * 48271) % 2147483647)
        return state % n
    end
    for _ = 1, 3 do -- neighbouring seeds begin alike
        random(2)
    end
    return random
end

local x = bytes.npy { shape = "(2, 3)", data = ("\1\2\3\4"):rep(6) }
local y = bytes.npy { major = 2, descr = ">f8", fortran = "True", shape = "(2, 2)",
    data = ("\64\9\33\251\84\68\45\24"):rep(4) }
local sentinel = bytes.le(1, 2) .. bytes.le(16, 2) .. bytes.le(#y, 8) .. bytes.le(#y, 8)
local header = ' {"__metadata__":{"step":"5"},'
    .. '"labels":{"dtype":"I64","shape":[2],"data_offsets":[0,16]},'
    .. '"logits":{"dtype":"BF16","shape":[2,3],"data_offsets":[16,28]},'
    .. '"none":{"dtype":"F32","shape":[0,4],"data_offsets":[28,28]}}  '
local pickle = torch.pickle("}q\0(" .. torch.str "logits" .. "q\1" .. torch.tensor { n = 6,
    shape = { 2, 3 }, strides = { 3, 1 } } .. "q\2" .. torch.str "P3" .. torch.dict {
    { "target", torch.tensor { n = 6, shape = { 3, 2 }, strides = { 1, 3 } } },
    { "step", torch.int(500) }, { "labels", torch.tensor { storage = "LongStorage", key = "1",
        n = 2, shape = { 2 } } } }
    .. torch.str "list" .. torch.list { "h\2", torch.tuple { "N" } } .. "u")

local function archive(text)
    return torch.archive { pickle = text, byteorder = "little", storages = {
        { "0", bytes.pack("float", { 0, 1, 2, 3, 4, 5 }) }, { "1", ("\1"):rep(16), { crc = 0 } } } }
end

-- How files are made: of the whole, or of a part in the middle of it, so that checksums and
-- lengths around the part are right and what reads it is reached.
M.makers = {
    { "npy", function(m) return m(x) end },
    { "npy 2.0, big-endian, Fortran order", function(m) return m(y) end },
    { "npz", function(m)
        return m(bytes.zip { { name = "x.npy", data = x },
            { name = "y.npy", data = y, method = 8 } })
    end },
    { "npz, zip64", function(m)
        return m(bytes.zip({ { name = "y.npy", data = y, extra = sentinel, size = 2 ^ 32 - 1,
            packed = 2 ^ 32 - 1 } }, { zip64 = true, comment = "fuzz" }))
    end },
    { "stored member of an npz", function(m)
        return bytes.zip { { name = "x.npy", data = m(x) } }
    end },
    { "deflated member of an npz", function(m)
        return bytes.zip { { name = "y.npy", data = m(y), method = 8 } }
    end },
    { "deflated bytes of an npz", function(m)
        return bytes.zip { { name = "y.npy", data = y, body = m(bytes.deflate(y)), method = 8 } }
    end },
    { "safetensors", function(m)
        return m(bytes.safetensors { header = header, data = ("\1\2\3\4"):rep(7) })
    end },
    { "header of a safetensors", function(m)
        return bytes.safetensors { header = m(header), data = ("\1\2\3\4"):rep(7) }
    end },
    { "pt", function(m) return m(archive(pickle)) end },
    { "pickle of a pt", function(m) return archive(m(pickle)) end },
}

local interesting = { "\0", "\1", "\127", "\128", "\255", "'", '"', "{", "}", "(", ")", "[", "]",
    ",", ":", "9", "-", ".", "e9", "18446744073709551615", "9007199254740993", "PK\5\6", "PK\1\2",
    "PK\3\4", "\255\255\255\255", "\0\0\0\128", "\255\255", "q\0", "h\0", "h\2", "R", "Q", "t", "u",
    "s", "N", "\136", "J\255\255\255\255", "\138\8\255\255\255\255\255\255\255\127" }

-- One to four edits, mostly one: a bit flipped; bytes overwritten, put in, removed, doubled, moved;
-- the end cut off.
local function mutate(text, random)
    for _ = 0, random(2) * random(4) do
        local at, kind = random(#text) + 1, random(10)
        local before, after = text:sub(1, at - 1), text:sub(at + 1)
        local put = interesting[random(#interesting) + 1]
        if kind < 3 then
            text = before .. string.char(bit.bxor(text:byte(at), 2 ^ random(8))) .. after
        elseif kind < 5 then
            text = before .. put .. text:sub(at + #put)
        elseif kind == 5 then
            text = before .. put .. text:sub(at)
        elseif kind == 6 then
            text = before .. text:sub(at + random(20))
        elseif kind == 7 then
            text = before .. text:sub(at, at + random(40)) .. text:sub(at)
        else
            local from = random(#text) + 1
            local piece = text:sub(from, from + random(30))
            text = before .. piece .. text:sub(at + (kind == 8 and #piece or 0))
        end
        text = text == "" and "\0" or text
    end
    return random(20) == 0 and text:sub(1, random(#text) + 1) or text
end

-- The bytes of a mutated file, and what it was made of.
function M.make(seed)
    local maker = M.makers[seed % #M.makers + 1]
    local random = generator(seed)
    return maker[2](function(text)
        return mutate(text, random)
    end), maker[1]
end

-- Calls run() -> the bytes of the largest array that it made; one that it mapped takes none.
local function largest_array(run)
    local new, largest = array.new, 0
    function array.new(dtype, shape)
        largest = math.max(largest, array.count(shape) * array.itemsize[dtype])
        return new(dtype, shape)
    end
    local ok, problem = pcall(run)
    array.new = new
    if not ok then
        error(problem, 0)
    end
    return largest
end

-- Reads every array whole and in pieces, as studies do.
local function read_both_ways(path)
    local file = bytes.read_all(path)
    for _, name in ipairs(file.names) do
        local entry = file.entries[name]
        local next_piece = entry.pieces()
        for at = 0, entry.n, 4 do
            next_piece(math.min(4, entry.n - at)):free()
        end
        next_piece(0) -- lets go
    end
    file:close()
end

-- -> whether the file was refused. Throws where it is neither read nor refused in one line.
local function read(path)
    local ok, thrown = pcall(read_both_ways, path)
    if ok then
        return false
    elseif not fault.is(thrown) or thrown.kind ~= "dump" or thrown.message:find "%c" then
        error("neither read nor refused in one line: " .. tostring(thrown), 0)
    end
    return true
end

-- Makes the file of a seed in a folder (of bytes.folder) and reads it -> whether it was refused.
-- Throws, with the seed, where it is neither read nor refused in one line, takes too long, or more
-- memory than its size justifies; the file then stays.
function M.check(folder, seed)
    local text, made_of = M.make(seed)
    local path = folder:write(("seed_%d"):format(seed), text)
    local function fail(reason, ...)
        error(("seed %d, %s: %s"):format(seed, made_of, reason:format(...)), 0)
    end
    local start, heap = os.clock(), collectgarbage "count"
    local refused
    collectgarbage "stop" -- so that all strings and tables are counted
    local ok, largest = pcall(largest_array, function()
        refused = read(path)
    end)
    local lua_bytes = (collectgarbage "count" - heap) * 1024
    collectgarbage "restart"
    local seconds = os.clock() - start
    -- deflated bytes may be inflated to so much, as none can be inflated to more
    local justified = (made_of:find "npz" and inflate.MAX_RATIO or 2) * #text
    if not ok then
        fail("%s", largest)
    elseif seconds > SECONDS then
        fail("%.1f s, expected at most %d", seconds, SECONDS)
    elseif largest > justified then
        fail("an array of %.0f bytes for a file of %d", largest, #text)
    elseif lua_bytes > LUA_BYTES then
        fail("%.0f bytes of strings and tables for a file of %d", lua_bytes, #text)
    end
    os.remove(path)
    return refused
end

return M
