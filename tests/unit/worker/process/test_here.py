import os
import resource
import select
import sys
import threading
from collections.abc import Iterator

import pytest

from distbuild.protocol.errors import InfrastructureError
from distbuild.worker.process import posix
from distbuild.worker.process.here import REPORT, Cancellation, Completed
from distbuild.worker.process.limits import Usage
from tests.support.cluster import wait_until
from tests.unit.worker.fakes import ends, run

ENV = {b"PATH": os.fsencode(os.defpath)}


@pytest.fixture
def cancellation() -> Iterator[Cancellation]:
    made = Cancellation()
    yield made
    made.close()


def shell(script: str, cancellation: Cancellation, timeout_s: float = 20.0) -> Completed:
    return run([b"/bin/sh", b"-c", script.encode()], b"/", ENV, cancellation, timeout_s)


def test_output_and_status_are_given_back(cancellation: Cancellation) -> None:
    done = shell("echo out; echo err >&2; exit 3", cancellation)
    assert done == Completed(3, b"out\n", b"err\n")


def test_a_report_is_read_apart_from_the_output(cancellation: Cancellation) -> None:
    script = b"import os, sys; os.write(int(sys.argv[1]), b'said')"
    argv = [os.fsencode(sys.executable), b"-I", b"-S", b"-c", script, REPORT]
    assert run(argv, b"/", ENV, cancellation) == Completed(0, b"", b"", b"said")


def test_a_signal_shows_in_the_status(cancellation: Cancellation) -> None:
    assert shell("kill -SEGV $$", cancellation).status == -11


def test_what_a_process_and_its_child_used_is_known() -> None:
    # Less than this process has had itself would not be known.
    least = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss + 100_000_000
    child = f"x = bytearray({least})\nfor n in range(3_000_000): pass"
    argv = [b"/bin/sh", b"-c", b'"$@"; exit 0', b"sh", os.fsencode(sys.executable), b"-ISc"]
    running = posix.start([*argv, child.encode()], b"/", ENV)
    assert running.used == Usage()
    wait_until(lambda: select.select([running.descriptors()[-1]], [], [], 1)[0], "it ends")
    assert running.finish("").status == 0
    assert least < running.used.memory_bytes < least + 200_000_000
    assert running.used.cpu_us > 10_000


def test_less_memory_than_this_process_has_is_not_known() -> None:
    running = posix.start([b"/bin/sh", b"-c", b"exit 0"], b"/", ENV)
    wait_until(lambda: select.select([running.descriptors()[-1]], [], [], 1)[0], "it ends")
    assert running.finish("").status == 0
    assert running.used.memory_bytes == 0


def test_there_is_no_input(cancellation: Cancellation) -> None:
    assert shell("cat", cancellation) == Completed(0, b"", b"")


def test_large_output_on_both_pipes_does_not_block(cancellation: Cancellation) -> None:
    done = shell("yes | head -c 1000000; yes | head -c 1000000 >&2", cancellation)
    assert (len(done.stdout), len(done.stderr)) == (1_000_000, 1_000_000)


def test_output_without_end_is_stopped(
    cancellation: Cancellation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posix, "MAX_OUTPUT_BYTES", 1_000_000)
    assert shell("yes", cancellation).stopped == "output"


def test_a_hanging_process_is_stopped_by_its_timeout(cancellation: Cancellation) -> None:
    done = shell("cat /dev/zero >/dev/null", cancellation, timeout_s=0.1)
    assert (done.status, done.stopped) == (-9, "timeout")


def test_cancelling_kills_the_whole_group(cancellation: Cancellation) -> None:
    threading.Timer(0.2, cancellation.set).start()
    done = shell("tail -f /dev/null & echo $!; wait", cancellation)
    assert done.stopped == "cancelled"
    assert ends(int(done.stdout))


def test_a_cancellation_before_the_start_counts(cancellation: Cancellation) -> None:
    cancellation.set()
    assert shell("tail -f /dev/null", cancellation).stopped == "cancelled"


def test_what_is_left_in_the_background_ends_with_the_leader(cancellation: Cancellation) -> None:
    done = shell("tail -f /dev/null & echo $!", cancellation)
    assert done.stopped == ""
    assert ends(int(done.stdout))


def test_the_program_is_limited(cancellation: Cancellation) -> None:
    done = shell("sleep 0.1; ulimit -c; ulimit -t; ulimit -f", cancellation)
    assert done.stdout.split() == [b"0", b"1800", b"8388608"]


def test_a_directory_that_is_not_there_is_an_infrastructure_error(
    cancellation: Cancellation,
) -> None:
    with pytest.raises(InfrastructureError, match="cannot start"):
        run([b"true"], b"/no/such/directory", ENV, cancellation)


def test_many_runs_leave_no_descriptor_open(cancellation: Cancellation) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(100):
        assert run([b"/bin/echo", REPORT], b"/", ENV, cancellation).status == 0
    with pytest.raises(InfrastructureError):
        run([b"/no/such/program"], b"/", ENV, cancellation)
    assert len(os.listdir("/proc/self/fd")) == before
