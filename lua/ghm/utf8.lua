-- UTF-8, character by character: what is one, and what to do with bytes that are none.

local M = {}

-- Bytes of the UTF-8 character that begins at byte i and its code point, or nil where the bytes
-- are no valid UTF-8 (overlong forms, surrogates and values over 0x10FFFF included).
function M.at(s, i)
    local a, b, c, d = s:byte(i, i + 3)
    if a < 0x80 then
        return 1, a
    elseif a < 0xC2 or a > 0xF4 or not b or b < 0x80 or b > 0xBF then
        return nil
    elseif a < 0xE0 then
        return 2, (a - 0xC0) * 64 + b - 0x80
    elseif not c or c < 0x80 or c > 0xBF then
        return nil
    elseif a < 0xF0 then
        local code = ((a - 0xE0) * 64 + b - 0x80) * 64 + c - 0x80
        if code >= 0x800 and (code < 0xD800 or code > 0xDFFF) then
            return 3, code
        end
        return nil
    elseif not d or d < 0x80 or d > 0xBF then
        return nil
    end
    local code = (((a - 0xF0) * 64 + b - 0x80) * 64 + c - 0x80) * 64 + d - 0x80
    if code >= 0x10000 and code <= 0x10FFFF then
        return 4, code
    end
    return nil
end

-- The character of a code point.
function M.of(code)
    if code < 0x80 then
        return string.char(code)
    elseif code < 0x800 then
        return string.char(0xC0 + math.floor(code / 64), 0x80 + code % 64)
    elseif code < 0x10000 then
        return string.char(0xE0 + math.floor(code / 4096),
            0x80 + math.floor(code / 64) % 64, 0x80 + code % 64)
    end
    return string.char(0xF0 + math.floor(code / 262144), 0x80 + math.floor(code / 4096) % 64,
        0x80 + math.floor(code / 64) % 64, 0x80 + code % 64)
end

-- Any bytes as UTF-8, which is all that JSON and HTML hold: a byte of no character becomes U+FFFD.
function M.clean(s)
    if not s:find "[\128-\255]" then
        return s
    end
    local parts, i = {}, 1
    while i <= #s do
        local n = M.at(s, i)
        parts[#parts + 1] = n and s:sub(i, i + n - 1) or "\239\191\189"
        i = i + (n or 1)
    end
    return table.concat(parts)
end

return M
