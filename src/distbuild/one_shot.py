"""A thing that happens once, and that nobody needs a thread to wait for."""

import threading
from collections.abc import Callable


class OneShot:
    """Happens once. ``then`` is for those who have no thread to spare, ``wait`` for the others."""

    __slots__ = ("_callbacks", "_lock")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] | None = []

    def is_set(self) -> bool:
        """Whether it has happened."""
        return self._callbacks is None

    def set(self) -> None:
        """Let it happen. Callbacks run here, in the caller's thread: they must not block."""
        with self._lock:
            callbacks, self._callbacks = self._callbacks, None
        for callback in callbacks or ():
            callback()

    def then(self, callback: Callable[[], None]) -> None:
        """Call back once it happens, or at once if it has happened already."""
        with self._lock:
            if self._callbacks is not None:
                self._callbacks.append(callback)
                return
        callback()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until it happens, for ``timeout`` seconds at the most; whether it has."""
        if self._callbacks is None:
            return True
        happened = threading.Event()
        self.then(happened.set)
        return happened.wait(timeout)
