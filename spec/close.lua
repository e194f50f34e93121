-- Numbers near each other, for the specs: close(actual, expected, { abs =, rel = }, what).

local lu = require "luaunit"

-- Fails unless |actual - expected| <= abs + rel * |expected|; equal infinities are near each other,
-- NaN is near nothing. what: a format and its arguments, for the message.
return function(actual, expected, limit, what, ...)
    local distance = actual == expected and 0 or math.abs(actual - expected)
    local allowed = (limit.abs or 0) + (limit.rel or 0) * math.abs(expected)
    local near = distance <= allowed
    if not near then
        lu.fail(("%s is %.17g, expected %.17g within %.3g (off by %.3g)"):format(
            what:format(...), actual, expected, allowed, distance))
    end
end
