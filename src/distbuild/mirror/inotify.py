"""A file watcher for Linux (inotify) with a barrier after which all earlier changes were reported.

Uses watchdog's inotify reader without its observers: they delay a moved-from event by half a
second to pair it, and have one queue per root, so that events of several roots have no order. The
reader's callbacks run in the kernel's order, one at a time. One watch per directory, none
recursive. Knows nothing of manifests.
"""

import contextlib
import fcntl
import itertools
import logging
import os
import struct
import termios
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from watchdog.observers.inotify_c import InotifyConstants, InotifyEvent, InotifyFD

if TYPE_CHECKING:
    from watchdog.observers.inotify_c import CallbackId, WatchDescriptor

_INT = struct.Struct("i")
_HOUSEKEEPING = InotifyConstants.IN_Q_OVERFLOW | InotifyConstants.IN_IGNORED


class DrainableInotify(InotifyFD):
    """Calls ``emit(wd, mask, name)`` for each event in the kernel's order; one thread at a time.

    The watches' own callbacks receive only lost events and the end of a watch.
    """

    def __init__(self, emit: Callable[[int, int, bytes], None]) -> None:
        super().__init__()
        self._emit = emit
        self._telling = threading.RLock()

    def run(self) -> None:
        """Report events as they arrive, until stopped."""
        while self.should_keep_running() and not self._closed:
            if self._check_inotify_fd():
                self.drain()
        with self._lock:
            self._is_reading = False
            if self._closed:
                self._close_resources()

    def silent(self) -> contextlib.AbstractContextManager[object]:
        """A lock that delays events: those that occur while it is held are reported afterwards."""
        return self._telling

    def drain(self) -> None:
        """Report every queued event; returns once no other thread is reporting one."""
        with self._telling:
            while not self._closed and (size := self._queued_bytes()):
                for event in self._parse_event_buffer(os.read(self._inotify_fd, size)):
                    wd, mask, _, name = event
                    if mask & _HOUSEKEEPING:
                        self.handle_event(InotifyEvent(*event))
                    elif wd != -1:
                        self._emit(wd, mask, name)

    def _queued_bytes(self) -> int:
        answer = fcntl.ioctl(self._inotify_fd, termios.FIONREAD, bytes(_INT.size))
        return int(_INT.unpack(answer)[0])


log = logging.getLogger(__name__)


class InotifyWatcher:
    """Watches directories on Linux; calls ``changed(path, is_directory)`` and ``overflowed()``.

    Both are called by one thread at a time: watchdog's reader, or a caller of ``barrier``.
    ``is_directory`` is also True for a watched path that was removed.
    """

    def __init__(
        self, changed: Callable[[str, bool], None], overflowed: Callable[[], None]
    ) -> None:
        from watchdog.observers.inotify_c import InotifyConstants as In
        from watchdog.observers.inotify_c import Mask

        self._changed = changed
        self._overflowed = overflowed
        self._mask = Mask(
            In.IN_MODIFY | In.IN_ATTRIB | In.IN_CLOSE_WRITE | In.IN_MOVE | In.IN_CREATE
            | In.IN_DELETE | In.IN_DELETE_SELF | In.IN_MOVE_SELF | In.IN_ONLYDIR
            | In.IN_EXCL_UNLINK | In.IN_DONT_FOLLOW
        )  # fmt: skip
        self._lock = threading.Lock()
        self._ids = itertools.count(1)
        self._watched: dict[str, tuple[WatchDescriptor, int]] = {}
        self._paths: dict[int, set[str]] = {}
        self._bits = In
        self._fd = DrainableInotify(self._emit)
        self._fd.daemon = True
        self._fd.start()

    def cover(self, directory: str) -> None:
        """Does nothing: inotify has no recursive watches."""

    def add(self, directory: str) -> bool:
        """Watch one directory; True also when it is watched already."""
        if directory in self._watched:
            return True
        number = next(self._ids)
        # A rename reported before the watch is recorded below would leave the watch on a directory
        # that has another path by then.
        with self._fd.silent():
            try:
                wd = self._fd.add_callback(
                    os.fsencode(directory), self._mask, self, _callback_id(number)
                )
            except OSError as error:
                log.warning("%s: cannot be watched: %s", directory, error.strerror or error)
                return False
            if wd < 0:
                return False
            with self._lock:
                self._watched[directory] = (wd, number)
                self._paths.setdefault(wd, set()).add(directory)
        return True

    def forget(self, directory: str) -> None:
        self._forget(directory, _below(directory))

    def forget_one(self, directory: str) -> None:
        self._forget(directory)

    def _forget(self, directory: str, prefix: str | None = None) -> list[str]:
        """Remove the watches of a directory and of paths with ``prefix``; returns their paths."""
        with self._lock:
            gone = [directory] if directory in self._watched else []
            if prefix is not None:
                gone.extend(d for d in self._watched if d.startswith(prefix) and d != directory)
            released = [self._release(d) for d in gone]
        try:
            self._fd.remove_callbacks([(wd, _callback_id(n)) for wd, n in released])
        except OSError as error:
            log.debug("%s: %s", directory, error)
        return gone

    def _release(self, directory: str) -> "tuple[WatchDescriptor, int]":
        wd, number = self._watched.pop(directory)
        paths = self._paths.get(wd, set())
        paths.discard(directory)
        if not paths:
            self._paths.pop(wd, None)
        return wd, number

    def barrier(self) -> bool:
        """Always True: the kernel queues an event before the system call that makes the change
        returns, so all earlier changes were reported once the queue is empty and its reader idle.
        """
        self._fd.drain()
        return True

    def stop(self) -> None:
        """Close the inotify instance and end its thread."""
        self._fd.stop()
        self._fd.join()

    # --- called by the reader -------------------------------------------------------------------

    def on_event(self, event: "InotifyEvent") -> None:
        """Unused: events arrive through ``_emit``, without an object for each."""

    def _emit(self, wd: int, mask: int, name: bytes) -> None:
        """Handle one kernel event; an exception that escaped would stop all later ones."""
        try:
            self._dispatch(wd, mask, os.fsdecode(name))
        except Exception:
            log.exception("event lost: %#x %r", mask, name)
            self._overflowed()

    def _dispatch(self, wd: int, mask: int, name: str) -> None:
        bits = self._bits
        is_directory = bool(mask & bits.IN_ISDIR)
        with self._lock:
            directories = tuple(self._paths.get(wd, ()))
        for directory in directories:
            if not name:
                if mask & bits.IN_MOVE_SELF:
                    self._gone(directory)
                if mask & (bits.IN_MOVE_SELF | bits.IN_DELETE_SELF):
                    self._changed(directory, True)
                continue
            path = _below(directory) + name
            if is_directory and mask & bits.IN_ATTRIB:
                continue
            if is_directory and mask & bits.IN_MOVED_FROM:
                self._gone(path)
            self._changed(path, is_directory)

    def _gone(self, directory: str) -> None:
        """Drop the watches of a directory that was moved away, and report them as changed: the
        directories may be back at their paths before this event is read."""
        for watched in self._forget(directory, _below(directory)):
            self._changed(watched, True)

    def on_watch_deleted(self, wd: int) -> None:
        """The kernel dropped a watch: its directory is gone or was unmounted."""
        with self._lock:
            directories = self._paths.pop(wd, set())
            for directory in directories:
                if self._watched.get(directory, (None, 0))[0] == wd:
                    del self._watched[directory]
        try:
            for directory in directories:
                self._changed(directory, True)
        except Exception:
            log.exception("end of a watch lost: %s", directories)
            self._overflowed()

    def on_queue_overflow(self) -> None:
        self._overflowed()


def _callback_id(number: int) -> "CallbackId":
    from watchdog.observers.inotify_c import CallbackId

    return CallbackId(number)


def _below(directory: str) -> str:
    """The prefix of all paths below a directory; also for ``/``."""
    return directory.rstrip("/") + "/"
