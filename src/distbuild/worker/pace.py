"""Keeps requests from following each other faster than they are worth. Knows no request."""

import time
from collections.abc import Callable

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
