"""Programs on a pseudo-terminal: what they write comes out as it is, whatever ends them."""

import os
import signal
import sys
import threading
from collections.abc import Iterator

import pytest

from distbuild.protocol.errors import InfrastructureError
from distbuild.protocol.messages import Terminal, Window
from distbuild.worker.process import posix
from distbuild.worker.process.here import REPORT, Cancellation, Completed
from tests.unit.worker.fakes import ends, run

ENV = {b"PATH": os.fsencode(os.defpath)}
SCREEN = Terminal(Window(80, 24))
SHARED = Terminal(Window(81, 25), Window(81, 25))
APART = Terminal(Window(82, 26), Window(83, 27))
LOOK = (
    b"import os\n"
    b"for fd in range(3):\n"
    b"    print(os.isatty(fd), tuple(os.get_terminal_size(fd)) if os.isatty(fd) else '')"
)


@pytest.fixture
def cancellation() -> Iterator[Cancellation]:
    made = Cancellation()
    yield made
    made.close()


def shell(script: str, cancellation: Cancellation, screen: Terminal = SCREEN) -> Completed:
    return run([b"/bin/sh", b"-c", script.encode()], b"/", ENV, cancellation, 300.0, screen)


def python(script: bytes, cancellation: Cancellation, screen: Terminal = SCREEN) -> Completed:
    argv = [os.fsencode(sys.executable), b"-I", b"-S", b"-c", script, REPORT]
    return run(argv, b"/", ENV, cancellation, 300.0, screen)


@pytest.mark.parametrize(
    ("screen", "seen"),
    [
        (SCREEN, b"False \nFalse \nTrue (80, 24)\n"),
        (SHARED, b"True (81, 25)\nFalse \nTrue (81, 25)\n"),
        (APART, b"True (83, 27)\nFalse \nTrue (82, 26)\n"),
    ],
)
def test_the_terminals_are_there_with_their_sizes(
    screen: Terminal, seen: bytes, cancellation: Cancellation
) -> None:
    assert python(LOOK, cancellation, screen) == Completed(0, seen, b"")


def test_every_byte_comes_through_as_it_is(cancellation: Cancellation) -> None:
    script = b"import os; os.write(2, bytes(range(256)) * 3); os.write(2, b'\\r\\n\\t\\x04')"
    expected = bytes(range(256)) * 3 + b"\r\n\t\x04"
    for screen in (SCREEN, SHARED, APART):
        assert python(script, cancellation, screen) == Completed(0, b"", expected)


def test_more_than_a_terminal_holds_comes_through_whole(cancellation: Cancellation) -> None:
    script = b"import sys; sys.stderr.write(''.join(f'{n:09}\\n' for n in range(10**5)))"
    done = python(script, cancellation)
    assert done.stderr == b"".join(b"%09d\n" % n for n in range(10**5))


def test_what_is_written_last_is_not_lost(cancellation: Cancellation) -> None:
    for _ in range(50):
        done = shell("head -c 3000 /dev/zero >&2; kill -KILL $$", cancellation)
        assert (done.status, len(done.stderr)) == (-9, 3000)


def test_an_input_that_is_a_terminal_is_at_its_end(cancellation: Cancellation) -> None:
    assert shell("cat; echo end", cancellation, SHARED) == Completed(0, b"end\n", b"")


def test_a_terminal_that_is_closed_early_is_no_end(cancellation: Cancellation) -> None:
    done = shell("echo said >&2; exec 2>&-; sleep 0.2; echo out", cancellation)
    assert done == Completed(0, b"out\n", b"said\n")


def test_who_keeps_the_terminal_open_is_not_waited_for(cancellation: Cancellation) -> None:
    done = shell("setsid tail -f /dev/null & echo $!; echo said >&2", cancellation)
    os.kill(int(done.stdout), signal.SIGKILL)
    assert ends(int(done.stdout))
    assert (done.status, done.stderr, done.stopped) == (0, b"said\n", "")


def test_a_program_on_a_terminal_can_be_cancelled(cancellation: Cancellation) -> None:
    threading.Timer(0.2, cancellation.set).start()
    assert shell("tail -f /dev/null >&2", cancellation).stopped == "cancelled"


def test_output_without_end_is_stopped(
    cancellation: Cancellation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posix, "MAX_OUTPUT_BYTES", 100_000)
    assert shell("yes >&2", cancellation).stopped == "output"


def test_it_is_nobodys_controlling_terminal(cancellation: Cancellation) -> None:
    done = shell("(echo x >/dev/tty) 2>/dev/null || echo none", cancellation, SHARED)
    assert done.stdout == b"none\n"


def test_without_a_terminal_to_be_had_nothing_is_run(
    cancellation: Cancellation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left() -> tuple[int, int]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "openpty", none_left)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(InfrastructureError, match="no pseudo-terminal: No space"):
        shell("true", cancellation)
    assert len(os.listdir("/proc/self/fd")) == before


def test_many_runs_leave_no_descriptor_open(cancellation: Cancellation) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(30):
        assert shell("true", cancellation, APART).status == 0
    with pytest.raises(InfrastructureError):
        run([b"/no/such/program"], b"/", ENV, cancellation, 20.0, APART)
    assert len(os.listdir("/proc/self/fd")) == before
