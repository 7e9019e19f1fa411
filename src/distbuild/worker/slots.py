"""How many compilers run at once, and what is known about them for /status. Runs nothing."""

import threading
from collections import deque
from collections.abc import Callable

#: One sample per change of the number of running compilers.
MAX_SAMPLES = 600


class Slots:
    """``total`` slots, taken in the order of asking."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._free = total
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()
        self._closed = False

    def take(self) -> int:
        """Wait for a free slot and take this asker's share of all that are free.

        Returns 0 once the slots are closed.
        """
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            self._changed.notify_all()
            try:
                self._changed.wait_for(
                    lambda: self._closed or (self._free > 0 and self._waiting[0] is ticket)
                )
                if self._closed:
                    return 0
                share = -(-self._free // len(self._waiting))
                self._free -= share
                return share
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()

    def wait_free(self) -> bool:
        """Wait until a slot is free, without taking it; False once the slots are closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._free > 0)
            return not self._closed

    def give(self, count: int = 1) -> None:
        """Give slots back."""
        with self._changed:
            self._free += count
            self._changed.notify_all()

    def close(self) -> None:
        """Let nobody take a slot any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def wait_asked(self, count: int, timeout_s: float) -> bool:
        """Wait until ``count`` askers stand in line; False if they do not in time."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._waiting) >= count, timeout_s)


class Tally:
    """Counts of compiles. ``clock`` gives Unix time."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._samples: deque[tuple[float, int]] = deque(maxlen=MAX_SAMPLES)
        self._running = 0
        self._ended = {"done": 0, "failed": 0, "cancelled": 0}

    def started(self) -> None:
        """A compiler starts."""
        self._change(+1)

    def ended(self, how: str) -> None:
        """A compiler has ended: ``done``, ``failed`` (no verdict) or ``cancelled``."""
        with self._lock:
            self._ended[how] += 1
        self._change(-1)

    def counts(self) -> dict[str, int]:
        """The numbers now."""
        with self._lock:
            return {"running": self._running, **self._ended}

    def performance(self) -> list[tuple[float, int]]:
        """(Unix time, running since then), oldest first."""
        with self._lock:
            return list(self._samples)

    def _change(self, by: int) -> None:
        with self._lock:
            self._running += by
            self._samples.append((round(self._clock(), 3), self._running))
