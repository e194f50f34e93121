-- The losses against golden numbers: 44 cases computed with PyTorch in float64 by golden/
-- make_golden.py. No sample lies near an edge, so the counts must agree exactly.

local lu = require "luaunit"
local ffi = require "ffi"
local ghm = require "ghm"
local clib = require "ghm.clib"
local close = require "close"
local posix = require "ghm.posix"
local samples = require "samples"

local folder = debug.getinfo(1, "S").source:match "^@(.*)/[^/]*$" .. "/golden/"
local manifest = ghm.json.decode(assert(posix.read_file(folder .. "manifest.json")))

local TestGolden = {}
_G.TestGolden = TestGolden

local bases = { labels_from_zero = "zero_based", labels_from_one = "one_based" }

local function loss_of(case)
    local options = { bins = case.bins, momentum = case.momentum, loss_weight = case.loss_weight,
        mu = case.mu, labels = bases[case.target] }
    return case.loss == "ghm_c" and ghm.GHMC(options) or ghm.GHMR(options)
end

-- Outputs are float32, whose subnormals are no closer than abs.
local element = { rel = 1e-6, abs = 1e-12 }

local function compare(name, actual, expected, counted)
    lu.assertEquals(actual.shape, expected.shape)
    for i = 0, expected.n - 1 do
        if counted(i) then
            close(actual.ptr[i], expected.ptr[i], element, "%s[%d]", name, i)
        end
    end
end

local function check_step(case, loss, file, step, expected)
    local name = function(word)
        return ("step%d.%s"):format(step, word)
    end
    local target = file:get(name(bases[case.target] and "labels" or "target"))
    local weight = file:get(name "label_weight")
    local value, call = loss:forward(file:get(name "pred"), target, weight)
    close(value, expected.loss, { rel = 1e-8 }, "loss of step %d", step)
    lu.assertEquals(call.n, expected.n)
    close(call.tot, expected.tot, { rel = 1e-15 }, "tot of step %d", step)
    lu.assertEquals(samples.list(call.R, case.bins), expected.counts)
    for j, S in ipairs(loss:state().S) do
        close(S, expected.acc_sum[j], { rel = 1e-14 }, "S[%d] after step %d", j, step)
    end
    local every = function() return true end
    compare("grad", loss:backward(), file:get(name "expect.grad"), every)
    compare("beta", loss:elements "beta", file:get(name "expect.weights"), every)
    compare("loss", loss:elements "loss", file:get(name "expect.elementwise"), every)
    local norm = loss:elements "norm"
    local share = norm.n / weight.n
    compare("norm", norm, file:get(name "expect.g"), function(i)
        return weight.ptr[math.floor(i / share)] > 0 -- the file has g of ignored samples too
    end)
end

local function check_exact(case, file)
    local one = samples.class_batch(file:get "pred", file:get "target")
    local loss, density = ffi.new "double[1]", ghm.array.new("f8", { one.n })
    clib.check(clib.C.ghm_exact_density(ghm.device.default(), one.c, 1, case.eps, density.ptr,
        loss))
    close(loss[0], case.loss_value, { rel = 1e-12 }, "exact loss")
    local expected = file:get "expect.density"
    for i = 0, one.n - 1 do
        close(density.ptr[i], expected.ptr[i], { rel = 1e-12 }, "density[%d]", i)
    end
end

for _, case in ipairs(manifest) do
    TestGolden["test_" .. case.name] = function()
        local file = ghm.dump.open(folder .. case.name .. ".npz")
        if case.eps then
            return check_exact(case, file)
        end
        local loss = loss_of(case)
        for k, expected in ipairs(case.steps) do
            check_step(case, loss, file, k - 1, expected)
        end
    end
end

function TestGolden.test_has_every_case()
    lu.assertEquals(#manifest, 44)
end
