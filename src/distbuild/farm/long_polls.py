"""The workers' pending long polls for jobs, and the thread that times them out. The callers of
``Polls`` hold the farm's lock.

A new job wakes one poll, that of the worker with the most spare slots: with many workers, waking
all of them for each job costs more than the job.
"""

import math
import threading
import time
from collections.abc import Callable, Iterable

from distbuild.one_shot import OneShot


class Poll:
    """A worker's pending request; ``slots`` 0: it only waits to learn that there is a job. Places
    ahead do not count: a job for one may be another worker's, which then has to be woken for it.

    ``deadline``: when it is answered with nothing, on the farm's clock. ``promised``: how many jobs
    have woken it since it last looked for jobs. ``answered``: its connection was there to the end.
    """

    def __init__(self, slots: int, deadline: float) -> None:
        self.slots = slots
        self.deadline = deadline
        self.promised = 0
        self.answered = False
        self._bell = OneShot()

    def begin(self) -> OneShot:
        """The request looks for jobs now; earlier wake-ups are cleared. Returns the event that
        fires when it has to look again."""
        self.promised = 0
        if self._bell.is_set():
            self._bell = OneShot()
        return self._bell

    def notify(self) -> None:
        """Have the request look for jobs again."""
        self._bell.set()


class Polls:
    """The pending requests, one per worker. Not thread-safe: the caller holds the farm's lock."""

    def __init__(self) -> None:
        self._waiting: dict[str, Poll] = {}

    def enter(self, worker: str, slots: int, deadline: float) -> Poll:
        """Add a worker's request; an earlier one of this worker that still waits is dismissed."""
        self.dismiss(worker)
        poll = self._waiting[worker] = Poll(slots, deadline)
        return poll

    def is_current(self, worker: str, poll: Poll) -> bool:
        """Whether a request has not been dismissed."""
        return self._waiting.get(worker) is poll

    def has(self, worker: str) -> bool:
        """Whether a request of this worker waits."""
        return worker in self._waiting

    def dismiss(self, worker: str) -> None:
        """End a worker's request with an empty answer, which the worker does not wait for."""
        poll = self._waiting.pop(worker, None)
        if poll is not None:
            poll.notify()

    def leave(self, worker: str, poll: Poll) -> bool:
        """Remove a request that ends; whether it was woken for a job and did not look again."""
        if self._waiting.get(worker) is poll:
            del self._waiting[worker]
        return poll.promised > 0

    def notify(self, workers: Iterable[str]) -> None:
        """Wake a request for a new job that each of these workers could take: that with the most
        spare slots, and all with ``slots`` 0."""
        best: Poll | None = None
        for worker in workers:
            poll = self._waiting.get(worker)
            if poll is None:
                continue
            if poll.slots == 0:
                poll.notify()
            elif best is None or poll.slots - poll.promised > best.slots - best.promised:
                best = poll
        if best is not None and best.promised < best.slots:
            best.promised += 1
            best.notify()

    def notify_all(self) -> None:
        """Wake all requests."""
        for poll in self._waiting.values():
            poll.notify()

    def ring_late(self, now: float) -> float:
        """Wake the requests whose deadline has passed, so that they look a last time. Returns the
        next deadline; infinity: none."""
        due = math.inf
        for poll in self._waiting.values():
            if poll.deadline <= now:
                poll.notify()
            else:
                due = min(due, poll.deadline)
        return due

    def ring_one(self, worker: str) -> None:
        """Wake a worker's request."""
        if worker in self._waiting:
            self._waiting[worker].notify()


#: The shortest sleep: other threads may need a moment to finish what has become due.
MIN_REST_S = 0.05


class Ticker:
    """A thread that calls ``act`` repeatedly, each time at the time that the last call returned.

    Times are on the clock ``now``. ``rest_s``: the longest sleep.
    """

    def __init__(
        self,
        act: Callable[[], float],
        name: str,
        rest_s: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._act = act
        self._rest_s = rest_s
        self._now = now
        self._wakes_at = now() + MIN_REST_S
        self._called = threading.Event()
        self._is_ending = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def sooner(self, due: float) -> None:
        """Call ``act`` at this time at the latest."""
        if due < self._wakes_at:
            self._called.set()

    def stop(self) -> None:
        """Stop the thread; returns once ``act`` does not run any more."""
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
            self._wakes_at = math.inf  # ``act`` may miss a deadline that is set from here on
            due = self._act()
            rest = min(max(due - self._now(), MIN_REST_S), self._rest_s)
            self._wakes_at = self._now() + rest
