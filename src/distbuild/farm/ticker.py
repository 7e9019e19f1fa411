"""A thread that does what is due, when it is due. Knows nothing of what that is.

A wake-up with cold caches costs a dev box a part of what a job does: so it sleeps until there is
something to do, not for a fixed time.
"""

import math
import threading
import time
from collections.abc import Callable

#: It wakes at least so often (seconds). Whatever comes to be due while it sleeps is due later than
#: that, but for what ``sooner`` tells: a renewal waits 5 s, a lease lasts 15.
MAX_REST_S = 4.0
#: And not more often: what is due may need a moment to be done with by others.
MIN_REST_S = 0.05


class Ticker:
    """Calls ``act`` again and again; it returns when it is due next, on the clock ``now``."""

    def __init__(
        self, act: Callable[[], float], name: str, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._act = act
        self._now = now
        self._wakes_at = now() + MIN_REST_S
        self._called = threading.Event()
        self._is_ending = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def sooner(self, due: float) -> None:
        """Something has come to be due at this time."""
        if due < self._wakes_at:
            self._called.set()

    def stop(self) -> None:
        """Make an end of it; returns once ``act`` does not run any more."""
        self._is_ending = True
        self._called.set()
        self._thread.join()

    def _run(self) -> None:
        rest = MIN_REST_S
        while True:
            self._called.wait(rest)
            self._called.clear()
            if self._is_ending:
                return
            self._wakes_at = math.inf  # what comes from here on may be too late for its answer
            due = self._act()
            rest = min(max(due - self._now(), MIN_REST_S), MAX_REST_S)
            self._wakes_at = self._now() + rest
