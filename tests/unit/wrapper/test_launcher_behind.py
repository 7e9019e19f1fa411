"""Wrappers in front of compilers: the launcher and the client find the same program behind them."""

import os
import shutil
from pathlib import Path

import pytest

from distbuild.compiler import find
from distbuild.compiler.find import SKIP, find_behind, find_driver
from distbuild.protocol.errors import InfrastructureError
from tests.support.launcher import Launcher, done, local, program

pytestmark = pytest.mark.compiler

REAL = '#!/bin/sh\necho "$0|$DIST_BUILD_SKIP|$*"\n'


@pytest.fixture(autouse=True)
def _known_to_the_client(launcher: Launcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find, "_own_launcher", lambda: str(launcher.exe))


def link(launcher: Launcher, path: Path, how: str) -> Path:
    """The launcher at another path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if how == "symlink":
        path.symlink_to(launcher.exe)
    elif how == "hard link":
        os.link(launcher.exe, path)
    else:
        shutil.copy(launcher.exe, path)
    return path


def as_found(launcher: Launcher, name: str, path: str, **env: str) -> str:
    """What the launcher runs when nobody can be asked, which is what the client would run."""
    (launcher.directory / "dist_build_client").unlink(missing_ok=True)
    code, out, err = launcher.run(name, env={"PATH": path, **env})
    found = out.decode().partition("|")[0]
    try:
        mine = find_behind(name, str(launcher.directory), {"PATH": path, **env})
    except InfrastructureError:
        mine = None
    assert (found or None) == mine, err
    assert code == (0 if found else 127), err
    return os.path.relpath(found, launcher.directory) if found else err.decode().splitlines()[-1]


# --- called under another name -----------------------------------------------------------------


@pytest.mark.parametrize("how", ["symlink", "hard link", "copy"])
def test_called_as_gcc_it_asks_for_gcc(launcher: Launcher, how: str) -> None:
    gcc = link(launcher, launcher.directory / "links/gcc", how)
    with launcher.syncer(done(3)) as syncer:
        assert launcher.run("-c", "x.c", name=gcc) == (3, b"", b"")
        assert launcher.run("status", name=gcc)[0] == 3
        assert launcher.run(name=gcc)[0] == 3
    asked = [request.argv for request in syncer.requests]
    assert asked == [[b"gcc", b"-c", b"x.c"], [b"gcc", b"status"], [b"gcc"]]


def test_called_as_gcc_the_client_is_told_so(launcher: Launcher) -> None:
    gcc = link(launcher, launcher.directory / "links/x86_64-linux-gnu-g++", "symlink")
    told = b"dist_build_client\0x86_64-linux-gnu-g++\0-h\0"
    assert launcher.run("-h", name=gcc) == (42, told, b"")


def test_called_as_gcc_it_becomes_gcc_by_its_full_path(launcher: Launcher) -> None:
    """By the name gcc, gcc would look for its own parts beside the link."""
    gcc = link(launcher, launcher.directory / "links/gcc", "symlink")
    real = launcher.directory / "real/gcc"
    real.parent.mkdir()
    shutil.copy("/bin/sh", real)
    with launcher.syncer(local(os.fsencode(real))):
        path = f"{gcc.parent}:{real.parent}"
        said = launcher.run("-c", "echo $0", name=gcc, env={"PATH": path})
    assert said == (0, f"{real}\n".encode(), b"")


def test_in_front_twice_it_is_there_once(launcher: Launcher) -> None:
    """CC="dist_build.exe gcc" in the environment, and CMAKE_C_COMPILER_LAUNCHER as well."""
    with launcher.syncer(done(3)) as syncer:
        assert launcher.run(str(launcher.exe), "dist_build.exe", "gcc", "-c") == (3, b"", b"")
    assert [request.argv for request in syncer.requests] == [[b"gcc", b"-c"]]
    told = b"dist_build_client\0status\0"
    assert launcher.run("dist_build.exe", "status") == (42, told, b"")


# --- behind the wrappers -------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["symlink", "hard link", "copy"])
def test_itself_under_another_name_is_passed_over(launcher: Launcher, how: str) -> None:
    d = launcher.directory
    link(launcher, d / "links/gcc", how)
    assert as_found(launcher, "gcc", f"{d}/links") == "dist_build: gcc: command not found"
    program(d / "real/gcc", REAL)
    assert as_found(launcher, "gcc", f"{d}/links:{d}/real") == "real/gcc"
    assert as_found(launcher, f"{d}/links/gcc", f"{d}/links:{d}/real") == "real/gcc"


def test_other_wrappers_are_passed_over_unless_asked_for(launcher: Launcher) -> None:
    d = launcher.directory
    ccache = program(d / "bin/ccache", REAL)
    (d / "links").mkdir()
    (d / "links/gcc").symlink_to(ccache)
    program(d / "real/gcc", REAL)
    path = f"{d}/links:{d}/bin:{d}/real"
    assert as_found(launcher, "gcc", path) == "real/gcc"
    assert as_found(launcher, "./links/gcc", path) == "real/gcc"
    assert as_found(launcher, "ccache", path) == "bin/ccache"
    assert as_found(launcher, "bin/ccache", path) == "bin/ccache"


def test_what_cannot_be_run_is_passed_over(launcher: Launcher) -> None:
    d = launcher.directory
    program(d / "text/gcc", REAL).chmod(0o644)
    (d / "directory/gcc").mkdir(parents=True)
    program(d / "gcc", REAL)
    assert as_found(launcher, "gcc", f"{d}/text:{d}/directory:/none::/bin") == "gcc"
    assert as_found(launcher, "gcc", "text:directory:.") == "gcc"
    assert as_found(launcher, "text/gcc", ".") == "dist_build: text/gcc: command not found"


def test_programs_that_led_here_are_passed_over_by_what_they_are(launcher: Launcher) -> None:
    d = launcher.directory
    program(d / "first/gcc", REAL)
    (d / "again").symlink_to(d / "first")
    program(d / "second/gcc", REAL)
    path = f"{d}/again:{d}/first:{d}/second"
    assert as_found(launcher, "gcc", path) == "again/gcc"
    skip = {SKIP: f"/x:{d}/first/gcc"}
    assert as_found(launcher, "gcc", path, **skip) == "second/gcc"
    assert as_found(launcher, f"{d}/first/gcc", path, **skip) == "second/gcc"
    os.link(d / "first/gcc", d / "first/cc")
    assert as_found(launcher, "cc", path, **skip) == "again/cc"
    tried = f"dist_build: gcc: no compiler behind the wrappers on PATH (tried {skip[SKIP]})"
    assert as_found(launcher, "gcc", f"{d}/again:{d}/first", **skip) == tried


def test_a_gcc_that_runs_itself_gets_itself(launcher: Launcher) -> None:
    """gcc -flto runs the gcc of its own first word: another one could not read its objects."""
    d = launcher.directory
    for name in ("first", "second", "third"):
        program(d / name / "gcc", REAL)
    path, skip = f"{d}/first:{d}/second:{d}/third", f"{d}/first/gcc:{d}/second/gcc"
    assert as_found(launcher, "gcc", path, COLLECT_GCC="gcc", **{SKIP: skip}) == "second/gcc"
    assert as_found(launcher, "gcc", path, COLLECT_GCC="cc", **{SKIP: skip}) == "third/gcc"
    assert as_found(launcher, "gcc", path, COLLECT_GCC="gcc") == "first/gcc"


def test_a_loop_ends(launcher: Launcher) -> None:
    d = launcher.directory
    gcc = link(launcher, d / "links/gcc", "symlink")
    loop = program(d / "loop/gcc", f'#!/bin/sh\nCOLLECT_GCC=gcc exec {gcc} "$@"\n')
    with launcher.syncer(local(os.fsencode(loop))) as syncer:
        code, out, err = launcher.run("gcc", env={"PATH": f"{d}/links:{d}/loop:/bin"})
    assert (code, out) == (127, b"")
    assert err.startswith(b"dist_build: gcc: called through itself 16 times (")
    assert len(syncer.requests) == 1
    env = {SKIP: ":".join([str(loop)] * 16), "PATH": "/bin"}
    with pytest.raises(InfrastructureError, match="gcc: called through itself 16 times"):
        find_behind("gcc", "/", env)


def test_a_script_that_calls_back_is_asked_about_once(launcher: Launcher) -> None:
    d = launcher.directory
    script = program(d / "first/gcc", f'#!/bin/sh\nexec {launcher.exe} gcc "$@"\n')
    real = program(d / "second/gcc", REAL)
    with launcher.syncer(local(os.fsencode(script))) as syncer:
        done = launcher.run("gcc", "-c", env={"PATH": f"{d}/first:{d}/second:/bin"})
    assert done == (0, f"{real}|{script}:{real}|-c\n".encode(), b"")
    assert len(syncer.requests) == 1


def test_what_a_wrapper_runs_under_another_name_is_asked_about(launcher: Launcher) -> None:
    """ccache with dist_build.exe as its prefix command."""
    d = launcher.directory
    ccache = program(d / "bin/ccache", f"#!/bin/sh\nexec {launcher.exe} gcc -c x.c\n")
    with launcher.syncer(done(5)) as syncer:
        assert launcher.run("gcc", env={SKIP: str(ccache)})[0] == 5
    assert len(syncer.requests) == 1


def test_only_compilers_are_told_what_was_passed(launcher: Launcher) -> None:
    """The builds that others start may well pass the same compiler again."""
    for name, told in (("make", ""), ("clang-14", "+"), ("arm-none-eabi-g++", "+")):
        real = program(launcher.directory / name, '#!/bin/sh\necho "${DIST_BUILD_SKIP:++}"\n')
        with launcher.syncer(local(os.fsencode(real))):
            assert launcher.run(name) == (0, f"{told}\n".encode(), b"")
        (launcher.home / "syncer.sock").unlink()


def test_the_syncer_skips_what_it_is_told_to(tmp_path: Path) -> None:
    first, second = (str(program(tmp_path / name / "gcc", REAL)) for name in ("a", "b"))
    path = f"{tmp_path}/a:{tmp_path}/b"
    assert find_driver("gcc", "/", path) == first
    assert find_driver("gcc", "/", path, skip=[first]) == second
    assert find_driver("gcc", "/", path, skip=[first, second]) is None
