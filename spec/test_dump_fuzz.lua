local lu = require "luaunit"
local bytes = require "dump_bytes"
local dump_fuzz = require "dump_fuzz"

local TestDumpFuzz = {}
_G.TestDumpFuzz = TestDumpFuzz

local FILES = 3000 -- make fuzz reads 100,000

function TestDumpFuzz:setUp()
    self.folder = bytes.folder()
end

function TestDumpFuzz:tearDown()
    self.folder:remove()
end

function TestDumpFuzz:test_mutated_files_are_read_or_refused_in_one_line()
    local refused, all, n = {}, 0, #dump_fuzz.makers
    for seed = 1, FILES do
        local k = seed % n + 1
        if dump_fuzz.check(self.folder, seed) then
            refused[k], all = (refused[k] or 0) + 1, all + 1
        end
    end
    -- of each kind many mutations must matter, and of all some must not, or the fuzz tests nothing
    for k, maker in ipairs(dump_fuzz.makers) do
        lu.assertTrue(refused[k] > FILES / n / 2, ("%d refused: %s"):format(refused[k], maker[1]))
    end
    lu.assertTrue(all < 0.97 * FILES, ("%d of %d refused"):format(all, FILES))
end

function TestDumpFuzz:test_the_originals_are_read()
    for _, maker in ipairs(dump_fuzz.makers) do
        bytes.read_all(self.folder:write("m", maker[2](function(text)
            return text
        end)))
    end
end

function TestDumpFuzz.test_a_seed_makes_the_same_file_again()
    for seed = 1, 20 do
        lu.assertEquals(dump_fuzz.make(seed), dump_fuzz.make(seed))
        lu.assertNotEquals(dump_fuzz.make(seed), dump_fuzz.make(seed + #dump_fuzz.makers))
    end
end
