-- Mutated dumps: whatever happens to the bytes, a dump is read or refused in one line.

local ffi = require "ffi"
local lu = require "luaunit"
local bytes = require "dump_bytes"
local fault = require "ghm.fault"

local TestDumpFuzz = {}
_G.TestDumpFuzz = TestDumpFuzz

local FILES = 2000
local SECONDS = 60 -- all files take about one: more is a hang or a bomb

-- A small generator of its own, so that a seed means the same file on every machine.
local function generator(seed)
    local state = seed
    return function(n) -- 0 .. n - 1
        state = tonumber((ffi.cast("uint64_t", state) * 48271) % 2147483647)
        return state % n
    end
end

local function seeds()
    local x, y = bytes.npy { shape = "(2, 3)", data = ("\1\2\3\4"):rep(6) }, bytes.npy {}
    local sentinel = bytes.le(1, 2) .. bytes.le(16, 2) .. bytes.le(#y, 8) .. bytes.le(#y, 8)
    return {
        x,
        bytes.npy { major = 2, descr = ">f8", fortran = "True", shape = "(2, 2)",
            data = ("\64\9\33\251\84\68\45\24"):rep(4) },
        bytes.zip { { name = "x.npy", data = x }, { name = "y.npy", data = y, method = 8 } },
        bytes.zip({ { name = "y.npy", data = y, extra = sentinel, size = 2 ^ 32 - 1,
            packed = 2 ^ 32 - 1 } }, { zip64 = true, comment = "fuzz" }),
    }
end

local interesting = { "\0", "\1", "\127", "\128", "\255", "'", "{", "(", ",", "9", "-", "PK\5\6",
    "PK\1\2", "\255\255\255\255", "\0\0\0\128", "\255\255" }

-- One to four edits: a flipped bit, bytes overwritten, removed, doubled, the end cut off.
local function mutate(text, random)
    for _ = 0, random(4) do
        local at, kind = random(#text) + 1, random(8)
        local before, after = text:sub(1, at - 1), text:sub(at + 1)
        if kind < 3 then
            text = before .. string.char(bit.bxor(text:byte(at), 2 ^ random(8))) .. after
        elseif kind < 6 then
            local put = interesting[random(#interesting) + 1]
            text = before .. put .. text:sub(at + #put)
        elseif kind == 6 then
            text = before .. text:sub(at + random(20))
        else
            text = before .. text:sub(at, at + random(40)) .. text:sub(at)
        end
        text = text == "" and "\0" or text
    end
    return random(20) == 0 and text:sub(1, random(#text) + 1) or text
end

function TestDumpFuzz:setUp()
    self.folder = bytes.folder()
end

function TestDumpFuzz:tearDown()
    self.folder:remove()
end

function TestDumpFuzz:test_mutated_files_are_read_or_refused_in_one_line()
    local originals, start, refused = seeds(), os.clock(), 0
    for seed = 1, FILES do
        local random = generator(seed)
        local path = self.folder:write("m", mutate(originals[seed % #originals + 1], random))
        local ok, thrown = pcall(bytes.read_all, path)
        if not ok then
            refused = refused + 1
            local clean = fault.is(thrown) and thrown.kind == "dump"
                and not thrown.message:find "%c"
            lu.assertTrue(clean, ("seed %d: %s"):format(seed, tostring(thrown)))
        else
            thrown:close()
        end
        lu.assertTrue(os.clock() - start < SECONDS, ("seed %d: too slow"):format(seed))
    end
    -- most mutations must matter and some must not, or the fuzz tests nothing
    lu.assertTrue(refused > FILES / 2 and refused < FILES, ("%d refused"):format(refused))
end

function TestDumpFuzz:test_the_originals_are_read()
    for _, text in ipairs(seeds()) do
        bytes.read_all(self.folder:write("m", text))
    end
end
