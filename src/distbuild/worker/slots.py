"""Worker side: limits concurrent compilers by slots, queues jobs for them, counts for /status.

Runs nothing and knows no job: the queue holds values of any type.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import msgspec

#: One sample per change of the number of running compilers.
MAX_SAMPLES = 600

T = TypeVar("T")


class Offer(msgspec.Struct, frozen=True):
    """The extent of a lease request: ``slots`` reserved, ``ahead`` free places in the line."""

    slots: int = 0
    ahead: int = 0


class Slots(Generic[T]):
    """``total`` slots, reserved by callers (askers) in first-come order. Thread-safe.

    Up to ``ahead`` further values may wait in line, each for the next free slot; with ``ahead``
    there must be only one asker.
    """

    def __init__(self, total: int, ahead: int = 0) -> None:
        self.total = total
        self._ahead = ahead
        self._free = total
        # Slots whose value runs or is about to; those of an offer are neither free nor used.
        self._used = 0
        self._changed = threading.Condition()
        self._askers: deque[object] = deque()
        self._line: deque[T] = deque()
        # The line moved since the last offer: an offer that got nothing is not repeated at once.
        self._moved = False
        self._closed = False

    def take(self) -> Offer:
        """Wait for a free slot and reserve this asker's share of all that are free.

        Returns without one as soon as the line has moved and is at most half full, so that one
        request fills many places. An empty offer once the slots are closed.
        """
        ticket = object()
        with self._changed:
            self._askers.append(ticket)
            self._changed.notify_all()
            try:
                self._changed.wait_for(
                    lambda: self._closed or (self._askers[0] is ticket and self._is_worth_asking())
                )
                if self._closed:
                    return Offer()
                self._moved = False
                share = -(-self._free // len(self._askers))
                self._free -= share
                return Offer(share, self._ahead - len(self._line))
            finally:
                self._askers.remove(ticket)
                self._changed.notify_all()

    def settle(self, offer: Offer, got: Sequence[T] = ()) -> list[T]:
        """Trade an offer for the values that it got; returns those in line that now have a slot."""
        with self._changed:
            self._free += offer.slots
            self._line.extend(got)
            started = [self._line.popleft() for _ in range(min(self._free, len(self._line)))]
            self._free -= len(started)
            self._used += len(started)
            self._changed.notify_all()
            return started

    def next(self) -> T | None:
        """Pass a slot on to the first in line; None: the line is empty or the slots are closed,
        and the slot is freed."""
        with self._changed:
            first = None
            if self._line and not self._closed:
                first = self._line.popleft()
                self._moved = True
            else:
                self._free += 1
                self._used -= 1
                if self._closed and not self._used:
                    self._changed.notify_all()
            if self._is_worth_asking():
                self._changed.notify_all()
            return first

    def drop(self, is_it: Callable[[T], bool]) -> list[T]:
        """Remove and return the values in line for which ``is_it`` is true."""
        with self._changed:
            dropped = [value for value in self._line if is_it(value)]
            self._line = deque(value for value in self._line if not is_it(value))
            return dropped

    def wait_free(self) -> bool:
        """Wait until a slot is free, without taking it; False once the slots are closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._free > 0)
            return not self._closed

    def close(self) -> None:
        """End every wait: ``take`` reserves no slot and ``next`` passes none on any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def wait_unused(self) -> None:
        """After closing: wait until no slot is in use."""
        with self._changed:
            self._changed.wait_for(lambda: not self._used)

    def _is_worth_asking(self) -> bool:
        return self._free > 0 or (self._moved and 2 * len(self._line) <= self._ahead)


class Tally:
    """Counts of compiles. ``clock`` returns Unix time (seconds). Thread-safe."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._samples: deque[tuple[float, int]] = deque(maxlen=MAX_SAMPLES)
        self._running = 0
        self._ended = {"done": 0, "failed": 0, "cancelled": 0}
        #: How far this clock is ahead of the dev box's (seconds); for display.
        self.clock_off_s = 0.0

    def started(self) -> None:
        self._change(+1)

    def ended(self, how: str) -> None:
        """A compiler has ended: ``done``, ``failed`` (no verdict) or ``cancelled``."""
        with self._lock:
            self._ended[how] += 1
        self._change(-1)

    def dropped(self) -> None:
        """A job was cancelled before its compiler started."""
        with self._lock:
            self._ended["cancelled"] += 1

    def counts(self) -> dict[str, int]:
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


#: Requests in a row that need not wait.
BURST = 8
#: After a burst, the interval of requests (seconds per slot). Where the jobs of many slots come and
#: go faster, they share requests: a request costs both sides more than the jobs in it.
PER_SLOT_S = 0.00025


class Pace:
    """A token bucket for requests; not thread-safe. ``now`` is a monotonic clock in seconds."""

    def __init__(self, slots: int, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._interval = slots * PER_SLOT_S
        # The time at which the tokens for the requests so far have been refilled.
        self._paid = now() - BURST * self._interval

    def delay(self) -> float:
        """Count a request; returns how long (seconds) the caller has to wait before it."""
        now = self._now()
        self._paid = max(self._paid, now - BURST * self._interval) + self._interval
        return max(0.0, self._paid - now)
