-- The prompt: lines are read, run and shown until the input ends.
--
--   interactive.run(args) -> exit code       args: of ghm.cli

local called = require "ghm.called"
local clib = require "ghm.clib"
local completion = require "ghm.prompt.completion"
local device = require "ghm.device"
local fault = require "ghm.fault"
local line_input = require "ghm.prompt.line_input"
local session = require "ghm.prompt.session"

local M = {}

-- d = load "a.npz" for the dumps of the command line: run as if typed, so that a saved session has
-- it too.
local function opening(args)
    local words = {}
    for i, word in ipairs(args.dumps) do
        words[i] = ("%q"):format(word)
    end
    local options = {}
    for _, name in ipairs { "logits", "pred", "target", "labels", "weight", "calls" } do
        if args[name] then
            local list = {}
            for i, word in ipairs(args[name]) do
                list[i] = ("%q"):format(word)
            end
            options[#options + 1] = ("%s = { %s }"):format(name, table.concat(list, ", "))
        end
    end
    local parts = { #words == 1 and words[1] or "{ " .. table.concat(words, ", ") .. " }" }
    parts[2] = #options > 0 and "{ " .. table.concat(options, ", ") .. " }" or nil
    return #words > 0 and ("d = load(%s)"):format(table.concat(parts, ", ")) or nil
end

-- One statement, of as many lines as it takes; nil at the end of the input.
local function read(input, typing)
    local text
    while true do
        local line, reason = input:read(text and "...> " or "ghm> ")
        if reason == "interrupted" then
            return ""
        elseif not line then
            if text then
                typing:refuse "the input ends inside a statement"
            end
            return nil
        end
        text = text and text .. "\n" .. line or line
        local done = typing:run(text)
        if done ~= "more" then
            return done
        end
    end
end

function M.run(args)
    called.prompt = true
    device.default(device.open(args.device, args.threads))
    clib.check(clib.C.ghm_interrupt_keep())
    local typing = session.new()
    local input = line_input.open(function(line)
        return completion.candidates(line, typing)
    end)
    if input.interactive then
        io.write(("ghm %s on %s. help() says what there is, Ctrl-D leaves.\n"):format(clib.version,
            device.name()))
    end
    local first = opening(args)
    if first then
        io.write(input.interactive and "ghm> " .. first .. "\n" or "")
        typing:run(first)
    end
    local done
    repeat
        done = read(input, typing)
    until not done or done == "leave"
    input:close()
    return not input.interactive and typing.failed > 0 and fault.exit_codes.failed or 0
end

return M
