-- Sketches: read the data once, answer every configuration from the summary.
--
--   s = sketch.new{ task = "classification", bins = {5, 10, 20} }
--   s:add(batch)
--   s:regions(10)            counts and loss sums of ten unit regions
--
-- Per-interval answers are cdata arrays indexed from 0 and are remembered until the sketch changes,
-- so a sweep asks for each function once.

local batches = require "ghm.batch"
local clib = require "ghm.clib"
local declared = require "ghm.declared"
local device = require "ghm.device"
local fault = require "ghm.fault"
local ffi = require "ffi"

local C = clib.C
local M = {}
local Sketch = {}
Sketch.__index = Sketch

local groups = { both = C.GHM_BOTH, negatives = C.GHM_NEGATIVES, positives = C.GHM_POSITIVES }

M.functions = {
    bce = C.GHM_BCE, focal = C.GHM_FOCAL, asl1 = C.GHM_ASL1, smooth_l1 = C.GHM_SMOOTH_L1,
    norm = C.GHM_NORM, norm_squared = C.GHM_NORM_SQUARED, focal_norm = C.GHM_FOCAL_NORM,
    smooth_l1_norm = C.GHM_SMOOTH_L1_NORM, focal_norm_squared = C.GHM_FOCAL_NORM_SQUARED,
    smooth_l1_norm_squared = C.GHM_SMOOTH_L1_NORM_SQUARED,
}

-- shared: what the sketches of the same edges share: cuts, where regions begin, by bins and mu; and
-- what was declared, once it has been asked for.
local function wrap(pointer, shared)
    return setmetatable({
        c = clib.own(pointer, C.ghm_sketch_free),
        shared = shared or { cuts = {} },
        task = C.ghm_sketch_task(pointer) == C.GHM_REGRESSION and "regression" or "classification",
        answers = {},
    }, Sketch)
end

local function list(ctype, values)
    values = type(values) == "number" and { values } or values or {}
    return ffi.new(ctype .. "[?]", math.max(#values, 1), values), #values
end

-- spec.task "classification" (default) or "regression"; spec.bins, spec.mu (regression), knots:
-- a number or a list each. Throws fault "usage" for values out of range and for edges too close.
function M.new(spec)
    local bins, n_bins = list("int64_t", spec.bins)
    local mu, n_mu = list("double", spec.mu)
    local knots, n_knots = list("double", spec.knots)
    local out = clib.place "ghm_sketch *"
    clib.check(C.ghm_sketch_new(clib.task(spec.task), bins, n_bins, mu, n_mu, knots, n_knots, out))
    return wrap(out[0])
end

local function pointer_of(self)
    if not self.c then
        fault.raise("usage", "the sketch was freed")
    end
    return self.c
end

-- Another, empty sketch with the same edges.
function Sketch:like()
    local out = clib.place "ghm_sketch *"
    clib.check(C.ghm_sketch_like(pointer_of(self), out))
    return wrap(out[0], self.shared)
end

function Sketch:free()
    if self.c then
        C.ghm_sketch_free(ffi.gc(self.c, nil))
        self.c = nil
    end
end

-- What blocks add up, and where they found the first of something.
local totals = { "samples", "valid", "positive", "nonfinite", "soft", "bad_labels", "weight_sum" }
local firsts = { "first_nonfinite", "first_soft", "first_bad_label" }
M.counted = { unpack(totals) }
for _, name in ipairs(firsts) do
    table.insert(M.counted, name)
end

local function facts_table(c)
    local facts = {}
    for _, name in ipairs(M.counted) do
        facts[name] = tonumber(c[name])
    end
    return facts
end

-- Adds the facts of a block that begins at `row` to those of the blocks before it.
local function add_facts(total, facts, row, cols)
    for _, name in ipairs(totals) do
        total[name] = total[name] + facts[name]
    end
    for _, name in ipairs(firsts) do
        if total[name] < 0 and facts[name] >= 0 then
            total[name] = facts[name] + row * (name == "first_bad_label" and 1 or cols)
        end
    end
end

-- What a block may be refused for without an end to the pass: the blocks behind it are read too,
-- so that the refusal counts them all.
local about_data = { [0] = true, [C.GHM_E_NONFINITE] = true, [C.GHM_E_SOFT] = true,
    [C.GHM_E_LABEL] = true }

-- One pass over a batch's blocks into a sketch -> status, facts.
local function pass(sketch, batch, ignore, where)
    local facts, total, last = ffi.new "ghm_facts", ffi.new "ghm_facts", nil
    total.first_nonfinite, total.first_soft, total.first_bad_label = -1, -1, -1
    for block, row in batch:blocks() do
        last = device.is_here(where) and batches.here(block) or block.c
        last.target_form = batch.form
        local status = C.ghm_sketch_add(where, pointer_of(sketch), last, ignore, facts)
        if not about_data[status] then
            return status, total
        end
        add_facts(total, facts, row, batch.cols)
    end
    return C.ghm_judge(last, total, ignore), total
end

-- Reads a batch, in one pass. opts.nonfinite "error" (default) or "ignore"; opts.device; opts.where
-- goes before an error's message. A dense target that turns out soft is read again as soft, which
-- the returned facts say (facts.soft). Throws fault "dump" and leaves the sketch as it was.
function Sketch:add(batch, opts)
    opts = opts or {}
    local ignore = opts.nonfinite == "ignore" and 1 or 0
    local device_used = opts.device or device.default()
    -- the core adds a block or refuses it; of many blocks, a later one can still refuse the batch
    local into = batch.c and self or self:like()
    local status, facts = pass(into, batch, ignore, device_used)
    if status == C.GHM_E_SOFT and batch.form == C.GHM_DENSE then
        local soft = facts.soft
        batch.form = C.GHM_SOFT
        into = batch.c and self or self:like()
        status, facts = pass(into, batch, ignore, device_used)
        facts.soft = status == 0 and soft or facts.soft
    end
    clib.check(status, opts.where)
    if into ~= self then
        facts.weight_sum = into:facts().weight_sum -- rounded once
        self:merge(into)
        into:free()
    end
    self.answers = {}
    return facts_table(facts)
end

function Sketch:merge(other)
    clib.check(C.ghm_sketch_merge(pointer_of(self), pointer_of(other)))
    self.answers = {}
    return self
end

-- A sketch of one call that answers what this one was made to answer, and its facts. A batch is
-- read, with opts as for add; a saved call (ghm.dumps.saved) has its sketch already. opts.asked: a
-- sketch made for less, which is enough of a saved one.
function Sketch:of(call, opts)
    if not call.saved then
        local fresh = self:like()
        return fresh, fresh:add(call, opts)
    end
    declared.must_answer(call.saved, opts.asked or self, opts.where)
    if call.facts.nonfinite > 0 and opts.nonfinite ~= "ignore" then
        fault.raise("dump", "%s: %d samples are not finite and were ignored when it was sketched: "
            .. "--nonfinite ignore accepts that", opts.where, call.facts.nonfinite)
    end
    return call.saved, call.facts
end

-- -- files ---------------------------------------------------------------------------------------

function Sketch:save(path)
    M.write(path, { { sketch = self } })
end

-- calls: list of { sketch, note }, note a text or nil. The file is there whole or not at all; fault
-- "failed" where it cannot be written.
function M.write(path, calls)
    local n = #calls
    local pointers = ffi.new("const ghm_sketch *[?]", math.max(n, 1))
    local notes = ffi.new("const char *[?]", math.max(n, 1))
    for k, call in ipairs(calls) do
        pointers[k - 1], notes[k - 1] = pointer_of(call.sketch), call.note
    end
    clib.check(C.ghm_sketch_write(pointers, notes, n, path))
end

-- The calls of a file: list of { sketch, note }. like: nil, or a sketch whose edges the new ones
-- share where they were declared alike. Fault "dump": the file is foreign or damaged.
function M.read(path, like)
    local out, note = clib.place "ghm_reader *", ffi.new "const char *[1]"
    clib.check(C.ghm_reader_open(path, out))
    local reader, calls = clib.own(out[0], C.ghm_reader_free), {}
    while C.ghm_reader_left(reader) > 0 do
        local place = clib.place "ghm_sketch *"
        clib.check(C.ghm_reader_next(reader, like and pointer_of(like), place, note))
        local sketch = wrap(place[0])
        if like and declared.alike(like, sketch) then
            sketch.shared = like.shared
        end
        like = sketch
        calls[#calls + 1] = { sketch = sketch,
            note = note[0] ~= nil and ffi.string(note[0]) or nil }
    end
    C.ghm_reader_free(ffi.gc(reader, nil))
    return calls
end

-- A file of one call.
function M.load(path)
    local calls = M.read(path)
    if #calls ~= 1 then
        fault.raise("dump", "%s: holds %d calls, expected one", path, #calls)
    end
    return calls[1].sketch
end

-- Totals over all that was added.
function Sketch:facts()
    local facts = ffi.new "ghm_facts"
    clib.check(C.ghm_sketch_facts(pointer_of(self), facts))
    return facts_table(facts)
end

-- tot of the loss: valid samples, or the sum of their weights for regression; at least 1.
function Sketch:tot()
    local facts = ffi.new "ghm_facts"
    clib.check(C.ghm_sketch_facts(pointer_of(self), facts))
    return math.max(self.task == "regression" and facts.weight_sum or tonumber(facts.valid), 1)
end

function Sketch:is_soft()
    return C.ghm_sketch_soft(pointer_of(self)) == 1
end

-- 16 hexadecimal digits, equal for equal state
function Sketch:digest()
    return bit.tohex(C.ghm_sketch_digest(pointer_of(self)))
end

function Sketch:intervals()
    return tonumber(C.ghm_sketch_intervals(pointer_of(self)))
end

-- Where the intervals begin, but for the first: float[intervals - 1].
function Sketch:edges()
    local edges = ffi.new("float[?]", self:intervals())
    clib.check(C.ghm_sketch_edges(pointer_of(self), edges))
    return edges
end

local function remember(self, key, make)
    if not self.answers[key] then
        self.answers[key] = make()
    end
    return self.answers[key]
end

local function group_of(word)
    local group = groups[word or "both"]
    return group or fault.raise("usage", "group is '%s', expected both, negatives, positives", word)
end

-- Per interval: int64_t[intervals].
function Sketch:counts(group)
    return remember(self, "counts " .. (group or "both"), function()
        local out = ffi.new("int64_t[?]", self:intervals())
        clib.check(C.ghm_sketch_counts(pointer_of(self), group_of(group), out))
        return out
    end)
end

-- Per interval: double[intervals], the sum of a function of M.functions with parameters a and b.
function Sketch:sums(name, a, b, group)
    local key = ("%s %.17g %.17g %s"):format(name, a or 0, b or 0, group or "both")
    return remember(self, key, function()
        local out = ffi.new("double[?]", self:intervals())
        local code = M.functions[name]
            or fault.raise("usage", "function '%s' is unknown", tostring(name))
        clib.check(C.ghm_sketch_sums(pointer_of(self), code, a or 0, b or 0, group_of(group), out))
        return out
    end)
end

-- The same, each sample weighed by the exact density's beta (to the power of 1 or 2): see ghm.h.
-- exact = { mu, eps, power }
function Sketch:exact_sums(name, a, b, group, exact)
    local out = ffi.new("double[?]", self:intervals())
    clib.check(C.ghm_sketch_exact_sums(pointer_of(self), M.functions[name], a or 0, b or 0,
        group_of(group), exact.mu or 1, exact.eps, exact.power or 1, out))
    return out
end

-- Where the regions of bins (and mu) begin among the intervals: int64_t[bins + 1].
function Sketch:cut(bins, mu)
    local key = self.task == "regression" and ("%d %.17g"):format(bins, mu or 1) or bins
    local cuts = self.shared.cuts
    if not cuts[key] then
        local cut = ffi.new("int64_t[?]", bins + 1)
        clib.check(C.ghm_sketch_cut(pointer_of(self), bins, mu or 1, cut))
        cuts[key] = cut
    end
    return cuts[key]
end

-- Folds a per-interval array into regions, an array of the same type with `bins` entries.
function M.fold(values, cut, bins, ctype)
    local out = ffi.new(ctype .. "[?]", bins)
    for j = 0, bins - 1 do
        for i = tonumber(cut[j]), tonumber(cut[j + 1]) - 1 do
            out[j] = out[j] + values[i]
        end
    end
    return out
end

-- The sum of an array of n entries.
function M.total(values, n)
    local sum = 0
    for i = 0, n - 1 do
        sum = sum + values[i]
    end
    return sum
end

-- The reverse of fold: each of n intervals has the value of its region, double[n].
function M.spread(values, cut, bins, n)
    local out = ffi.new("double[?]", n)
    for j = 0, bins - 1 do
        for i = tonumber(cut[j]), tonumber(cut[j + 1]) - 1 do
            out[i] = values[j]
        end
    end
    return out
end

-- Counts R and loss sums L of the loss that GHM weighs (BCE, or ASL1 with this mu):
-- int64_t[bins], double[bins].
function Sketch:regions(bins, mu)
    local cut = self:cut(bins, mu)
    local loss = self.task == "regression" and self:sums("asl1", mu) or self:sums "bce"
    return M.fold(self:counts(), cut, bins, "int64_t"), M.fold(loss, cut, bins, "double")
end

-- The key at which the gradient norm g is reached: s, or |d| for this mu.
function M.key(task, g, mu)
    return C.ghm_key(clib.task(task), g, mu or 1)
end

-- The exact density's estimate at a list of gradient norms: list of densities. See ghm.h.
function Sketch:density(norms, eps, mu, group)
    local g, out = ffi.new("double[?]", #norms, norms), ffi.new("double[?]", #norms)
    clib.check(C.ghm_sketch_density(pointer_of(self), mu or 1, eps, group_of(group), g, #norms,
        out))
    local densities = {}
    for i = 1, #norms do
        densities[i] = out[i - 1]
    end
    return densities
end

local studied = { "density_error_max", "density_error_mean", "cosine", "entropy", "effective",
    "scarce_share" }

-- How beta[bins] with density[bins] (cdata doubles) treats the samples; see ghm_study in ghm.h.
function Sketch:study(bins, mu, eps, beta, density, scarce)
    local out = ffi.new "ghm_study"
    clib.check(C.ghm_sketch_study(pointer_of(self), bins, mu or 1, eps, beta, density, scarce, out))
    local result = {}
    for _, name in ipairs(studied) do
        result[name] = out[name]
    end
    return result
end

return M
