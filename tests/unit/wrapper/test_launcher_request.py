"""The native launcher: what it tells the syncer, and where it looks for it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from distbuild.command import probe
from distbuild.protocol.messages import PROTOCOL_VERSION, Terminal, Window
from distbuild.system.process import views_of_files
from tests.support.cluster import SRC
from tests.support.launcher import Launcher, done
from tests.support.namespaces import HERE
from tests.support.screen import Screen

pytestmark = pytest.mark.compiler

GCC = ["gcc", "-c", "x.c"]
#: What the Python client finds out.
ASK = (
    "import sys; sys.path.insert(0, sys.argv[1])\n"
    "from distbuild.wrapper.syncer_client import find_terminal; print(find_terminal())"
)


def test_the_command_is_handed_over_as_it_is(launcher: Launcher) -> None:
    words = [b"g++", b"-DX=a b", b"-DQ=\"'\\", b"", b"-I\xff\xfe/\xc3\xa4", b"x.c\n"]
    with launcher.syncer(done()) as syncer:
        assert launcher.run(*words) == (0, b"", b"")
    (request,) = syncer.requests
    assert request.argv == words
    assert request.cwd == os.fsencode(launcher.directory)
    assert (request.version, request.terminal) == (PROTOCOL_VERSION, None)
    assert request.place in views_of_files()
    assert syncer.heads[0].startswith(b"POST /api/v1/run HTTP/1.1\r\n")
    assert b"\r\nContent-Type: application/msgpack\r\n" in syncer.heads[0]


@pytest.mark.parametrize("ask", ["launcher", "client"])
def test_another_view_of_the_files_has_another_name(
    launcher: Launcher, ask: str, require_tool: Callable[[str], str]
) -> None:
    """In a namespace of its own with the same files, as a container may have it."""
    elsewhere = [require_tool("bwrap"), *HERE[1:]]
    if ask == "client":
        code = "from distbuild.system.process import views_of_files; print(views_of_files())"
        words = [*elsewhere, sys.executable, "-c", code]
        shown = subprocess.run(words, cwd=SRC, capture_output=True, text=True, check=True).stdout
        assert shown.count("mount:") == 1
        assert not any(repr(name) in shown for name in views_of_files())
        return
    with launcher.syncer(done()) as syncer:
        command = [*elsewhere, str(launcher.exe), *GCC]
        subprocess.run(command, env=launcher.environment({}), check=True, timeout=60)
    (request,) = syncer.requests
    assert request.place not in [b"", *views_of_files()]


def test_a_long_command_arrives_whole(launcher: Launcher) -> None:
    words = [b"gcc", *(b"-D%d=%s" % (i, b"x" * 500) for i in range(2000))]
    with launcher.syncer(done()) as syncer:
        assert launcher.run(*words)[0] == 0
    assert syncer.requests[0].argv == words


def _names() -> set[str]:
    """What decides about a command, what is like it by name, and some that builds have set."""
    telling = {*probe.ALLOWED_ENV, "LC_ALL", "LC_CTYPE", "LC_", "PATH"}
    telling |= {*probe._LOCATES, *probe._OBSTACLES, *probe._FOR_WINDOWS}
    alike = {f"X{name}" for name in telling} | {f"{name}X" for name in telling}
    alike |= {name[:-1] for name in telling} | {name.lower() for name in telling}
    others = "CFLAGS CXXFLAGS LD_DEBUG LIBRARY_PATH LIB INCLUDE CL COLLECT_GCC TMPDIR LC USER"
    return telling | alike | set(others.split())


def test_of_the_environment_it_tells_what_the_client_tells(launcher: Launcher) -> None:
    env = {name: f"{name} \udcff=" for name in sorted(_names())}
    env = launcher.environment({**env, "EMPTY": "", "LC_EMPTY": ""})
    with launcher.syncer(done()) as syncer:
        assert launcher.run(*GCC, env=env)[0] == 0
    expected = probe.telling_environment(env)
    assert len(expected) > len(probe.ALLOWED_ENV)
    assert syncer.requests[0].env == {n: os.fsencode(value) for n, value in expected.items()}


def test_the_directory_is_the_one_that_the_shell_shows(launcher: Launcher, tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    link.symlink_to(real)
    with launcher.syncer(done()) as syncer:
        for pwd in (link, real, tmp_path, "link", ""):
            launcher.run(*GCC, cwd=real, env={"PWD": str(pwd)})
    shown = [request.cwd for request in syncer.requests]
    assert shown == [os.fsencode(path) for path in (link, real, real, real, real)]


@pytest.mark.parametrize("pwd", ["/proc/self/cwd", "/proc/self/./cwd", "/proc", "/proce", "/p"])
def test_a_directory_below_proc_is_told_as_the_client_tells_it(
    pwd: str, launcher: Launcher, tmp_path: Path
) -> None:
    env = launcher.environment({"PWD": pwd})
    with launcher.syncer(done()) as syncer:
        assert launcher.run(*GCC, cwd=tmp_path, env=env)[0] == 0
    (request,) = syncer.requests
    assert request.cwd == os.fsencode(tmp_path)
    assert request.env.get("PWD", b"").decode() == probe.telling_environment(env).get("PWD", "")


def test_the_umask_is_told(launcher: Launcher) -> None:
    before = os.umask(0o027)
    try:
        with launcher.syncer(done()) as syncer:
            assert launcher.run(*GCC)[0] == 0
    finally:
        os.umask(before)
    assert syncer.requests[0].umask == 0o027
    assert syncer.requests[0].group == os.getegid()


@pytest.mark.parametrize(
    ("screen", "terminal"),
    [
        (Screen((80, 24), stdin=False), Terminal(Window(80, 24))),
        (Screen((200, 50), stdin=True), Terminal(Window(200, 50), Window(200, 50))),
        (Screen((0, 0), stdin=(65535, 1)), Terminal(Window(), Window(65535, 1))),
    ],
)
def test_terminals_are_told_with_their_sizes(
    screen: Screen, terminal: Terminal, launcher: Launcher
) -> None:
    client = [sys.executable, "-c", ASK, str(SRC)]
    with launcher.syncer(done()) as syncer:
        screen.run([launcher.exe, *GCC], launcher.directory, launcher.environment())
    said = screen.run(client, launcher.directory, launcher.environment()).stdout
    assert syncer.requests[0].terminal == terminal
    assert said.decode().strip() == repr(terminal)


@pytest.mark.parametrize("home", ["~/h", "~", "relative/h", "d" * 100 + "/" + "e" * 100])
def test_the_home_is_where_the_client_looks(home: str, launcher: Launcher) -> None:
    there = launcher.directory / home.replace("~", "user")
    there.mkdir(parents=True)
    env = {"DIST_BUILD_HOME": home, "HOME": str(launcher.directory / "user")}
    with launcher.syncer(done(7), home=there):
        assert launcher.run(*GCC, env=env) == (7, b"", b"")


def test_without_a_named_home_it_is_in_the_users(launcher: Launcher) -> None:
    (launcher.directory / "dist_build").mkdir()
    env = {"DIST_BUILD_HOME": "", "HOME": str(launcher.directory)}
    with launcher.syncer(done(7), home=launcher.directory / "dist_build"):
        assert launcher.run(*GCC, env=env) == (7, b"", b"")


def test_an_odd_home_is_left_to_the_client(launcher: Launcher) -> None:
    for home in ("~nobody/h", "~", "x" * 5000):
        assert launcher.run(*GCC, env={"DIST_BUILD_HOME": home, "HOME": ""})[0] == 42
