"""watchdog's inotify reader, with a queue that can be emptied at once. Linux only.

watchdog reads in a thread of its own: what it has read and not told yet cannot be seen from
outside. Here reading and telling are one step under one lock, so that an empty queue means that
everything was told.
"""

import contextlib
import fcntl
import os
import struct
import termios
import threading
from collections.abc import Callable

from watchdog.observers.inotify_c import InotifyConstants, InotifyEvent, InotifyFD

_INT = struct.Struct("i")
_HOUSEKEEPING = InotifyConstants.IN_Q_OVERFLOW | InotifyConstants.IN_IGNORED


class DrainableInotify(InotifyFD):
    """Calls ``tell(wd, mask, name)`` for each event in the kernel's order; one thread at a time.

    The callbacks of watches hear only of the loss of events and of the end of a watch.
    """

    def __init__(self, tell: Callable[[int, int, bytes], None]) -> None:
        super().__init__()
        self._tell = tell
        self._telling = threading.RLock()

    def run(self) -> None:
        """Tell events as they come, until stopped."""
        while self.should_keep_running() and not self._closed:
            if self._check_inotify_fd():
                self.drain()
        with self._lock:
            self._is_reading = False
            if self._closed:
                self._close_resources()

    def silent(self) -> contextlib.AbstractContextManager[object]:
        """While this is held nothing is told: what happens meanwhile is told afterwards."""
        return self._telling

    def drain(self) -> None:
        """Tell every event that is in the queue; returns once no other thread is telling one."""
        with self._telling:
            while not self._closed and (size := self._queued_bytes()):
                for event in self._parse_event_buffer(os.read(self._inotify_fd, size)):
                    wd, mask, _, name = event
                    if mask & _HOUSEKEEPING:
                        self.handle_event(InotifyEvent(*event))
                    elif wd != -1:
                        self._tell(wd, mask, name)

    def _queued_bytes(self) -> int:
        answer = fcntl.ioctl(self._inotify_fd, termios.FIONREAD, bytes(_INT.size))
        return int(_INT.unpack(answer)[0])
