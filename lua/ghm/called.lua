-- What the user calls the scripts: "luajit sweep_bins.lua"; "ghm sweep bins", where arg.command
-- tells that this is the installed command (command.lua); sweep_bins, a function of the prompt.
--
--   called.script(name)      a script, "sweep_bins"
--   called.command(words)    what a shell takes to run this script with these words
--   called.advice(fault)     what to do about it, in words that can be typed: "; ...", or ""
--   called.prompt = true     the words are typed at the prompt

local posix = require "ghm.posix"

local M = {}

function M.script(name)
    return M.prompt and name or arg and arg.command and "ghm " .. name:gsub("_", " ")
        or ("luajit %s.lua"):format(name)
end

function M.command(words)
    local line = { arg.command or "luajit " .. posix.word(arg[0]) }
    for _, word in ipairs(words) do
        line[#line + 1] = posix.word(word)
    end
    return table.concat(line, " ")
end

function M.advice(problem)
    if problem.about ~= "nonfinite" then
        return ""
    end
    return M.prompt and '; { nonfinite = "ignore" } leaves them out'
        or ("; --nonfinite ignore leaves them out, %s tells of each array"):format(
            M.script "inspect")
end

return M
