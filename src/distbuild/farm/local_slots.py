"""Lets local work of the dev box, links and fallbacks, run a few at a time, in order of arrival.

Without it ``make -j200`` would start as many compilers here as soon as the farm cannot take them.
"""

import threading
from collections import deque
from collections.abc import Generator

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
