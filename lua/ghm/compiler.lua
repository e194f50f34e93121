-- Keeps LuaJIT's compiler from what it gets wrong. Debian 12 ships 2.1.0-beta3 of March 2022, which
-- makes silent mistakes with two kinds of loops. Later versions do not, and are left as they are.
--
-- * A number that is now a loop's counter and now a table's element may be taken for the other
--   kind: three loops in each other gave wrong sums, or crashed, once in 500 programs or so.
--   Without narrowing of counters to integers they never did. Scripts are as fast; a bare loop over
--   an array's elements takes 1.3 times as long.
-- * Loops over pairs() end early once the compiler has given them up (LuaJIT's issue 827). So it
--   does not come to that: after some attempts their function is left to the interpreter.
--
-- There is one hook for traces, so luajit -jv and -jdump stay silent beside this.

local bit, jit = require "bit", require "jit"
local util = require "jit.util"

local ATTEMPTS = 8 -- the compiler gives a loop up after eleven or so

local function operation(func, pc)
    return bit.band(util.funcbc(func, pc), 0xff)
end

-- What each round of a loop over pairs() begins with; two more end the loop and the function.
local function round_of_pairs()
    local function loop(t, see)
        for key in pairs(t) do
            see(key)
        end
    end
    return operation(loop, util.funcinfo(loop).bytecodes - 3)
end

-- Calls leave(function) after so many vain attempts at one of its loops over pairs().
local function watch_loops_over_pairs(leave)
    local round = round_of_pairs()
    local vain = {} -- attempts, by where the loop stands
    local func, place -- of the loop that is being compiled, if it is one over pairs()
    jit.attach(function(event, _, at, pc)
        if event == "start" then
            func = operation(at, pc) == round and at
            place = func and util.funcinfo(func, pc).loc
        elseif event == "abort" and func then
            vain[place] = (vain[place] or 0) + 1
            if vain[place] == ATTEMPTS then
                leave(func)
            end
        end
    end, "trace")
end

if jit.status() and jit.version:find "beta" then
    jit.opt.start "-narrow"
    watch_loops_over_pairs(jit.off)
end
