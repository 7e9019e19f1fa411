"""Lets the work around the compilers take turns: what starts one goes before what ends one.

Hundreds of compilers may end at the same moment. If all their threads went on at once, each would
be slow, and the next jobs would start only when all were done. Knows no job.
"""

import contextlib
import threading
from collections import deque
from collections.abc import Iterator


class Turns:
    """At most ``width`` turns at a time. Nobody may wait for another's turn within one."""

    def __init__(self, width: int) -> None:
        self._lock = threading.Lock()
        self._free = width
        self._starting: deque[threading.Event] = deque()
        self._ending: deque[threading.Event] = deque()

    @contextlib.contextmanager
    def start(self) -> Iterator[None]:
        """A turn for what has a compiler run."""
        with self._turn(self._starting):
            yield

    @contextlib.contextmanager
    def end(self) -> Iterator[None]:
        """A turn for what a compiler left to do."""
        with self._turn(self._ending):
            yield

    @contextlib.contextmanager
    def _turn(self, line: deque[threading.Event]) -> Iterator[None]:
        ours = None
        with self._lock:
            if self._free:
                self._free -= 1
            else:
                ours = threading.Event()
                line.append(ours)
        if ours is not None:
            ours.wait()
        try:
            yield
        finally:
            with self._lock:
                following = self._starting or self._ending
                if following:
                    following.popleft().set()
                else:
                    self._free += 1
