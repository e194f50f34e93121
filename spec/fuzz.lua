-- Fuzzes the readers of dumps: luajit spec/fuzz.lua [FILES] [SEED]
--
-- Reads FILES (100,000) mutated dumps, made from the seeds SEED (1), SEED + 1, ... Each thousand is
-- a process of its own: one that crashes, or stays in a file for five seconds, ends by a signal and
-- leaves the file. Exit code: 0 all were read or refused as they should be, 1 not.

local folder = arg[0]:match "^(.*)/[^/]*$" or "."
local root = folder .. "/.."
package.path = ("%s/lua/?.lua;%s/lua/?/init.lua;%s/?.lua;"):format(root, root, folder)
    .. package.path

local ffi = require "ffi"
local bytes = require "dump_bytes"
local dump_fuzz = require "dump_fuzz"
local posix = require "ghm.posix"

ffi.cdef "unsigned int alarm(unsigned int seconds);"

local PORTION, HANG = 1000, 5

-- A child: reads the files of some seeds and says how many were refused, and what went wrong.
local function read_portion(path, first, last)
    local place = bytes.folder_at(path)
    local refused = 0
    for seed = first, last do
        ffi.C.alarm(HANG)
        local ok, result = pcall(dump_fuzz.check, place, seed)
        if not ok then
            print(result)
        elseif result then
            refused = refused + 1
        end
    end
    print("refused " .. refused)
end

local function fuzz(files, first)
    local place = bytes.folder()
    local last, refused, failures = first + files - 1, 0, {}
    for from = first, last, PORTION do
        local to = math.min(from + PORTION - 1, last)
        local said, status = posix.capture(("luajit %s --portion %s %d %d 2>&1"):format(
            posix.quote(arg[0]), posix.quote(place.path), from, to))
        for line in said:gmatch "[^\n]+" do
            local count = line:match "^refused (%d+)$"
            refused = refused + (count or 0)
            failures[#failures + 1] = not count and line or nil
        end
        if status ~= 0 then
            failures[#failures + 1] = ("seeds %d to %d: exit %d; its file is in %s"):format(from,
                to, status, place.path)
        end
        io.stderr:write(("\rseeds %d to %d: %d refused, %d failures"):format(first, to, refused,
            #failures))
    end
    io.stderr:write "\n"
    for _, failure in ipairs(failures) do
        print(failure)
    end
    if #failures == 0 then
        place:remove()
    end
    return #failures == 0 and 0 or 1
end

if arg[1] == "--portion" then
    read_portion(arg[2], tonumber(arg[3]), tonumber(arg[4]))
else
    os.exit(fuzz(tonumber(arg[1]) or 1e5, tonumber(arg[2]) or 1))
end
