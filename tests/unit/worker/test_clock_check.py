"""A worker whose clock is wrong says so instead of answering what tells the time."""

import io
from collections.abc import Mapping
from pathlib import Path

import pytest

from distbuild.command.model import CompileCommand
from distbuild.command.parse import parse
from distbuild.protocol.errors import InfrastructureError
from distbuild.protocol.messages import ResultRequest
from distbuild.system import disk
from distbuild.worker.clock_check import Clock, off_by
from distbuild.worker.process.here import Cancellation
from distbuild.worker.sandbox.base import Sandbox
from tests.unit.worker.devbox import DevBox, write
from tests.unit.worker.fakes import finished

pytestmark = pytest.mark.compiler
PLAIN = "int no_time;\n"
TELLS = 'const char *when = __DATE__ " " __TIME__;\n'
WRONG = 10800.0


@pytest.mark.parametrize(
    ("told", "now", "off"),
    [
        (0.0, 1e9, 0.0),
        (1e9, 1e9 + 0.5, 0.0),
        (1e9, 1e9 - 1.9, 0.0),
        (1e9, 1e9 + 10800, 10800.0),
        (1e9, 1e9 - 3, -3.0),
    ],
)
def test_a_clock_is_wrong_from_two_seconds_on(told: float, now: float, off: float) -> None:
    assert off_by(told, now) == off


def run(
    box: DevBox,
    sandbox: Sandbox,
    top: Path,
    words: str,
    env: Mapping[str, str] | None = None,
    off_s: float = WRONG,
) -> ResultRequest:
    """The command's result from a worker with such a clock."""
    box.mirror(top)
    job, cancellation = box.job(words.split(), top, env), Cancellation()
    try:
        steps = box.runner(sandbox).run(job, box.tree, cancellation, Clock(off_s))
        result = finished(steps, cancellation)
    finally:
        cancellation.close()
    assert result is not None
    return result


@pytest.fixture
def top(tmp_path: Path) -> Path:
    write(tmp_path / "p/inc/when.h", TELLS)
    write(tmp_path / "p/inc/plain.h", PLAIN)
    write(tmp_path / "p/header.c", '#include "inc/when.h"\n')
    write(tmp_path / "p/tells.c", TELLS)
    write(tmp_path / "p/plain.c", '#include "inc/plain.h"\n')
    write(tmp_path / "p/word.c", "const char *when = WHEN;\n")
    write(tmp_path / "p/broken.c", "int broken = undeclared;\n")
    return tmp_path / "p"


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ("gcc -c tells.c", "tells.c tells the time"),
        ("clang -c tells.c", "tells.c tells the time"),
        ("gcc -c header.c", "when.h tells the time"),
        ("gcc -c header.c -MMD", "when.h tells the time"),
        ("gcc -c word.c -DWHEN=__TIME__", "the command tells the time"),
        ("gcc -c broken.c", "perhaps, tells the time"),
    ],
)
def test_what_tells_the_time_goes_elsewhere(
    devbox: DevBox, sandbox: Sandbox, top: Path, words: str, what: str
) -> None:
    result = run(devbox, sandbox, top, words)
    assert what in result.error
    assert result.error.endswith("the worker's clock is 10800 s ahead of the dev box's")


@pytest.mark.parametrize("words", ["gcc -c plain.c", "clang -c plain.c -MMD"])
def test_what_does_not_is_compiled(devbox: DevBox, sandbox: Sandbox, top: Path, words: str) -> None:
    assert run(devbox, sandbox, top, words).error == ""


def test_a_time_from_the_environment_needs_no_clock(
    devbox: DevBox, sandbox: Sandbox, top: Path
) -> None:
    env = {"SOURCE_DATE_EPOCH": "1000000000"}
    result = run(devbox, sandbox, top, "gcc -S tells.c", env)
    assert (result.error, len(result.outputs)) == ("", 1)
    # clang 14 does not listen to it.
    assert run(devbox, sandbox, top, "clang -c tells.c", env).error != ""


def test_a_right_clock_tells_the_time(devbox: DevBox, sandbox: Sandbox, top: Path) -> None:
    assert run(devbox, sandbox, top, "gcc -c header.c", off_s=0.0).error == ""


def test_inputs_are_opened_by_paths_of_the_internal_form(
    devbox: DevBox, top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which only the disk module knows to translate on Windows."""
    opened: list[bytes] = []

    def converted(path: bytes) -> io.BytesIO:
        opened.append(path)
        return io.BytesIO(TELLS.encode())

    devbox.mirror(top)
    job, tree = devbox.job(["gcc", "-c", "plain.c"], top), devbox.tree
    monkeypatch.setattr(disk, "open_to_read", converted)
    command = parse(["gcc", "-c", "plain.c"], str(top), lambda _: None)
    assert isinstance(command, CompileCommand)
    with pytest.raises(InfrastructureError, match="tells the time"):
        Clock(WRONG).check_inputs(job, command, tree, [b"/C/p/x.h"])
    assert opened == [tree.ground.real(b"/C/p/x.h")]
