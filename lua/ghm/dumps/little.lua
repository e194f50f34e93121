-- The unsigned little-endian number of `size` bytes at the 0-based byte `at` of the string s.
-- Beyond 2^53 it is rounded, and then larger than any file.
return function(s, at, size)
    local v = 0
    for k = at + size, at + 1, -1 do
        v = v * 256 + s:byte(k)
    end
    return v
end
