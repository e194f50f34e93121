-- Conditions of --fail-if: 'loss > 1.01*A', 'abs(cosine - A) >= 0.1', 'n < 5'.
--
--   condition.parse(text) -> holds(value)    value(name) gives a column's number in the run that is
--                                            judged; value(name, "A") in another run, by its letter
--
-- One comparison of two sums of products of numbers, columns, runs (A: the first column named, in
-- that run; A.loss: another one there), abs(...) and parentheses. A value that is missing or NaN
-- makes it hold, as no one can say that all is well.

local fault = require "ghm.fault"
local number = require "ghm.number"
local text = require "ghm.show.text"

local M = {}

local comparisons = {
    [">"] = function(a, b) return a > b end, [">="] = function(a, b) return a >= b end,
    ["<"] = function(a, b) return a < b end, ["<="] = function(a, b) return a <= b end,
    ["=="] = function(a, b) return a == b end, ["!="] = function(a, b) return a ~= b end,
}
local operations = {
    ["+"] = function(a, b) return a + b end, ["-"] = function(a, b) return a - b end,
    ["*"] = function(a, b) return a * b end, ["/"] = function(a, b) return a / b end,
}

-- Words and signs of the text, the last one "".
local function tokens(source, refuse)
    local list, at = {}, 1
    while at <= #source do
        local word = source:match("^%s+", at) or source:match("^[%a_][%w_]*%.?[%w_]*", at)
            or source:match("^%d+%.?%d*[eE][+-]?%d+", at) or source:match("^%d*%.?%d+", at)
            or source:match("^[<>=!]=", at) or source:match("^[-<>+*/()]", at)
        if not word then
            refuse(("'%s' cannot stand here"):format(source:sub(at, at)))
        end
        if not word:find "^%s" then
            list[#list + 1] = word
        end
        at = at + #word
    end
    list[#list + 1] = ""
    return list
end

-- Throws fault "usage" for what is no condition.
function M.parse(source)
    local function refuse(what)
        fault.raise("usage", "--fail-if '%s': %s; expected a condition like 'loss>1.01*A'",
            text.one_line(source), what)
    end
    local list, at, first = tokens(source, refuse), 1, nil
    local columns = {}
    local function take(word)
        if list[at] == word then
            at = at + 1
            return true
        end
    end
    local sum

    local function atom()
        local word = list[at]
        at = at + 1
        if word == "(" or word == "abs" and take "(" then
            local inner = sum()
            if not take ")" then
                refuse "a ')' is missing"
            end
            return word == "abs" and function(value) return math.abs(inner(value)) end or inner
        elseif word == "-" then
            local inner = atom()
            return function(value) return -inner(value) end
        elseif number(word) then
            local constant = number(word)
            return function() return constant end
        elseif word:find "^%u$" or word:find "^%u%.[%a_]" then
            local run, name = word:match "^(%u)%.?(.*)$"
            columns[#columns + 1] = name ~= "" and name or nil
            return function(value) return value(name ~= "" and name or first, run) end
        elseif word:find "^[%a_][%w_]*$" then
            first = first or word
            columns[#columns + 1] = word
            return function(value) return value(word) end
        end
        return refuse(word == "" and "it ends too early" or ("'%s' cannot stand here"):format(word))
    end

    local function chain(signs, operand)
        local left = operand()
        while list[at] ~= "" and signs:find(list[at], 1, true) do
            local apply, before = operations[list[at]], left
            at = at + 1
            local right = operand()
            left = function(value) return apply(before(value), right(value)) end
        end
        return left
    end
    function sum()
        return chain("+-", function()
            return chain("*/", atom)
        end)
    end

    local left = sum()
    local compare = comparisons[list[at]]
    if not compare then
        refuse "there is no comparison in it"
    end
    at = at + 1
    local right = sum()
    if list[at] ~= "" then
        refuse(("'%s' cannot stand here"):format(list[at]))
    elseif not first then
        refuse "it names no column"
    end
    return function(value)
        local a, b = left(value), right(value)
        return a ~= a or b ~= b or compare(a, b)
    end, columns
end

return M
