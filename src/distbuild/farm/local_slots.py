"""Lets local work of the dev box, links and fallbacks, run a few at a time, in order of arrival.

Without it ``make -j200`` would start as many compilers here as soon as the farm cannot take them.
"""

import threading
from collections import deque
from collections.abc import Generator

from distbuild.farm.farm import Farm
from distbuild.one_shot import OneShot


class LocalSlots:
    """``total`` local commands run at the same time; the others wait for their turn."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._lock = threading.Lock()
        self._free = total
        self._waiting: deque[OneShot] = deque()

    def acquire(self) -> Generator[OneShot, None, None]:
        """Return once there is a slot, the caller's to ``release``. Closing gives it up."""
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
        self.release()  # it was granted at the same moment

    def release(self) -> None:
        """Give a slot to the next in line, or back."""
        with self._lock:
            if not self._waiting:
                self._free += 1
                return
            turn = self._waiting.popleft()
        turn.set()

    def idle(self) -> int:
        """Slots that nobody has or waits for."""
        with self._lock:
            return self._free

    def counts(self) -> dict[str, int]:
        """For status."""
        with self._lock:
            running = self.total - self._free
            return {"slots": self.total, "running": running, "waiting": len(self._waiting)}


#: A job that waits for less finds a worker in time: they ask for work within milliseconds.
WAITED_S = 0.1


class Relief:
    """Takes what waits in the farm's queue for the idle ones of the local slots."""

    def __init__(self, farm: Farm, slots: LocalSlots) -> None:
        self._farm = farm
        self._slots = slots
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="relief", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(WAITED_S):
            for _ in range(self._slots.idle()):
                if not self._farm.relieve(WAITED_S):
                    break
