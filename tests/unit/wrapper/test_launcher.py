"""The native launcher: what it makes of the answer, and what it leaves to the client."""

import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from distbuild.wrapper import local as once
from tests.support.launcher import Launcher, compile_launcher, done, local, program
from tests.support.tools import need

pytestmark = pytest.mark.compiler

GCC = ["gcc", "-c", "x.c"]
PHASES = {"DIST_BUILD_VERBOSE": "2"}
ADVICE = once.ADVICE.encode() + b"\n"
BY_CLIENT = (42, b"dist_build_client\0gcc\0-c\0x.c\0", b"")


@pytest.mark.parametrize("compiler", ["gcc", "clang", "musl-gcc"])
def test_it_compiles_without_a_warning(compiler: str, tmp_path: Path) -> None:
    # musl's own macro CMSG_NXTHDR has such a conversion.
    options = ["-Wno-sign-conversion"] if compiler == "musl-gcc" else []
    assert compile_launcher(need(compiler), tmp_path / "x", *options).stat().st_size > 0


# --- done ------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1, 4, 255])
@pytest.mark.parametrize(
    ("out", "err"), [(b"", b""), (b"o\0\xff", b"e\0\n"), (b"o" * 2**20, b"e" * 2**20)]
)
def test_the_compilers_answer_is_given_back(
    launcher: Launcher, code: int, out: bytes, err: bytes
) -> None:
    with launcher.syncer(done(code, out, err)) as syncer:
        assert launcher.run(*GCC) == (code, out, err)
    assert len(syncer.requests) == 1


def test_an_answer_may_come_in_pieces(launcher: Launcher) -> None:
    whole = done(3, b"out", b"err")
    with launcher.syncer(*(whole[i : i + 1] for i in range(len(whole)))):
        assert launcher.run(*GCC) == (3, b"out", b"err")


def test_field_names_are_compared_without_case(launcher: Launcher) -> None:
    head, gap, body = done(3, b"out", b"err").partition(b"\r\n\r\n")
    status, _, fields = head.partition(b"\r\n")
    with launcher.syncer(status + b"\r\nX: y\r\n" + fields.lower() + gap + body):
        assert launcher.run(*GCC) == (3, b"out", b"err")


def test_verbose_names_the_worker(launcher: Launcher) -> None:
    with launcher.syncer(done(0, b"", b"err\n", worker="big  box:8443 ")):
        said = b"dist_build: compiled by big box:8443\nerr\n"
        assert launcher.run(*GCC, env={"DIST_BUILD_VERBOSE": "1"}) == (0, b"", said)


@pytest.mark.parametrize(
    ("fields", "said"),
    [({}, b""), ({"Times": "queued 1.5, verified 2.0"}, b"queued 1.5, verified 2.0, ")],
)
def test_it_prints_the_phases_and_its_own_total(
    launcher: Launcher, fields: dict[str, Any], said: bytes
) -> None:
    with launcher.syncer(done(3, b"", b"err\n", **fields)) as syncer:
        code, out, err = launcher.run(*GCC, env=PHASES)
    line = rb"dist_build: compiled by w1: " + re.escape(said) + rb"total \d+\.\d ms\nerr\n"
    assert re.fullmatch(line, err)
    assert (code, out, syncer.requests[0].timed) == (3, b"", True)


def test_phases_longer_than_a_line_are_cut(launcher: Launcher) -> None:
    with launcher.syncer(done(worker="w" * 5000, Times="9" * 5000)):
        code, _, err = launcher.run(*GCC, env=PHASES)
    assert (code, err.count(b"\n"), len(err) < 1024) == (0, 1, True)


@pytest.mark.parametrize("level", ["", "0", "1", "3", "22"])
def test_phases_are_asked_for_by_one_level_only(launcher: Launcher, level: str) -> None:
    with launcher.syncer(done(Times="queued 1.0")) as syncer:
        assert b"total" not in launcher.run(*GCC, env={"DIST_BUILD_VERBOSE": level})[2]
    assert not syncer.requests[0].timed


def test_a_closed_stream_takes_nothing(launcher: Launcher) -> None:
    script = program(launcher.directory / "run", '#!/bin/sh\nexec "$@" >&- 2>&-\n')
    with launcher.syncer(done(3, b"out", b"err")) as syncer:
        assert launcher.run(launcher.exe.as_posix(), *GCC, name=script) == (3, b"", b"")
    assert syncer.closed.is_set()


def test_an_output_that_is_full_is_an_error(launcher: Launcher) -> None:
    script = program(launcher.directory / "run", '#!/bin/sh\nexec "$@" >/dev/full\n')
    with launcher.syncer(done(0, b"out", b"err\n")):
        code, _, err = launcher.run(launcher.exe.as_posix(), *GCC, name=script)
    assert (code, err) == (1, b"dist_build: standard output: No space left on device\nerr\n")


# --- local -----------------------------------------------------------------------------------

COMPILER = '#!/bin/sh\necho "$*|$DIST_BUILD_SKIP"\nexit 9\n'


@pytest.mark.parametrize(
    ("silent", "why", "env", "said"),
    [
        (True, b"link: -o", {}, b""),
        (True, b"link: -o", {"DIST_BUILD_FALLBACK": "0"}, b""),
        (True, b"link: -o", {"DIST_BUILD_VERBOSE": "1"}, b"link: -o\n"),
        (False, b"no_worker: ", {}, b"no_worker" + ADVICE),
        (False, b"no_worker: ", {"DIST_BUILD_VERBOSE": "1"}, b"no_worker\n"),
        (True, b"link: -o", PHASES, b"link: -o\n"),
        (False, b"no_worker: ", PHASES, b"no_worker\n"),
        (False, b"inputs_changed:  a\n b.c\n", {}, b"inputs_changed: a b.c" + ADVICE),
        (False, b"%s%n: \xff ", {}, b"%s%n: \xff" + ADVICE),
    ],
)
def test_the_real_compiler_takes_the_process_over(
    launcher: Launcher, silent: bool, why: bytes, env: dict[str, str], said: bytes
) -> None:
    real = program(launcher.directory / "odd dir/gcc", COMPILER)
    with launcher.syncer(local(os.fsencode(real), why, silent=silent)):
        code, out, err = launcher.run(*GCC, env=env)
    assert (code, out.decode()) == (9, f"-c x.c|{real}\n")
    assert err == (b"dist_build: compiled locally: " + said if said else b"")


def test_without_fallback_a_failure_is_an_error(launcher: Launcher) -> None:
    with launcher.syncer(local(b"/bin/false", b"no_worker: ", silent=False)):
        said = b"dist_build: not compiled: no_worker\n"
        assert launcher.run(*GCC, env={"DIST_BUILD_FALLBACK": "0"}) == (103, b"", said)


def test_the_first_word_stays_as_the_build_spelled_it(launcher: Launcher) -> None:
    with launcher.syncer(local(b"/bin/sh")):
        assert launcher.run("sh", "-c", "echo $0") == (0, b"sh\n", b"")


def test_a_first_word_that_means_something_else_is_the_program(launcher: Launcher) -> None:
    program(launcher.directory / "first/sh", COMPILER)
    with launcher.syncer(local(b"/bin/sh")):
        done = launcher.run("sh", "-c", "echo $0", env={"PATH": f"{launcher.directory}/first:/bin"})
    assert done == (0, b"/bin/sh\n", b"")


def test_the_local_slot_is_held_while_the_compiler_runs(launcher: Launcher) -> None:
    real = program(launcher.directory / "gcc", "#!/bin/sh\necho started\nread line\n")
    with launcher.syncer(local(os.fsencode(real))) as syncer:
        with launcher.start(*GCC) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"started\n"
            assert not syncer.closed.is_set()
            process.communicate(b"\n")
        assert syncer.closed.wait(10)


@pytest.mark.parametrize("name", ["gcc", "./gcc"])
def test_a_script_that_names_no_shell_is_run_by_one(launcher: Launcher, name: str) -> None:
    script = program(launcher.directory / "gcc", 'echo "$0 $*"\nexit 4\n')
    called = name if "/" in name else str(script)
    with launcher.syncer(local(os.fsencode(script))):
        done = launcher.run(name, "-c", "a b", env={"PATH": f"{launcher.directory}:/bin"})
        assert done == (4, f"{called} -c a b\n".encode(), b"")
        done = launcher.run(name, env={"PATH": f"{launcher.directory}:/bin"})
        assert done == (4, f"{called} \n".encode(), b"")


@pytest.mark.parametrize("name", ["broken", "none"])
def test_a_program_that_does_not_run_is_said(launcher: Launcher, name: str) -> None:
    broken = program(launcher.directory / "broken", "#!/no/such/shell\n").with_name(name)
    with launcher.syncer(local(os.fsencode(broken))):
        line = f"dist_build: {broken}: No such file or directory\n".encode()
        assert launcher.run(*GCC) == (126, b"", line)


# --- the client's part ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        *([], ["-h"], ["--help"], ["help"], ["--version"], ["version"]),
        *(["status", "--json"], ["install"], ["clean"], ["doctor"], ["explain"]),
    ],
)
def test_subcommands_are_the_clients(launcher: Launcher, words: list[str]) -> None:
    expected = "\0".join(["dist_build_client", *words, ""]).encode()
    with launcher.syncer(done()) as syncer:
        assert launcher.run(*words) == (42, expected, b"")
    assert syncer.requests == []


def test_without_a_syncer_it_is_the_clients(launcher: Launcher) -> None:
    assert launcher.run(*GCC) == BY_CLIENT
    with launcher.syncer(done()):
        pass  # leaves a socket at which nobody listens
    assert launcher.run(*GCC) == BY_CLIENT
    assert launcher.run(*GCC, env={"DIST_BUILD_HOME": str(launcher.directory / "no")}) == BY_CLIENT


def test_a_syncer_that_ends_while_it_is_told_leaves_it_to_the_client(launcher: Launcher) -> None:
    words = ["gcc", *(["-D" + "x" * 5000] * 200)]
    with launcher.syncer(reads=False):
        code, out, err = launcher.run(*words)
    assert (code, out.count(b"\0"), err) == (42, 1 + len(words), b"")


def forged(worker: str) -> bytes:
    """An answer with what a worker calls itself, of which its body is a program's name."""
    return done(0, b"/bin/true", worker=worker)


_DONE = done(0, b"out")
NOT_UNDERSTOOD = {
    "half a head": _DONE[:40],
    "half a body": _DONE[:-1],
    "garbage": b"\0\xff" * 9000,
    "an endless head": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5000,
    "another status": _DONE.replace(b"200 OK", b"503 Busy"),
    "another protocol": _DONE.replace(b"HTTP/1.1", b"HTTP/2.0"),
    "no kind": _DONE.replace(b"Dist-Build:", b"Other:"),
    "another kind": _DONE.replace(b"done", b"else"),
    "no exit code": _DONE.replace(b"Dist-Build-Exit", b"Other"),
    "a wrong exit code": _DONE.replace(b"Exit: 0", b"Exit: 256"),
    "a negative exit code": _DONE.replace(b"Exit: 0", b"Exit: -1"),
    "too much stdout": _DONE.replace(b"Stdout: 3", b"Stdout: 4"),
    "no length": _DONE.replace(b"Content-Length", b"Other"),
    "a length of words": _DONE.replace(b"Content-Length: 3", b"Content-Length: 3 bytes"),
    "a huge length": _DONE.replace(b"Content-Length: 3", b"Content-Length: " + b"9" * 30),
    "a line that is no field": _DONE.replace(b"Dist-Build-Worker: w1", b"w1"),
    "a NUL in the head": _DONE.replace(b"Dist-Build-Exit", b"\0Dist-Build-Exit"),
    "a NUL behind all fields": _DONE.replace(b"\r\n\r\n", b"\r\n\0: x\r\n\r\n"),
    "two lengths": _DONE.replace(b"Content-Length", b"Content-Length: 3\r\nContent-Length"),
    "two exit codes": _DONE.replace(b"Dist-Build-Exit", b"dist-build-exit: 0\r\nDist-Build-Exit"),
    "a second kind": forged(
        "w1\r\nDist-Build: local\r\nDist-Build-Silent: 1\r\nDist-Build-Program: 9"
    ),
    "a second worker": forged("w1\r\nDist-Build-Worker: w2"),
    "a carriage return in a name": forged("w1\rDist-Build: local"),
    "a newline in a name": forged("w1\nDist-Build: local"),
    "no program": local(b""),
    "a program with a NUL": local(b"/bin/true\0"),
    "no word on silence": local(b"/bin/true").replace(b"Silent", b"Other"),
    "a program longer than all": local(b"/bin/true").replace(b"Program: 9", b"Program: 90"),
}


@pytest.mark.parametrize("said", NOT_UNDERSTOOD.values(), ids=NOT_UNDERSTOOD)
def test_what_is_not_understood_is_the_clients(launcher: Launcher, said: bytes) -> None:
    with launcher.syncer(said, b"") as syncer:
        assert launcher.run(*GCC) == BY_CLIENT
    assert len(syncer.requests) == 1


def test_a_syncer_that_ends_without_a_word_is_asked_again_but_not_for_ever(
    launcher: Launcher,
) -> None:
    with launcher.syncer(b"") as syncer:
        assert launcher.run(*GCC) == BY_CLIENT
    assert len(syncer.requests) == 3
    assert syncer.requests == syncer.requests[:1] * 3


def test_without_a_client_a_subcommand_fails(launcher: Launcher) -> None:
    (launcher.directory / "dist_build_client").unlink()
    said = f"dist_build: {launcher.directory}/dist_build_client: No such file or directory\n"
    assert launcher.run("status") == (1, b"", said.encode())


def test_its_death_closes_the_connection(launcher: Launcher) -> None:
    with launcher.syncer() as syncer:
        for number in (signal.SIGINT, signal.SIGKILL):
            with launcher.start(*GCC) as process:
                assert syncer.asked.wait(10)
                process.send_signal(number)
                assert process.wait(10) == -number
            assert syncer.closed.wait(10)
            syncer.asked.clear()
            syncer.closed.clear()
