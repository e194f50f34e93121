-- Axes: the words after `key=` that name one number or many.
--
--   10                one number
--   5,10,20           several; each part may be any form of this list
--   5:50:5            start:stop:step, stop included; 50:5:-5 runs down
--   lin:0:1:5         5 numbers, evenly spaced, both ends included
--   log:1e-3:1:7      7 numbers, evenly spaced in the logarithm
--   rand:0.5:0.99     drawn evenly; needs opts.samples and opts.seed
--
--   axis.parse(text, { name, integer, samples, seed }) -> list of numbers, each once, in order

local bit = require "bit"
local fault = require "ghm.fault"
local number = require "ghm.number"
local text = require "ghm.show.text"

local M = {}

local MAX_VALUES = 100000

-- Uniform numbers in [0, 1) with 53 random bits: Marsaglia's xorshift128, in 32-bit operations
-- that have the same result on every machine. seed: an integer from 0 to 2^53.
function M.uniform(seed)
    local x, y = bit.tobit(seed % 2 ^ 32), bit.tobit(math.floor(seed / 2 ^ 32))
    local z, w = 521288629, 88675123
    local function step()
        local t = bit.bxor(x, bit.lshift(x, 11))
        x, y, z = y, z, w
        w = bit.bxor(w, bit.rshift(w, 19), t, bit.rshift(t, 8))
        return w
    end
    for _ = 1, 64 do -- nearby seeds differ in few bits until those have spread
        step()
    end
    return function()
        local high, low = bit.rshift(step(), 5), bit.rshift(step(), 6)
        return (high * 2 ^ 26 + low) / 2 ^ 53
    end
end

-- The number a person would have typed: 0:1:0.1 meets 0.3, not 0.30000000000000004.
local function clean(x)
    return tonumber(("%.15g"):format(x))
end

local function refuse(opts, word, what)
    local name = opts.name and opts.name .. "=" or ""
    fault.raise("usage", "%s", text.one_line(name .. text.fit(word, 60) .. ": " .. what))
end

local function numbers(opts, word, fields, first, form)
    local list = {}
    for i = first, #fields do
        local x = number(fields[i])
        if not x then
            refuse(opts, word, ("'%s' is not a number; expected %s"):format(fields[i], form))
        end
        list[#list + 1] = x
    end
    return list
end

local function split(word, separator)
    local fields = {}
    for field in (word .. separator):gmatch("(.-)" .. separator) do
        fields[#fields + 1] = field
    end
    return fields
end

local function limit(opts, word, n)
    if n > MAX_VALUES then
        refuse(opts, word, ("%.0f values; at most %d are taken"):format(n, MAX_VALUES))
    end
end

local function spread(opts, word, fields)
    local kind = fields[1]
    local form = kind .. ":START:STOP:N"
    local v = numbers(opts, word, fields, 2, form)
    local start, stop, n = v[1], v[2], v[3]
    if #v ~= 3 then
        refuse(opts, word, "expected " .. form)
    elseif n < 2 or n ~= math.floor(n) then
        refuse(opts, word, ("N is %s; expected a whole number of at least 2"):format(fields[4]))
    elseif kind == "log" and (start <= 0 or stop <= 0) then
        refuse(opts, word, "a logarithm needs numbers above 0")
    end
    limit(opts, word, n)
    local list = {}
    for i = 0, n - 1 do
        local f = i / (n - 1)
        local x = kind == "lin" and start + (stop - start) * f or start * (stop / start) ^ f
        list[i + 1] = i == 0 and start or i == n - 1 and stop or clean(x)
    end
    return list
end

local function range(opts, word, fields)
    local form = "START:STOP:STEP"
    local v = numbers(opts, word, fields, 1, form)
    local start, stop, step = v[1], v[2], v[3]
    if #v ~= 3 then
        refuse(opts, word, "expected " .. form)
    elseif step == 0 then
        refuse(opts, word, "the step is 0")
    end
    -- the small addition keeps `stop` where (stop - start) / step rounds to just below an integer
    local n = 1 + math.floor((stop - start) / step + 1e-9)
    if n < 1 then
        refuse(opts, word, "the range is empty: the step leads away from the stop")
    end
    limit(opts, word, n)
    local list = {}
    for i = 0, n - 1 do
        list[i + 1] = clean(start + i * step)
    end
    return list
end

local function draw(opts, word, fields)
    local v = numbers(opts, word, fields, 2, "rand:LOW:HIGH")
    if #v ~= 2 or v[1] > v[2] then
        refuse(opts, word, "expected rand:LOW:HIGH")
    elseif not opts.samples or not opts.seed then
        refuse(opts, word, "a random axis needs --samples N and --seed S")
    end
    limit(opts, word, opts.samples)
    local next_uniform, list = M.uniform(opts.seed), {}
    for i = 1, opts.samples do
        -- whole numbers: every one from LOW to HIGH is as likely
        list[i] = opts.integer and math.floor(v[1] + (v[2] - v[1] + 1) * next_uniform())
            or v[1] + (v[2] - v[1]) * next_uniform()
    end
    return list
end

local function part(opts, word)
    local fields = split(word, ":")
    if fields[1] == "lin" or fields[1] == "log" then
        return spread(opts, word, fields)
    elseif fields[1] == "rand" then
        return draw(opts, word, fields)
    elseif #fields > 1 then
        return range(opts, word, fields)
    end
    return numbers(opts, word, fields, 1, "a number, a list 5,10,20 or a range 5:50:5")
end

-- text -> list of numbers, each once, in the order written. opts, all optional:
--   name      the key, for messages
--   integer   whole numbers only: spread values are rounded, written ones must be whole
--   samples, seed   for rand
-- Fault "usage" for anything that is not of the forms above.
function M.parse(word, opts)
    opts = opts or {}
    local list, seen = {}, {}
    for _, piece in ipairs(split(word, ",")) do
        if piece == "" and word ~= "" then
            refuse(opts, word, "a comma without a number; expected 5,10,20, without blanks")
        end
        local rounds = piece:find "^l[io][ng]:" ~= nil
        for _, x in ipairs(part(opts, piece)) do
            if opts.integer and rounds then
                x = math.floor(x + 0.5)
            elseif opts.integer and x ~= math.floor(x) then
                refuse(opts, word, ("%g is not a whole number"):format(x))
            end
            if not seen[x] then
                seen[x] = true
                list[#list + 1] = x
            end
        end
        limit(opts, word, #list)
    end
    return list
end

return M
