"""Syncer side: a FIFO semaphore for commands that run on the dev box (links, fallbacks), and idle
cores of the dev box that take queued jobs from a full farm.

Without the semaphore ``make -j200`` would start 200 local compilers once the farm takes no jobs.
"""

import threading
from collections import deque
from collections.abc import Generator

from distbuild.farm.farm import Farm
from distbuild.one_shot import OneShot


class LocalSlots:
    """At most ``total`` local commands run at the same time; the others wait in arrival order."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._lock = threading.Lock()
        self._free = total
        self._waiting: deque[OneShot] = deque()

    def acquire(self) -> Generator[OneShot, None, None]:
        """Wait for a slot, which the caller must ``release``. Closing the generator gives it up."""
        turn = OneShot()
        with self._lock:
            if self._free > 0:
                self._free -= 1
                return
            self._waiting.append(turn)
        try:
            yield turn
        except GeneratorExit:
            self._give_up(turn)
            raise

    def _give_up(self, turn: OneShot) -> None:
        with self._lock:
            if turn in self._waiting:
                self._waiting.remove(turn)
                return
        self.release()  # it was granted concurrently

    def release(self) -> None:
        """Pass a slot to the first waiter, or free it."""
        with self._lock:
            if not self._waiting:
                self._free += 1
                return
            turn = self._waiting.popleft()
        turn.set()

    def idle(self) -> int:
        """The number of free slots."""
        with self._lock:
            return self._free

    def counts(self) -> dict[str, int]:
        """The numbers shown in ``/status``."""
        with self._lock:
            running = self.total - self._free
            return {"slots": self.total, "running": running, "waiting": len(self._waiting)}


class Relief:
    """Work stealing: a thread that moves jobs from the farm's queue to idle local slots.

    A job that has waited for less than ``waited_s`` will be leased soon: workers poll within
    milliseconds.
    """

    def __init__(self, farm: Farm, slots: LocalSlots, waited_s: float = 0.1) -> None:
        self._waited_s = waited_s
        self._farm = farm
        self._slots = slots
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="relief", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self._waited_s):
            for _ in range(self._slots.idle()):
                if not self._farm.relieve(self._waited_s):
                    break
