"""A thread-safe event that fires once and calls back, so that waiting for it needs no thread."""

import threading
from collections.abc import Callable


class OneShot:
    """An event that fires once. ``then`` registers a callback, ``wait`` blocks a thread."""

    __slots__ = ("_callbacks", "_lock")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] | None = []

    def is_set(self) -> bool:
        return self._callbacks is None

    def set(self) -> None:
        """Fire. Idempotent. Callbacks run in the caller's thread: they must not block."""
        with self._lock:
            callbacks, self._callbacks = self._callbacks, None
        for callback in callbacks or ():
            callback()

    def then(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` when the event fires, or at once if it has fired."""
        with self._lock:
            if self._callbacks is not None:
                self._callbacks.append(callback)
                return
        callback()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the event fires, for at most ``timeout`` seconds; whether it has fired."""
        if self._callbacks is None:
            return True
        happened = threading.Event()
        self.then(happened.set)
        return happened.wait(timeout)
