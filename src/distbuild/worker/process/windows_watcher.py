"""Waits for all compilers of a worker. Knows no compiler and ends none itself. Windows.

Each compiler has threads of its own there, which tell; here is who is told, once, and the time.
"""

import logging
import sys
import threading
import time
from collections.abc import Callable

from distbuild.worker.process.limits import TIMEOUT_S

assert sys.platform == "win32"  # for the type checker, too

from distbuild.worker.process.windows import WindowsCancellation, WindowsRunning

#: How often it is looked for those that have run for too long (seconds).
LOOK_S = 1.0

_log = logging.getLogger(__name__)


class _Watched:
    """One compiler; whoever comes first says how it has ended."""

    def __init__(self, ended: Callable[[str], None], deadline: float) -> None:
        self.deadline = deadline
        self._ended = ended
        self._lock = threading.Lock()
        self._is_over = False

    def end(self, stopped: str) -> bool:
        """Whether this was the first that was said."""
        with self._lock:
            if self._is_over:
                return False
            self._is_over = True
        try:
            self._ended(stopped)
        except Exception:  # noqa: BLE001 - the others are to be watched
            _log.exception("the end of a compiler was lost")
        return True


class WindowsProcessWatcher:
    """``watch`` may be called from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._watched: set[_Watched] = set()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)
        self._thread.start()

    def watch(
        self,
        running: WindowsRunning,
        cancellation: WindowsCancellation,
        ended: Callable[[str], None],
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """Call ``ended``, which must not block, with what stops ``running``: "" for its own end,
        ``cancelled``, ``timeout`` or ``output``. The caller then finishes it."""
        watched = _Watched(ended, time.monotonic() + timeout_s)
        with self._changed:
            self._watched.add(watched)
        running.then(lambda how: self._end(watched, how))
        cancellation.then(lambda: self._end(watched, "cancelled"))

    def close(self) -> None:
        """Wait until nothing is watched any more, and end. Again, it does nothing."""
        with self._changed:
            self._changed.wait_for(lambda: not self._watched)
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._changed.wait_for(lambda: self._closed, LOOK_S):
                    return
                now = time.monotonic()
                late = [one for one in self._watched if now >= one.deadline]
            for one in late:
                self._end(one, "timeout")

    def _end(self, watched: _Watched, stopped: str) -> None:
        if watched.end(stopped):
            with self._changed:
                self._watched.discard(watched)
                self._changed.notify_all()
