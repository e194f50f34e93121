-- The same call of a loss in every format and dtype: the same bits, used where it lies.

local lu = require "luaunit"
local bytes = require "dump_bytes"
local ghm = require "ghm"
local scripts = require "scripts"
local torch = require "torch_bytes"

local TestFormats = {}
_G.TestFormats = TestFormats

local ROWS, COLS = 40, 10
local N = ROWS * COLS

-- dtype -> what .safetensors, torch and .npy (nothing, for bf16) call it, the C type of its bits
local names = {
    f2 = { "F16", "HalfStorage", "<f2", "uint16_t" },
    bf16 = { "BF16", "BFloat16Storage", nil, "uint16_t" },
    f4 = { "F32", "FloatStorage", "<f4", "float" },
    f8 = { "F64", "DoubleStorage", "<f8", "double" },
    i1 = { "I8", "CharStorage", "|i1", "int8_t" },
    u1 = { "U8", "ByteStorage", "|u1", "uint8_t" },
    b1 = { "BOOL", "BoolStorage", "|b1", "uint8_t" },
    i2 = { "I16", "ShortStorage", "<i2", "int16_t" },
    i4 = { "I32", "IntStorage", "<i4", "int32_t" },
    i8 = { "I64", "LongStorage", "<i8", "int64_t" },
}

local function data_of(dtype, value)
    local values = {}
    for i = 0, N - 1 do
        values[i + 1] = value(i)
    end
    local a = ghm.array.from(values, dtype)
    local bits = {}
    for i = 0, N - 1 do
        bits[i + 1] = a.ptr[i]
    end
    return bytes.pack(names[dtype][4], bits)
end

-- parts: { { name, dtype, data }, ... } -> the bytes of a file; nil where the format has no such
-- dtype
local formats = {
    npz = function(parts)
        local members = {}
        for k, part in ipairs(parts) do
            if not names[part[2]][3] then
                return nil
            end
            members[k] = { name = part[1] .. ".npy", data = bytes.npy { data = part[3],
                descr = names[part[2]][3], shape = ("(%d, %d)"):format(ROWS, COLS) } }
        end
        return bytes.zip(members)
    end,
    safetensors = function(parts)
        local texts, data = {}, ""
        for k, part in ipairs(parts) do
            texts[k] = ('"%s":{"dtype":"%s","shape":[%d,%d],"data_offsets":[%d,%d]}'):format(
                part[1], names[part[2]][1], ROWS, COLS, #data, #data + #part[3])
            data = data .. part[3]
        end
        local header = "{" .. table.concat(texts, ",") .. "}"
        return bytes.safetensors { header = header .. (" "):rep(-#header % 8), data = data }
    end,
    pt = function(parts)
        local items, storages = {}, {}
        for k, part in ipairs(parts) do
            local key = tostring(k)
            items[k] = { part[1], torch.tensor { storage = names[part[2]][2], key = key, n = N,
                shape = { ROWS, COLS }, strides = { COLS, 1 } } }
            storages[k] = { key, part[3] }
        end
        return torch.archive { value = torch.dict(items), storages = storages }
    end,
}

local function batch_in(folder, format, text)
    local path = folder:write("step." .. format, text)
    local loss, facts = ghm.GHMC { bins = 30 }, nil
    ghm.source.open({ dumps = { path }, keys = {} }, "classification"):each(function(_, batches)
        local block = batches[1]:blocks()()
        facts = { readonly = block.arrays.pred.readonly and block.arrays.target.readonly or false,
            dtype = block.arrays.pred.dtype, notes = batches[1].notes }
        facts.loss = loss:forward_batch(batches[1])
    end)
    return facts
end

-- The loss of logits and targets of these dtypes in every format, which must all agree.
local function check(folder, logits, target, mapped)
    local parts = { { "logits", logits, data_of(logits, scripts.logit) },
        { "target", target, data_of(target, scripts.target) } }
    local first
    for _, format in ipairs { "safetensors", "pt", "npz" } do
        local text = formats[format](parts)
        local got = text and batch_in(folder, format, text)
        if got then
            local what = ("%s logits, %s target, %s"):format(logits, target, format)
            first = first or got.loss
            lu.assertEquals(got.loss, first, what)
            -- a member of an .npz lies where its writer put it, aligned or not
            lu.assertEquals(got.readonly, format == "npz" and got.readonly or mapped, what)
            lu.assertEquals(got.dtype, logits == "f8" and "f4" or logits, what)
        end
    end
    return first
end

function TestFormats:setUp()
    self.folder = bytes.folder()
end

function TestFormats:tearDown()
    self.folder:remove()
end

function TestFormats:test_logits_of_16_and_32_bits_are_used_where_they_lie()
    local f4 = check(self.folder, "f4", "f4", true)
    lu.assertAlmostEquals(check(self.folder, "f2", "f4", true), f4, 1e-3)
    lu.assertAlmostEquals(check(self.folder, "bf16", "f4", true), f4, 1e-2)
end

function TestFormats:test_f8_is_rounded_to_f4_and_says_so()
    lu.assertEquals(check(self.folder, "f8", "f4", false), check(self.folder, "f4", "f4", true))
    local data = { { "logits", "f8", data_of("f8", scripts.logit) },
        { "target", "f4", data_of("f4", scripts.target) } }
    for _, format in ipairs { "safetensors", "pt" } do
        lu.assertEquals(batch_in(self.folder, format, formats[format](data)).notes,
            { "pred f8[40,10] is converted to f4" })
    end
end

function TestFormats:test_targets_of_every_dtype_give_the_same_bits()
    local expected = check(self.folder, "f4", "f4", true)
    for _, dtype in ipairs { "f2", "bf16", "u1", "b1" } do
        lu.assertEquals(check(self.folder, "f4", dtype, true), expected, dtype)
    end
    for _, dtype in ipairs { "f8", "i1", "i2", "i4", "i8" } do -- not read by the core as they are
        lu.assertEquals(check(self.folder, "f4", dtype, false), expected, dtype)
    end
end
