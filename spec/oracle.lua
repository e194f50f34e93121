-- The slow oracle: GHM in float64, sample by sample, straight from the definitions in the paper (Li
-- et al., AAAI 2019) and mmdetection's ghm_loss.py. It shares no code with the core.
--
-- A sample is { key, loss, norm, slope, valid, weight, t }: key is s = (1 - 2t) x, or pred - target
-- rounded to float32, in size; slope is d loss / d pred; a soft target has no key.

local ffi = require "ffi"

ffi.cdef [[
double log1p(double x);
double expm1(double x);
]]

local C = ffi.C
local M = {}

-- x rounded to float32
local single = ffi.new "float[1]"
function M.float32(x)
    single[0] = x
    return single[0]
end

function M.sigmoid(x)
    return x >= 0 and 1 / (1 + math.exp(-x)) or math.exp(x) / (1 + math.exp(x))
end

function M.softplus(x)
    return math.max(x, 0) + C.log1p(math.exp(-math.abs(x)))
end

-- -(t ln p + (1 - t) ln(1 - p)) with p = sigmoid(x)
function M.bce(x, t)
    return t * M.softplus(-x) + (1 - t) * M.softplus(x)
end

-- Lin et al. 2017: -alpha_t (1 - p_t)^gamma ln p_t; alpha < 0 stands for no balance.
function M.focal(x, t, alpha, gamma)
    local balance = alpha < 0 and 1 or t == 1 and alpha or 1 - alpha
    return balance * M.sigmoid(t == 1 and -x or x) ^ gamma * M.bce(x, t)
end

function M.asl1(d, mu)
    return d * d / (math.sqrt(d * d + mu * mu) + mu)
end

function M.smooth_l1(d, beta)
    d = math.abs(d)
    return d < beta and d * d / (2 * beta) or d - beta / 2
end

-- x, t, w: plain numbers; w nil is 1
function M.class_sample(x, t, w)
    local hard = t == 0 or t == 1
    -- near g = 0 and g = 1 of a hard target, |p - t| would cancel
    local s = t == 1 and -x or x
    local slope = hard and (t == 1 and -1 or 1) * M.sigmoid(s) or M.sigmoid(x) - t
    return { key = hard and s or nil, loss = M.bce(x, t), norm = math.abs(slope), slope = slope,
        valid = (w or 1) > 0, weight = w or 1, t = t, x = x }
end

function M.box_sample(pred, target, w, mu)
    local d = pred - target
    local slope = d / math.sqrt(d * d + mu * mu)
    return { key = math.abs(M.float32(d)), loss = M.asl1(d, mu), norm = math.abs(slope),
        slope = slope, valid = (w or 1) > 0, weight = w or 1, t = 0, d = d }
end

-- The samples of one row of logits (a list) whose class is number t (from 1; nil: ignored), for a
-- form of softmax GHM-C, from the probabilities themselves. They have no key: g finds the regions.
function M.softmax_samples(logits, t, form)
    local largest, sum, p, samples = math.max(unpack(logits)), 0, {}, {}
    for c, x in ipairs(logits) do
        p[c] = math.exp(x - largest)
        sum = sum + p[c]
    end
    local function others(c) -- 1 - p_c
        local rest = 0
        for k, e in ipairs(p) do
            rest = rest + (k ~= c and e or 0)
        end
        return rest / sum
    end
    for c in ipairs(p) do
        samples[c] = { valid = t ~= nil, weight = 1, t = c == t and 1 or 0,
            norm = c == t and others(c) or p[c] / sum,
            loss = c == t and -math.log(p[c] / sum) or -math.log(others(c)) }
    end
    if form == "each_class" then
        return samples
    end
    local own = samples[t or 1]
    if form == "l1" then -- of regions over [0, 2]
        own.norm = 0
        for c in ipairs(p) do
            own.norm = own.norm + (c == t and others(c) or p[c] / sum) / 2
        end
    end
    return { own }
end

-- All samples of arrays (ghm.array) of one shape; w may be nil.
function M.classes(x, t, w)
    local samples = {}
    for i = 0, x.n - 1 do
        samples[i + 1] = M.class_sample(x:get(i), t:get(i), w and w:get(i))
    end
    return samples
end

function M.boxes(pred, target, w, mu)
    local samples = {}
    for i = 0, pred.n - 1 do
        samples[i + 1] = M.box_sample(pred:get(i), target:get(i), w and w:get(i), mu)
    end
    return samples
end

-- The key at which g = j/bins. Doubles are fine enough: no float32 key comes nearer to a threshold
-- than they can tell, but for those that are equal to it (test_edges measures this).
local function threshold(j, bins, mu)
    if mu then
        return mu * j / math.sqrt((bins - j) * (bins + j))
    end
    return math.log(j / (bins - j))
end

-- The region, 1..bins, of a sample: g >= (j - 1)/bins decided on the key, or on g where targets are
-- soft. mu is nil for classification.
function M.region(sample, bins, mu)
    local low, high = 1, bins -- region `low` surely begins at or below the sample
    while low < high do
        local middle = math.ceil((low + high) / 2)
        local beyond
        if sample.key then
            beyond = sample.key >= threshold(middle - 1, bins, mu)
        else
            beyond = sample.norm >= (middle - 1) / bins
        end
        low, high = beyond and middle or low, beyond and high or middle - 1
    end
    return low
end

-- Counts R, sums L of a field (default "loss", or a function of the sample) and tot of a call.
function M.regions(samples, bins, mu, what)
    local R, L, tot = {}, {}, 0
    what = what or "loss"
    for j = 1, bins do
        R[j], L[j] = 0, 0
    end
    for _, sample in ipairs(samples) do
        if sample.valid then
            local j = M.region(sample, bins, mu)
            R[j] = R[j] + 1
            L[j] = L[j] + (type(what) == "string" and sample[what] or type(what) ~= "string"
                and what(sample))
            tot = tot + (mu and sample.weight or 1)
        end
    end
    return R, L, math.max(tot, 1)
end

-- What S is before the first call that holds samples.
local starts = {
    zero = function() return 0 end,
    corrected = function() return 0 end,
    first = function(R) return R end,
    uniform = function(_, N, bins) return N / bins end,
}

-- One call: state is a table that lives as long as the loss ({} at first); c has bins, momentum,
-- loss_weight, beta_max, divide, start, empty and reduction, all given. Returns { loss, n, limited,
-- beta, used }.
function M.step(c, state, R, L, tot)
    local m, n, N = c.momentum, 0, 0
    for j = 1, c.bins do
        n, N = n + (R[j] > 0 and 1 or 0), N + tonumber(R[j])
    end
    if not state.S and n > 0 and m > 0 then
        state.S, state.k = {}, {}
        for j = 1, c.bins do
            state.S[j], state.k[j] = starts[c.start](R[j], N, c.bins), 0
        end
    end
    for j = 1, state.S and c.bins or 0 do
        if R[j] > 0 or c.empty == "decay" then
            state.S[j] = m * state.S[j] + (1 - m) * R[j]
            state.k[j] = state.k[j] + 1
        end
    end
    local out = { loss = 0, n = n, limited = 0, beta = {}, used = {} }
    local regions = c.divide == "all" and c.bins or n
    for j = 1, c.bins do
        local S = m > 0 and (state.S and state.S[j] or 0) or R[j]
        if c.start == "corrected" and m > 0 and state.k and state.k[j] > 0 then
            S = S / -C.expm1(state.k[j] * math.log(m)) -- 1 - m^k
        end
        out.used[j] = S
        out.beta[j] = R[j] > 0 and tot / (S * regions) or 0
        if c.beta_max > 0 and out.beta[j] > c.beta_max then
            out.beta[j], out.limited = c.beta_max, out.limited + 1
        end
        out.loss = out.loss + c.loss_weight * out.beta[j] * L[j]
    end
    if c.reduction == "mean" then
        out.loss = out.loss / tot
    elseif c.reduction == "none" then
        out.loss = 0
    end
    return out
end

-- d (the call's loss) / d pred of each sample with beta held: beta_i slope_i, over tot for a mean.
function M.gradients(samples, c, call, tot, mu)
    local scale = c.loss_weight / (c.reduction == "mean" and tot or 1)
    local grads = {}
    for i, sample in ipairs(samples) do
        grads[i] = sample.valid and scale * call.beta[M.region(sample, c.bins, mu)] * sample.slope
            or 0
    end
    return grads
end

-- The paper's equation 5, by looking at every pair: densities (nil where ignored) and sum l / GD.
function M.exact_density(samples, eps)
    local density, loss = {}, 0
    for i, one in ipairs(samples) do
        if one.valid then
            local low, high, count = one.norm - eps / 2, one.norm + eps / 2, 0
            for _, other in ipairs(samples) do
                if other.valid and other.norm >= low and other.norm < high then
                    count = count + 1
                end
            end
            density[i] = count / (math.min(high, 1) - math.max(low, 0))
            loss = loss + one.loss / density[i]
        end
    end
    return density, loss
end

return M
