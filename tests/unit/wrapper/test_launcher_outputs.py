"""The native launcher puts in place what the syncer has written; it takes a syncer's silence only
for a while; it says each reason once a build."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from distbuild import write_outputs as outputs_module
from distbuild.http.response import INTERIM
from distbuild.protocol.codec import pack
from distbuild.protocol.messages import OutputFile
from distbuild.write_outputs import PreparedOutputs, Rights
from tests.support.launcher import Launcher, done, local, program
from tests.unit.wrapper.test_launcher import ADVICE, BY_CLIENT, GCC

pytestmark = pytest.mark.compiler

OTHER_FILES = 2  # by design, but not what the user expects
OBJECT = b"o\0\xff" * 1000


def prepared(
    path: Path, data: bytes = OBJECT, *, removed: tuple[Path, ...] = (), into_old: bool = False
) -> PreparedOutputs:
    name = os.fsencode(path)
    return PreparedOutputs(
        [OutputFile(name, 0o644, pack(data))],
        [os.fsencode(one) for one in removed],
        Rights(0o027),
        [name] if into_old else [],
    )


def run(launcher: Launcher, made: PreparedOutputs, **env: str) -> tuple[int, bytes, bytes]:
    answer = done(3, b"out", b"err", outputs=made.listing())
    with launcher.syncer(answer, files=made.descriptors()):
        try:
            return launcher.run(*GCC, env=env)
        finally:
            made.close()


@pytest.fixture(params=["unnamed", "temporary"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "temporary":
        monkeypatch.setattr(outputs_module, "_TMPFILE", 0)
    return str(request.param)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    directory = tmp_path / "a \udcff%s'\"d"
    directory.mkdir()
    return directory / ("x" * 200 + ".o")


@pytest.mark.parametrize("old", ["", "file", "link", "read only", "hard link"])
def test_outputs_take_their_places(
    launcher: Launcher, target: Path, tmp_path: Path, kind: str, old: str
) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"other")
    if old in ("file", "read only"):
        target.write_bytes(b"longer than the other one" * 1000)
        target.chmod(0o444 if old == "read only" else 0o600)
    elif old:
        (target.symlink_to if old == "link" else target.hardlink_to)(other)
    gone = tmp_path / "gone.d"
    gone.write_bytes(b"")
    assert run(launcher, prepared(target, removed=(gone, tmp_path / "none"))) == (3, b"out", b"err")
    assert (target.read_bytes(), target.is_symlink()) == (OBJECT, False)
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert target.stat().st_nlink == 1
    assert other.read_bytes() == b"other"
    assert not gone.exists()
    assert [path.name for path in target.parent.iterdir()] == [target.name]


@pytest.mark.parametrize("kept", ["mode", "name"])
def test_an_old_file_that_the_compiler_would_write_into_stays_the_same_one(
    launcher: Launcher, target: Path, tmp_path: Path, kind: str, kept: str
) -> None:
    target.write_bytes(b"longer" * 10_000)
    if kept == "mode":
        target.chmod(0o604)
    else:
        (tmp_path / "other").hardlink_to(target)
    before = target.stat()
    assert run(launcher, prepared(target, into_old=True))[0] == 3
    after = target.stat()
    assert target.read_bytes() == OBJECT
    assert (after.st_ino, after.st_mode, after.st_nlink) == (
        before.st_ino,
        before.st_mode,
        before.st_nlink,
    )


def test_an_old_file_that_is_as_a_new_one_is_replaced(
    launcher: Launcher, target: Path, kind: str
) -> None:
    target.write_bytes(b"old")
    target.chmod(0o640)
    before = target.stat().st_ino
    with open(target, "rb") as open_file:
        assert run(launcher, prepared(target, into_old=True))[0] == 3
        assert open_file.read() == b"old"
        assert target.stat().st_ino != before


def test_a_closed_stream_does_not_become_an_output(launcher: Launcher, tmp_path: Path) -> None:
    """Descriptors take the lowest numbers that are free."""
    script = program(launcher.directory / "run", '#!/bin/sh\nexec "$@" >&- 2>&- <&-\n')
    targets = [tmp_path / f"x{n}.o" for n in range(3)]
    made = PreparedOutputs(
        [OutputFile(os.fsencode(t), 0o644, pack(OBJECT)) for t in targets], [], Rights(0o022)
    )
    answer = done(3, b"out", b"err", outputs=made.listing())
    with launcher.syncer(answer, files=made.descriptors()):
        assert launcher.run(launcher.exe.as_posix(), *GCC, name=script) == (3, b"", b"")
    made.close()
    assert [t.read_bytes() for t in targets] == [OBJECT] * 3


def in_a_directory_that_is_gone(target: Path) -> PreparedOutputs:
    made = prepared(target)
    target.parent.rmdir()
    return made


def where_a_directory_is(target: Path) -> PreparedOutputs:
    target.mkdir()
    return prepared(target)


@pytest.mark.parametrize("make", [in_a_directory_that_is_gone, where_a_directory_is])
def test_what_cannot_be_put_in_place_is_compiled_here_without_asking_again(
    launcher: Launcher, target: Path, make: Callable[[Path], PreparedOutputs]
) -> None:
    program(launcher.directory / "dist_build_client", '#!/bin/sh\necho "$DIST_BUILD_OBSTACLE"\n')
    code, out, err = run(launcher, make(target))
    assert out.startswith(b"output_not_written: cannot write the result: ")
    assert (code, err) == (0, b"")


@pytest.mark.parametrize(
    "listing",
    [
        b"f\0/tmp/none\0f\0/tmp/none2\0",
        b"",
        b"f\0/tmp/none",
        b"f\0none\0",
        b"x\0/tmp/none\0",
        b"\0\0/tmp/none\0",
        b"f",
        b"f/tmp/none",
        b"\0" * 3,
    ],
)
def test_a_list_that_is_none_is_the_clients(
    launcher: Launcher, tmp_path: Path, listing: bytes
) -> None:
    listing = listing.replace(b"/tmp", os.fsencode(tmp_path))
    made = prepared(tmp_path / "x.o")
    with launcher.syncer(done(outputs=listing), files=made.descriptors()):
        assert launcher.run(*GCC) == BY_CLIENT
    made.close()
    assert not (tmp_path / "none2").exists()
    assert not (tmp_path / "x.o").exists()


# --- silence ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [7, 1_000_000])
def test_interim_answers_are_skipped(launcher: Launcher, size: int) -> None:
    whole = INTERIM * 1000 + b"HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n" + done(3, b"o", b"e")
    chunks = [whole[i : i + size] for i in range(0, len(whole), size)]
    with launcher.syncer(*chunks) as syncer:
        assert launcher.run(*GCC) == (3, b"o", b"e")
    assert len(syncer.requests) == 1


def test_a_syncer_that_ends_after_an_interim_answer_is_asked_again(launcher: Launcher) -> None:
    with launcher.syncer(INTERIM, b"") as syncer:
        assert launcher.run(*GCC) == BY_CLIENT
    assert len(syncer.requests) == 3


def silent(launcher: Launcher) -> Path:
    """An earlier wrapper has found the syncer silent, so this one looks once."""
    mark = launcher.home / "state/silent"
    mark.parent.mkdir()
    mark.touch()
    return mark


@pytest.mark.parametrize("sent", [b"", INTERIM, done()[:-1], done(0, b"out")[:-1]])
def test_a_silent_syncer_leaves_a_local_compile(launcher: Launcher, sent: bytes) -> None:
    silent(launcher)
    program(launcher.directory / "gcc", '#!/bin/sh\necho "$*|$DIST_BUILD_IN_TURN"\nexit 9\n')
    path = {"PATH": f"{launcher.directory}:/bin"}
    with launcher.syncer(*([sent] if sent else [])) as syncer:
        code, out, err = launcher.run(*GCC, env=path)
        assert (code, out) == (9, b"-c x.c|1\n")
        why = b"the syncer has said nothing for 10 s: it is stopped, or stuck"
        assert err == b"dist_build: compiled locally: " + why + ADVICE
        assert launcher.run(*GCC, env=path) == (9, out, b""), "said once"
    assert len(syncer.requests) == 2


def test_a_silent_syncer_where_fallback_is_forbidden_is_the_clients(launcher: Launcher) -> None:
    silent(launcher)
    program(launcher.directory / "dist_build_client", '#!/bin/sh\necho "$DIST_BUILD_OBSTACLE"\n')
    with launcher.syncer():
        code, out, err = launcher.run(*GCC, env={"DIST_BUILD_FALLBACK": "0"})
    assert out.startswith(b"the syncer has said nothing for 10 s")
    assert (code, err) == (0, b"")


def test_what_runs_in_a_turn_takes_no_other(launcher: Launcher) -> None:
    silent(launcher)
    program(launcher.directory / "gcc", "#!/bin/sh\nexit 9\n")
    env = {"PATH": f"{launcher.directory}:/bin", "DIST_BUILD_IN_TURN": "1"}
    with launcher.syncer():
        assert launcher.run(*GCC, env=env)[0] == 9
    assert not (launcher.home / "state/turns").exists()


def test_who_sees_other_files_finds_the_compiler_itself(launcher: Launcher) -> None:
    """Whatever the syncer has by that name and path."""
    ours = program(launcher.directory / "bin/gcc", "#!/bin/sh\necho ours\n")
    theirs = os.fsencode(program(launcher.directory / "gcc", "#!/bin/sh\necho theirs\n"))
    for found in (theirs, b""):
        (launcher.home / "syncer.sock").unlink(missing_ok=True)
        with launcher.syncer(local(found, b"other_files", silent=OTHER_FILES)):
            done = launcher.run(*GCC, env={"PATH": f"{ours.parent}:/bin"})
        assert done == (0, b"ours\n", b"")


# --- once a build -----------------------------------------------------------------------------


def said(launcher: Launcher, why: bytes, silent: int = 0, **env: str) -> bytes:
    real = os.fsencode(program(launcher.directory / "gcc", "#!/bin/sh\n"))
    if silent == OTHER_FILES:
        env["PATH"], real = f"{launcher.directory}:/bin", b""
    (launcher.home / "syncer.sock").unlink(missing_ok=True)
    with launcher.syncer(local(real, why, silent=silent)):
        return launcher.run(*GCC, env=env)[2]


def test_a_build_says_each_reason_once(launcher: Launcher) -> None:
    (launcher.home / "state").mkdir()
    lines = [said(launcher, why) for why in (b"no_worker", b"no_worker", b"leases_lost: a")]
    lines += [said(launcher, b"leases_lost: b"), said(launcher, b"other_files", OTHER_FILES)]
    lines += [said(launcher, b"other_files", OTHER_FILES), said(launcher, b"link: -o", 1)]
    expected = [b"no_worker", b"", b"leases_lost: a", b"", b"other_files", b"", b""]
    begin = b"dist_build: compiled locally: "
    assert lines == [begin + line + ADVICE if line else b"" for line in expected]
    line = said(launcher, b"no_worker", DIST_BUILD_VERBOSE="1")
    assert line == b"dist_build: compiled locally: no_worker\n"


def test_another_build_says_it_again_and_so_does_a_long_silence(launcher: Launcher) -> None:
    (launcher.home / "state").mkdir()
    first = said(launcher, b"no_worker")
    (file,) = (launcher.home / "state/said").iterdir()
    os.utime(file, (0, 0))
    assert said(launcher, b"no_worker") == first
    assert said(launcher, b"no_worker") == b""
    file.write_bytes(b"12.34")
    assert said(launcher, b"no_worker") == first


def test_without_a_place_to_remember_it_a_failure_is_always_said(launcher: Launcher) -> None:
    lines = [said(launcher, b"no_worker") for _ in range(2)]
    assert lines == [b"dist_build: compiled locally: no_worker" + ADVICE] * 2
    assert said(launcher, b"other_files", OTHER_FILES) == b""
