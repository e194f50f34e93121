-- Element types: how each lies in memory, and how its elements become plain numbers and back.

local ffi = require "ffi"
local fault = require "ghm.fault"

local LARGEST = 2 ^ 53 -- doubles count exactly up to here

local function same(v)
    return v
end

-- The 16-bit floats: one sign bit, 15 - mantissa bits of exponent, mantissa bits of fraction.
local function small_float(mantissa)
    local one = 2 ^ mantissa
    local top = 2 ^ (15 - mantissa) - 1 -- the exponent of infinity and NaN
    local bias = (top - 1) / 2
    local function value(bits)
        local sign = bits >= 0x8000 and -1 or 1
        local exponent = math.floor(bits / one) % (top + 1)
        local fraction = bits % one
        if exponent == top then
            return fraction == 0 and sign * math.huge or 0 / 0
        elseif exponent == 0 then
            return sign * fraction * 2 ^ (1 - bias - mantissa)
        end
        return sign * (one + fraction) * 2 ^ (exponent - bias - mantissa)
    end
    local values -- of all 65,536 patterns, computed at the first use
    local function decode(bits)
        if not values then
            values = ffi.new "double[65536]"
            for k = 0, 65535 do
                values[k] = value(k)
            end
        end
        return values[bits]
    end
    local function encode(v)
        if v ~= v then
            return top * one + one / 2
        end
        local sign = (v < 0 or 1 / v < 0) and 0x8000 or 0
        local size = math.abs(v)
        if size == 0 or size == math.huge then
            return sign + (size == 0 and 0 or top * one)
        end
        local _, exponent = math.frexp(size)
        exponent = math.max(exponent - 1, 1 - bias)
        -- adding and taking away 2^52 rounds to an integer, ties to even
        local units = size * 2 ^ (mantissa - exponent) + 2 ^ 52 - 2 ^ 52
        -- the leading one of a normal number carries into the exponent field by itself
        return sign + math.min((exponent + bias - 1) * one + units, top * one)
    end
    return { ctype = "uint16_t", decode = decode, encode = encode }
end

local function float(ctype)
    return { ctype = ctype, decode = same, encode = same }
end

local function integer(name, ctype, low, high)
    return { ctype = ctype, decode = tonumber, encode = function(v)
        if not (v >= low and v <= high and v == math.floor(v)) then
            fault.raise("usage", "%s elements are integers from %.0f to %.0f, not %.17g",
                name, low, high, v)
        end
        return v
    end }
end

-- name -> { ctype, pointer (a ctype too), size (bytes), decode (element -> number), encode (number
-- -> what is stored; floats round to nearest even, integers throw fault "usage" when they cannot
-- hold it) }
local M = {
    f2 = small_float(10), bf16 = small_float(7), f4 = float "float", f8 = float "double",
    i1 = integer("i1", "int8_t", -128, 127),
    u1 = integer("u1", "uint8_t", 0, 255),
    b1 = integer("b1", "uint8_t", 0, 1),
    i2 = integer("i2", "int16_t", -2 ^ 15, 2 ^ 15 - 1),
    i4 = integer("i4", "int32_t", -2 ^ 31, 2 ^ 31 - 1),
    i8 = integer("i8", "int64_t", -LARGEST, LARGEST),
}
for _, kind in pairs(M) do
    kind.pointer = ffi.typeof("$ *", ffi.typeof(kind.ctype))
    kind.size = ffi.sizeof(kind.ctype)
end

return M
