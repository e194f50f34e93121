-- The terminal that is written to: its width, its letters, its colours.
--
--   screen.columns(fd)      of the terminal that stdout (or fd) is; nil where that is none
--   screen.width()          of tables and paragraphs: 100 columns, where a terminal has room
--   screen.is_utf8()        whether the locale says that it takes UTF-8
--   screen.is_live()        whether a line on stderr can be written over
--   screen.tell(line)       on stderr, in the place of a bar where one stands
--   screen.paint(style, s)  s in a style ("strong", "warning"), where there are colours
--   screen.plain = true     no colours, as --no-color and the variable NO_COLOR want it

local posix = require "ghm.posix"

local M = {}

local WIDTH = 100
local LEAST = 40 -- columns; below that nothing can be laid out

local function is_dumb()
    return os.getenv "TERM" == "dumb"
end

-- stty asks the terminal that is the process's own; stdout may be another one, of the same user.
function M.columns(fd)
    if not posix.is_terminal(fd or 1) then
        return nil
    end
    local size = posix.capture "stty size </dev/tty 2>/dev/null"
    local columns = tonumber(size:match "^%d+ (%d+)$")
    return columns and columns > 0 and math.max(columns, LEAST) or nil
end

function M.width()
    return math.min(M.columns() or WIDTH, WIDTH)
end

-- The first variable that is set decides.
function M.is_utf8()
    for _, name in ipairs { "LC_ALL", "LC_CTYPE", "LANG" } do
        local value = os.getenv(name)
        if value and value ~= "" then
            return value:lower():find "utf%-?8" ~= nil
        end
    end
    return false
end

function M.is_live()
    return posix.is_terminal(2) and not is_dumb()
end

function M.tell(line)
    io.stderr:write(M.is_live() and "\r\27[K" or "", line, "\n")
end

local styles = { strong = "1", warning = "33" } -- bold; yellow, readable on light and dark

function M.paint(style, s)
    local plain = M.plain or is_dumb() or (os.getenv "NO_COLOR" or "") ~= ""
        or not posix.is_terminal(1)
    return plain and s or ("\27[%sm%s\27[0m"):format(styles[style], s)
end

return M
