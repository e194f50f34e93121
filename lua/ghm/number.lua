-- The finite decimal number that a word is, or nil: tonumber alone takes hexadecimal, inf and nan
-- as well.
return function(word)
    if word:find "^[+-]?%d+%.?%d*$" or word:find "^[+-]?%.%d+$"
        or word:find "^[+-]?%d+%.?%d*[eE][+-]?%d+$" or word:find "^[+-]?%.%d+[eE][+-]?%d+$" then
        local x = tonumber(word)
        return x and math.abs(x) < math.huge and x or nil
    end
end
