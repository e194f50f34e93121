-- What the bench measures on: synthetic batches of one size, made by the core.
--
--   data = bench_data.logits("spread", 1e6)      also "skewed", "equal"
--   data = bench_data.boxes(1e6)
--   data.n, data.bytes (read per sample), data.batch, data.arrays
--   data.at(i) -> pred, target, weight

local array = require "ghm.array"
local batches = require "ghm.batch"
local clib = require "ghm.clib"
local device = require "ghm.device"
local ffi = require "ffi"

local C = clib.C
local M = {}

local CLASSES = 80 -- as in COCO
local SEED = 20190127

-- Logits N(-4, 2), 1 % positives, 98 % valid; 99 % of the samples in the first of ten regions; one
-- logit for all.
local mixtures = {
    spread = { easy_mean = -4, easy_sd = 2, positive_share = 0.01, positive_mean = -4,
        positive_sd = 2, ignored_share = 0.02 },
    skewed = { easy_mean = -8, easy_sd = 1, positive_share = 0.01, positive_mean = 0,
        positive_sd = 2, ignored_share = 0.02 },
    equal = { easy_mean = -4, ignored_share = 0.02 },
    boxes = { laplace_scale = 0.05, box_outlier_share = 0.02, box_outlier_sd = 1,
        ignored_share = 0.02 },
}

local function synth(task, name, rows, cols)
    local mixture = ffi.new "ghm_mixture"
    for key, value in pairs(mixtures[name]) do
        mixture[key] = value
    end
    local shape = { rows, cols }
    local made, at = {}, {}
    for part in pairs { pred = true, target = true, weight = true } do
        made[part] = device.array("f4", shape)
        at[part] = made[part].remote or made[part].ptr
    end
    clib.check(C.ghm_synth(device.default(), task, mixture, SEED, 0, rows, cols, at.pred, at.target,
        at.weight))
    return made
end

local function finish(name, arrays, batch)
    local data = { name = name, arrays = arrays, batch = batch, n = batch.n, bytes = 0 }
    for _, a in pairs(arrays) do
        data.bytes = data.bytes + a.n * array.itemsize[a.dtype] / batch.n
    end
    local pred, target, weight = arrays.pred, arrays.target, arrays.weight
    data.at = function(i)
        return pred:get(i), target:get(i), weight:get(i)
    end
    function data:free()
        for _, a in pairs(self.arrays) do
            a:free()
        end
    end
    return data
end

local function rows_of(n, cols)
    return math.max(1, math.floor(n / cols + 0.5))
end

-- Logits with labels: four rows in five of some class and the fifth of the background, which makes
-- 1 % positives again.
local function labelled(made)
    made.target:free()
    made.weight:free()
    local rows = made.pred.shape[1]
    made.target, made.weight = array.new("i8", { rows }), array.new("f4", { rows })
    for r = 0, rows - 1 do
        made.target:set(r, r % 5 == 0 and CLASSES or r * 7 % CLASSES)
        made.weight:set(r, r % 50 == 0 and 0 or 1)
    end
    local data = finish("spread", made, batches.classification { logits = made.pred,
        labels = made.target, weight = made.weight, base = "zero_based" })
    data.at = function(i)
        local r = math.floor(i / CLASSES)
        return made.pred:get(i), made.target:get(r) == i % CLASSES and 1 or 0, made.weight:get(r)
    end
    return data
end

-- form: "f4" (default); "f2" for logits of 16 bits; "labels" for one label and weight per row.
-- n is rounded to whole rows of 80 classes.
function M.logits(name, n, form)
    local made = synth(C.GHM_CLASSIFICATION, name, rows_of(n, CLASSES), CLASSES)
    if form == "f2" then
        local wide = made.pred
        made.pred = wide:convert "f2"
        wide:free()
    elseif form == "labels" then
        return labelled(made)
    end
    return finish(name, made, batches.classification { logits = made.pred, target = made.target,
        weight = made.weight })
end

function M.boxes(n)
    local made = synth(C.GHM_REGRESSION, "boxes", rows_of(n, 4), 4)
    return finish("boxes", made, batches.regression(made))
end

local CHUNK = 2 ^ 22

-- Writes the arrays as bare bytes into a folder -> { pred = path, ... }: f4, one after the other.
function M.write(data, folder)
    local paths = {}
    for part, a in pairs(data.arrays) do
        local path = ("%s/%s_%s"):format(folder, data.name, part)
        local file = assert(io.open(path, "wb"))
        local size = a.n * array.itemsize[a.dtype]
        local bytes = ffi.cast("const char *", a.ptr)
        for from = 0, size - 1, CHUNK do
            assert(file:write(ffi.string(bytes + from, math.min(CHUNK, size - from))))
        end
        assert(file:close())
        paths[part] = path
    end
    return paths
end

return M
