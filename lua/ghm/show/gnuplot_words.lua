-- What stands in gnuplot's data files and scripts: numbers that have a place, and words.

local text = require "ghm.show.text"
local utf8 = require "ghm.utf8"

local M = {}

-- A gnuplot string. Single quotes, because double ones run what stands in backticks; control
-- characters would end the line and begin a command; gnuplot reads a doubled quote as an escape
-- only inside a string, not at its start, so a quote becomes an apostrophe.
function M.quoted(s)
    return "'" .. utf8.clean(text.one_line(tostring(s))):gsub("'", "’") .. "'"
end

-- Whether a number has a place on an axis.
function M.drawable(v, log)
    return type(v) == "number" and v == v and math.abs(v) < math.huge and (not log or v > 0)
end

return M
