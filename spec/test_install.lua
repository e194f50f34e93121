-- make install into a folder of its own: the command ghm, the Lua modules and the C library work
-- from there, and make uninstall takes all of it away.

local lu = require "luaunit"
local bytes = require "dump_bytes"
local posix = require "ghm.posix"
local scripts = require "scripts"

local TestInstall = {}
_G.TestInstall = TestInstall

local PREFIX = "/opt/tools"
local folder, place -- DESTDIR, and where the user is

local function make(target, destination)
    local output, status = posix.capture(("make -C %s --no-print-directory DEPS=: %s DESTDIR=%s "
        .. "PREFIX=%s 2>&1"):format(posix.quote(scripts.root), target,
        posix.quote(destination), PREFIX))
    lu.assertEquals(status, 0, output)
end

function TestInstall.setupClass()
    folder, place = bytes.folder(), scripts.place()
    make("install", folder.path)
end

function TestInstall.teardownClass()
    folder:remove()
    place:remove()
end

local function staged(path)
    return folder.path .. PREFIX .. path
end

-- Runs a command in the folder of `place`, with a PATH that has ghm -> output, exit status.
local function run(command, environment)
    return posix.capture(("cd %s && PATH=%s:$PATH %s %s 2>&1"):format(
        posix.quote(place.folder.path), posix.quote(staged "/bin"), environment or "", command))
end

function TestInstall.test_ghm_runs_the_scripts_from_any_folder()
    local output, status = run "ghm sweep bins bins=5,10 --report"
    lu.assertEquals(status, 0, output)
    lu.assertStrContains(output, "8 calls of cls_logits")
    lu.assertStrContains(place:listing "runs/latest/plots", "density.svg")
    lu.assertStrContains(place:read "runs/latest/report.html",
        "\nghm sweep bins bins=5,10 --report</code>")
    lu.assertNotStrContains(place:read "runs/latest/provenance.json", '"git"')
    local rows = place:read "runs/latest/results.csv"
    place:fine("sweep_bins", { "bins=5,10", "-q" })
    lu.assertEquals(place:read "runs/latest/results.csv", rows)
end

function TestInstall.test_ghm_works_through_a_link()
    posix.capture(("ln -s %s %s/g"):format(posix.quote(staged "/bin/ghm"), place.folder.path))
    local output, status = run "./g evaluate --json | head -n 1"
    lu.assertEquals(status, 0)
    lu.assertStrContains(output, '"step":"step_000000.npz"')
end

function TestInstall.test_help_lists_every_script_with_its_question()
    local output, status = run "ghm"
    lu.assertEquals(status, 0)
    lu.assertEquals(run "ghm help", output)
    for name in posix.capture("ls " .. scripts.root .. "/experiments"):gmatch "([%w_]+)%.lua" do
        lu.assertStrMatches(output, ".*\n  " .. name:gsub("_", " ") .. "  +%u.*")
    end
    lu.assertStrContains(run "ghm help sweep bins", "Usage: ghm sweep bins [DUMP...]")
    lu.assertStrContains(run "ghm version", "ghm 0.1.0 (")
end

local refusals = {
    { "ghm swep bins", "error: nothing is called 'swep bins': did you mean 'sweep bins'?" },
    { "ghm sweep", "error: nothing is called 'sweep': did you mean 'sweep bins'?" },
    { "ghm evalute x", "error: nothing is called 'evalute': did you mean 'evaluate'?" },
    { "ghm sweep bins binz=3", "error: unknown key 'binz': did you mean 'bins'?" },
}

function TestInstall.test_what_ghm_does_not_know_is_told_in_one_line()
    for _, case in ipairs(refusals) do
        lu.assertEquals({ run(case[1]) }, { case[2], 2 })
    end
end

local completions = {
    { "ghm swe", { "sweep" } },
    { "ghm sweep b", { "bins" } },
    { "ghm sweep bins b", { "bins=", "beta_max=" } },
    { "ghm sweep bins x.npz --rep", { "--report" } },
    { "ghm inspect --rep", {} }, -- it has none
    { "ghm inspect exp", {} }, -- bash then looks for files
    { "ghm nothing ", {} },
}

function TestInstall.test_bash_completes_names_keys_and_options()
    for _, case in ipairs(completions) do
        local output, status = run(("bash -c %s"):format(posix.quote(([[
            source %s
            read -ra COMP_WORDS <<<%s
            case %s in *' ') COMP_WORDS+=('') ;; esac
            COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
            _ghm
            printf '%%s ' "${COMPREPLY[@]}"]]):format(
            posix.quote(staged "/share/bash-completion/completions/ghm"), posix.quote(case[1]),
            posix.quote(case[1])))))
        lu.assertEquals(status, 0, output)
        local words = {}
        for word in output:gmatch "%S+" do
            words[#words + 1] = word
        end
        lu.assertEquals(words, case[2], case[1])
    end
end

function TestInstall.test_what_ghm_tells_to_run_is_ghm()
    local output = run "ghm sweep bins --loss ghmr mu=1e-4 bins=5 --plot none -q"
    lu.assertStrContains(output:gsub("%s+", " "), "A larger mu; ghm sweep mu finds one.")
    lu.assertStrContains(run "ghm sweep bins -h":gsub("%s+", " "), "to add them up: ghm merge ")
    lu.assertStrContains(run "ghm sketch -h":gsub("%s+", " "), "at home: ghm sweep bins run.sketch")
end

function TestInstall.test_lua_finds_the_modules()
    local path = staged "/share/lua/5.1"
    local output = run([[luajit -e 'local ghm = require "ghm"
        print(ghm.version, debug.getinfo(ghm.GHMC, "S").source)']],
        ("LUA_PATH=%s"):format(posix.quote(path .. "/?.lua;" .. path .. "/?/init.lua")))
    lu.assertEquals(output, "0.1.0\t@" .. path .. "/ghm/losses.lua")
end

local program = [[
#include <ghm.h>
#include <stdio.h>

int main(void)
{
    float logits[4] = {0, 0, 0, 0}, targets[4] = {0, 1, 0, 0};
    ghm_batch batch = {.rows = 2, .cols = 2, .pred = logits, .target = targets};
    ghm_device *device;
    double loss;
    int status = ghm_device_open("cpu", 1, &device)
                 || ghm_exact_density(device, &batch, 1, 1, NULL, &loss);
    printf("%s %d %.4f\n", ghm_version(), status, loss);
    ghm_device_free(device);
}
]]

function TestInstall.test_ten_lines_of_c_run_through_pkg_config()
    if select(2, posix.capture "command -v pkg-config") ~= 0 then
        lu.skip "pkg-config is not installed: apt-get install pkg-config"
    elseif os.getenv "LD_PRELOAD" then
        lu.skip "the library is sanitized, the program would not be"
    end
    place.folder:write("ten.c", program)
    local output, status = run(("cc -std=c11 -Wall -Wextra -Werror -o ten ten.c $(%s %s "
        .. "pkg-config --cflags --libs ghm) && LD_LIBRARY_PATH=%s ./ten"):format(
        "PKG_CONFIG_PATH=" .. staged "/lib/pkgconfig", "PKG_CONFIG_SYSROOT_DIR=" .. folder.path,
        staged "/lib"))
    -- every g is 0.5 and in the window of every other, so GD = N and the loss is ln 2
    lu.assertEquals({ output, status }, { "0.1.0 0 0.6931", 0 })
end

function TestInstall.test_library_has_its_name_and_links()
    local library = posix.quote(staged "/lib/libghm.so")
    lu.assertStrContains(posix.capture("readelf -d " .. library), "soname: [libghm.so.0]")
    lu.assertEquals(posix.capture(("cd %s && readlink libghm.so.0"):format(
        posix.quote(staged "/lib"))), "libghm.so.0.1.0")
end

function TestInstall.test_uninstall_leaves_nothing_behind()
    local other = folder.path .. "/a blank; and more" -- which splits nothing
    make("install", other)
    local listing = ("cd %s && find . ! -type d -o -name ghm"):format(posix.quote(other))
    lu.assertStrContains(posix.capture(listing), "./opt/tools/bin/ghm")
    make("uninstall", other)
    lu.assertEquals(posix.capture(listing), "")
end
