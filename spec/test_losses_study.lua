-- The study of losses against single samples in float64, and compare_losses as a user runs it.

local lu = require "luaunit"
local csv = require "ghm.show.csv"
local close = require "close"
local curves = require "ghm.studies.curves"
local ghm = require "ghm"
local json = require "ghm.json"
local oracle = require "oracle"
local parts = require "ghm.studies.losses_parts"
local samples = require "samples"
local scripts = require "scripts"

local study = ghm.losses_study

local TestLossesStudy = {}
_G.TestLossesStudy = TestLossesStudy

local MU, EPS = 0.05, 0.1
local keys = { bins = { 10, 25 }, momentum = { 0, 0.75 }, alpha = { 0.25, 0.6 }, gamma = { 2, 0.5 },
    beta = { 1 / 9, 0.02 }, mu = MU, eps = EPS }

-- Four steps of two calls each: calls as of sweep.read, each with its oracle's samples.
local function stream(task)
    local edges, calls = study.edges(task, keys), {}
    local regression = task == "regression"
    for k = 1, 8 do
        local x, t, w = (regression and samples.boxes or samples.detector) { 100, 4 }
        local one = (regression and samples.box_batch or samples.class_batch)(x, t, w)
        calls[k] = { step = { name = "step " .. math.ceil(k / 2) },
            expected = regression and oracle.boxes(x, t, w, MU) or oracle.classes(x, t, w),
            sketch = samples.sketch_of({ task = task, bins = edges.bins, mu = edges.mu,
                knots = edges.knots }, one) }
        calls[k].step = k % 2 == 0 and calls[k - 1].step or calls[k].step
    end
    return calls
end

-- { value(sample), norm(sample) } of a plain loss
local function plain_of(row)
    if row.alpha then
        local function focal(s, sample)
            return oracle.focal(sample.t == 1 and -s or s, sample.t, row.alpha, row.gamma)
        end
        return function(sample) return focal(sample.key, sample) end, function(sample)
            local h = 1e-5
            return (focal(sample.key + h, sample) - focal(sample.key - h, sample)) / (2 * h)
        end
    elseif row.beta then
        return function(sample) return oracle.smooth_l1(sample.d, row.beta) end, function(sample)
            return math.min(math.abs(sample.d) / row.beta, 1)
        end
    end
    return function(sample) return sample.loss end, function(sample) return sample.norm end
end

-- What the samples of a call say of a row: value, and the reformulated norm of each valid sample.
local function expect_call(row, loss, expected, state, mu)
    local value, norm = plain_of(row)
    local sum, valid, norms = 0, 0, {}
    for i, sample in ipairs(expected) do
        if sample.valid then
            sum, valid, norms[i] = sum + value(sample), valid + 1, norm(sample)
        end
    end
    local bins = loss.config and row.bins or 1
    local R, L, tot = oracle.regions(expected, bins, mu)
    if loss.config then
        local call = oracle.step(ghm.harmonise.config(loss.task, loss.config), state, R, L, tot)
        for i, sample in ipairs(expected) do
            norms[i] = norms[i] and norms[i] * call.beta[oracle.region(sample, bins, mu)]
        end
        return call.loss, norms, tot
    elseif loss.eps then
        local density, of_density = oracle.exact_density(expected, EPS)
        for i in pairs(norms) do
            norms[i] = norms[i] * valid / density[i]
        end
        return of_density, norms, tot
    end
    return sum / valid, norms, tot
end

local function expect(row, loss, calls, mu)
    local sums, whole = { positive = 0 }, 0
    local e, state, entropy = { value = 0, effective = 0 }, {}, 0
    local regions = {}
    for _, call in ipairs(calls) do
        local value, norms, tot = expect_call(row, loss, call.expected, state, mu)
        local sum, squares = 0, 0
        for i, norm in pairs(norms) do
            local sample = call.expected[i]
            local g = oracle.region(sample, 40, mu)
            regions[g] = (regions[g] or 0) + norm / tot
            sum, squares = sum + norm, squares + norm ^ 2
            sums.positive = sums.positive + (sample.t == 1 and norm / tot or 0)
            for _, class in ipairs(study.classes) do
                local tenth = oracle.region(sample, 10, mu) - 1
                local inside = tenth >= class.from and tenth < class.to
                sums[class.name] = (sums[class.name] or 0) + (inside and norm / tot or 0)
            end
        end
        whole = whole + sum / tot
        e.value, e.effective = e.value + value / #calls, e.effective + sum ^ 2 / squares / #calls
    end
    for name, sum in pairs(sums) do
        e[name .. "_share"] = sum / whole
    end
    for _, sum in pairs(regions) do
        entropy = entropy - sum / whole * math.log(sum / whole)
    end
    e.entropy = entropy / math.log(40)
    return e
end

for _, task in ipairs { "classification", "regression" } do
    TestLossesStudy["test_rows_of_" .. task .. "_agree_with_single_samples"] = function()
        local calls, mu = stream(task), task == "regression" and MU or nil
        local rows, details = study.rows(calls, study.list(task, keys))
        lu.assertEquals(#rows, task == "regression" and 2 + 1 + 4 + 1 or 1 + 4 + 4 + 1)
        for _, row in ipairs(rows) do
            local expected = expect(row, details[row].loss, calls, mu)
            expected.positive_share = task == "classification" and expected.positive_share or nil
            -- cells are interpolated at the borders of the exact density's windows
            local limit = { rel = row.eps and 0.02 or 1e-5, abs = 1e-7 }
            for key, value in pairs(expected) do
                close(row[key], value, limit, "%s of %s", key, row.loss)
            end
            lu.assertTrue(row.easy_share_low <= row.easy_share
                and row.easy_share <= row.easy_share_high, row.loss)
            local valid = 0
            for _, call in ipairs(calls) do
                valid = valid + call.sketch:facts().valid
            end
            lu.assertEquals(samples.total(details[row].counts), valid)
        end
    end
end

function TestLossesStudy.test_a_loss_weight_is_a_factor_of_every_value_and_of_no_share()
    for _, task in ipairs { "classification", "regression" } do
        local calls, weighed = stream(task), { loss_weight = 3 }
        for key, value in pairs(keys) do
            weighed[key] = value
        end
        local rows = study.rows(calls, study.list(task, keys))
        for i, row in ipairs((study.rows(calls, study.list(task, weighed)))) do
            close(row.value, 3 * rows[i].value, { rel = 1e-12 }, "value of %s", row.loss)
            close(row.easy_share, rows[i].easy_share, { rel = 1e-12 }, "share of %s", row.loss)
        end
    end
end

function TestLossesStudy.test_plain_curves_are_slopes_of_the_losses()
    local g = { 0.001, 0.02, 0.3, 0.5, 0.77, 0.999 }
    for _, loss in ipairs(study.list("classification", keys)) do
        for _, positive in ipairs { false, true } do
            local y = loss.made and curves.plain(loss, g, positive) or {}
            for i, norm in ipairs(y) do
                local s = math.log(g[i] / (1 - g[i]))
                local _, slope = plain_of(loss.params)
                local sample = { key = s, t = positive and 1 or 0, norm = g[i] }
                close(norm, slope(sample), { rel = 2e-6 }, "%s at %g", loss.label, g[i])
            end
        end
    end
    for _, loss in ipairs(study.list("regression", keys)) do
        for i, norm in ipairs(loss.made and curves.plain(loss, g) or {}) do
            local d = MU * g[i] / math.sqrt(1 - g[i] ^ 2)
            local _, slope = plain_of(loss.params)
            close(norm, slope { d = d, norm = g[i] }, { rel = 2e-6 }, "%s at %g", loss.label, g[i])
        end
    end
end

-- Equal gradients at every g: the harmonised contribution of evenly spread samples.
function TestLossesStudy.test_entropy_is_one_where_every_region_contributes_alike()
    local x = samples.fill({ 4000, 1 }, function(i)
        local g = (i + 0.5) / 4000
        return math.log(g / (1 - g))
    end)
    local call = { step = {}, sketch = samples.sketch_of({ bins = { study.FINE, 40 } },
        samples.class_batch(x, samples.flags({ 4000, 1 }, 0))) }
    local rows = study.rows({ call }, study.list("classification", { bins = { 40 }, alpha = {},
        gamma = {}, eps = 0.05 }))
    -- contributions then rise with g, as GHM's betas are all alike: entropy of 1, 3, 5, ... 79
    local sum = 0
    for j = 1, 40 do
        local share = (2 * j - 1) / 1600
        sum = sum - share * math.log(share)
    end
    close(rows[1].entropy, sum / math.log(40), { rel = 1e-4 }, "entropy of BCE")
    close(rows[2].entropy, sum / math.log(40), { rel = 1e-4 }, "entropy of GHM-C")
    close(rows[1].median_g, math.sqrt(0.5), { abs = 1 / study.FINE }, "median g")
end

function TestLossesStudy.test_soft_targets_know_bce_and_unit_regions()
    local edges = study.edges("classification", keys)
    local call = { step = {}, sketch = samples.sketch_of({ bins = edges.bins },
        samples.class_batch(samples.normals({ 50, 4 }, 0, 2), samples.shares { 50, 4 })) }
    local rows = study.rows({ call }, study.list("classification", keys))
    lu.assertEquals(#rows, 5)
    lu.assertNil(rows[1].effective)
    lu.assertNil(rows[1].positive_share)
    lu.assertTrue(rows[1].easy_share > 0)
end

local TestCompareLosses = {}
_G.TestCompareLosses = TestCompareLosses

function TestCompareLosses:setUp()
    self.place = scripts.place()
end

function TestCompareLosses:tearDown()
    self.place:remove()
end

function TestCompareLosses:rows(words)
    local out = self.place:fine("compare_losses", words .. " --plot none --csv rows.csv")
    return csv.read(self.place.folder.path .. "/rows.csv"), out
end

function TestCompareLosses:test_logits_and_boxes_come_with_one_command()
    local out = self.place:fine("compare_losses", "synth:detector,rows=200 --plot svg")
    for _, text in ipairs { "GHM-R, exact density", "focal, alpha 0.25, gamma 2",
        "\nLogits: easy samples ", "\nBoxes: easy samples ", " % of the gradient with smooth L1, "
        .. "beta 0.11; ", "\nThe most even over g: of logits " } do
        lu.assertStrContains(out, text)
    end
    local plots = self.place:listing "runs/latest/plots"
    for _, prefix in ipairs { "./", "./boxes_" } do
        for _, name in ipairs { "overview", "density", "reformulated", "contribution",
            "cumulative" } do
            lu.assertStrContains(plots, prefix .. name .. ".svg")
        end
    end
end

function TestLossesStudy.test_of_a_gradient_in_one_place_no_loss_is_the_most_even()
    local function part(what, easy, entropy)
        local rows = {}
        for k, loss in ipairs { "BCE", "focal" } do
            rows[k] = { loss = loss, easy_share = easy ^ k, outlier_share = 0,
                entropy = entropy * k }
        end
        return { what = what, rows = rows }
    end
    lu.assertEquals(parts.answer { part("logits", 1, 0.001) }, {
        "Logits: easy samples (g < 0.1) and outliers (g >= 0.9) give 100 % and 0 % of the gradient "
        .. "with each loss.", "All gradient of logits comes from one narrow range of g, with each "
        .. "loss: there is nothing to even out." })
    local lines = parts.answer { part("logits", 1, 0), part("boxes", 0.5, 0.25) }
    lu.assertStrContains(lines[2], "give 50 % and 0 % of the gradient with BCE; 25 % and 0 % with")
    lu.assertStrContains(lines[3], "The most even over g: of boxes focal (entropy 0.50; BCE: 0.25)"
        .. ". All gradient of logits comes")
end

-- What two scripts draw and tell of the same gradient is the same, call by call.
function TestCompareLosses:test_sweep_bins_draws_the_shares_that_are_told_here()
    for loss, names in pairs { ghmc = { "BCE", "GHM-C, M = 10" },
        ghmr = { "smooth L1, beta 0.11", "ASL1, mu 0.02", "GHM-R, M = 10" } } do
        local told = {}
        for _, row in ipairs((self:rows("bins=10 --loss " .. loss))) do
            told[row.loss] = row
        end
        self.place:fine("sweep_bins", "bins=10 --plot svg --loss " .. loss)
        local drawn = self.place:read "runs/latest/plots/contribution.tsv"
        for _, name in ipairs(names) do
            local lines = drawn:match("# " .. name:gsub("%p", "%%%0") .. "\n([^#]+)")
            local easy, outlier = lines:match "^0\t(%S+)", lines:match "\n1\t(%S+)"
            close(tonumber(easy), told[name].easy_share, { rel = 1e-6 }, "easy, %s", name)
            close(tonumber(outlier), told[name].outlier_share, { rel = 1e-6 }, "outliers, %s", name)
        end
    end
end

function TestCompareLosses:test_the_report_has_no_columns_of_what_labels_say()
    self.place:fine("compare_losses", "synth:detector,rows=60 --plot none --report -q")
    local heads = {}
    for key in self.place:read "runs/latest/report.html":match "<thead>.-</thead>":gmatch
        'title="([^"]+)"' do
        heads[#heads + 1] = key
    end
    lu.assertEquals({ heads[1], heads[2], #heads < 13 }, { "loss", "value", true })
    for _, key in ipairs(study.labelled) do
        lu.assertNotTableContains(heads, key)
    end
end

function TestCompareLosses:test_every_loss_asked_for_has_a_row()
    local rows = self:rows "synth:detector,rows=60 bins=5,7 momentum=0,0.5 alpha=0.3,0.5 gamma=1"
    lu.assertEquals(#rows, 1 + 2 + 4 + 1 + 2 + 4 + 1)
    rows = self:rows "synth:detector,rows=60 bins=5 --loss ghmr beta=0.1,1,2 mu=0.1"
    lu.assertEquals(#rows, 3 + 1 + 1 + 1)
    lu.assertEquals(rows[5].mu, 0.1)
    rows = self:rows "synth:detector,rows=60 bins=5 --loss ghmc"
    lu.assertEquals(#rows, 4)
    self.place:refused(2, { "mu: GHM-C has none" }, "compare_losses", "--loss ghmc mu=0.1")
    local out = self.place:fine("compare_losses", "synth:detector,rows=60 --plot none --json -q")
    lu.assertEquals(#json.decode(out).rows, 10)
    -- compare.lua tells rows apart by these
    lu.assertEquals(json.decode(self.place:read "runs/latest/run.json").axes, { "loss" })
end

function TestCompareLosses:test_boxes_that_cannot_be_used_are_told_and_left_out()
    local function boxes(name, value)
        return scripts.member(name, "float", "<f4", "(40, 4)", value)
    end
    local pred = boxes("bbox_pred", function(i) return i == 5 and 0 / 0 or 1 end)
    self.place:dump("step.npz", scripts.logits(), scripts.targets(), pred,
        boxes("bbox_target", function() return 0 end))
    local got = self.place:run("compare_losses", "step.npz bins=5 --plot none")
    lu.assertEquals(got.code, 1) -- half of what was asked
    lu.assertStrMatches(got.err, "error: boxes are left out: [^\n]*1 of 160 samples are not "
        .. "[^\n]*; %-%-nonfinite ignore leaves them out[^\n]*\n")
    lu.assertNotStrContains(got.out, "GHM-R")
    local failed = json.decode(self.place:read "runs/latest/provenance.json").failed
    lu.assertEquals(#failed, 1)
    lu.assertStrMatches(failed[1].reason, "boxes: [^\n]*1 of 160 samples are not [^\n]*")
    got = self.place:run("compare_losses", "step.npz bins=5 --plot none --fail-fast")
    lu.assertEquals({ got.code, got.out }, { 3, "" })
    self.place:fine("compare_losses", "step.npz bins=5 --plot none --loss ghmc")
    got = self.place:fine("compare_losses", "step.npz bins=5 --plot none --nonfinite ignore")
    lu.assertStrContains(got, "GHM-R, M = 5")
end

function TestCompareLosses:test_boxes_of_some_steps_that_are_refused_make_it_exit_1()
    for k, bad in ipairs { 0, 0 / 0, 0 } do
        self.place:dump(("s%d.npz"):format(k), scripts.logits(), scripts.targets(),
            scripts.member("bbox_pred", "float", "<f4", "(40, 4)", function() return bad end),
            scripts.member("bbox_target", "float", "<f4", "(40, 4)", scripts.logit))
    end
    local got = self.place:run("compare_losses", "s1.npz s2.npz s3.npz bins=5 --plot none --json")
    lu.assertEquals(got.code, 1)
    lu.assertStrMatches(got.err, "error: s2.npz: [^\n]*160 of 160 samples are not [^\n]*\n.*")
    local said = json.decode(got.out)
    lu.assertEquals({ #said.failed, said.failed[1].step }, { 1, "s2.npz" })
    lu.assertEquals(said.rows[#said.rows].loss, "GHM-R, exact density") -- of the other two
end

function TestCompareLosses:test_the_prompt_finds_the_boxes_of_its_own_dump()
    local words = "synth:detector,rows=60"
    self.place.folder:write("lines", ('compare_losses(load %q, {bins = 5})\n'):format(words))
    local script = self.place:fine("compare_losses", words .. " bins=5 --plot none")
    lu.assertStrContains(self.place:fine("repl", "<lines"), script:match "\n(smooth L1[^\n]*)")
end

function TestCompareLosses:test_rows_of_one_class_are_compared_under_softmax()
    local labels = scripts.member("labels", "int64_t", "<i8", "(40,)", function(i)
        return i % 10
    end)
    self.place:dump("rows.npz", scripts.logits(), labels)
    local rows, out = self:rows "rows.npz bins=5"
    lu.assertEquals({ rows[5].loss, rows[6].loss, rows[7].loss },
        { "softmax CE", "softmax GHM-C, M = 5", "softmax GHM-C, exact density" })
    lu.assertEquals(#rows, 7)
    lu.assertStrContains(out, "\nSoftmax rows: ")
    local sum = 0
    for i = 0, 39 do
        local list = {}
        for c = 0, 9 do
            list[c + 1] = scripts.logit(10 * i + c)
        end
        sum = sum + oracle.softmax_samples(list, i % 10 + 1, "true_class")[1].loss
    end
    close(rows[5].value, sum / 40, { rel = 1e-6 }, "cross-entropy")
    out = self.place:fine("compare_losses", "--resume latest --plot none") -- views are kept
    lu.assertStrContains(out, "\nsoftmax CE")
    self.place:dump("more.npz", scripts.logits(), scripts.targets()) -- rows of several classes
    lu.assertEquals(#self:rows "more.npz bins=5", 4)
end
