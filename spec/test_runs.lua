-- Run folders, files that appear whole or not at all, and provenance.

local lu = require "luaunit"
local csv = require "ghm.show.csv"
local fault = require "ghm.fault"
local json = require "ghm.json"
local posix = require "ghm.posix"
local provenance = require "ghm.runner.provenance"
local run = require "ghm.runner.runs"

local TestRun = {}
_G.TestRun = TestRun

local folder

function TestRun.setUp()
    folder = os.tmpname()
    os.remove(folder)
    assert(posix.make_folder(folder))
end

function TestRun.tearDown()
    posix.capture("chmod -R u+w " .. posix.quote(folder) .. "; rm -rf " .. posix.quote(folder))
end

local function contents(path)
    return assert(posix.read_file(path))
end

local function listing(path)
    return (posix.capture("ls -A " .. posix.quote(path)))
end

function TestRun.test_folder_is_named_by_time_and_experiment()
    local r = run.create { out = folder .. "/a/b", experiment = "sweep_bins" }
    lu.assertStrMatches(r.dir:sub(#folder + 6),
        "%d%d%d%d%d%d%d%d%-%d%d%d%d%d%d%-sweep_bins%-[a-z0-9][a-z0-9][a-z0-9][a-z0-9]")
    lu.assertEquals(listing(r.dir), "run.json")
end

function TestRun.test_run_json_says_how_to_get_it_again()
    local info = { argv = { "bins=5" }, axes = { bins = { 5, 10 } }, seed = 3 }
    local r = run.create { out = folder, experiment = "sweep_bins", info = info }
    local back = assert(json.decode(contents(r:path "run.json")))
    lu.assertEquals(back.schema, run.SCHEMA)
    lu.assertEquals(back.argv, { "bins=5" })
    lu.assertEquals(back.axes.bins, { 5, 10 })
    lu.assertEquals(back.seed, 3)
    lu.assertNil(info.schema) -- the caller's table is left alone
end

function TestRun.test_latest_points_to_the_newest()
    run.create { out = folder, experiment = "one" }
    local second = run.create { out = folder, experiment = "two" }
    lu.assertEquals(posix.real_path(folder .. "/latest"), posix.real_path(second.dir))
    lu.assertEquals(run.open("latest", folder).info.experiment, "two")
    lu.assertNil(listing(folder):find "tmp")
end

function TestRun.test_runs_of_the_same_second_do_not_meet()
    local seen = {}
    for _ = 1, 30 do
        local r = run.create { out = folder, experiment = "x" }
        lu.assertNil(seen[r.dir])
        seen[r.dir] = true
    end
end

function TestRun.test_label_cannot_leave_the_folder()
    for _, name in ipairs { "../../etc", "a/b", ".hidden", "", "x y;z`w`", ("n"):rep(500) } do
        local r = run.create { out = folder, experiment = "x", name = name }
        lu.assertEquals(r.dir:match "^(.*)/", folder)
        lu.assertStrMatches(r.dir:match "[^/]*$", "%d+%-%d+%-[%w._-]+")
    end
end

function TestRun.test_files_of_a_run_are_written_with_their_folders()
    local r = run.create { out = folder, experiment = "x" }
    r:write("plots/density.gp", "plot x\n")
    r:write_csv("results.csv", { { bins = 5 } }, { "bins" })
    r:write_json("provenance.json", { a = 1 })
    lu.assertEquals(contents(r:path "plots/density.gp"), "plot x\n")
    lu.assertEquals(csv.read(r:path "results.csv")[1].bins, 5)
    lu.assertEquals(json.decode(contents(r:path "provenance.json")), { a = 1 })
end

local function fails(code, f, ...)
    local ok, problem = pcall(f, ...)
    lu.assertFalse(ok)
    lu.assertTrue(fault.is(problem), tostring(problem))
    lu.assertEquals(fault.exit_code(problem), code)
    lu.assertNil(problem.message:find "\n")
    return problem.message
end

function TestRun.test_place_that_is_no_folder_is_one_fault()
    posix.write_file(folder .. "/file", "x")
    lu.assertStrContains(fails(1, run.create, { out = folder .. "/file", experiment = "x" }),
        "cannot make folder")
    fails(1, run.create, { out = "/proc/nothing/here", experiment = "x" })
    lu.assertEquals(contents(folder .. "/file"), "x")
end

function TestRun.test_a_file_is_read_to_the_byte_or_the_reason_is_told()
    local all = "\0\r\n\255\26last"
    for _, text in ipairs { all, "" } do
        posix.write_file(folder .. "/file", text)
        lu.assertEquals({ posix.read_file(folder .. "/file") }, { text })
    end
    lu.assertEquals({ posix.read_file(folder) }, { nil, folder .. ": Is a directory" })
    lu.assertEquals({ posix.read_file(folder .. "/no") },
        { nil, folder .. "/no: No such file or directory" })
end

-- A file size limit stands in for a full disk: the write fails half-way, as it does there.
local function limited(body)
    local path = folder .. "/limited.lua"
    posix.write_file(path, ("package.path = %q\n"):format(package.path) .. body)
    return posix.capture(("trap '' XFSZ; ulimit -f 8; luajit %s 2>&1"):format(posix.quote(path)))
end

function TestRun.test_full_disk_leaves_the_old_file_and_no_other()
    posix.write_file(folder .. "/kept", "old")
    local said = limited(([[
        local ok, problem = pcall(require("ghm.posix").write_file, %q, ("x"):rep(1e6))
        print(ok, tostring(problem))]]):format(folder .. "/kept"))
    lu.assertStrContains(said, "false\tcannot write")
    lu.assertEquals(contents(folder .. "/kept"), "old")
    lu.assertEquals(listing(folder), "kept\nlimited.lua")
end

function TestRun.test_pipes_and_links_stay_what_they_are()
    local here = "cd " .. posix.quote(folder)
    posix.write_file(folder .. "/kept", "old")
    posix.capture(here .. "; mkfifo pipe; ln -s kept link; cat pipe >got &")
    posix.write_file(folder .. "/pipe", "piped")
    posix.write_file(folder .. "/link", "new")
    posix.capture(here .. "; while [ ! -s got ]; do sleep 0.01; done")
    lu.assertEquals(contents(folder .. "/kept"), "new")
    lu.assertEquals(contents(folder .. "/got"), "piped")
    lu.assertEquals(posix.capture(here .. "; test -p pipe && test -L link; echo $?; ls"),
        "0\ngot\nkept\nlink\npipe")
end

function TestRun.test_run_json_that_does_not_fit_leaves_no_folder()
    local said = limited(([[
        local info = { note = ("x"):rep(1e6) }
        local ok, problem = pcall(require("ghm.runner.runs").create,
            { out = %q, experiment = "x", info = info })
        print(ok, tostring(problem))]]):format(folder .. "/runs"))
    lu.assertStrContains(said, "false\tcannot write")
    lu.assertEquals(listing(folder .. "/runs"), "")
end

function TestRun.test_folder_that_is_no_run_is_a_mismatch()
    lu.assertStrContains(fails(5, run.open, folder), "no run.json")
    posix.write_file(folder .. "/run.json", '{"schema": 99}')
    lu.assertStrContains(fails(5, run.open, folder), "schema 99")
    posix.write_file(folder .. "/run.json", '{"schema": ')
    lu.assertStrContains(fails(5, run.open, folder), "byte")
    posix.write_file(folder .. "/run.json", '[1]')
    fails(5, run.open, folder)
end

function TestRun.test_sha256_of_any_name()
    local empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    for _, name in ipairs { "plain", "it's $(x) `y` \"z\"", "back\\slash", "-n", "new\nline" } do
        posix.write_file(folder .. "/" .. name, "")
        lu.assertEquals(provenance.sha256(folder .. "/" .. name), empty)
    end
    lu.assertNil(provenance.sha256(folder .. "/missing"))
end

function TestRun.test_sha256_is_the_same_in_this_process_and_in_one_of_its_own()
    local path, before = folder .. "/bytes", provenance.crypto
    for _, n in ipairs { 1, 55, 56, 64, 1e5, 2 ^ 22, 2 ^ 22 + 1 } do -- about a block; what is small
        posix.write_file(path, ("\0a\255"):rep(math.ceil(n / 3)):sub(1, n))
        local expected = posix.capture("sha256sum <" .. posix.quote(path)):match "^%x+"
        lu.assertEquals(provenance.sha256(path), expected, n)
        local crypto = provenance.crypto
        provenance.crypto = false
        lu.assertEquals(provenance.sha256(path), expected, n)
        provenance.crypto = crypto
    end
    provenance.crypto = before
end

function TestRun.test_small_files_are_hashed_without_a_process()
    posix.write_file(folder .. "/small", "abc")
    provenance.sha256(folder .. "/small")
    lu.skipIf(not provenance.crypto, "there is no libcrypto")
    local popen, hash = io.popen, nil
    io.popen = error -- luacheck: ignore
    local ok, problem = pcall(function()
        hash = provenance.sha256(folder .. "/small")
    end)
    io.popen = popen -- luacheck: ignore
    lu.assertEquals({ ok, problem, hash }, { true, nil,
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" })
end

function TestRun.test_provenance_names_what_it_can()
    posix.write_file(folder .. "/dump", "")
    local facts = provenance.collect { dumps = { { path = folder .. "/dump" } }, device = "cpu",
        threads = 2, library = { version = "1" } }
    lu.assertStrContains(facts.luajit, "LuaJIT")
    lu.assertEquals(#facts.dumps[1].sha256, 64)
    lu.assertEquals(facts.device, "cpu")
    lu.assertStrMatches(facts.date, "%d+%-%d+%-%d+T%d+:%d+:%d+Z")
    lu.assertNotNil(json.encode(facts))
end

function TestRun.test_shell_words_are_quoted()
    local nasty = "a'b \"c\" $(echo x) `echo y` \\ \n*"
    lu.assertEquals((posix.capture("printf %s " .. posix.quote(nasty))), nasty)
end

function TestRun.test_exit_status_of_a_command_is_told()
    local output, status = posix.capture "echo one; echo two; exit 3"
    lu.assertEquals({ output, status }, { "one\ntwo", 3 })
    lu.assertEquals(select(2, posix.capture "no-such-command-here 2>/dev/null"), 127)
end
