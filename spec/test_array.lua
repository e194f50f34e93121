local ffi = require "ffi"
local lu = require "luaunit"
local array = require "ghm.array"
local fault = require "ghm.fault"

local TestArray = {}
_G.TestArray = TestArray

local function bits(dtype, value)
    return array.from(value, dtype).ptr[0]
end

-- Asserts that call(...) throws fault "usage" that says `text`.
local function assert_usage(text, call, ...)
    local ok, thrown = pcall(call, ...)
    lu.assertFalse(ok, "accepted; expected: " .. text)
    lu.assertTrue(fault.is(thrown), "no fault: " .. tostring(thrown))
    lu.assertEquals(thrown.kind, "usage")
    lu.assertStrContains(thrown.message, text)
end

function TestArray.test_new_is_zero_filled_in_every_dtype()
    for _, dtype in ipairs(array.dtypes) do
        local a = array.new(dtype, { 3, 2 })
        lu.assertEquals(a:totable(), { { 0, 0 }, { 0, 0 }, { 0, 0 } })
        lu.assertEquals({ a.n, a.dtype, a.shape }, { 6, dtype, { 3, 2 } })
        lu.assertEquals(ffi.cast("char *", a.ptr + 1) - ffi.cast("char *", a.ptr),
            array.itemsize[dtype])
    end
end

function TestArray.test_itemsize_is_that_of_the_dtype()
    lu.assertEquals(array.itemsize, { f2 = 2, f4 = 4, f8 = 8, bf16 = 2, i1 = 1, u1 = 1, b1 = 1,
        i2 = 2, i4 = 4, i8 = 8 })
end

function TestArray.test_prints_dtype_and_shape()
    lu.assertEquals(tostring(array.new("f4", { 500, 8 })), "f4[500,8]")
    lu.assertEquals(tostring(array.new("i8", {})), "i8[]")
end

function TestArray.test_from_and_totable_are_inverse()
    for _, list in ipairs { { 1, 2, 3 }, { { 1, 2 }, { 3, 4 }, { 5, 6 } }, { { { 1 } } }, {} } do
        lu.assertEquals(array.from(list, "f4"):totable(), list)
    end
    lu.assertEquals(array.from(7, "i4"):totable(), 7)
    lu.assertEquals(array.from({ 1, 2, 3, 4 }, "u1", { 2, 2 }):totable(), { { 1, 2 }, { 3, 4 } })
end

function TestArray.test_from_refuses_ragged_lists_and_other_values()
    assert_usage("ragged", array.from, { { 1, 2 }, { 3 } }, "f4")
    assert_usage("ragged", array.from, { { 1 }, 2 }, "f4")
    assert_usage("not of a table", array.from, { 1, { 2 } }, "f4")
    assert_usage("not of a string", array.from, { "1" }, "f4")
    assert_usage("cannot reshape", array.from, { 1, 2, 3 }, "f4", { 2 })
end

function TestArray.test_integers_refuse_what_they_cannot_hold()
    local cases = { { "u1", 256 }, { "u1", -1 }, { "i1", 128 }, { "b1", 2 }, { "i2", 32768 },
        { "i4", 2 ^ 31 }, { "i8", 2 ^ 54 }, { "i4", 0.5 }, { "i4", 0 / 0 }, { "i8", math.huge } }
    for _, case in ipairs(cases) do
        assert_usage(case[1] .. " elements", array.from, { case[2] }, case[1])
        assert_usage(case[1] .. " elements", function()
            array.from({ case[2] }, "f8"):convert(case[1])
        end)
    end
end

function TestArray.test_64_bit_integers_are_plain_numbers()
    local a = array.from({ 2 ^ 53, -1 }, "i8")
    lu.assertEquals(type(a:get(0)), "number")
    lu.assertEquals(a:totable(), { 2 ^ 53, -1 })
end

function TestArray.test_half_floats_round_to_nearest_even()
    local cases = { -- value, bits, value read back
        { 0, 0x0000, 0 }, { 1, 0x3C00, 1 }, { -2, 0xC000, -2 }, { 65504, 0x7BFF, 65504 },
        { 65519.99, 0x7BFF, 65504 }, { 65520, 0x7C00, math.huge }, { -1e9, 0xFC00, -math.huge },
        { 2 ^ -24, 0x0001, 2 ^ -24 }, { 2 ^ -25, 0x0000, 0 }, { 2 ^ -25 * 1.0001, 1, 2 ^ -24 },
        { 1023 * 2 ^ -24, 0x03FF, 1023 * 2 ^ -24 }, { 1023.5 * 2 ^ -24, 0x0400, 2 ^ -14 },
        { 1 + 2 ^ -11, 0x3C00, 1 }, { 1 + 3 * 2 ^ -11, 0x3C02, 1 + 2 ^ -9 },
        { 1 + 2 ^ -11 + 2 ^ -40, 0x3C01, 1 + 2 ^ -10 }, { 5e-324, 0, 0 },
        { math.huge, 0x7C00, math.huge },
    }
    for _, case in ipairs(cases) do
        lu.assertEquals(bits("f2", case[1]), case[2], tostring(case[1]))
        lu.assertEquals(array.from(case[1], "f2"):get(0), case[3])
    end
    lu.assertEquals(bits("f2", -0.0), 0x8000)
    lu.assertNaN(array.from(0 / 0, "f2"):get(0))
end

function TestArray.test_bfloat16_is_the_upper_half_of_a_rounded_float()
    local cases = { { 1, 0x3F80 }, { -2.5, 0xC020 }, { 3.3895313892515355e38, 0x7F7F },
        { 3.4e38, 0x7F80 }, { 1 + 2 ^ -8, 0x3F80 }, { 1 + 3 * 2 ^ -8, 0x3F82 },
        { 2 ^ -133, 0x0001 }, { 2 ^ -126, 0x0080 }, { 1 + 2 ^ -8 + 2 ^ -45, 0x3F81 } }
    for _, case in ipairs(cases) do
        lu.assertEquals(bits("bf16", case[1]), case[2], tostring(case[1]))
    end
    lu.assertNaN(array.from(0 / 0, "bf16"):get(0))
end

function TestArray.test_every_16_bit_pattern_survives_decoding_and_encoding()
    for _, dtype in ipairs { "f2", "bf16" } do
        local a = array.new(dtype, { 65536 })
        for k = 0, 65535 do
            a.ptr[k] = k
        end
        local back = a:convert("f8"):convert(dtype)
        local different = 0
        for k = 0, 65535 do
            local v = a:get(k)
            if v == v and back.ptr[k] ~= k or v ~= v and back:get(k) == back:get(k) then
                different = different + 1
            end
        end
        lu.assertEquals(different, 0)
        lu.assertEquals(a:summary().nonfinite, dtype == "f2" and 2048 or 256)
    end
end

function TestArray.test_bfloat16_decodes_as_the_float_with_those_upper_bits()
    local word, a = ffi.new "union { uint32_t u; float f; }", array.new("bf16", { 1 })
    for k = 0, 65535 do
        word.u, a.ptr[0] = k * 65536, k
        if word.f == word.f and a:get(0) ~= word.f then
            lu.fail(("bf16 %04x"):format(k))
        end
    end
end

function TestArray.test_converts_between_dtypes()
    local a = array.from({ 1, 0, 1 }, "i8")
    for _, dtype in ipairs(array.dtypes) do
        local b = a:convert(dtype)
        lu.assertEquals({ b.dtype, b:totable() }, { dtype, { 1, 0, 1 } })
    end
    lu.assertEquals(array.from({ 0.1 }, "f8"):convert("f4"):get(0), tonumber(ffi.new("float", 0.1)))
end

function TestArray.test_converting_to_the_same_dtype_copies()
    local a = array.from({ 1, 2 }, "f4")
    local b = a:convert "f4"
    local wide = array.new("i8", { 1 })
    wide.ptr[0] = 2LL ^ 62 + 1 -- no double holds it
    lu.assertTrue(wide:convert("i8").ptr[0] == 2LL ^ 62 + 1)
    b:set(0, 9)
    lu.assertEquals(a:get(0), 1)
    lu.assertEquals(b:totable(), { 9, 2 })
end

function TestArray.test_reshape_shares_memory()
    local a = array.from({ 1, 2, 3, 4 }, "f4")
    local b = a:reshape { 2, 2 }
    b:set(3, 9)
    lu.assertEquals(a:get(3), 9)
    assert_usage("cannot reshape f4[4] to [3]", a.reshape, a, { 3 })
end

function TestArray.test_a_view_keeps_its_owner_alive()
    local view
    do
        local a = array.from({ 1, 2, 3, 4 }, "f4")
        view = a:reshape { 2, 2 }
    end
    for _ = 1, 5 do
        collectgarbage()
        array.new("f4", { 4 })
    end
    lu.assertEquals(view:totable(), { { 1, 2 }, { 3, 4 } })
end

function TestArray.test_summary_counts_zeros_and_nonfinite_elements()
    local s = array.from({ -1, 0, 0 / 0, 4, math.huge, -0.0 }, "f4"):summary()
    lu.assertEquals(s, { min = -1, max = 4, mean = 0.75, zeros = 2, nonfinite = 2,
        first_nonfinite = 2 })
    lu.assertEquals(array.from({ 3, 5 }, "u1"):summary(), { min = 3, max = 5, mean = 4, zeros = 0,
        nonfinite = 0 })
end

function TestArray.test_summary_of_nothing_finite_has_no_range()
    lu.assertEquals(array.new("f4", { 0 }):summary(), { zeros = 0, nonfinite = 0 })
    lu.assertEquals(array.from({ 0 / 0 }, "f2"):summary(), { zeros = 0, nonfinite = 1,
        first_nonfinite = 0 })
end

function TestArray.test_place_gives_one_index_for_each_axis()
    local a = array.new("f4", { 3, 4, 5 })
    lu.assertEquals(a:place(0), { 0, 0, 0 })
    lu.assertEquals(a:place(59), { 2, 3, 4 })
    lu.assertEquals(a:place(27), { 1, 1, 2 })
    lu.assertEquals(array.new("f4", {}):place(0), {})
end

function TestArray.test_elements_outside_are_errors_not_memory()
    local a = array.new("f4", { 3 })
    for _, i in ipairs { -1, 3, 2 ^ 40, 0 / 0 } do
        lu.assertErrorMsgContains("counted from 0", a.get, a, i)
        lu.assertErrorMsgContains("counted from 0", a.set, a, i, 1)
    end
end

function TestArray.test_freeing_twice_is_harmless_and_a_freed_array_is_not_read()
    local a = array.new("f4", { 3 })
    a:free()
    a:free()
    lu.assertErrorMsgContains("freed", a.get, a, 0)
    lu.assertErrorMsgContains("freed", a.convert, a, "f8")
    lu.assertErrorMsgContains("freed", a.convert, a, "f4")
    lu.assertErrorMsgContains("freed", a.summary, a)
    lu.assertErrorMsgContains("freed", a.reshape, a, { 3 })
end

-- The collector knows nothing of what lies behind a pointer.
function TestArray.test_large_arrays_that_nobody_holds_go_soon()
    local held, n = setmetatable({}, { __mode = "k" }), 0
    for _ = 1, 64 do
        held[array.new("u1", { 2 ^ 24 })] = true
    end
    for _ in pairs(held) do
        n = n + 1
    end
    lu.assertTrue(n <= 17, n .. " arrays of 16 MB are left")
end

function TestArray.test_impossible_sizes_are_faults()
    for _, shape in ipairs { { 2 ^ 53 }, { 2 ^ 40, 2 ^ 40 }, { -1 }, { 1.5 }, { 0 / 0 } } do
        local ok, thrown = pcall(array.new, "f8", shape)
        lu.assertFalse(ok)
        lu.assertEquals(thrown.kind, "failed")
    end
    lu.assertEquals(array.count { 2 ^ 27, 2 ^ 26 }, 2 ^ 53)
    lu.assertNil(array.count { 2 ^ 27, 2 ^ 27 })
    lu.assertEquals(array.count { 2 ^ 50, 2 ^ 50, 0 }, 0)
end
