-- The study of losses: what each makes of the same samples - which of them carry its gradient, and
-- how evenly. Arithmetic on sketches: per interval, sums of |d loss / d pred|, the reformulated
-- gradient norm (paper, section 3).
--
--   list = losses_study.list("classification", keys)     keys: lists of bins, momentum, alpha, ...
--   rows = losses_study.rows(calls, list)
--
-- A loss of such a list has label, task, params (columns of its row), what a sketch is asked for
-- (value and norm, functions of ghm.sketches, with a and b), mu (of the boxes' g), and one of
--   made     a plain loss of ghm.losses, with reduction = "sum"
--   config   GHM's, with unit regions
--   eps      GHM's window, with the exact density

local ffi = require "ffi"
local harmonise = require "ghm.harmonise"
local losses = require "ghm.losses"
local metrics = require "ghm.studies.metrics"
local sketches = require "ghm.sketches"
local sweep = require "ghm.studies.sweep"

local M = {}

M.FINE = 200 -- intervals of g in which cumulative contributions are told; holds the classes' edges
M.DRAWN = 40 -- regions in which contributions are drawn, and their entropy taken

-- Classes of samples by g, in tenths: what is easy, and what so wrong that it may be mislabelled.
M.classes = { { name = "easy", from = 0, to = 1 }, { name = "medium", from = 1, to = 5 },
    { name = "hard", from = 5, to = 9 }, { name = "outlier", from = 9, to = 10 } }

-- What must be declared so that every question below is answered exactly.
function M.edges(task, keys)
    local boxes = task == "regression"
    return { bins = { M.FINE, unpack(keys.bins) }, mu = boxes and keys.mu or nil,
        knots = boxes and keys.beta or nil }
end

local function each(values, visit)
    for _, value in ipairs(type(values) == "table" and values or { values }) do
        visit(value)
    end
end

-- The window of the exact density: as wide as the narrowest regions, unless it is given.
function M.window(keys)
    return keys.eps or 1 / math.max(1, unpack(type(keys.bins) == "table" and keys.bins
        or { keys.bins }))
end

-- mu: GHM-R's, by which g is told for every loss of boxes.
local function plain(task, name, options, label, params, mu)
    options.reduction = "sum"
    local made = losses[name](options)
    local own = made.kind.own
    return { label = label, task = task, params = params, made = made, value = own,
        norm = (own == "bce" or own == "asl1") and "norm" or own .. "_norm", a = made.a,
        b = made.b, mu = mu }
end

local function add_ghm(list, task, name, keys)
    local mu = task == "regression" and keys.mu or nil
    local base = { task = task, value = mu and "asl1" or "bce", norm = "norm", a = mu, mu = mu }
    local function add(label, fields)
        local loss = { label = name .. label }
        for _, source in ipairs { base, fields } do
            for key, value in pairs(source) do
                loss[key] = value
            end
        end
        list[#list + 1] = loss
    end
    each(keys.bins, function(bins)
        each(keys.momentum or 0, function(momentum)
            local config = {}
            for _, key in ipairs(harmonise.keys) do
                config[key] = keys[key]
            end
            config.bins, config.momentum, config.mu = bins, momentum, mu
            add(momentum > 0 and (", M = %d, momentum %g"):format(bins, momentum)
                or (", M = %d"):format(bins), { config = config,
                params = { bins = bins, momentum = momentum, mu = mu } })
        end)
    end)
    local eps = M.window(keys)
    add(", exact density", { eps = eps, params = { eps = eps, mu = mu } })
end

local function weighed(list, keys)
    for _, loss in ipairs(list) do
        loss.loss_weight = keys.loss_weight
    end
    return list
end

-- The losses to compare: keys.bins, momentum, alpha, gamma (classification), beta (regression) hold
-- one value or a list; keys.mu and eps (or nil) one. alpha < 0: focal without balance.
function M.list(task, keys)
    local list = {}
    if task == "regression" then
        each(keys.beta, function(beta)
            list[#list + 1] = plain(task, "SmoothL1", { beta = beta },
                ("smooth L1, beta %.3g"):format(beta), { beta = beta }, keys.mu)
        end)
        list[#list + 1] = plain(task, "ASL1", { mu = keys.mu }, ("ASL1, mu %g"):format(keys.mu),
            { mu = keys.mu }, keys.mu)
        add_ghm(list, task, "GHM-R", keys)
        return weighed(list, keys)
    end
    list[1] = plain(task, "BCE", {}, "BCE", {})
    each(keys.gamma, function(gamma)
        each(keys.alpha, function(alpha)
            list[#list + 1] = plain(task, "Focal", { alpha = alpha, gamma = gamma },
                alpha < 0 and ("focal, gamma %g"):format(gamma)
                or ("focal, alpha %g, gamma %g"):format(alpha, gamma),
                { alpha = alpha, gamma = gamma })
        end)
    end)
    add_ghm(list, task, "GHM-C", keys)
    return weighed(list, keys)
end

-- The losses of rows of exclusive classes, to be asked of the margins of ghm.softmax.
function M.softmax_list(keys)
    local list = { plain("classification", "BCE", {}, "softmax CE", {}) }
    add_ghm(list, "classification", "softmax GHM-C", keys)
    return weighed(list, keys)
end

-- Soft targets know BCE and g alone, of all samples.
local function answers_soft(loss)
    return loss.norm == "norm" and not loss.eps
end

-- -- one call ------------------------------------------------------------------------------------

-- The loss's value on a call, and a function (group, power) -> per interval, the sum of the
-- reformulated gradient norms, or of their squares.
local function ask(loss, sketch, state)
    local function sums(group, power)
        return sketch:sums(power == 2 and loss.norm .. "_squared" or loss.norm, loss.a, loss.b,
            group)
    end
    if loss.config then
        local call, bins = state:step(sketch), loss.config.bins
        local beta = sketches.spread(call.beta, sketch:cut(bins, loss.config.mu), bins,
            sketch:intervals())
        return call.loss, function(group, power)
            local values, out = sums(group, power), ffi.new("double[?]", sketch:intervals())
            for i = 0, sketch:intervals() - 1 do
                out[i] = values[i] * beta[i] ^ power
            end
            return out
        end
    end
    local function exact(name, group, power)
        return sketch:exact_sums(name, loss.a, loss.b, group, { mu = loss.mu, eps = loss.eps,
            power = power })
    end
    local each_value = loss.eps and exact(loss.value, "both", 1)
        or sketch:sums(loss.value, loss.a, loss.b)
    local value = (loss.loss_weight or 1) * sketches.total(each_value, sketch:intervals())
    return value / math.max(sketch:facts().valid, 1), loss.eps and function(group, power)
        return exact(power == 2 and "norm_squared" or "norm", group, power)
    end or sums
end

-- What a call adds to a row's detail: contributions (each over tot, as in the loss) and samples in
-- FINE regions, and to the step's part of the metrics, where a share is a sum over a sum.
local function add_call(loss, call, state, detail, part)
    local sketch = call.sketch
    local tot, intervals = sketch:tot(), sketch:intervals()
    local value, norms = ask(loss, sketch, state)
    local cut = sketch:cut(M.FINE, loss.mu)
    local fine = sketches.fold(norms("both", 1), cut, M.FINE, "double")
    local counts = sketches.fold(sketch:counts(), cut, M.FINE, "int64_t")
    local both = sketches.total(fine, M.FINE) / tot
    local function add_share(key, sum)
        local entry = part[key] or { 0, 0, most = 0 }
        entry[1], entry[2], part[key] = entry[1] + sum, entry[2] + both, entry
    end
    for j = 1, M.FINE do
        detail.fine[j] = (detail.fine[j] or 0) + fine[j - 1] / tot
        detail.counts[j] = (detail.counts[j] or 0) + tonumber(counts[j - 1])
    end
    if loss.config then -- what its own regions contribute, and would with beta = 1
        local bins, own = loss.config.bins, sketch:cut(loss.config.bins, loss.mu)
        local weighted = sketches.fold(norms("both", 1), own, bins, "double")
        local base = sketches.fold(sketch:sums("norm", loss.a), own, bins, "double")
        for j = 1, bins do
            detail.weighted[j] = (detail.weighted[j] or 0) + weighted[j - 1] / tot
            detail.base[j] = (detail.base[j] or 0) + base[j - 1] / tot
        end
    end
    for _, class in ipairs(M.classes) do
        local sum = 0
        for j = class.from * M.FINE / 10, class.to * M.FINE / 10 - 1 do
            sum = sum + fine[j] / tot
        end
        add_share(class.name .. "_share", sum)
    end
    metrics.add(part, "value", value)
    if not sketch:is_soft() and both > 0 then
        metrics.add(part, "effective",
            (both * tot) ^ 2 / sketches.total(norms("both", 2), intervals))
        local facts = sketch:facts()
        if loss.task == "classification" and facts.positive < facts.valid then
            add_share("positive_share", sketches.total(norms("positives", 1), intervals) / tot)
        end
    end
end

-- -- a stream ------------------------------------------------------------------------------------

-- What every interval contributes to the gradient of all calls, each over its tot, as in the loss.
function M.contributions(calls, loss)
    local state, n = loss.config and harmonise.new(loss.task, loss.config),
        calls[1].sketch:intervals()
    local sum = ffi.new("double[?]", n)
    for _, call in ipairs(calls) do
        local _, norms = ask(loss, call.sketch, state)
        local values, tot = norms("both", 1), call.sketch:tot()
        for i = 0, n - 1 do
            sum[i] = sum[i] + values[i] / tot
        end
    end
    return sum
end

local kinds = { value = "mean", effective = "mean", positive_share = "mean" }
-- The columns of what a loss was made with, which its label says.
M.labelled = { "bins", "momentum", "alpha", "gamma", "beta", "mu", "eps" }
local keys = { "loss", unpack(M.labelled) }
for _, key in ipairs { "value", "effective", "positive_share" } do
    keys[#keys + 1] = key
end
for _, class in ipairs(M.classes) do
    kinds[class.name .. "_share"] = "mean"
    keys[#keys + 1] = class.name .. "_share"
end
keys[#keys + 1], keys[#keys + 2] = "entropy", "median_g"
M.columns = metrics.columns(keys, kinds)

-- Flatness of the contributions over the DRAWN regions (1: all alike), and the g below which half
-- of the gradient lies.
local function shape_of(fine)
    local whole, entropy, below, median = 0, 0, 0, nil
    for j = 1, M.FINE do
        whole = whole + fine[j]
    end
    local per = M.FINE / M.DRAWN
    for j = 1, M.DRAWN do
        local share = 0
        for k = (j - 1) * per + 1, j * per do
            share = share + fine[k] / whole
            below = below + fine[k] / whole
            median = median or below >= 0.5 and k / M.FINE
        end
        entropy = entropy - (share > 0 and share * math.log(share) or 0)
    end
    return entropy / math.log(M.DRAWN), median
end

-- One row for each loss of the list: M.columns, with 90 % intervals (name_low, name_high) by
-- resampling steps; and details, row -> { loss (of the list), fine, counts (contributions and
-- samples in FINE regions), and for GHM weighted and base, whose ratio is the beta of each unit
-- region over the stream }. calls: as of sweep.read, { step, sketch }, in order.
function M.rows(calls, list)
    local soft, rows, parts, details = sweep.is_soft(calls), {}, {}, {}
    for _, loss in ipairs(list) do
        if not soft or answers_soft(loss) then
            local state = loss.config and harmonise.new(loss.task, loss.config)
            local row = { loss = loss.label }
            local detail = { loss = loss, fine = {}, counts = {}, weighted = {}, base = {} }
            local steps, last = {}, nil
            for key, value in pairs(loss.params) do
                row[key] = value
            end
            for _, call in ipairs(calls) do
                if call.step ~= last or #steps == 0 then
                    steps[#steps + 1], last = {}, call.step
                end
                add_call(loss, call, state, detail, steps[#steps])
            end
            row.entropy, row.median_g = shape_of(detail.fine)
            rows[#rows + 1], parts[#parts + 1], details[row] = row, steps, detail
        end
    end
    metrics.fill(rows, parts, kinds)
    return rows, details
end

return M
