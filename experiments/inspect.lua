#!/usr/bin/env luajit
-- What is in a dump: every array's type, range, zeros and non-finite elements, and what it is used
-- as, or why it is not.

local ffi = require "ffi"
ffi.cdef "char *realpath(const char *path, char *resolved);"
local root = ffi.string(ffi.C.realpath(arg[0], nil)):match "^(.*)/[^/]*/[^/]*$"
package.path = root .. "/lua/?.lua;" .. root .. "/lua/?/init.lua;" .. package.path

local cli = require("ghm.runner.script").cli
local dump = require "ghm.dumps.dump"
local fault = require "ghm.fault"
local inspected = require "ghm.show.inspected"
local inspection = require "ghm.dumps.inspection"
local json = require "ghm.json"
local saved = require "ghm.dumps.saved"
local text = require "ghm.show.text"

cli.main({
    name = "inspect",
    question = "What is in a dump, and is it sound?",
    default_dump = "digits",
    no_synth = true,
    without = { "--dry-run", "--device", "--threads", "--seed", "--samples", "--nonfinite",
        "--logits", "--pred", "--target", "--labels", "--weight", "--calls", "--out", "--name",
        "--plot", "--csv", "--quiet", "--verbose", "--no-color", "--fail-fast" },
    epilog = inspected.usual_names()
        .. "\n\nExit code: 0 all files are sound, 1 some are refused, 3 all are.",
}, function(args)
    local paths = dump.list(#args.dumps > 0 and args.dumps or { args.default_dump })
    local files = json.array {}
    local totals = { files = #paths, refused = 0, arrays = 0, elements = 0, nonfinite = 0 }
    for k, path in ipairs(paths) do
        local sketched = saved.claims(path)
        local ok, found = pcall(sketched and saved.inspect or inspection.inspect, path)
        if ok and sketched then
            files[k] = found
        elseif ok then
            for _, row in ipairs(found.arrays) do
                totals.arrays = totals.arrays + 1
                totals.elements = totals.elements + row.n
                totals.nonfinite = totals.nonfinite + row.nonfinite
            end
            files[k] = inspected.json(found)
        elseif fault.is(found) and found.kind == "dump" then
            io.stderr:write("error: ", found.message, "\n")
            files[k] = { path = path, refused = found.message }
            totals.refused = totals.refused + 1
        else
            error(found, 0)
        end
        if ok and not args.json then
            print(sketched and inspected.sketched(found) or inspected.text(found))
        end
    end
    if args.json then
        print(json.encode({ files = files, totals = totals }, { indent = 2 }))
    else
        print(text.broken { ("in all: files %d, refused %d, arrays %d, elements %s, non-finite %s")
            :format(totals.files, totals.refused, totals.arrays, text.number(totals.elements),
            text.number(totals.nonfinite)) })
    end
    return totals.refused == 0 and 0
        or fault.exit_codes[totals.refused == totals.files and "dump" or "failed"]
end)
