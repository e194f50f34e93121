-- Sources: which steps the words of a command mean, and which arrays make a batch.

local lu = require "luaunit"
local bytes = require "dump_bytes"
local ghm = require "ghm"
local samples = require "samples"
local scripts = require "scripts"

local TestSource = {}
_G.TestSource = TestSource

-- The steps of words as the command line gives them: { { name, batches }, ... }.
local function steps_in(words, task, more)
    local args = { dumps = words, keys = {}, given = {} }
    for key, value in pairs(more or {}) do
        args[key] = value
    end
    local steps = {}
    ghm.source.open(args, task or "classification"):each(function(step, batches)
        steps[#steps + 1] = { step.name, batches }
    end)
    return steps
end

function TestSource.test_files_come_in_natural_order_and_words_in_theirs()
    local folder = bytes.folder()
    local dump = bytes.zip { scripts.logits(), scripts.targets() }
    for _, name in ipairs { "step_10.npz", "step_2.npz", "a.npz" } do
        folder:write(name, dump)
    end
    local names = {}
    local words = { folder.path .. "/step*", folder.path, "synth:fresh,rows=1" }
    for k, step in ipairs(steps_in(words)) do
        names[k] = step[1]
    end
    folder:remove()
    lu.assertEquals(names, { "step_2.npz", "step_10.npz", "a.npz", "synth:fresh step 0" })
end

function TestSource.test_a_step_that_is_there_in_two_formats_is_refused()
    local folder = bytes.folder()
    local dump = bytes.zip { scripts.logits(), scripts.targets() }
    for _, name in ipairs { "step_3.npz", "step_3.5.npz", "step_3", "step_4.npz", ".npz", ".pt" } do
        folder:write(name, dump)
    end
    lu.assertEquals(#steps_in { folder.path, folder.path .. "/step_3" }, 4) -- hidden ones are none
    folder:write("step_3.pt", dump)
    for _, words in ipairs { { folder.path }, { folder.path .. "/step_3*" },
        { folder.path .. "/step_3.npz", folder.path .. "/step_3.pt" } } do
        bytes.assert_refused({ "step_3.npz and .pt look like the same step, expected each once: "
            .. "a glob, *.pt, chooses" }, steps_in, words)
    end
    folder:write("step_4.sketch", dump)
    bytes.assert_refused({ " and .pt and 1 more such pairs look" }, steps_in, { folder.path })
    lu.assertEquals(#steps_in { folder.path .. "/*.npz" }, 3)
    folder:remove()
end

function TestSource.test_a_dense_target_is_preferred_to_labels_unless_they_are_named()
    local folder = bytes.folder()
    local path = folder:write("both.npz", bytes.zip { scripts.logits(), scripts.targets(),
        scripts.member("labels", "int32_t", "<i4", "(40,)", scripts.target) })
    local dense = steps_in({ path })[1][2][1]
    local labels = steps_in({ path }, nil, { labels = { "labels" },
        keys = { labels = "one_based" } })[1][2][1]
    folder:remove()
    lu.assertEquals(dense.names, { pred = "logits", target = "target" })
    lu.assertEquals(labels.names, { pred = "logits", labels = "labels", base = "one_based" })
end

function TestSource.test_drift_goes_from_fresh_to_converged()
    local function logits(word, step)
        local array = steps_in({ word })[step][2][1].arrays.pred
        return samples.list(array.ptr, array.n)
    end
    local rows = ",steps=3,rows=20,seed=7"
    lu.assertEquals(logits("synth:drift" .. rows, 1), logits("synth:fresh" .. rows, 1))
    lu.assertEquals(logits("synth:drift" .. rows, 3), logits("synth:converged" .. rows, 3))
    lu.assertNotEquals(logits("synth:drift" .. rows, 2), logits("synth:fresh" .. rows, 2))
end

function TestSource.test_a_seed_in_the_word_goes_before_the_command_s()
    local function first(word, seed)
        return steps_in({ word }, nil, { seed = seed })[1][2][1].arrays.pred:get(0)
    end
    lu.assertEquals(first("synth:fresh,rows=1,seed=5", 6), first("synth:fresh,rows=1", 5))
    lu.assertNotEquals(first("synth:fresh,rows=1", 6), first("synth:fresh,rows=1", 5))
end

function TestSource.test_refusals_go_to_the_teller_and_are_thrown_where_there_is_none()
    local folder = bytes.folder()
    folder:write("s1.npz", bytes.zip { scripts.logits(), scripts.targets() })
    for _, name in ipairs { "s2.npz", "s3.npz" } do
        folder:write(name, "nothing")
    end
    local source = ghm.source.open({ dumps = { folder.path }, keys = {} }, "classification")
    local seen, told = {}, {}
    source:each(function(step)
        seen[#seen + 1] = step.name
    end, function(message, problem)
        told[#told + 1] = { message, problem and problem.kind }
    end)
    local ok, thrown = pcall(steps_in, { folder.path })
    folder:remove()
    lu.assertEquals({ seen, source:exit_code(), #source.failed }, { { "s1.npz" }, 1, 2 })
    lu.assertEquals(told, { { source.failed[1].reason, "dump" },
        { "as with s2.npz, so with s3.npz" } })
    lu.assertEquals({ ok, thrown.message }, { false, told[1][1] })
end

function TestSource.test_the_only_step_s_refusal_is_thrown_as_it_is()
    local folder = bytes.folder()
    local path = folder:write("bad.npz", "nothing")
    local ok, thrown = pcall(steps_in, { path })
    folder:remove()
    lu.assertEquals({ ok, thrown.kind }, { false, "dump" })
    lu.assertStrContains(thrown.message, "bad.npz: byte 0: ")
end
