"""Waits for all compiler processes of a worker in one thread, by epoll. Linux.

Knows no compiler and ends none itself.
With a thread for each, hundreds of threads would wake for every end of a stream or process, and
contend for Python's lock when as many compilers end at the same moment.
"""

import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable

import msgspec

from distbuild.worker.process.limits import TIMEOUT_S
from distbuild.worker.process.posix import PosixCancellation, PosixRunning

#: Interval of the search for compilers that exceed their time limit (seconds).
LOOK_S = 1.0

_log = logging.getLogger(__name__)


class _WatchedProcess(msgspec.Struct, eq=False):
    running: PosixRunning
    cancellation: PosixCancellation
    #: Called with the reason to stop it, "" for its own end.
    ended: Callable[[str], None]
    deadline: float
    descriptors: set[int]


class PosixProcessWatcher:
    """Watches compilers and reports their ends. ``watch`` is thread-safe.

    ``look_s``: interval (seconds) of the search for those that exceed their time limit."""

    def __init__(self, look_s: float = LOOK_S) -> None:
        self._look_s = look_s
        self._poll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll.register(self._wake, select.EPOLLIN)
        self._new: deque[_WatchedProcess] = deque()
        self._by_descriptor: dict[int, _WatchedProcess] = {}
        self._changed = threading.Condition()
        self._count = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)
        self._thread.start()

    def watch(
        self,
        running: PosixRunning,
        cancellation: PosixCancellation,
        ended: Callable[[str], None],
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """At the end, call ``ended``, which must not block, with the reason: "" for its own end,
        ``cancelled``, ``timeout``, ``output`` or an error. The caller then finishes ``running``."""
        deadline = time.monotonic() + timeout_s
        descriptors = {*running.descriptors(), cancellation.fileno()}
        with self._changed:
            self._count += 1
        self._new.append(_WatchedProcess(running, cancellation, ended, deadline, descriptors))
        os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """Wait until nothing is watched any more, and end the thread. Idempotent."""
        if self._closed:
            return
        with self._changed:
            self._changed.wait_for(lambda: self._count == 0)
        self._closed = True
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        self._poll.close()
        os.close(self._wake)

    def _run(self) -> None:
        looked = time.monotonic()
        while not self._closed:
            for descriptor, _ in self._poll.poll(self._look_s):
                if descriptor == self._wake:
                    self._take_new()
                elif descriptor in self._by_descriptor:
                    watched = self._by_descriptor[descriptor]
                    self._step(watched, self._readable, descriptor)
            now = time.monotonic()
            if now - looked >= self._look_s:
                looked = now
                for watched in set(self._by_descriptor.values()):
                    if now >= watched.deadline:
                        self._end(watched, "timeout")

    def _take_new(self) -> None:
        os.eventfd_read(self._wake)
        while self._new:
            watched = self._new.popleft()
            self._step(watched, self._register, *watched.descriptors)

    def _step(self, watched: _WatchedProcess, do: Callable[..., None], *descriptors: int) -> None:
        """Do one step for one compiler. An error in it ends this compiler only."""
        try:
            do(watched, *descriptors)
        except Exception as error:  # noqa: BLE001 - the others are to be watched
            _log.exception("a compiler cannot be waited for")
            self._end(watched, f"it cannot be waited for: {error}")

    def _register(self, watched: _WatchedProcess, *descriptors: int) -> None:
        for descriptor in descriptors:
            self._poll.register(descriptor, select.EPOLLIN)
            self._by_descriptor[descriptor] = watched

    def _readable(self, watched: _WatchedProcess, descriptor: int) -> None:
        if descriptor == watched.cancellation.fileno():
            self._end(watched, "cancelled")
            return
        goes_on, stopped = watched.running.take(descriptor)
        if stopped is not None:
            self._end(watched, stopped)
        elif not goes_on:
            self._forget(watched, descriptor)

    def _end(self, watched: _WatchedProcess, stopped: str) -> None:
        for descriptor in list(watched.descriptors):
            self._forget(watched, descriptor)
        try:
            watched.ended(stopped)
        except Exception:  # noqa: BLE001 - the others are to be watched
            _log.exception("the end of a compiler was lost")
        with self._changed:
            self._count -= 1
            self._changed.notify_all()

    def _forget(self, watched: _WatchedProcess, descriptor: int) -> None:
        watched.descriptors.discard(descriptor)
        if self._by_descriptor.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)
