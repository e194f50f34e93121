-- --loss, of whatever asks about logits or about boxes: ghmc or ghmr, and the task that it means.

local M = {}

-- default: nil where nothing said is something else.
function M.add(parser, default)
    local said = default and (" (%s)"):format(default) or ""
    parser:option("--loss", "ghmc, or ghmr for boxes" .. said):choices { "ghmc", "ghmr" }
        :default(default):show_default(false)
end

-- The task of a word: of "both", and of none, the first of the two.
function M.task(word)
    return word == "ghmr" and "regression" or "classification"
end

function M.word(task)
    return task == "regression" and "ghmr" or "ghmc"
end

return M
