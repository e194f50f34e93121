-- What Tab can make of a line: names, fields and methods, options of a call, and in quotes the
-- names of files.
--
--   completion.candidates(line, session) -> list of lines, each longer or equal, in order

local asked = require "ghm.prompt.asked"
local names = require "ghm.prompt.names"
local posix = require "ghm.posix"

local M = {}

local keywords = { "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "if",
    "in", "local", "nil", "not", "or", "repeat", "return", "then", "true", "until", "while" }

local files

-- The byte after the quote that is still open, or nil.
local function open_quote(line)
    local quote, at
    local i = 1
    while i <= #line do
        local c = line:sub(i, i)
        if quote and c == "\\" then
            i = i + 1
        elseif quote == c then
            quote = nil
        elseif not quote and (c == '"' or c == "'") then
            quote, at = c, i + 1
        end
        i = i + 1
    end
    return quote and at
end

-- Files and folders (with a slash) whose names go on from `path`; hidden ones only if asked for. A
-- folder that is the only one gives what is in it, since readline closes the quote after a match
-- that stands alone.
function files(path)
    local folder, begun = path:match "^(.*/)([^/]*)$"
    folder, begun = folder or "", begun or path
    local list = {}
    local said = posix.capture(("ls -1ap -- %s 2>/dev/null"):format(
        posix.quote(folder == "" and "." or folder)))
    for name in said:gmatch "[^\n]+" do
        if name:sub(1, #begun) == begun and name ~= "./" and name ~= "../"
            and (begun ~= "" or name:sub(1, 1) ~= ".") then
            list[#list + 1] = folder .. name
        end
    end
    local only = #list == 1 and list[1]:find "/$" and files(list[1])
    return only and #only > 0 and only or list
end

-- The value of a path such as ghm.text or r[3], looked up without running anything; nil otherwise.
local function value_of(path, session)
    local value
    local rest = path:gsub("^([%a_][%w_]*)", function(name)
        value = session.names[name]
        return ""
    end)
    while value ~= nil and rest ~= "" do
        local key, after = rest:match "^%.([%a_][%w_]*)(.*)$"
        if not key then
            key, after = rest:match "^%[(%d+)%](.*)$"
            key = tonumber(key)
        end
        if not key or type(value) ~= "table" then
            return nil
        end
        value, rest = value[key], after
    end
    return value
end

-- The names that go on from `begun` among the fields of a value (methods alone after a colon).
local function fields(value, begun, methods)
    local list, seen = {}, {}
    for _ = 1, 5 do -- a chain of __index tables, of which one could bite its tail
        if type(value) ~= "table" then
            break
        end
        for key, field in pairs(value) do
            if type(key) == "string" and key:find "^[%a_][%w_]*$" and key:sub(1, 2) ~= "__"
                and key:sub(1, #begun) == begun and not seen[key]
                and (not methods or type(field) == "function") then
                seen[key] = true
                list[#list + 1] = key
            end
        end
        value = (getmetatable(value) or {}).__index
    end
    table.sort(list)
    return list
end

-- The command whose options are being typed, `sweep(s, {bins = 5, mo`; nil elsewhere.
local function command_at(line)
    local depth = 0
    for i = #line, 1, -1 do
        local c = line:sub(i, i)
        if c == "}" then
            depth = depth + 1
        elseif c == "{" then
            depth = depth - 1
            if depth < 0 then
                local name = line:sub(1, i - 1):match "([%a_][%w_]*)%s*%([^()]*$"
                    or line:sub(1, i - 1):match "([%a_][%w_]*)%s*$"
                return line:find("[{,]%s*[%w_]*$") and name or nil
            end
        end
    end
end

local function matching(begun, ...)
    local list, seen = {}, {}
    for _, from in ipairs { ... } do
        for _, name in ipairs(from) do
            if name:sub(1, #begun) == begun and not seen[name] then
                seen[name] = true
                list[#list + 1] = name
            end
        end
    end
    table.sort(list)
    return list
end

function M.candidates(line, session)
    local quote = open_quote(line)
    local path, separator, begun = line:match "([%a_][%w_%.%[%]]*)([.:])([%w_]*)$"
    local from, list = 1, {}
    if quote then
        from, list = quote, files(line:sub(quote))
    elseif path then
        from, list = #line - #begun + 1, fields(value_of(path, session), begun, separator == ":")
    elseif not line:find "[^.][.:][%w_]*$" then -- nor after f(). or a[b]., which are not run
        begun = line:match "[%w_]*$"
        from = #line - #begun + 1
        local name = command_at(line)
        local spec = name and names.spec(name)
        list = spec and matching(begun, (asked.names(spec)))
            or matching(begun, session:known(), keywords)
    end
    local lines = {}
    for i, word in ipairs(list) do
        lines[i] = line:sub(1, from - 1) .. word
    end
    return lines
end

return M
