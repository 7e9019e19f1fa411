"""Lets the dev box's own cores join in while the farm is full. Only where the user asked for it."""

import threading

from distbuild.farm.farm import Farm
from distbuild.farm.local_slots import LocalSlots

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
