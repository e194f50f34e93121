-- Natural order: a run of digits sorts as the number it is, step_2 before step_10.

local function key_of(name)
    return (name:gsub("%d+", function(digits)
        local significant = digits:gsub("^0+", "")
        return ("%04d%s"):format(#significant, significant)
    end))
end

-- Whether name a comes before name b; for table.sort.
return function(a, b)
    local ka, kb = key_of(a), key_of(b)
    if ka == kb then
        return a < b
    end
    return ka < kb
end
