-- Roles: which arrays of a dump make the calls of a loss.

local lu = require "luaunit"
local bytes = require "dump_bytes"
local ghm = require "ghm"
local roles = require "ghm.dumps.roles"
local scripts = require "scripts"

local TestRoles = {}
_G.TestRoles = TestRoles

-- What roles asks of an open dump.
local function file_of(names)
    local file = { path = "x.npz", names = names, entries = {} }
    for _, name in ipairs(names) do
        file.entries[name] = {}
    end
    return file
end

local function words(text)
    local list = {}
    for word in text:gmatch "%S+" do
        list[#list + 1] = word
    end
    return list
end

-- "P3,P4", "pred=scores" -> what a command passes on for each call
local function wanted_of(levels, more)
    local list = {}
    for k, level in ipairs(levels ~= "" and words((levels:gsub(",", " "))) or { false }) do
        list[k] = { level = level or nil }
        for part, name in pairs(more or {}) do
            list[k][part] = name
        end
    end
    return list
end

-- The calls as text: "P3: P3_logits P3_target -; P4: ..."
local function told(calls)
    local list = {}
    for k, c in ipairs(calls) do
        list[k] = ("%s: %s %s %s"):format(c.level or "-", c.pred, c.target or c.labels,
            c.weight or "-")
    end
    return table.concat(list, "; ")
end

function TestRoles.test_roles_go_to_the_first_usual_name()
    local file = file_of(words "pred cls_score target gt_labels weight label_weight bbox_pred x")
    local expected = { logits = "cls_score", target = "target", labels = "gt_labels",
        weight = "label_weight", box_pred = "bbox_pred", box_target = "target",
        box_weight = "label_weight" }
    for _, role in ipairs(roles.roles) do
        lu.assertEquals(roles.find(file, role), expected[role], role)
    end
    lu.assertEquals(roles.find(file, "logits", "x"), "x")
    lu.assertNil(roles.find(file_of { "x" }, "logits"))
    bytes.assert_refused({ "no array 'zzz'", "it holds pred, cls_score" }, roles.find, file,
        "logits", "zzz")
end

function TestRoles.test_of_hundreds_of_arrays_a_line_lists_some()
    local names = {}
    for k = 1, 300 do
        names[k] = "layer" .. k
    end
    local file = file_of(names)
    bytes.assert_refused({ "it holds layer1, layer2, ", ", layer16 and 284 more: name one" },
        roles.calls, file, "classification", { {} })
    bytes.assert_refused({ "did you mean 'layer300'?" }, roles.find, file, "logits", "layr300")
    bytes.assert_refused({ "layer15, layer16: name" }, roles.calls,
        file_of { unpack(names, 1, 16) }, "classification", { {} })
end

-- names in the file, --calls, other choices, the calls
local levelled = {
    { "P3_logits P3_target P4_logits P4_target", "P3,P4", {},
        "P3: P3_logits P3_target -; P4: P4_logits P4_target -" },
    { "P3_logits P3_target P4_logits P4_target", "P4,P3", {},
        "P4: P4_logits P4_target -; P3: P3_logits P3_target -" },
    { "logits.a target.a weight-a logits:b b/target", "a,b", {},
        "a: logits.a target.a weight-a; b: logits:b b/target -" },
    -- found without --calls, in natural order
    { "level10/cls_score level2/cls_score level10/labels level2/labels", "", {},
        "level2: level2/cls_score level2/labels -; level10: level10/cls_score level10/labels -" },
    { "logits_0 logits_1 labels_0 labels_1 label_weights_1", "", {},
        "0: logits_0 labels_0 -; 1: logits_1 labels_1 label_weights_1" },
    -- logits of no level go before those of levels, but not before --calls
    { "logits target P3_logits", "", {}, "-: logits target -" },
    { "logits target P3_logits", "P3", {}, "P3: P3_logits target -" },
    -- what a level lacks is shared; its own targets go before a shared one of another kind
    { "P3_logits P4_logits P3_labels P4_labels target weight P4_weight", "P3,P4", {},
        "P3: P3_logits P3_labels weight; P4: P4_logits P4_labels P4_weight" },
    { "P3_logits P3_target P3_labels", "P3", { labels = "labels" }, "P3: P3_logits P3_labels -" },
    -- a name that the user gives stands for the usual ones
    { "P3_x P3_logits P3_y P3_target mask", "P3", { pred = "x", target = "y", weight = "mask" },
        "P3: P3_x P3_y mask" },
}

function TestRoles.test_a_level_s_name_before_or_behind_a_usual_one_makes_a_call()
    for _, case in ipairs(levelled) do
        local names, levels, more, expected = unpack(case)
        lu.assertEquals(told(roles.calls(file_of(words(names)), "classification",
            wanted_of(levels, more))), expected, names)
    end
end

function TestRoles.test_boxes_have_levels_too()
    local file = file_of(words "P3_bbox_pred P3_bbox_target P3_bbox_weights P3_logits P3_labels")
    lu.assertEquals(told(roles.calls(file, "regression", wanted_of "")),
        "P3: P3_bbox_pred P3_bbox_target P3_bbox_weights")
end

-- names in the file, --calls, other choices, what the refusal says
local refused = {
    { "P3_logits P3_target", "P3,P5", {}, { "no array looks like logits of level P5",
        "it has those of P3" } },
    { "logits target", "P3", {}, { "logits of level P3", "it holds logits, target" } },
    { "P3_logits", "P3", {}, { "targets or labels of level P3", "--target" } },
    { "P3_logits P3_target", "P3", { pred = "x" }, { "no array 'x' of level P3" } },
    { "P3_logits P3_target", "P3", { weight = "w" }, { "no array 'w'" } },
    { "bbox_pred bbox_target", "", {}, { "--logits, or take its boxes, --loss ghmr" } },
    -- no levels: what stands before logits is no letters and a number
    { "student_logits teacher_logits target", "", {}, { "no array looks like logits" } },
    { "mylogits logits2x target", "", {}, { "no array looks like logits" } },
}

function TestRoles.test_a_level_without_its_arrays_is_refused()
    for _, case in ipairs(refused) do
        local names, levels, more, parts = unpack(case)
        bytes.assert_refused(parts, roles.calls, file_of(words(names)), "classification",
            wanted_of(levels, more))
    end
end

-- Two levels of one step: 40 rows and 8. crc: of the smaller level's logits, mostly a lie.
local function pyramid(place, name, crc)
    local function small(array, value)
        return scripts.member(array, "float", "<f4", "(8, 10)", value)
    end
    local members = { small("P4_logits", scripts.logit), small("P4_target", scripts.target),
        scripts.logits(), scripts.targets() }
    members[3].name, members[4].name = "P3_logits.npy", "P3_target.npy"
    members[1].crc = crc
    return place:dump(name or "step_1.npz", unpack(members))
end

function TestRoles.test_the_levels_are_calls_that_know_their_name()
    local place = scripts.place()
    local path = pyramid(place)
    local source = ghm.source.open({ dumps = { path }, keys = {} }, "classification")
    local calls = ghm.sweep.read(source, { bins = 10 })
    local rows = place:fine("evaluate", { "step_1.npz", "--calls", "P4,P3", "--json" })
    local table_of_all = place:fine("evaluate", { "step_1.npz" })
    place:remove()
    local found = {}
    for k, call in ipairs(calls) do
        found[k] = { call.level, call.shape[1], call.names.target }
    end
    lu.assertEquals(found, { { "P3", 40, "P3_target" }, { "P4", 8, "P4_target" } })
    lu.assertStrMatches(rows, '.-"level":"P4".-\n.-"level":"P3".*')
    lu.assertStrMatches(table_of_all, "step +level .-P3 .-P4 .*")
end

function TestRoles.test_a_step_with_a_damaged_level_gives_no_call_at_all()
    local place = scripts.place()
    pyramid(place)
    pyramid(place, "step_2.npz", 1)
    pyramid(place, "step_3.npz")
    local got = place:run("sweep_bins", ". bins=5 --plot none --json")
    place:remove()
    lu.assertEquals(got.code, 1)
    lu.assertStrContains(got.err, "step_2.npz: array 'P4_logits': ")
    lu.assertEquals(ghm.json.decode(got.out).rows[1].calls, 4)
end

function TestRoles.test_the_first_of_several_levels_is_not_told_as_all()
    local place = scripts.place()
    pyramid(place)
    local out = place:fine("sweep_bins", ". bins=5 --plot none")
    place:remove()
    lu.assertStrMatches(out:match "^[^\n]*", "2 calls in 1 step of P3_logits%[[%d,]+%], "
        .. "%.%.%.  .*")
end

function TestRoles.test_what_is_there_but_not_read_is_not_done_without()
    local cases = { -- names, those not read, told
        { "logits target", "weight", "array 'weight' .* another with %-%-weight" },
        { "logits target weight", "label_weights", "array 'label_weights' " },
        { "logits target label_weights", "weight", nil },
        { "logits labels", "target", "array 'target' .* another with %-%-target" },
        { "pred target", "logits", "array 'logits' .* another with %-%-logits" },
        { "P3_logits P3_target weight", "P3_weight", "array 'P3_weight' " },
        { "P3_logits P3_target P3_weight", "weight P4_weight", nil },
    }
    for _, case in ipairs(cases) do
        local file = file_of(words(case[1]))
        file.unread = {}
        for k, name in ipairs(words(case[2])) do
            file.unread[k] = { name = name, reason = "dtype '<u2' is not read" }
        end
        local ok, problem = pcall(roles.calls, file, "classification", { {} })
        lu.assertEquals(ok, case[3] == nil, case[1])
        lu.assertStrMatches(ok and "" or problem.message, ok and "" or "x.npz: " .. case[3]
            .. ".*")
    end
    local file = file_of(words "logits target w labels")
    file.unread = { { name = "weight", reason = "?" }, { name = "label", reason = "?" } }
    lu.assertEquals(told(roles.calls(file, "classification", { { weight = "w" } })),
        "-: logits target w")
end

function TestRoles.test_contradicting_choices_are_refused()
    local place = scripts.place()
    pyramid(place)
    place:refused(2, { "level P3 is named twice" }, "evaluate", { ".", "--calls", "P3,P3" })
    place:refused(2, { "--logits names 2 arrays: expected one name, which --calls completes" },
        "evaluate", { ".", "--calls", "P3,P4", "--logits", "a,b" })
    place:refused(2, { "--calls chooses an array of a dump" }, "evaluate",
        { "synth:fresh", "--calls", "P3" })
    place:refused(3, { "step_1.npz: no array looks like logits of level P9" }, "evaluate",
        { ".", "--calls", "P9" })
    place:remove()
end

return TestRoles
