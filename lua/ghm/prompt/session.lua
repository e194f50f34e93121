-- A session: the names that are typed with, what running a line does, and what was typed, as a
-- script that does it again.
--
--   local s = session.new()         s.names           where variables live
--   s:run(text) -> true             "more" when the text is no whole statement yet; "leave"
--   s:save(path)
--   session.script(body)            what a saved script calls

local called = require "ghm.called"
local cli = require "ghm.runner.cli"
local clib = require "ghm.clib"
local commands = require "ghm.prompt.commands"
local device = require "ghm.device"
local display = require "ghm.prompt.display"
local fault = require "ghm.fault"
local ghm = require "ghm"
local names = require "ghm.prompt.names"
local nearest = require "ghm.nearest"
local posix = require "ghm.posix"
local text = require "ghm.show.text"
local typed = require "ghm.prompt.typed"

local C = clib.C
local M = {}
local Session = {}
Session.__index = Session

local HEAD = "#!/usr/bin/env luajit\n-- Typed at the prompt of ghm"
local EVERY = 1000 -- instructions between two looks at whether Ctrl-C was pressed
local LEAVE = {} -- thrown by exit()

local lua_of = debug.getinfo(1, "S").source:match "^@(.*)/ghm/prompt/[^/]*$"

local function show(...)
    for i = 1, select("#", ...) do
        local value = select(i, ...)
        if value == nil or value ~= commands.announced then
            io.write(display.text(value), "\n")
        end
    end
    return ...
end

-- Where a name is looked for that was not assigned, after the session's own: the prompt's, those of
-- ghm, Lua's, and the studies of the scripts last, because looking for them reads a folder.
local places = { names.always, function(name)
    return ghm[name]
end, function(name)
    return _G[name]
end, names.of }

local function names_of(own)
    return setmetatable({}, { __index = function(_, name)
        local value = own[name]
        for _, find in ipairs(places) do
            if value == nil then
                value = find(name)
            end
        end
        return value
    end })
end

function M.new()
    local self = setmetatable({ lines = {}, failed = 0 }, Session)
    self.own = { show = show, save = function(path)
        return self:save(path)
    end, exit = function()
        error(LEAVE, 0)
    end }
    function self.own.help(...)
        local asked = ...
        for name, value in pairs(self.own) do
            if value == asked then
                return names.help(name)
            end
        end
        return names.help(...)
    end
    self.names = names_of(self.own)
    return self
end

-- -- running -------------------------------------------------------------------------------------

local function look_for_interrupt()
    if C.ghm_interrupted() ~= 0 then
        fault.raise("interrupted", "interrupted")
    end
end

-- What Lua says of a line, without the name of the place that is no file, and with a guess at what
-- a name was meant to be.
local function plain(problem, known)
    local message = text.one_line(tostring(problem)):gsub("^%S*/prompt/session%.lua:%d+: ", "")
    local line, rest = message:match "^typed:(%d+): (.*)$"
    message = rest and (line ~= "1" and ("line %s: %s"):format(line, rest) or rest) or message
    local name = message:match "global '([%w_]+)' %(a nil value%)"
    local near = name and nearest.find(name, known)
    return near and ("%s: did you mean '%s'?"):format(message, near) or message
end

-- Runs one piece and shows what it gives. -> true, or nil and the reason in a line.
local function run_piece(self, piece)
    setfenv(piece.run, self.names)
    commands.announced = nil
    jit.off(piece.run, true) -- compiled code sees no hook, so a loop that was typed would not end
    debug.sethook(look_for_interrupt, "", EVERY)
    local ok, problem = xpcall(function()
        show(piece.run())
    end, function(thrown)
        debug.sethook()
        return thrown
    end)
    debug.sethook()
    local stopped = C.ghm_interrupted() ~= 0
    C.ghm_interrupt_set(0)
    if ok then
        return true
    elseif problem == LEAVE then
        return nil, LEAVE
    elseif fault.is(problem) and problem.kind == "interrupted" or stopped then
        local said = fault.is(problem) and problem.message or "interrupted"
        return nil, said == "interrupted" and said or "interrupted: " .. said
    end
    return nil, "error: " .. plain(problem, self:known())
        .. (fault.is(problem) and called.advice(problem) or "")
end

-- A stream that has failed once may say later that all is well. Fault "failed".
local function flush()
    local flushed, reason = io.stdout:flush()
    if not flushed then
        fault.raise("failed", "cannot write to stdout: %s", reason)
    end
end

local function tell(message)
    flush()
    if message:find "^interrupted" and posix.is_terminal(2) then
        io.stderr:write "\n" -- a terminal has shown ^C, or a line of progress
    end
    io.stderr:write(message, "\n")
end

function Session:refuse(message)
    self.failed = self.failed + 1
    tell("error: " .. message)
end

-- Runs what was typed, piece by piece, and keeps it for save. What fails ends the line, with one
-- line on stderr; what was assigned before stays. -> true, "more" or "leave".
function Session:run(line)
    local pieces, problem = typed.read(line)
    if problem == "more" then
        return "more"
    elseif not pieces then
        self:refuse(plain(problem, {}))
        return true
    end
    for _, piece in ipairs(pieces) do
        local ok, reason = run_piece(self, piece)
        if reason == LEAVE then
            return "leave"
        end
        self.lines[#self.lines + 1] = { piece = piece, ok = ok }
        if not ok then
            self.failed = self.failed + 1
            tell(reason)
            break
        end
    end
    flush()
    return true
end

-- All names that can be typed.
function Session:known()
    local list, seen = {}, {}
    local function add(name)
        if type(name) == "string" and not seen[name] then
            seen[name] = true
            list[#list + 1] = name
        end
    end
    for _, name in ipairs(names.list()) do
        add(name)
    end
    for _, from in ipairs { self.names, ghm.modules, ghm, _G } do
        for name in pairs(from) do
            add(name)
        end
    end
    return list
end

-- -- saving --------------------------------------------------------------------------------------

-- One piece as a line of a script: an expression is shown there too, what failed is a comment.
local function script_line(entry)
    local piece = entry.piece
    if not entry.ok then
        return "-- " .. piece.text:gsub("\n", "\n-- ")
    elseif piece.shows and piece.text:find "%S" then
        for _, form in ipairs { "show(%s)", "show(%s\n)" } do -- a comment may end the piece
            local line = form:gsub("%%s", function()
                return piece.text
            end)
            if loadstring(line) then
                return line
            end
        end
    end
    return piece.text
end

local function is_about_the_session(piece)
    local word = piece.text:match "^%s*([%a_]+)"
    return word == "save" or word == "help"
end

-- Writes what was typed as a script. Fault "failed" where it cannot be written, "usage" where
-- something else lies there.
function Session:save(path)
    if type(path) ~= "string" or path == "" then
        fault.raise("usage", "save takes the name of a file: save \"session.lua\"")
    end
    local there = io.open(path, "rb")
    local begin = there and (there:read(#HEAD) or "")
    if there then
        there:close()
    end
    if begin and begin ~= HEAD then
        fault.raise("usage", "'%s' is there already and is no saved session", path)
    end
    local lines = { ("%s %s on %s, in %s"):format(HEAD, ghm.version, os.date "%Y-%m-%d",
        text.one_line(posix.real_path "." or "?")), "-- luajit FILE does it again.",
        ("package.path = %q .. package.path"):format(lua_of .. "/?.lua;" .. lua_of
            .. "/?/init.lua;"), 'require("ghm.prompt.session").script(function()', "" }
    local n = 0
    for _, entry in ipairs(self.lines) do
        if not is_about_the_session(entry.piece) then
            n = n + (entry.ok and 1 or 0)
            lines[#lines + 1] = script_line(entry)
        end
    end
    posix.write_file(path, table.concat(lines, "\n") .. "\n\nend)\n")
    io.write(("%s in %s\n"):format(text.count(n, "statement", true), path))
end

-- Runs a saved session as the scripts of experiments/ are run. Never returns.
function M.script(body)
    cli.main({ name = (arg[0] or "session"):match "[^/]*$":gsub("%.lua$", ""),
        question = "A session of ghm's prompt, once more.", no_dump = true,
        without = { "--dry-run", "--seed", "--samples", "--nonfinite", "--fail-fast", "--logits",
            "--pred", "--target", "--labels", "--weight", "--calls", "--out", "--name", "--plot",
            "--csv", "--json", "--quiet", "--verbose", "--no-color" } }, function(args)
        called.prompt = true
        device.default(device.open(args.device, args.threads))
        setfenv(body, M.new().names)()
    end)
end

return M
