"""Which workers wait for a job right now, and which of them a new one is for. Has no lock.

A job rings one worker, the one with the most slots to spare: to wake them all for each job costs
more than the job where there are many.
"""

import threading
from collections.abc import Iterable


class Poll:
    """A worker's request that waits; ``slots`` 0: it only listens whether there is something."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.bell = threading.Event()
        self.promised = 0

    def begin(self) -> None:
        """It looks for jobs now: earlier rings are heard."""
        self.promised = 0
        self.bell.clear()


class Polls:
    """The waiting requests, by worker."""

    def __init__(self) -> None:
        self._waiting: dict[str, Poll] = {}

    def enter(self, worker: str, slots: int) -> Poll:
        """A worker asks; an earlier request of its that still waits is rung no more."""
        poll = self._waiting[worker] = Poll(slots)
        return poll

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
                poll.bell.set()
            elif best is None or poll.slots - poll.promised > best.slots - best.promised:
                best = poll
        if best is not None and best.promised < best.slots:
            best.promised += 1
            best.bell.set()

    def ring_all(self) -> None:
        """Have every waiting request look again."""
        for poll in self._waiting.values():
            poll.bell.set()

    def ring_one(self, worker: str) -> None:
        """Have a worker's request look again."""
        if worker in self._waiting:
            self._waiting[worker].bell.set()
