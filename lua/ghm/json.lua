-- JSON that loses nothing: 17 significant digits out, strict reading in. (cjson and dkjson keep
-- 14 digits and read laxly.)
--
--   json.encode(value, { indent = 2 })  -> string; a value JSON has no form for is a bug (error)
--   json.decode(string)                 -> value, or nil, a reason with the byte position, and the
--                                       position and the reason without it
--   json.null                           null, both ways
--   json.array(t)                       marks t as a list, so that an empty one is []
--   json.object { {k, v}, ... }         an object whose keys keep this order
--
-- Tables with t[1] are lists, all others are objects with their keys sorted. NaN and infinities
-- become the strings "nan", "inf", "-inf": JSON has no such numbers, null would hide which of
-- them it was, and a reader that expects a number fails loudly on a string.

local utf8 = require "ghm.utf8"

local M = {}

local Array = { __name = "json.array" }
local Object = { __name = "json.object" }

M.null = setmetatable({}, {
    __name = "json.null",
    __tostring = function()
        return "null"
    end,
})

-- Marks and returns t (the same table).
function M.array(t)
    return setmetatable(t, Array)
end

-- An ordered object from a list of { key, value }; a nil value leaves the key out.
function M.object(pairs_list)
    return setmetatable({ pairs = pairs_list }, Object)
end

-- Whether t encodes as a list.
function M.is_array(t)
    return type(t) == "table" and (getmetatable(t) == Array or t[1] ~= nil)
end

local short = { ['"'] = '\\"', ["\\"] = "\\\\", ["\b"] = "\\b", ["\f"] = "\\f",
    ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }

local function escape(c)
    return short[c] or ("\\u%04x"):format(c:byte())
end

local function quoted(s)
    return '"' .. utf8.clean(s):gsub('[%z\1-\31"\\]', escape) .. '"'
end

-- A number as JSON and CSV write it: integers without a fraction, else the shortest of 15, 16
-- and 17 digits that reads back as the same double; nan, inf, -inf by name.
function M.number(x)
    if x ~= x then
        return "nan"
    elseif x == math.huge then
        return "inf"
    elseif x == -math.huge then
        return "-inf"
    elseif x == math.floor(x) and math.abs(x) <= 2 ^ 53 then
        return 1 / x == -math.huge and "-0.0" or ("%.0f"):format(x)
    end
    for digits = 15, 16 do
        local s = ("%." .. digits .. "g"):format(x)
        if tonumber(s) == x then
            return s
        end
    end
    return ("%.17g"):format(x)
end

-- The entries of an object in order: { {key, value}, ... }.
local function entries(t)
    if getmetatable(t) == Object then
        return t.pairs
    end
    local list = {}
    for key, value in pairs(t) do
        if type(key) ~= "string" then
            error("json: a table mixes list entries and the key " .. tostring(key), 0)
        end
        list[#list + 1] = { key, value }
    end
    table.sort(list, function(a, b)
        return a[1] < b[1]
    end)
    return list
end

local encode

local function wrap(parts, open, close, margin, step)
    if #parts == 0 then
        return open .. close
    elseif not step then
        return open .. table.concat(parts, ",") .. close
    end
    local inner = "\n" .. margin .. step
    return open .. inner .. table.concat(parts, "," .. inner) .. "\n" .. margin .. close
end

local function encode_table(t, margin, step, open)
    if open[t] then
        error("json: a table contains itself", 0)
    end
    open[t] = true
    local parts, deeper = {}, step and margin .. step
    local result
    if M.is_array(t) then
        local nested = false
        for i = 1, #t do
            nested = nested or type(t[i]) == "table" and t[i] ~= M.null
            parts[i] = encode(t[i], deeper, step, open)
        end
        for key in pairs(t) do
            if type(key) ~= "number" or key < 1 or key > #t or key % 1 ~= 0 then
                error("json: a list holds the key " .. tostring(key), 0)
            end
        end
        if nested or not step then
            result = wrap(parts, "[", "]", margin, step)
        else
            result = "[" .. table.concat(parts, ", ") .. "]" -- plain values share a line
        end
    else
        for _, entry in ipairs(entries(t)) do
            if entry[2] ~= nil then
                parts[#parts + 1] = quoted(entry[1]) .. (step and ": " or ":")
                    .. encode(entry[2], deeper, step, open)
            end
        end
        result = wrap(parts, "{", "}", margin, step)
    end
    open[t] = nil
    return result
end

function encode(value, margin, step, open)
    local kind = type(value)
    if kind == "table" then
        return value == M.null and "null" or encode_table(value, margin, step, open)
    elseif kind == "number" then
        local s = M.number(value)
        return s:find "^%-?[ni]" and '"' .. s .. '"' or s
    elseif kind == "string" then
        return quoted(value)
    elseif kind == "boolean" then
        return tostring(value)
    end
    error("json: no form for a " .. kind, 0)
end

-- value -> string. opts.indent: blanks for each level; nil writes one line.
function M.encode(value, opts)
    local indent = opts and opts.indent
    return encode(value, "", indent and (" "):rep(indent), {})
end

local DEPTH = 64
local escapes = { b = "\b", f = "\f", n = "\n", r = "\r", t = "\t",
    ['"'] = '"', ["\\"] = "\\", ["/"] = "/" }

local function refuse(position, what)
    error({ position = position, what = what }, 0)
end

local function skip(s, i)
    return s:find("[^ \t\r\n]", i) or #s + 1
end

local function read_unicode(s, i)
    local function unit(at)
        local hex = s:match("^\\u(%x%x%x%x)", at)
        return hex and tonumber(hex, 16)
    end
    local high = unit(i)
    if not high then
        refuse(i, "expected four hexadecimal digits after \\u")
    elseif high < 0xD800 or high > 0xDFFF then
        return utf8.of(high), i + 6
    end
    local low = unit(i + 6)
    if high > 0xDBFF or not low or low < 0xDC00 or low > 0xDFFF then
        refuse(i, "a surrogate stands alone")
    end
    return utf8.of(0x10000 + (high - 0xD800) * 1024 + low - 0xDC00), i + 12
end

local function read_string(s, start)
    local parts, i = {}, start + 1
    while true do
        local stop = s:find('[%z\1-\31"\\]', i)
        if not stop then
            refuse(start, "the string has no end")
        end
        parts[#parts + 1] = s:sub(i, stop - 1)
        local c = s:sub(stop, stop)
        if c == '"' then
            return table.concat(parts), stop + 1
        elseif c ~= "\\" then
            refuse(stop, "a control character stands in a string")
        else
            local kind = s:sub(stop + 1, stop + 1)
            if kind == "u" then
                parts[#parts + 1], i = read_unicode(s, stop)
            elseif escapes[kind] then
                parts[#parts + 1], i = escapes[kind], stop + 2
            else
                refuse(stop, "unknown escape in a string")
            end
        end
    end
end

local function read_number(s, i)
    local sign, whole, rest = s:match("^(%-?)(%d+)()", i)
    if not sign or whole:find "^0%d" then
        refuse(i, "expected a value")
    end
    local fraction = s:match("^%.%d+()", rest)
    local exponent = s:match("^[eE][+-]?%d+()", fraction or rest)
    local stop = exponent or fraction or rest
    if s:find("^[%w.+-]", stop) then
        refuse(i, "malformed number")
    end
    local x = tonumber(s:sub(i, stop - 1))
    if math.abs(x) == math.huge then
        refuse(i, "the number is too large for a double")
    elseif not fraction and not exponent
        and (math.abs(x) > 2 ^ 53 or ("%.0f"):format(x) ~= s:sub(i, stop - 1)) then
        refuse(i, "the integer is beyond 2^53 and would be rounded")
    end
    return x, stop
end

local read_value

local function read_list(s, i, depth)
    local list, n = M.array {}, 0
    i = skip(s, i + 1)
    if s:sub(i, i) == "]" then
        return list, i + 1
    end
    while true do
        n = n + 1
        list[n], i = read_value(s, i, depth)
        i = skip(s, i)
        local c = s:sub(i, i)
        if c == "]" then
            return list, i + 1
        elseif c ~= "," then
            refuse(i, "expected ',' or ']'")
        end
        i = i + 1
    end
end

local function read_object(s, i, depth)
    local object = {}
    i = skip(s, i + 1)
    if s:sub(i, i) == "}" then
        return object, i + 1
    end
    while true do
        i = skip(s, i)
        if s:sub(i, i) ~= '"' then
            refuse(i, "expected a key in double quotes")
        end
        local key, after = read_string(s, i)
        if object[key] ~= nil then
            local shown = #key > 40 and key:sub(1, 40) .. "..." or key
            refuse(i, "the key " .. quoted(shown) .. " occurs twice")
        end
        i = skip(s, after)
        if s:sub(i, i) ~= ":" then
            refuse(i, "expected ':'")
        end
        object[key], i = read_value(s, i + 1, depth)
        i = skip(s, i)
        local c = s:sub(i, i)
        if c == "}" then
            return object, i + 1
        elseif c ~= "," then
            refuse(i, "expected ',' or '}'")
        end
        i = i + 1
    end
end

local words = { ["true"] = true, ["false"] = false, ["null"] = M.null }

function read_value(s, i, depth)
    i = skip(s, i)
    local c = s:sub(i, i)
    if c == "{" or c == "[" then
        if depth >= DEPTH then
            refuse(i, "nested deeper than 64 levels")
        end
        return (c == "{" and read_object or read_list)(s, i, depth + 1)
    elseif c == '"' then
        return read_string(s, i)
    end
    local word = s:match("^%a+", i)
    if word and words[word] ~= nil then
        return words[word], i + #word
    elseif i > #s then
        refuse(i, "the text ends where a value is expected")
    end
    return read_number(s, i)
end

local function read_text(s)
    local at = s:find "[\128-\255]"
    while at do
        local n = utf8.at(s, at)
        if not n then
            refuse(at, "not UTF-8")
        end
        at = s:find("[\128-\255]", at + n)
    end
    local value, i = read_value(s, 1, 0)
    i = skip(s, i)
    if i <= #s then
        refuse(i, "text after the value")
    end
    return value
end

-- string -> value (lists are marked as by json.array; null is json.null), or nil, the reason with
-- the byte position counted from 1, that position, the reason alone. Refused: anything outside RFC
-- 8259, bytes that are not UTF-8, duplicate keys, more than 64 levels, integers beyond 2^53,
-- numbers beyond a double.
function M.decode(s)
    local ok, value = pcall(read_text, s)
    if ok then
        return value
    elseif type(value) == "table" and value.position then
        return nil, ("byte %d: %s"):format(value.position, value.what), value.position, value.what
    end
    error(value, 0)
end

return M
