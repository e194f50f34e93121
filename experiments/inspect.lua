-- What is in a dump: every array's type, range, zeros, non-finite elements, and the role it takes.

local ffi = require "ffi"
ffi.cdef "char *realpath(const char *path, char *resolved);"
local root = ffi.string(ffi.C.realpath(arg[0], nil)):match "^(.*)/[^/]*/[^/]*$"
package.path = root .. "/lua/?.lua;" .. root .. "/lua/?/init.lua;" .. package.path

local array = require "ghm.array"
local cli = require "ghm.runner.cli"
local dump = require "ghm.dumps.dump"
local fault = require "ghm.fault"
local json = require "ghm.show.json"
local text = require "ghm.show.text"

local columns = {
    { key = "name", title = "array" },
    { key = "shape", title = "type", format = function(shape, row)
        return row.dtype .. array.shape_text(shape)
    end },
    { key = "roles", title = "role", format = function(roles) return table.concat(roles, " ") end },
    { key = "min", format = "%.5g" }, { key = "max", format = "%.5g" }, { key = "zeros" },
    { key = "nonfinite", title = "non-finite", format = function(n, row)
        local first = row.first_nonfinite
        return text.number(n) .. (first and ", first at " .. array.shape_text(first) or "")
    end },
    { key = "stored" },
}

local function show(found)
    print(text.one_line(found.path))
    print(text.table(found.arrays, columns))
    for _, warning in ipairs(found.warnings) do
        print("warning: " .. text.one_line(warning) .. "\n")
    end
end

cli.main({
    name = "inspect",
    question = "What is in a dump, and is it sound?",
    default_dump = "digits",
    without = { "--dry-run", "--device", "--threads", "--seed", "--samples", "--nonfinite",
        "--logits", "--pred", "--target", "--labels", "--weight", "--calls", "--out", "--name",
        "--plot", "--csv", "--quiet", "--verbose", "--no-color" },
    epilog = "Exit code: 0 all files are sound, 1 some are refused, 3 all are.",
}, function(args)
    local paths = dump.list(#args.dumps > 0 and args.dumps or { args.default_dump })
    local files = json.array {}
    local totals = { files = #paths, refused = 0, arrays = 0, elements = 0, nonfinite = 0 }
    for k, path in ipairs(paths) do
        local ok, found = pcall(dump.inspect, path)
        if not ok then
            if not fault.is(found) then
                error(found, 0)
            end
            io.stderr:write("error: ", found.message, "\n")
            found = { path = path, refused = found.message }
            totals.refused = totals.refused + 1
        elseif not args.json then
            show(found)
        end
        for _, row in ipairs(found.arrays or {}) do
            totals.arrays = totals.arrays + 1
            totals.elements = totals.elements + row.n
            totals.nonfinite = totals.nonfinite + row.nonfinite
            row.shape, row.roles = json.array(row.shape), json.array(row.roles)
            row.first_nonfinite = row.first_nonfinite and json.array(row.first_nonfinite)
        end
        files[k] = found
    end
    if args.json then
        print(json.encode({ files = files, totals = totals }, { indent = 2 }))
    else
        print(("in all: files %d, refused %d, arrays %d, elements %s, non-finite %s"):format(
            totals.files, totals.refused, totals.arrays, text.number(totals.elements),
            text.number(totals.nonfinite)))
    end
    return totals.refused == 0 and 0
        or fault.exit_codes[totals.refused == totals.files and "dump" or "failed"]
end)
