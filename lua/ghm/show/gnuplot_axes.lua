-- The axes of a plot by gnuplot: range, scale and ticks.

local M = {}

local function number_or_star(v)
    return v and ("%.15g"):format(v) or "*"
end

-- 1, 2 and 5 times powers of ten, from the last one not above `low` to the first not below `high`.
local function log_tics(low, high)
    local tics = {}
    for power = math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) do
        for _, digit in ipairs { 1, 2, 5 } do
            local at = digit * 10 ^ power
            if at <= low * (1 + 1e-9) then
                tics[1] = at
            elseif #tics < 2 or tics[#tics] < high * (1 - 1e-9) then
                tics[#tics + 1] = at
            end
        end
    end
    return tics
end

-- The commands of the axis `name` ("x"), each by add(format, ...). range: {low, high} or nil;
-- low and high: the ends of what is drawn, nil for nothing.
function M.lines(add, name, log, range, low, high)
    low, high = low or 0, high or 1
    -- powers of ten once a logarithmic axis spans two of them, else plain numbers, 2 and 5 too
    local from, to = range and range[1] or low, range and range[2] or high
    local wide = log and to / from >= 100
    local tics = log and not wide and log_tics(from, to)
    if tics and tics[1] and not range then -- a tick at the very end is lost by rounding
        range = { tics[1] * (1 - 1e-6), tics[#tics] * (1 + 1e-6) }
    end
    add("set %srange [%s:%s]", name, number_or_star(range and range[1]),
        number_or_star(range and range[2]))
    if not log then
        local format = "%.10g"
        if high >= 1e5 and high < 1e18 and low <= high / 2 then -- "350 k", "1.5 M"
            local leading = high / 1000 ^ math.floor(math.log10(high) / 3)
            format = leading >= 10 and "%.0s %c" or "%.1s %c"
        end
        add("unset logscale %s; set format %s '%s'; unset m%stics", name, name, format, name)
        return
    end
    add("set logscale %s; set format %s %s; set m%stics 10", name, name,
        wide and "'10^{%T}'" or "'%g'", name)
    for k = 1, tics and #tics or 0 do
        tics[k] = ("%.9g"):format(tics[k])
    end
    if tics then
        add("set %stics (%s)", name, table.concat(tics, ", "))
    end
end

return M
