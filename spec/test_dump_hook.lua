-- experiments/dump_logits.py in a training of PyTorch: its dumps open as they are and hold what the
-- losses saw. Without a python that has torch this is skipped; with GHM_REQUIRE_PEERS=1 it fails.

local lu = require "luaunit"
local close = require "close"
local ghm = require "ghm"
local scripts = require "scripts"

local TestDumpHook = {}
_G.TestDumpHook = TestDumpHook

local NO_TORCH = 3
local place, said, problem

function TestDumpHook.setupClass()
    place = scripts.place()
    local code, told = scripts.run_python("make_hooked_dumps.py", place.folder.path)
    said = code == 0 and assert(ghm.json.decode(place:read "said.json")) or nil
    problem = not said and code ~= NO_TORCH and told or nil
end

function TestDumpHook.teardownClass()
    place:remove()
end

function TestDumpHook.setUp()
    lu.assertNil(problem)
    scripts.skip_without("torch", said)
end

-- The rows of evaluate --json.
local function evaluate(words)
    local rows = {}
    for line in place:fine("evaluate", words .. " --json"):gmatch "[^\n]+" do
        rows[#rows + 1] = assert(ghm.json.decode(line))
    end
    return rows
end

local function names_in(folder)
    return (place:listing(folder):gsub("%./", ""):gsub("\n$", ""):gsub("\n", " "))
end

local function dump_of(name)
    return ghm.dump.open(place.folder.path .. "/" .. name)
end

function TestDumpHook.test_a_watched_BCE_gives_the_loss_that_training_saw()
    lu.assertEquals(names_in "plain", "step_000000.npz step_000002.npz step_000004.npz")
    local rows = evaluate "plain --loss bce"
    lu.assertEquals(#rows, 3)
    for k, row in ipairs(rows) do
        close(row.loss, said.plain[k], { rel = 1e-6 }, "the loss of row %d", k)
    end
end

function TestDumpHook.test_losses_of_mmdetection_give_a_call_for_each_level()
    for _, folder in ipairs { "levels", "calls" } do
        for _, loss in ipairs { "ghmc", "ghmr" } do
            local rows = evaluate(folder .. " --loss " .. loss)
            local levels, samples = {}, {}
            for k, row in ipairs(rows) do
                levels[k], samples[k] = row.level, row.samples / (loss == "ghmr" and 4 / 5 or 1)
            end
            lu.assertEquals(samples, said[folder])
            lu.assertEquals(table.concat(levels, " "), folder == "levels" and "P3 P4 P5 P3 P4 P5"
                or "call0 call1 call2 call0 call1 call2")
        end
    end
    lu.assertTrue(evaluate "levels --loss ghmr"[1].valid < said.levels[1] * 4 / 5) -- the mask
end

function TestDumpHook.test_safetensors_hold_the_same_names()
    scripts.skip_without("safetensors", said.safetensors ~= ghm.json.null)
    lu.assertEquals(names_in "safetensors", "step_000000.safetensors step_000001.safetensors")
    lu.assertEquals(#evaluate "safetensors", 6)
end

function TestDumpHook.test_the_step_s_number_is_in_the_file_and_its_name()
    lu.assertEquals(names_in "narrow", "step_000041.npz step_000042.npz step_000043.npz")
    lu.assertEquals(dump_of "narrow/step_000042.npz":get("step"):totable(), 42)
end

function TestDumpHook.test_half_is_for_predictions_that_it_can_hold()
    local narrow, wide = dump_of "narrow/step_000041.npz", dump_of "narrow/step_000042.npz"
    lu.assertEquals({ narrow:get("logits").dtype, narrow:get("target").dtype }, { "f2", "f4" })
    lu.assertEquals(narrow:get("logits"):get(5), -1.25)
    lu.assertEquals(wide:get("logits"):totable(), { { 1e5, 1 / 0 } })
    local brain = dump_of "narrow/step_000043.npz":get "P3_logits"
    lu.assertEquals({ brain.dtype, brain:totable() }, { "f2", { { 1, 1 } } })
end

function TestDumpHook.test_the_weight_of_BCE_itself_is_recorded()
    lu.assertEquals(dump_of "weighted/step_000000.npz":get("label_weights"):totable(),
        { { 1, 0 }, { 1, 0 }, { 1, 0 } })
end

function TestDumpHook.test_a_slow_disk_costs_steps_that_are_told_or_time()
    local left_out = said.full_False[1]:match "written: (%d), the first step 3;"
    local _, written = names_in "full_False":gsub("npz", "")
    lu.assertEquals(written, 3) -- one being written, and two that wait for it
    lu.assertEquals(tonumber(left_out), 3)
    lu.assertEquals(#said.full_True, 0)
    lu.assertStrContains(names_in "full_True", "step_000005.npz")
end

function TestDumpHook.test_a_failing_disk_leaves_no_half_file_and_training_goes_on()
    lu.assertEquals(#said.broken_training, 1)
    lu.assertStrContains(said.broken_training[1], "no more steps are written: no space left")
    lu.assertStrContains(said.broken_close, "OSError: no space left")
    lu.assertEquals(#said.broken_files, 0)
end

function TestDumpHook.test_a_forked_worker_has_no_part_in_the_dump()
    lu.assertEquals(said.forked, 7)
    lu.assertEquals(names_in "forked", "step_000000.npz step_000001.npz")
end

-- The dump of a training in another way holds what the loss saw, once for each step, and the
-- training went as without it.
local function assert_seen(name, plain)
    local rows, seen = evaluate(name .. " --loss bce"), said[name]
    lu.assertEquals(#rows, 2, name)
    for k, row in ipairs(rows) do
        close(row.loss, seen.values[k], { rel = 1e-6 }, "%s: the loss of row %d", name, k)
    end
    lu.assertEquals({ seen.values, seen.gradient }, { plain.values, plain.gradient }, name)
end

function TestDumpHook.test_gradient_checkpointing_is_recorded_once()
    for _, way in ipairs { "reentrant", "checkpoint", "inner" } do
        assert_seen("ways_" .. way, said.ways_whole)
        lu.assertEquals(said["ways_" .. way].warned, {})
    end
end

function TestDumpHook.test_calls_of_one_backward_may_be_out_of_order_which_is_told()
    lu.assertEquals(#evaluate "halves --loss bce", 4)
    lu.assertStrContains(said.halves.warned[1], "use_reentrant=False keeps its calls in order")
end

function TestDumpHook.test_validation_and_copies_of_the_loss_have_no_part()
    assert_seen("ways_validated", said.ways_whole)
    lu.assertEquals(said.ways_validated.warned, {})
end

function TestDumpHook.test_a_transposed_prediction_is_written_in_C_order()
    assert_seen("ways_transposed", said.ways_whole)
    lu.assertNil(place:read("ways_transposed/step_000000.npz"):find "'fortran_order': True")
end

function TestDumpHook.test_a_call_without_data_is_told_and_training_goes_on()
    assert_seen("ways_meta", said.ways_whole)
    lu.assertStrContains(said.ways_meta.warned[1], "a call of BCEWithLogitsLoss is not recorded: ")
end

function TestDumpHook.test_a_compiled_loss_is_recorded_without_a_warning()
    lu.skipIf(said.ways_compiled == ghm.json.null, "this torch does not compile for this Python")
    assert_seen("ways_compiled", said.ways_whole)
    lu.assertEquals(said.ways_compiled.warned, {})
end

function TestDumpHook.test_autocast_records_what_the_loss_was_given()
    for name, dtype in pairs { cast_bfloat16 = "f4", cast_float16 = "f2" } do
        assert_seen(name, said[name])
        lu.assertEquals(dump_of(name .. "/step_000001.npz"):get("logits").dtype, dtype)
    end
end

function TestDumpHook.test_a_sparse_target_is_written_dense()
    local target = dump_of "sparse/step_000000.npz":get "target"
    lu.assertEquals(target:totable(), { { 1, 0 }, { 0, 1 } })
end

function TestDumpHook.test_numpy_arrays_of_any_order_are_recorded()
    local dump = dump_of "numpy/step_000000.npz"
    lu.assertEquals(dump:get("logits"):totable(), { { 4, 5 }, { 2, 3 }, { 0, 1 } })
    lu.assertEquals(dump:get("target"):totable(), { { 1, 1 }, { 0, 1 }, { 0, 0 } })
end

function TestDumpHook.test_misuse_is_told()
    lu.assertStrContains(said.other_names, "HeadLoss is not called with tensors (pred, target")
    lu.assertStrContains(said.again, "holds the steps of another run")
    lu.assertEquals(names_in "once", "step_000000.npz step_000001.npz") -- the second by append
    lu.assertStrContains(said.pos_weight[1], "pos_weight is not recorded")
    lu.assertStrContains(said.level, "expected letters, then a number")
    lu.assertStrContains(said.recorded_twice, "logits is recorded twice in step 0: end steps by")
    lu.assertStrContains(said.closed or "closed: nothing can be written", "closed: nothing can be")
end

function TestDumpHook.test_a_step_with_other_calls_than_levels_does_not_end_the_training()
    lu.assertEquals(#said.other_levels, 1) -- of two such steps
    lu.assertStrContains(said.other_levels[1], "called 1 times in step 1, levels names 2: P3, P4; "
        .. "in such steps its bbox_pred, bbox_target are left out")
    lu.assertEquals(#evaluate "other_levels --loss bce", 6)
    lu.assertNil(place:read "other_levels/step_000001.npz":find "bbox")
end

function TestDumpHook.test_processes_that_share_a_folder_are_told()
    lu.assertStrContains(said.shared, "another process has written step_000000.npz there")
    lu.assertEquals(names_in "shared", "step_000000.npz")
end

function TestDumpHook.test_a_dump_without_a_step_says_why()
    lu.assertStrContains(said.unused[1], "unused: holds no step of this run: no watched loss was")
    lu.assertStrContains(said.endless[1], "endless: holds no step of this run: dump.step() was not")
end

return TestDumpHook
