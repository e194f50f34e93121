-- Probabilities where logits were expected: every answer is wrong then, and none looks so.
--
--   probabilities.said                  what is to be said of an array of logits
--   probabilities.in_range(min, max)    whether logits of this range look like probabilities
--   probabilities.in_batch(batch)       whether those of a batch do, which is read for it
--   probabilities.in_sketch(sketch)     the same of those that a sketch was made of

local M = {}

M.said = "all of it lies in [0, 1], as probabilities do, and the sigmoid is taken of it here: dump "
    .. "the logits"

local MOST = 0.9 -- of a sketch's samples must lie in intervals that end within NEAR
local NEAR = 2

-- Equal ones are no probabilities of anything.
function M.in_range(min, max)
    return min >= 0 and max <= 1 and min < max
end

function M.in_batch(batch)
    if batch.saved then
        return M.in_sketch(batch.saved)
    end
    local min, max = math.huge, -math.huge
    for block in batch:blocks() do
        local some = block.arrays.pred:summary()
        min, max = math.min(min, some.min or min), math.max(max, some.max or max)
    end
    return M.in_range(min, max)
end

-- Where the keys (1 - 2t) x of a group lie if its logits x lie in [0, 1], by whether the sketch is
-- of soft targets: { group, least, most, the least that most of them have }. A soft target may lie
-- on both sides of its sigmoid, but most targets are 0.
local expected = {
    [false] = { { "negatives", 0, 1, 0 }, { "positives", -1, 0, -NEAR } },
    [true] = { { "both", -math.huge, 1, 0 } },
}

function M.in_sketch(sketch)
    if sketch.task ~= "classification" then
        return false
    end
    local n, edge, all, near = sketch:intervals(), sketch:edges(), 0, 0
    for _, keys in ipairs(expected[sketch:is_soft()]) do
        local group, least, most, usual = unpack(keys)
        local counts = sketch:counts(group)
        for i = 0, n - 1 do
            local low = i > 0 and edge[i - 1] or -math.huge
            local high = i < n - 1 and edge[i] or math.huge
            local count = tonumber(counts[i])
            if count > 0 and (high <= least or low > most) then
                return false
            end
            all = all + count
            near = near + (low >= usual and high <= NEAR and count or 0)
        end
    end
    return near > MOST * all
end

return M
