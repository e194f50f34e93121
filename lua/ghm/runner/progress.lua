-- Progress, on stderr: a bar with rate and time left on a terminal, a line every ten seconds
-- elsewhere.
--
--   local show = progress.of(args, "steps")     args.quiet: nothing at all
--   show(done, total)                           at the start and after each piece of work
--
-- The rate is taken from the first call on: what was there already, as after --resume, is no work.

local posix = require "ghm.posix"
local screen = require "ghm.show.screen"
local text = require "ghm.show.text"

local M = {}

local PLAIN_EVERY, LIVE_EVERY = 10, 0.1 -- seconds

-- "12.4/s, 3 s left", once there is something to judge by.
local function pace(done, total, first, elapsed)
    local rate = (done - first) / elapsed
    if not (rate > 0 and rate < math.huge) then
        return ""
    end
    return (", %s/s, %s left"):format(text.number(rate), text.seconds((total - done) / rate))
end

function M.of(args, what)
    local live = screen.is_live()
    local columns = live and screen.columns(2) or 80
    local begun, last, first = posix.now(), posix.now(), nil
    return function(done, total)
        local now = posix.now()
        first = first or done
        if args.quiet or total < 2 then
            return
        elseif live and done >= total then
            io.stderr:write "\r\27[K"
        elseif live and (now - last >= LIVE_EVERY or done == 0) then
            last = now
            local counts = (" %d/%d %s%s"):format(done, total, what,
                pace(done, total, first, now - begun))
            local width = math.min(24, columns - 1 - text.width(counts)) -- a full line wraps
            io.stderr:write("\r", width > 3 and text.bar(done / total, width) or "",
                text.fit(counts, columns - 1), "\27[K")
            io.stderr:flush()
        elseif not live and now - last >= PLAIN_EVERY then
            last = now
            io.stderr:write(("%d of %d %s%s\n"):format(done, total, what,
                pace(done, total, first, now - begun)))
        end
    end
end

return M
