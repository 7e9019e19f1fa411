"""How many compilers run at once, which jobs wait for a slot, and the counts for /status.

Runs nothing and knows no job: what waits is a value.
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
    """What an asker has in hand: ``slots`` taken, and room for ``ahead`` jobs to wait here."""

    slots: int = 0
    ahead: int = 0


class Slots(Generic[T]):
    """``total`` slots, taken in the order of asking.

    Up to ``ahead`` values more may wait in line, each for the next slot that is free; with
    ``ahead`` there must be one asker only.
    """

    def __init__(self, total: int, ahead: int = 0) -> None:
        self.total = total
        self._ahead = ahead
        self._free = total
        # Slots whose value runs, or is to be started; those of an offer are neither free nor used.
        self._used = 0
        self._changed = threading.Condition()
        self._askers: deque[object] = deque()
        self._line: deque[T] = deque()
        # Since the last offer. A line that nothing was found for is not offered again and again.
        self._moved = False
        self._closed = False

    def take(self) -> Offer:
        """Wait for a free slot and take this asker's share of all that are free.

        Or, if that comes first, until the line has moved and half of it is room, so that one
        request fills many places. An offer of nothing once the slots are closed.
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
        """Give an offer back for what it got: those of all in line that have a slot now."""
        with self._changed:
            self._free += offer.slots
            self._line.extend(got)
            started = [self._line.popleft() for _ in range(min(self._free, len(self._line)))]
            self._free -= len(started)
            self._used += len(started)
            self._changed.notify_all()
            return started

    def next(self) -> T | None:
        """Hand a slot on to the first in line; None: nobody waits, or the slots are closed, and
        the slot is free."""
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
        """Take out of the line whatever ``is_it``."""
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
        """Let nobody take a slot any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def wait_unused(self) -> None:
        """After closing: wait until nothing that has a slot runs any more."""
        with self._changed:
            self._changed.wait_for(lambda: not self._used)

    def wait_asked(self, count: int, timeout_s: float) -> bool:
        """Wait until ``count`` askers stand in line; False if they do not in time."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._askers) >= count, timeout_s)

    def _is_worth_asking(self) -> bool:
        return self._free > 0 or (self._moved and 2 * len(self._line) <= self._ahead)


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

    def dropped(self) -> None:
        """A job was cancelled before its compiler started."""
        with self._lock:
            self._ended["cancelled"] += 1

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


#: So many requests in a row do not wait.
BURST = 8
#: After that they are apart by so many seconds for each slot. Where many slots have jobs come and
#: go faster they share requests: one costs both sides more than the jobs in it.
PER_SLOT_S = 0.00025


class Pace:
    """A token bucket, for one thread at a time. ``now`` is a monotonic clock in seconds."""

    def __init__(self, slots: int, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._interval = slots * PER_SLOT_S
        # When the requests so far are paid for.
        self._paid = now() - BURST * self._interval

    def delay(self) -> float:
        """Take a turn; how long (seconds) it is to be waited for."""
        now = self._now()
        self._paid = max(self._paid, now - BURST * self._interval) + self._interval
        return max(0.0, self._paid - now)
