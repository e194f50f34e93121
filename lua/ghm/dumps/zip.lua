-- Zip archives: the central directory, checked against the file before any member is touched.
-- The layout accepted is the one writers produce: members, central directory, end records,
-- comment, with nothing between or after them. Whatever could be read in two ways is refused.

local inflate = require "ghm.dumps.inflate"
local uint = require "ghm.dumps.little"

local M = {}

local END, LOCATOR, END64 = "PK\5\6", "PK\6\7", "PK\6\6"
local ENTRY, LOCAL = "PK\1\2", "PK\3\4"
local DIRECTORY_LIMIT = 2 ^ 24 -- bytes; names for some hundred thousand arrays
local MAX16, MAX32 = 0xFFFF, 0xFFFFFFFF -- "see the zip64 record"

-- Whether a file that begins with the string `head` is an archive (an empty one too).
function M.claims(head)
    return head:sub(1, 4) == LOCAL or head:sub(1, 4) == END
end

-- The place of the end record -> its offset, its 22 bytes.
local function find_end(file)
    local length = math.min(file.size, 22 + MAX16)
    local base = file.size - length
    local tail = file:read(base, length)
    local found
    local at = tail:find(END, 1, true)
    while at do
        if at + 21 <= length and at + 21 + uint(tail, at + 19, 2) == length then
            if found then
                file:refuse(nil, base + at - 1, "a second zip end record, expected one")
            end
            found = at
        end
        at = tail:find(END, at + 1, true)
    end
    if not found then
        file:refuse(nil, nil, "no zip end record fits the end of the file: truncated, or bytes"
            .. " follow the archive")
    elseif tail:find(END, found + 4, true) then
        file:refuse(nil, base + found - 1, "the zip comment holds an end record")
    end
    return base + found - 1, tail:sub(found, found + 21)
end

-- The central directory -> { offset, size, entries }.
local function find_directory(file)
    local at, record = find_end(file)
    local dir = { entries = uint(record, 10, 2), size = uint(record, 12, 4),
        offset = uint(record, 16, 4) }
    local disk, start_disk, here = uint(record, 4, 2), uint(record, 6, 2), uint(record, 8, 2)
    local stop = at
    local locator = at >= 76 and file:read(at - 20, 20) or ""
    if locator:sub(1, 4) == LOCATOR then
        stop = uint(locator, 8, 8)
        local bytes = stop <= at - 76 and file:read(stop, 56) or ""
        if bytes:sub(1, 4) ~= END64 or stop + 12 + uint(bytes, 4, 8) ~= at - 20 then
            file:refuse(nil, at - 20, "the zip64 locator leads to no zip64 end record")
        end
        local wide = { entries = uint(bytes, 32, 8), size = uint(bytes, 40, 8),
            offset = uint(bytes, 48, 8) }
        for key, limit in pairs { entries = MAX16, size = MAX32, offset = MAX32 } do
            if dir[key] ~= limit and dir[key] ~= wide[key] then
                file:refuse(nil, stop, "the two zip end records disagree on the directory's %s",
                    key)
            end
        end
        disk, start_disk, here = uint(bytes, 16, 4), uint(bytes, 20, 4), uint(bytes, 24, 8)
        dir = wide
    elseif dir.entries == MAX16 or dir.size == MAX32 or dir.offset == MAX32 then
        file:refuse(nil, at, "the zip end record asks for a zip64 record, there is none")
    end
    if disk ~= 0 or start_disk ~= 0 or here ~= dir.entries then
        file:refuse(nil, at, "an archive of several disks, expected one file")
    elseif dir.offset + dir.size ~= stop then
        file:refuse(nil, at, "the zip directory (byte %.0f, %.0f bytes) does not end where its"
            .. " end record begins", dir.offset, dir.size)
    elseif dir.size > DIRECTORY_LIMIT or dir.entries * 46 > dir.size then
        file:refuse(nil, dir.offset, "a zip directory of %.0f entries in %.0f bytes, expected at"
            .. " least 46 for each and at most %d in all", dir.entries, dir.size, DIRECTORY_LIMIT)
    elseif dir.entries == 0 then
        file:refuse(nil, at, "the archive is empty, expected arrays")
    end
    return dir
end

-- Replaces sentinels by the numbers in the zip64 extra field.
local function widen(member, extra, refuse)
    local wanted = {}
    for _, key in ipairs { "size", "packed", "header" } do
        if member[key] == MAX32 then
            wanted[#wanted + 1] = key
        end
    end
    local at = 0
    while #wanted > 0 and at + 4 <= #extra do
        local id, length = uint(extra, at, 2), uint(extra, at + 2, 2)
        if id == 1 and length >= 8 * #wanted and at + 4 + length <= #extra then
            for k, key in ipairs(wanted) do
                member[key] = uint(extra, at + 4 + 8 * (k - 1), 8)
            end
            return
        end
        at = at + 4 + length
    end
    if #wanted > 0 then
        refuse("its %s is in a zip64 extra field that is not there", wanted[1])
    end
end

local function check_name(name, refuse)
    if name == "" or name:find "[%z\\]" or name:find "^/" or ("/" .. name .. "/"):find "/%.%./" then
        refuse("an unsafe member name")
    end
end

-- One directory entry at byte `at` of the directory text -> the member, the next entry's place.
local function read_entry(file, text, at, base)
    local function refuse(reason, ...)
        file:refuse(nil, base + at, "zip directory: " .. reason, ...)
    end
    if text:sub(at + 1, at + 4) ~= ENTRY or at + 46 > #text then
        refuse("expected an entry")
    end
    local names = at + 46
    local extras = names + uint(text, at + 28, 2)
    local comment = extras + uint(text, at + 30, 2)
    local stop = comment + uint(text, at + 32, 2)
    if stop > #text then
        refuse("the entry goes beyond the directory's end")
    end
    local member = {
        name = text:sub(names + 1, extras),
        method = uint(text, at + 10, 2), crc = uint(text, at + 16, 4),
        packed = uint(text, at + 20, 4), size = uint(text, at + 24, 4),
        header = uint(text, at + 42, 4),
    }
    local function refuse_member(reason, ...)
        file:refuse(member, base + at, reason, ...)
    end
    check_name(member.name, refuse_member)
    widen(member, text:sub(extras + 1, comment), refuse_member)
    local flags = uint(text, at + 8, 2)
    if flags % 2 == 1 or math.floor(flags / 64) % 2 == 1 or math.floor(flags / 8192) % 2 == 1 then
        refuse_member("is encrypted, expected a plain member")
    elseif member.method ~= 0 and member.method ~= 8 then
        refuse_member("compression method %d, expected 0 (stored) or 8 (deflate)", member.method)
    elseif member.method == 0 and member.packed ~= member.size then
        refuse_member("sizes %.0f and %.0f of a stored member differ", member.packed, member.size)
    elseif member.method == 8 and member.size > inflate.MAX_RATIO * member.packed then
        refuse_member("%.0f bytes cannot inflate to %.0f", member.packed, member.size)
    end
    return member, stop
end

-- Finds the data behind the local header, whose sizes and extra fields are not trusted.
local function locate(file, member, limit)
    local at = member.header
    local head = at <= limit - 30 and file:read(at, 30, member) or ""
    if head:sub(1, 4) ~= LOCAL then
        file:refuse(member, at, "expected a zip local header before byte %.0f", limit)
    end
    local name_length = uint(head, 26, 2)
    member.offset = at + 30 + name_length + uint(head, 28, 2)
    if member.offset > limit or member.packed > limit - member.offset then
        file:refuse(member, at, "%.0f bytes of data pass the zip directory at byte %.0f",
            member.packed, limit)
    elseif file:read(at + 30, name_length, member) ~= member.name
        or uint(head, 8, 2) ~= member.method then
        file:refuse(member, at, "the local header and the zip directory disagree")
    end
end

local function read_members(file)
    local dir = find_directory(file)
    local text = file:read(dir.offset, dir.size)
    local members, known, at = {}, {}, 0
    for k = 1, dir.entries do
        local member
        member, at = read_entry(file, text, at, dir.offset)
        if known[member.name] then
            file:refuse(member, dir.offset, "the name occurs twice in the zip directory")
        end
        known[member.name] = true
        locate(file, member, dir.offset)
        members[k] = member
    end
    if at ~= #text then
        file:refuse(nil, dir.offset + at, "bytes after the last entry of the zip directory")
    end

    local sorted = {}
    for k, member in ipairs(members) do
        sorted[k] = member
    end
    table.sort(sorted, function(a, b)
        return a.header < b.header
    end)
    for k = 2, #sorted do
        local before = sorted[k - 1]
        if sorted[k].header < before.offset + before.packed then
            file:refuse(sorted[k], sorted[k].header, "overlaps the member '%s'", before.name)
        end
    end
    return members
end

local directories = setmetatable({}, { __mode = "k" }) -- file -> members

-- The members in the directory's order: list of { name, method (0 stored, 8 deflate), crc, size,
-- packed (bytes in the file), offset (of the data) }. All lie inside the file, none overlap, no
-- name occurs twice. file: a mapfile, whose directory is read once. Fault "dump" otherwise.
function M.members(file)
    local members = directories[file] or read_members(file)
    directories[file] = members
    return members
end

-- Refuses a member whose bytes have another CRC-32 than the directory says. crc: of what was
-- inflated; nil: of the bytes of a stored member, which are read for it.
function M.check_crc(file, name, member, crc)
    if not crc then
        local ptr = file:map(member.offset, member.size, name)
        crc = file:guarding(name, function()
            return inflate.crc32(0, ptr, member.size)
        end)
    end
    if crc ~= member.crc then
        file:refuse(name, member.offset, "CRC-32 %08x, expected %08x: the data is damaged",
            crc, member.crc)
    end
end

return M
