-- A headless Chromium for the specs, spoken to through two pipes: its DevTools protocol, JSON
-- messages that each end with a zero byte.
--
--   browser.missing()                        why there is none, or nil
--   browser.open() -> b                      b:close() ends it
--   b:visit(url, { width, height, dark, print, scriptless })
--   b:eval(expression) -> its value          b:click(selector)   b:press(key)
--   b:screenshot() -> base64 of a PNG        b:pdf() -> base64
--   b:complaints()                           what the console said, policies broken, dialogs opened
--   b:requests()                             addresses asked for beyond the page itself

local bytes = require "dump_bytes"
local json = require "ghm.json"
local posix = require "ghm.posix"

local M = {}
local Browser = {}
Browser.__index = Browser

local function program()
    for _, name in ipairs { "chromium-headless-shell", "chromium", "google-chrome" } do
        local path, status = posix.capture("command -v " .. name)
        if status == 0 then
            return path
        end
    end
end

function M.missing()
    return not program() and "no Chromium: apt-get install chromium-headless-shell" or nil
end

function M.open()
    local folder = bytes.folder()
    local from, to = folder.path .. "/from", folder.path .. "/to"
    assert(select(2, posix.capture(("mkfifo %s %s"):format(from, to))) == 0)
    -- Root has no sandbox; what is opened here is our own. Our sanitizer is not Chromium's.
    os.execute(("env -u LD_PRELOAD timeout -k 5 120 %s --headless --no-sandbox --disable-gpu "
        .. "--hide-scrollbars --user-data-dir=%s/profile --remote-debugging-pipe 3<%s 4>%s "
        .. ">%s/said 2>&1 &"):format(program(), folder.path, to, from, folder.path))
    local self = setmetatable({ folder = folder, events = {}, last = 0 }, Browser)
    self.to = assert(io.open(to, "wb")) -- in the shell's order: each waits for its other end
    self.from = assert(io.open(from, "rb"))
    local target = self:call("Target.createTarget", { url = "about:blank" }).targetId
    self.session = self:call("Target.attachToTarget",
        { targetId = target, flatten = true }).sessionId
    for _, domain in ipairs { "Page", "Runtime", "Log", "Network" } do
        self:call(domain .. ".enable")
    end
    return self
end

function Browser:close()
    self:call "Browser.close"
    self.from:read "*a" -- until its end: Chromium still writes into its folder
    self.to:close()
    self.from:close()
    self.folder:remove()
end

-- The next message; events are kept.
function Browser:receive()
    local letters = {}
    while true do
        local letter = self.from:read(1)
        if letter == nil then
            local said = assert(posix.read_file(self.folder.path .. "/said"))
            error("Chromium has ended: " .. said:sub(-300))
        elseif letter == "\0" then
            break
        end
        letters[#letters + 1] = letter
    end
    local message = assert(json.decode(table.concat(letters)))
    if message.method then
        table.insert(self.events, message)
    end
    return message
end

function Browser:call(method, params)
    self.last = self.last + 1
    self.to:write(json.encode { id = self.last, method = method, sessionId = self.session,
        params = params }, "\0")
    self.to:flush()
    local answer
    repeat
        answer = self:receive()
    until answer.id == self.last
    if answer.error then
        error(method .. ": " .. answer.error.message)
    end
    return answer.result
end

local function seen(self, method)
    for _, event in ipairs(self.events) do
        if event.method == method then
            return true
        end
    end
    return false
end

function Browser:visit(url, look)
    self:call("Emulation.setDeviceMetricsOverride", { width = look.width, height = look.height,
        deviceScaleFactor = 1, mobile = look.width < 600 })
    self:call("Emulation.setEmulatedMedia", { media = look.print and "print" or "", features =
        { { name = "prefers-color-scheme", value = look.dark and "dark" or "light" } } })
    self:call("Emulation.setScriptExecutionDisabled", { value = look.scriptless or false })
    self.events, self.url = {}, url
    self:call("Page.navigate", { url = url })
    while not seen(self, "Page.loadEventFired") do
        self:receive()
    end
end

function Browser:eval(expression)
    local answer = self:call("Runtime.evaluate", { expression = expression, returnByValue = true,
        awaitPromise = true })
    if answer.exceptionDetails then
        error(expression .. ": " .. json.encode(answer.exceptionDetails))
    end
    return answer.result.value
end

-- A mouse button pressed in the middle of the first element that the selector finds.
function Browser:click(selector)
    local x, y = unpack(self:eval(([[(() => {
        const element = document.querySelector(%s);
        element.scrollIntoView({ block: "center", inline: "center" });
        const box = element.getBoundingClientRect();
        return [box.x + box.width / 2, box.y + box.height / 2];
    })()]]):format(json.encode(selector))))
    for _, kind in ipairs { "mousePressed", "mouseReleased" } do
        self:call("Input.dispatchMouseEvent", { type = kind, x = x, y = y, button = "left",
            clickCount = 1 })
    end
end

-- key: "Tab" or "Enter"
function Browser:press(key)
    local code = key == "Enter" and 13 or 9
    for _, kind in ipairs { "keyDown", "keyUp" } do
        self:call("Input.dispatchKeyEvent", { type = kind, key = key, code = key,
            windowsVirtualKeyCode = code,
            text = kind == "keyDown" and key == "Enter" and "\r" or "" })
    end
end

function Browser:screenshot()
    return self:call("Page.captureScreenshot", { format = "png",
        captureBeyondViewport = true }).data
end

function Browser:pdf()
    return self:call("Page.printToPDF", { printBackground = true }).data
end

local complaining = { ["Runtime.consoleAPICalled"] = true, ["Runtime.exceptionThrown"] = true,
    ["Log.entryAdded"] = true, ["Page.javascriptDialogOpening"] = true }

function Browser:complaints()
    self:eval "0" -- what happened before it has been told by now
    local list = {}
    for _, event in ipairs(self.events) do
        if complaining[event.method] then
            list[#list + 1] = json.encode(event.params)
        end
    end
    return list
end

function Browser:requests()
    local list = {}
    for _, event in ipairs(self.events) do
        local request = event.method == "Network.requestWillBeSent" and event.params.request
        if request and request.url ~= self.url then
            list[#list + 1] = request.url
        end
    end
    return list
end

return M
