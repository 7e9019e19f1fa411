"""One thread that waits for all compilers."""

import os
import queue
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from distbuild.worker.process.here import Cancellation, Running, Watcher, start

ENV = {b"PATH": os.fsencode(os.defpath)}


@pytest.fixture
def watcher() -> Iterator[Watcher]:
    made = Watcher()
    yield made
    made.close()


def shell(script: str) -> Running:
    return start([b"/bin/sh", b"-c", script.encode()], b"/", ENV)


def test_each_of_many_ends_once_and_with_its_own_output(watcher: Watcher) -> None:
    ended: queue.Queue[tuple[int, str]] = queue.Queue()
    threads = threading.active_count()
    running = [shell(f"sleep 0.{n % 5}; echo {n}; exit {n}") for n in range(40)]
    cancellations = [Cancellation() for _ in running]
    for n, one in enumerate(running):
        watcher.watch(one, cancellations[n], lambda how, n=n: ended.put((n, how)))  # type: ignore[misc]
    assert threading.active_count() == threads
    seen = dict(ended.get(timeout=60) for _ in running)
    assert seen == dict.fromkeys(range(40), "")
    for n, one in enumerate(running):
        completed = one.finish("")
        assert (completed.status, completed.stdout) == (n, b"%d\n" % n)
        cancellations[n].close()
    assert ended.empty()


def test_one_is_cancelled_and_the_others_go_on(watcher: Watcher) -> None:
    ended: queue.Queue[str] = queue.Queue()
    first, second = shell("tail -f /dev/null"), shell("read x < /dev/zero; tail -f /dev/null")
    wishes = Cancellation(), Cancellation()
    watcher.watch(first, wishes[0], lambda how: ended.put(f"first {how}"))
    watcher.watch(second, wishes[1], lambda how: ended.put(f"second {how}"))
    wishes[1].set()
    assert ended.get(timeout=60) == "second cancelled"
    assert second.finish("cancelled").status == -signal.SIGKILL
    wishes[0].set()
    assert ended.get(timeout=60) == "first cancelled"
    first.finish("cancelled")
    for wish in wishes:
        wish.close()


def test_what_a_callback_raises_stops_nobody_else(
    watcher: Watcher, caplog: pytest.LogCaptureFixture
) -> None:
    ended: queue.Queue[str] = queue.Queue()
    wish = Cancellation()

    def failing(how: str) -> None:
        raise ValueError(how)

    bad, good = shell("exit 0"), shell("sleep 0.1")
    watcher.watch(bad, wish, failing)
    time.sleep(0.05)
    other = Cancellation()
    watcher.watch(good, other, ended.put)
    assert ended.get(timeout=60) == ""
    assert "the end of a compiler was lost" in caplog.text
    for one, its in ((bad, wish), (good, other)):
        one.finish("")
        its.close()


def test_closing_waits_for_what_runs() -> None:
    watcher, ended = Watcher(), queue.Queue[str]()
    wish, running = Cancellation(), shell("sleep 0.2")
    watcher.watch(running, wish, ended.put)
    watcher.close()
    assert ended.get_nowait() == ""
    running.finish("")
    wish.close()


class Unwatchable:
    """A running compiler whose descriptor nothing can wait for."""

    def descriptors(self) -> list[int]:
        return [2**20 - 1]


class Bursting(Unwatchable):
    """One that cannot be read from."""

    def __init__(self) -> None:
        self._reader, writer = os.pipe()
        os.close(writer)

    def descriptors(self) -> list[int]:
        return [self._reader]

    def take(self, _: int) -> tuple[bool, str | None]:
        raise OSError("no memory")

    def close(self) -> None:
        os.close(self._reader)


@pytest.mark.parametrize("kind", [Unwatchable, Bursting])
def test_one_that_cannot_be_waited_for_ends_and_the_others_go_on(
    watcher: Watcher, kind: type[Unwatchable]
) -> None:
    ended: queue.Queue[str] = queue.Queue()
    odd, good = kind(), shell("exit 3")
    wishes = Cancellation(), Cancellation()
    watcher.watch(odd, wishes[0], ended.put)  # type: ignore[arg-type]
    assert ended.get(timeout=60).startswith("it cannot be waited for: ")
    watcher.watch(good, wishes[1], ended.put)
    assert ended.get(timeout=60) == ""
    assert good.finish("").status == 3
    for wish in wishes:
        wish.close()
    if isinstance(odd, Bursting):
        odd.close()
