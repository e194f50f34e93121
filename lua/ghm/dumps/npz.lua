-- The .npz format: a zip archive of .npy members, stored or deflated.

local ffi = require "ffi"
local array = require "ghm.array"
local elements = require "ghm.dumps.elements"
local inflate = require "ghm.dumps.inflate"
local mapfile = require "ghm.dumps.mapfile"
local npy = require "ghm.dumps.npy"
local zip = require "ghm.dumps.zip"

local M = { format = "npz", extensions = { "npz" }, claims = zip.claims }

-- The directory's size must be what the array's header says, so that a reader never inflates
-- more than the array takes.
local function check_size(file, name, member, start, bytes)
    if start + bytes ~= member.size then
        file:refuse(name, member.offset, "%.0f bytes by the zip directory, %.0f by its own header",
            member.size, start + bytes)
    end
end

-- Turns the failure of stream:read or stream:finish into a fault.
local function checked(file, name, member, ok, reason)
    if not ok then
        file:check(name)
        file:refuse(name, member.offset, "cannot be inflated: %s", reason)
    end
end

local function stored_entry(file, name, member, opts)
    local entry, start = npy.entry(file, name, member.offset, member.size)
    if not entry then
        return nil, start
    end
    check_size(file, name, member, start, entry.bytes)
    if opts.check_crc then
        elements.guard(entry, function()
            zip.check_crc(file, name, member)
        end)
    end
    return entry
end

-- Opens the member's stream and reads the array's header from it, nothing more -> the stream, what
-- npy.header gives.
local function open_stream(file, name, member)
    local ptr, owner = file:map(member.offset, member.packed, name)
    local stream = inflate.open(ptr, member.packed, owner)
    local taken = 0
    return stream, npy.header(function(n)
        if n > member.size - taken then
            file:refuse(name, member.offset, "a member of %.0f bytes ends inside the .npy header",
                member.size)
        end
        taken = taken + n
        local buffer = ffi.new("uint8_t[?]", n)
        checked(file, name, member, stream:read(buffer, n))
        return ffi.string(buffer, n)
    end, member.size, function(reason, ...)
        file:refuse(name, member.offset, reason, ...)
    end)
end

-- The elements as they are inflated: function(count) -> the next count of them. The compressed
-- bytes behind are let go of.
local function inflated_pieces(file, name, member)
    local stream, info = open_stream(file, name, member)
    local ptr = file:map(member.offset, member.packed, name)
    local left, gone = info.n, 0
    file:guard()
    return function(count)
        local a = array.new(info.dtype, { count })
        if stream then
            checked(file, name, member, stream:read(ffi.cast("uint8_t *", a.ptr),
                count * array.itemsize[info.dtype]))
            left = left - count
            local taken = stream:taken()
            mapfile.let_go(ptr + gone, taken - gone)
            gone = taken
        end
        if stream and left == 0 then
            checked(file, name, member, stream:finish())
            file:check(name)
            zip.check_crc(file, name, member, stream.crc)
            stream:close()
            stream = nil
        end
        return a
    end
end

-- The same in C order and this machine's byte order. Strides need all elements in memory.
local function ordered_pieces(file, name, member, info)
    local raw = inflated_pieces(file, name, member)
    if info.strides then
        local all = raw(info.n)
        local next_piece = elements.pieces(info, ffi.cast("uint8_t *", all.ptr), all, "converted")
        return function(count)
            local piece = next_piece(count)
            if count == 0 then
                all:free()
            end
            return piece
        end
    elseif not info.swapped then
        return raw
    end
    return function(count)
        local a = raw(count)
        local ordered = elements.array({ dtype = info.dtype, shape = { count }, swapped = true },
            ffi.cast("uint8_t *", a.ptr), a, "converted")
        a:free()
        return ordered
    end
end

local function inflated_entry(file, name, member)
    local stream, info, reason = open_stream(file, name, member)
    stream:close()
    if not info then
        return nil, reason
    end
    check_size(file, name, member, info.start, info.bytes)
    local function pieces()
        return ordered_pieces(file, name, member, info)
    end
    return {
        name = name, dtype = info.dtype, shape = info.shape, n = info.n, bytes = info.bytes,
        stored = "inflated", offset = member.offset, pieces = pieces,
        read = function()
            return file:guarding(name, function()
                local next_piece = pieces()
                local a = next_piece(info.n)
                next_piece(0)
                a.shape = info.shape
                return a
            end)
        end,
    }
end

-- The reader -> list of entries, list of warnings, list of { name, reason } of what is not read.
-- opts.check_crc: check stored members too when they are read.
function M.open(file, opts)
    local entries, warnings, unread = {}, {}, {}
    for _, member in ipairs(zip.members(file)) do
        local name = member.name:match "^(.+)%.npy$"
        if not name then
            warnings[#warnings + 1] = ("member '%s' is no .npy and is ignored"):format(member.name)
        else
            local make = member.method == 0 and stored_entry or inflated_entry
            local entry, reason = make(file, name, member, opts)
            entries[#entries + 1] = entry
            unread[#unread + 1] = not entry and { name = name, reason = reason } or nil
        end
    end
    if #entries == 0 and unread[1] then
        file:refuse(unread[1].name, nil, "%s, %s", unread[1].reason, npy.EXPECTED)
    elseif #entries == 0 then
        file:refuse(nil, nil, "an archive without .npy members or torch.save's data.pkl, expected"
            .. " arrays")
    end
    return entries, warnings, unread
end

return M
