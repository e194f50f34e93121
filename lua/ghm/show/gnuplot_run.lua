-- Runs the script PATH_BASE.gp -> true, or nil and the reason, and then there is none of `images`,
-- the paths that it draws. Fault "failed" where one could not be written whole.

local fault = require "ghm.fault"
local posix = require "ghm.posix"
local text = require "ghm.show.text"

local ends = { svg = "</svg>%s*$", png = "IEND....$", pdf = "%%%%EOF%s*$" }

-- Of a disk that fills up gnuplot says nothing, but then its images lack their ends.
local function half_of(images)
    for _, image in ipairs(images) do
        if not (posix.read_file(image) or ""):find(ends[image:match "[^.]*$"]) then
            return image
        end
    end
end

return function(path_base, images)
    local _, missing = posix.capture "command -v gnuplot"
    if missing ~= 0 then
        return nil, "gnuplot is not installed: apt-get install gnuplot-nox"
    end
    -- -d: the user's own gnuplot settings would change the figure. A path that begins with a
    -- minus sign would be an option.
    local path = path_base:find "^/" and path_base or "./" .. path_base
    local said, status = posix.capture("gnuplot -d " .. posix.quote(path .. ".gp") .. " 2>&1")
    local half = half_of(images)
    if status == 0 and not half then
        return true
    end
    for _, image in ipairs(images) do
        os.remove(image)
    end
    if status == 0 then
        fault.raise("failed", "cannot write '%s': gnuplot left less than a figure; is the disk "
            .. "full?", half)
    end
    return nil, ("gnuplot could not draw '%s': %s"):format(
        text.one_line(path_base:match "[^/]*$"), text.one_line(said:match "[^\n]*$" or ""))
end
