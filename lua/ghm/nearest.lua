-- "Did you mean": the known name closest to a mistyped one.

local M = {}

-- Edits (insert, delete, replace, swap of neighbours) that turn a into b.
local function distance(a, b)
    local before, last = nil, {}
    for j = 0, #b do
        last[j] = j
    end
    for i = 1, #a do
        local row = { [0] = i }
        for j = 1, #b do
            local same = a:byte(i) == b:byte(j)
            row[j] = math.min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (same and 0 or 1))
            if i > 1 and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j) then
                row[j] = math.min(row[j], before[j - 2] + 1)
            end
        end
        before, last = last, row
    end
    return last[#b]
end

-- The name in the list `known` nearest to `word`, or nil when none is close: at most a third of
-- its letters differ, and not all of the word's, or it continues what was typed. Ties go to the
-- earlier name.
function M.find(word, known)
    local best, best_distance
    for _, name in ipairs(known) do
        local d = distance(word:lower(), name:lower())
        local begins = #word >= 2 and name:sub(1, #word) == word
        if d <= math.max(1, #name / 3) and d < #word or begins then
            d = begins and math.min(d, 1) or d
            if not best or d < best_distance then
                best, best_distance = name, d
            end
        end
    end
    return best
end

-- Whether the list `known` holds the word.
function M.is_one_of(word, known)
    for _, name in ipairs(known) do
        if name == word then
            return true
        end
    end
    return false
end

-- ": did you mean 'bins'?", or a list of what there is when nothing is near.
function M.hint(word, known)
    local name = M.find(word, known)
    if name then
        return (": did you mean '%s'?"):format(name)
    end
    return ": expected one of " .. table.concat(known, ", ")
end

return M
