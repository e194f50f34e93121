-- The process of the peers (experiments/bench_peers.py): started, asked line by line, ended.
--
--   child, reason = bench_child.start(python, script, folder, threads)
--   reply = child:ask { ["do"] = "time", ... }     table; fault "failed" once the process is gone
--   child:stop()

local clib = require "ghm.clib"
local fault = require "ghm.fault"
local json = require "ghm.json"
local posix = require "ghm.posix"
local text = require "ghm.show.text"

local M = {}
local Child = {}
Child.__index = Child

-- PyTorch keeps its freed memory with these; otherwise each temporary of 40 MB faults its pages
-- again and it looks three times slower than it is.
local ALLOCATOR = "MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=17179869184 MALLOC_TOP_PAD_=536870912"

local function last_words(self)
    local words = posix.read_file(self.log) or ""
    return text.one_line(words:match "([^\n]+)%s*$" or "it said nothing")
end

-- One request, one answer; an answer with `error` is the caller's to judge.
function Child:ask(request)
    self.requests:write(json.encode(request), "\n")
    self.requests:flush()
    local line = self.replies:read "*l"
    local reply = line and json.decode(line)
    if type(reply) ~= "table" and clib.interrupted() then
        fault.raise("interrupted", "interrupted") -- Ctrl-C ends both processes
    elseif type(reply) ~= "table" then
        fault.raise("failed", "the process of the peers ended: %s", last_words(self))
    end
    return reply
end

-- folder: where its pipe and its log may lie. threads: the most it will be asked to use.
-- nil and the reason where python or numpy is missing; child.versions tells what there is.
function M.start(python, script, folder, threads)
    local _, missing = posix.capture("command -v " .. posix.quote(python))
    if missing ~= 0 then
        return nil, "there is no " .. python .. ": make bench-peers"
    end
    local self = setmetatable({ log = folder .. "/peers.log" }, Child)
    local pipe = folder .. "/requests"
    local said, status = posix.capture("mkfifo " .. posix.quote(pipe) .. " 2>&1")
    if status ~= 0 then
        fault.raise("failed", "cannot make a pipe: %s", text.one_line(said))
    end
    self.replies = assert(io.popen(("OMP_NUM_THREADS=%d %s exec %s %s <%s 2>%s"):format(threads,
        ALLOCATOR, posix.quote(python), posix.quote(script), posix.quote(pipe),
        posix.quote(self.log))))
    -- After the process began, or it would inherit this end and never see the other one close.
    -- "r+" opens a pipe without waiting for its reader: one that never comes must not hang us.
    self.requests = assert(io.open(pipe, "r+"))
    local ok, hello = pcall(self.ask, self, { ["do"] = "hello" })
    if not ok then
        self:stop()
        return nil, fault.is(hello) and hello.message or hello
    end
    self.versions = hello
    return self
end

function Child:stop()
    if self.requests then
        self.requests:close()
        self.replies:close()
        self.requests = nil
    end
end

return M
