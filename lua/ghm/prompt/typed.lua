-- What was typed -> its pieces, each a statement or an expression of its own, so that every result
-- on a line can be shown: `r:best "error"  compare(r[3], r[9])` has two.
--
--   typed.read(text) -> list of { text, run (a function), shows (whether it gives values) }
--                       nil, "more"     when more lines must follow
--                       nil, message    when it is no Lua

local M = {}

local NAME = "=typed"

local function expression(text)
    return loadstring("return " .. text, NAME)
end

-- A local would end with its line; at a prompt it is meant to last.
local function lasting(text)
    local rest = text:match "^%s*local%s+(.*)$"
    if not rest then
        return text
    end
    local names, after = rest:match "^([%a_][%w_,%s]*)(.*)$"
    return loadstring(rest, NAME) and rest or names and names .. " = nil " .. after or text
end

local function piece(text)
    local run = expression(text)
    if run then
        return { text = text, run = run, shows = true }
    end
    run = loadstring(lasting(text), NAME)
    return run and { text = text, run = run, shows = false }
end

-- Whether one statement ends before byte `at`, where a word begins. A byte that is no Lua must not
-- do harm there only where it lies in a string or a comment.
local function ends_before(text, at)
    local head, tail = text:sub(1, at - 1), text:sub(at)
    return (expression(head) or loadstring(head, NAME)) and loadstring(tail, NAME)
        and not loadstring(head .. "\1" .. tail, NAME)
end

local function split(text, pieces)
    if not text:find "%S" then
        return pieces
    end
    for at in (expression(text) and "" or text):gmatch "[%s;]()[%a_]" do
        if ends_before(text, at) then
            pieces[#pieces + 1] = piece((text:sub(1, at - 1):gsub("[%s;]+$", "")))
            return split(text:sub(at), pieces)
        end
    end
    pieces[#pieces + 1] = piece(text)
    return pieces
end

-- A string in quotes ends with its line, or never.
local function is_open(problem)
    return problem and problem:find "near '?<eof>'?$" and not problem:find "unfinished string"
end

function M.read(text)
    text = text:gsub("^%s*return%f[^%w_]", "") -- a habit of other prompts
    local as_value, problem = expression(text)
    local as_chunk, chunk_problem = loadstring(text, NAME)
    if as_value or as_chunk then
        return split(text, {})
    elseif is_open(problem) or is_open(chunk_problem) then
        return nil, "more"
    end
    -- "unexpected symbol" says no more than that a statement cannot begin so
    return nil, chunk_problem:find "unexpected symbol" and problem or chunk_problem
end

return M
