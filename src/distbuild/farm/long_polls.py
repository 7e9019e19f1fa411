"""Which workers wait for a job right now, and which of them a new one is for. Has no lock.

A job rings one worker, the one with the most slots to spare: to wake them all for each job costs
more than the job where there are many.
"""

import math
import threading
import time
from collections.abc import Callable, Iterable

from distbuild.one_shot import OneShot


class Poll:
    """A worker's request that waits; ``slots`` 0: it only listens whether there is something.

    ``deadline``: when it is answered with nothing, on the farm's clock.
    """

    def __init__(self, slots: int, deadline: float) -> None:
        self.slots = slots
        self.deadline = deadline
        self.promised = 0
        self._bell = OneShot()

    def begin(self) -> OneShot:
        """It looks for jobs now: earlier rings are heard. Returns what happens when it is to look
        again."""
        self.promised = 0
        if self._bell.is_set():
            self._bell = OneShot()
        return self._bell

    def ring(self) -> None:
        """Have it look again."""
        self._bell.set()


class Polls:
    """The waiting requests, by worker."""

    def __init__(self) -> None:
        self._waiting: dict[str, Poll] = {}

    def enter(self, worker: str, slots: int, deadline: float) -> Poll:
        """A worker asks; an earlier request of its that still waits is dismissed."""
        self.dismiss(worker)
        poll = self._waiting[worker] = Poll(slots, deadline)
        return poll

    def is_current(self, worker: str, poll: Poll) -> bool:
        """Whether a request was not dismissed."""
        return self._waiting.get(worker) is poll

    def dismiss(self, worker: str) -> None:
        """Have a worker's request end with nothing: nobody waits for its answer."""
        poll = self._waiting.pop(worker, None)
        if poll is not None:
            poll.ring()

    def leave(self, worker: str, poll: Poll) -> bool:
        """A request ends; whether it was rung for a job that it has not looked for any more."""
        if self._waiting.get(worker) is poll:
            del self._waiting[worker]
        return poll.promised > 0

    def ring(self, workers: Iterable[str]) -> None:
        """A job has come that each of these could take."""
        best: Poll | None = None
        for worker in workers:
            poll = self._waiting.get(worker)
            if poll is None:
                continue
            if poll.slots == 0:
                poll.ring()
            elif best is None or poll.slots - poll.promised > best.slots - best.promised:
                best = poll
        if best is not None and best.promised < best.slots:
            best.promised += 1
            best.ring()

    def ring_all(self) -> None:
        """Have every waiting request look again."""
        for poll in self._waiting.values():
            poll.ring()

    def ring_late(self, now: float) -> float:
        """Have the requests that have waited long enough look a last time; returns when it is due
        for the next one, infinity without any."""
        due = math.inf
        for poll in self._waiting.values():
            if poll.deadline <= now:
                poll.ring()
            else:
                due = min(due, poll.deadline)
        return due

    def ring_one(self, worker: str) -> None:
        """Have a worker's request look again."""
        if worker in self._waiting:
            self._waiting[worker].ring()


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
