#!/usr/bin/env luajit
-- In what do two or more runs differ, and is it too much?
local ffi = require "ffi"
ffi.cdef "char *realpath(const char *path, char *resolved);"
local root = ffi.string(ffi.C.realpath(arg[0], nil)):match "^(.*)/[^/]*/[^/]*$"
package.path = root .. "/lua/?.lua;" .. root .. "/lua/?/init.lua;" .. package.path
local ghm = require "ghm.runner.script"

ghm.cli.main({
    name = "compare",
    question = "Runs side by side: the settings and results in which they differ, and by how much.",
    epilog = "The condition of --fail-if compares columns of each further run with numbers and "
        .. "with A, the same column in the first run: 'loss>1.01*A', 'abs(cosine-A)>1e-3', 'n<5'. "
        .. "It is judged for every configuration; where it holds, the exit code is 6.",
    words = { "A B ...", "two or more run folders; latest is the newest one" },
    without = { "--dry-run", "--device", "--threads", "--seed", "--samples", "--nonfinite",
        "--fail-fast", "--logits", "--pred", "--target", "--labels", "--weight", "--calls",
        "--name", "--plot", "--verbose" },
    options = function(parser)
        parser:option("--fail-if", "exit with 6 where this holds"):argname "COND"
        parser:flag("--all", "also what does not differ, or by rounding alone")
    end,
}, function(args)
    local comparing = ghm.comparing
    local found = comparing.compare(args.dumps, args.out, args.all)
    local tripped = args.fail_if and comparing.tripped(found, args.fail_if) or {}
    local rows, columns = comparing.rows(found)
    if args.json then
        print(ghm.json.encode({ settings = ghm.json.array(found.settings),
            results = ghm.json.array(rows), tripped = ghm.json.array(tripped) }, { indent = 2 }))
    elseif args.csv ~= "-" and not args.quiet then
        print(ghm.compared.text(found))
    end
    if args.csv then
        ghm.csv.write(args.csv, rows, columns)
    end
    if #tripped > 0 then
        local first = tripped[1]
        ghm.fault.raise("fail_if", "%s holds for %s%s%s: %s", args.fail_if, first.run,
            first.name ~= "" and " at " .. first.name or "",
            #tripped > 1 and (" and %d more"):format(#tripped - 1) or "", first.dir)
    end
end)
