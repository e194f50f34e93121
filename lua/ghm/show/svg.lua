-- gnuplot's SVG as a part of an HTML page: several of them on one page must not share ids, and
-- nothing but drawing may come in with them.

local text = require "ghm.show.text"
local utf8 = require "ghm.utf8"

local M = {}

local function set(words)
    local known = {}
    for word in words:gmatch "%S+" do
        known[word] = true
    end
    return known
end

-- What gnuplot draws with. Anything else is refused, rather than looked at.
local elements = set("svg g defs path rect circle ellipse line polyline polygon use text tspan "
    .. "clipPath filter feFlood feComposite pattern linearGradient stop")
local attributes = set("id class d x y x1 y1 x2 y2 cx cy r rx ry dx dy width height points viewBox "
    .. "transform fill fill-opacity fill-rule stroke stroke-width stroke-linecap stroke-linejoin "
    .. "stroke-dasharray stroke-opacity opacity color clip-path clip-rule clipPathUnits filter "
    .. "filterUnits flood-color flood-opacity in in2 operator result text-anchor font-family "
    .. "font-size font-weight font-style shape-rendering xml:space patternUnits patternTransform "
    .. "gradientUnits offset stop-color stop-opacity")

-- One attribute as the page shall have it: "" to leave it out, nil when it is refused.
local function attribute(name, value, prefix)
    if name == "xmlns" or name:find "^xmlns:" or name == "version" or name == "baseProfile" then
        return "" -- HTML knows what an svg is
    elseif name == "xlink:href" or name == "href" then
        local target = value:match "^#([%w_.-]+)$"
        return target and (' href="#%s%s"'):format(prefix, target)
    elseif not attributes[name] or value:find "&" then -- no drawing needs an entity to hide in
        return nil
    end
    local foreign = false
    value = value:gsub("[uU][rR][lL]%s*(%b())", function(target)
        local own = target:match "^%(#([%w_.-]+)%)$"
        foreign = foreign or not own
        return ("url(#%s%s)"):format(prefix, own or "")
    end)
    if foreign then
        return nil
    end
    value = name == "id" and prefix .. value or value
    return (' %s="%s"'):format(name, (value:gsub('"', "&quot;")))
end

-- svg: the text of a file; prefix: of its ids, unlike those of the page's other figures; more: text
-- of further attributes for its first tag. -> the element, or nil and what was refused.
function M.inline(svg, prefix, more)
    local body = svg:gsub("<!%-%-.-%-%->", ""):match "<svg.*</svg>"
    if not body then
        return nil, "no svg element"
    end
    -- gnuplot names its parts for those who hover: "gnuplot_plot_1"
    body = body:gsub("<title>[^<]*</title>", ""):gsub("<desc>[^<]*</desc>", "")
    local refused
    local width, height = body:match 'viewBox="0 0 ([%d.]+) ([%d.]+)"'
    local out = body:gsub("<(/?)([^%s/>]*)([^>]*)>", function(close, name, rest)
        local parts = { "<", close, name }
        if not elements[name] then
            refused = refused or ("element '%s'"):format(name)
        end
        local left = rest:gsub("([%w:-]+)%s*=%s*([\"'])(.-)%2", function(key, _, value)
            local sized = name == "svg" and (key == "width" or key == "height")
            local part = sized and "" or attribute(key, value, prefix)
            refused = refused or not part and ("attribute '%s' of '%s'"):format(key, name) or nil
            parts[#parts + 1] = part
            return ""
        end)
        if name == "svg" and close == "" then
            parts[#parts + 1] = (' width="%s" height="%s"'):format(width or 860, height or 460)
                .. (more or "")
        end
        if left:find "[^%s/]" then
            refused = refused or ("what stands in '%s'"):format(name)
        end
        parts[#parts + 1] = left:find "/" and "/>" or ">"
        return table.concat(parts)
    end)
    if refused then
        return nil, text.one_line(refused) .. " is not allowed"
    end
    return utf8.clean(out)
end

return M
