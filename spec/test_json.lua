-- JSON and CSV: nothing is lost on the way out, nothing lax on the way in.

local lu = require "luaunit"
local csv = require "ghm.show.csv"
local fault = require "ghm.fault"
local json = require "ghm.json"

local TestJson = {}
_G.TestJson = TestJson

function TestJson.test_doubles_read_back_as_the_same_double()
    for _, x in ipairs { 0.1, 1 / 3, 1e-308, 5e-324, 1.7976931348623157e308, 2 ^ 53, -2 ^ 53,
        0.30000000000000004, 123456789.123456789 } do
        lu.assertEquals(json.decode(json.encode(x)), x, json.encode(x))
    end
    lu.assertEquals(json.encode(0.1), "0.1")
    lu.assertEquals(json.encode(12400000), "12400000")
    lu.assertEquals(1 / json.decode(json.encode(-0.0)), -math.huge)
end

function TestJson.test_what_json_has_no_number_for_is_named()
    lu.assertEquals(json.encode { 0 / 0, math.huge, -math.huge }, '["nan","inf","-inf"]')
end

function TestJson.test_empty_list_is_told_from_empty_object()
    lu.assertEquals(json.encode { a = json.array {}, b = {} }, '{"a":[],"b":{}}')
    lu.assertTrue(json.is_array((json.decode "[]")))
    lu.assertFalse(json.is_array((json.decode "{}")))
end

function TestJson.test_ordered_object_keeps_its_order_and_others_sort()
    lu.assertEquals(json.encode(json.object { { "z", 1 }, { "a", 2 }, { "n", nil } }),
        '{"z":1,"a":2}')
    lu.assertEquals(json.encode { z = 1, a = 2 }, '{"a":2,"z":1}')
end

function TestJson.test_strings_survive()
    for _, s in ipairs { "", 'quote " and \\', "line\nbreak\ttab\0nul\127", "désirée 😀 β" } do
        lu.assertEquals(json.decode(json.encode(s)), s)
    end
    lu.assertEquals(json.encode "a\255b", '"a\239\191\189b"') -- a path of raw bytes
    lu.assertEquals(json.decode [["\ud83d\ude00\u00e9\u0000"]], "😀é\0")
end

function TestJson.test_indented_text_decodes_to_the_same()
    local value = { list = { 1, 2, 3 }, nested = { { a = 1 }, { a = json.null } }, on = true }
    lu.assertEquals(json.decode(json.encode(value, { indent = 2 })), value)
end

function TestJson.test_encoder_refuses_what_has_no_form()
    local loop = {}
    loop.self = loop
    for _, value in ipairs { { print }, { 1, 2, x = 3 }, { [2] = 1, a = 2 }, loop } do
        lu.assertFalse((pcall(json.encode, value)))
    end
end

function TestJson.test_decoder_refuses_everything_lax()
    local cases = { "", " ", "nan", "NaN", "Infinity", "-", "01", "1.", ".5", "+1", "0x10", "1e",
        "1e999", "9007199254740993", "-9007199254740994", "[1,]", "[,1]", "[1 2]", "{", "[", "{}}",
        '{"a":1,}', '{"a" 1}', "{a:1}", "{'a':1}", '{"a":1,"a":2}', '{"a":null,"a":2}', '"a',
        '"a\nb"', '"\\x"', '"\\u12"', '"\\ud800"', '"\\ud800\\u0041"', '"\\udc00"', '"\255"',
        '"\192\128"', '"\237\160\128"', "// x\n1", "[1]x", "tru", "nullx", "\239\187\1911",
        "1//2" }
    for _, s in ipairs(cases) do
        local value, reason = json.decode(s)
        lu.assertNil(value, ("accepted %q"):format(s))
        lu.assertStrContains(reason, "byte ")
    end
end

function TestJson.test_decoder_names_the_position()
    local _, reason = json.decode '{"a": [1, x]}'
    lu.assertStrContains(reason, "byte 11")
end

function TestJson.test_depth_is_limited_to_64()
    lu.assertNotNil((json.decode(("["):rep(64) .. ("]"):rep(64))))
    lu.assertNil((json.decode(("["):rep(65) .. ("]"):rep(65))))
    lu.assertNil((json.decode(("["):rep(1000000))))
end

function TestJson.test_leading_white_space_is_tolerated()
    lu.assertEquals(json.decode " \t\r\n {\"a\" : [ ] } ", { a = {} })
end

local TestCsv = {}
_G.TestCsv = TestCsv

local function with_file(content, use)
    local path = os.tmpname()
    local file = assert(io.open(path, "wb"))
    file:write(content)
    file:close()
    local ok, problem = pcall(use, path)
    os.remove(path)
    if not ok then
        error(problem, 0)
    end
end

function TestCsv.test_rows_read_back_as_they_were()
    local rows = { { bins = 5, loss = 1 / 3, note = 'a "b", c\nd' },
        { bins = 10, loss = -math.huge, note = "" } }
    local encoded = csv.encode(rows, { { key = "bins" }, "loss", "note" })
    lu.assertEquals(encoded:match "^[^\n]*", "bins,loss,note")
    with_file(encoded, function(path)
        local back, names = csv.read(path)
        lu.assertEquals(back, rows)
        lu.assertEquals(names, { "bins", "loss", "note" })
    end)
end

function TestCsv.test_words_that_look_like_numbers_stay_words_when_quoted()
    with_file('a,b\n"1",2\r\nnan,x', function(path)
        local rows = csv.read(path)
        lu.assertEquals(rows[1], { a = "1", b = 2 })
        lu.assertTrue(rows[2].a ~= rows[2].a)
        lu.assertEquals(rows[2].b, "x")
    end)
end

function TestCsv.test_malformed_files_are_refused_with_their_line()
    for content, expected in pairs { ['a,b\n1,2\n3'] = "record 3", ['a\n"x'] = "line 2",
        ['a\n"x"y\n'] = "line 2", [""] = "empty" } do
        with_file(content, function(path)
            local ok, problem = pcall(csv.read, path)
            lu.assertFalse(ok)
            lu.assertTrue(fault.is(problem))
            lu.assertStrContains(problem.message, expected)
        end)
    end
end

function TestCsv.test_full_disk_is_one_clean_fault()
    for _, target in ipairs { "/dev/full", assert(io.open("/dev/full", "w")) } do
        local ok, problem = pcall(csv.write, target, { { a = 1 } }, { "a" })
        lu.assertFalse(ok)
        lu.assertEquals(fault.exit_code(problem), 1)
        lu.assertStrContains(problem.message, "No space left")
    end
end
