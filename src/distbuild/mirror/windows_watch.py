"""A file watcher for Windows: one recursive watch per mirrored tree, with a barrier.

A watch on each directory would prevent renaming any directory above it. Calls Windows only through
``ChangeReader``, so that it runs on every system in tests.
"""

import contextlib
import logging
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from distbuild.mirror.directory_changes import Completion
from distbuild.system import disk
from distbuild.system.paths import windows_form

log = logging.getLogger(__name__)

#: FILE_NOTIFY_INFORMATION: offset of the next one, action, size in bytes of the name that follows.
_HEAD = struct.Struct("<III")
#: Interval (seconds) at which a thread that waits for the watcher's thread checks that it lives.
_LOOK_S = 1.0
ADDED, REMOVED, MODIFIED, RENAMED_FROM, RENAMED_TO = 1, 2, 3, 4, 5


class ChangeReader(Protocol):
    """The interface of ``DirectoryChanges``; only ``wake`` is thread-safe, the rest is called from
    one thread."""

    def open(self, path: str, *, deep: bool) -> int:
        """Watch a directory, given in Windows' form; returns the watch's key. Raises OSError."""

    def close(self, key: int) -> None:
        """End a watch."""

    def wait(self, timeout_ms: int = ...) -> Completion | None:
        """The next completion of a watch, ``WOKEN``, or None after the timeout."""

    def wake(self) -> None:
        """Make ``wait`` return ``WOKEN``."""

    def stop(self) -> None:
        """End all watches."""


@dataclass(frozen=True, slots=True)
class _WatchedDirectory:
    directory: str
    deep: bool


class WindowsWatcher:
    """A FileWatcher that calls ``changed(path, is_directory)`` and ``overflowed()`` in a thread.

    ``is_directory`` False is certain, True is not.
    """

    def __init__(
        self,
        changed: Callable[[str, bool], None],
        overflowed: Callable[[], None],
        make: Callable[[], ChangeReader],
        is_directory: Callable[[str], bool] = disk.isdir,
    ) -> None:
        self._changed = changed
        self._overflowed = overflowed
        self._is_directory = is_directory
        self._lock = threading.Lock()
        self._watches: dict[int, _WatchedDirectory] = {}
        self._tasks: deque[tuple[Callable[[], None], Future[None]]] = deque()
        self._changes = make()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="changes", daemon=True)
        self._thread.start()

    def cover(self, directory: str) -> None:
        self._open(_WatchedDirectory(directory, deep=True))

    def add(self, directory: str) -> bool:
        return self._open(_WatchedDirectory(directory, deep=False))

    def forget(self, directory: str) -> None:
        """Stop watching; a recursive watch on a directory above stays."""
        self._close(lambda d: d == directory or d.startswith(directory + "/"))

    def forget_one(self, directory: str) -> None:
        self._close(lambda d: d == directory)

    def barrier(self) -> bool:
        """Always True: NTFS queues a notification within the call that makes the change, so all
        earlier changes were reported once the thread finds nothing more queued. Writes that a
        program has neither closed nor flushed yet give no notification.
        """
        self._ask(self._drain)
        return True

    def stop(self) -> None:
        self._stopping = True
        self._changes.wake()
        self._thread.join()

    def _covered(self, wanted: _WatchedDirectory) -> bool:
        with self._lock:
            return any(
                (watch.directory == wanted.directory and (watch.deep or not wanted.deep))
                or (watch.deep and wanted.directory.startswith(watch.directory.rstrip("/") + "/"))
                for watch in self._watches.values()
            )  # fmt: skip

    def _open(self, wanted: _WatchedDirectory) -> bool:
        if self._covered(wanted):
            return True
        try:
            self._ask(lambda: self._begin(wanted))
        except OSError as error:
            log.warning("%s: cannot be watched: %s", wanted.directory, error.strerror or error)
            return False
        return True

    def _ask(self, task: Callable[[], None]) -> None:
        """Run ``task`` in the watcher's thread and wait for it. Raises OSError if ``task`` does."""
        done: Future[None] = Future()
        self._tasks.append((task, done))
        self._changes.wake()
        while self._thread.is_alive():
            with contextlib.suppress(TimeoutError):
                done.result(_LOOK_S)
                break

    # --- in the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping:
            self._take(self._changes.wait())
            while self._tasks:
                task, done = self._tasks.popleft()
                try:
                    task()
                except OSError as error:
                    done.set_exception(error)
                else:
                    done.set_result(None)
        self._changes.stop()
        for _, done in self._tasks:
            done.set_result(None)

    def _drain(self) -> None:
        while (completion := self._changes.wait(0)) is not None:
            self._take(completion)

    def _begin(self, wanted: _WatchedDirectory) -> None:
        key = self._changes.open(windows_form(wanted.directory), deep=wanted.deep)
        with self._lock:
            self._watches[key] = wanted

    def _close(self, which: Callable[[str], bool]) -> None:
        with self._lock:
            keys = [key for key, watch in self._watches.items() if which(watch.directory)]
        if keys:
            self._ask(lambda: self._end(keys))

    def _end(self, keys: list[int]) -> None:
        # Report their events of the time before.
        self._drain()
        for key in keys:
            with self._lock:
                self._watches.pop(key, None)
            self._changes.close(key)

    def _take(self, completion: Completion | None) -> None:
        watch = self._watches.get(completion.key) if completion is not None else None
        if completion is None or watch is None:
            return
        if completion.data is None:
            with self._lock:
                del self._watches[completion.key]
            self._changed(watch.directory, True)
            return
        try:
            self._emit(watch, completion.data)
        except Exception:
            log.exception("events lost: %s", watch.directory)
            self._overflowed()

    def _emit(self, watch: _WatchedDirectory, data: bytes) -> None:
        if not data:
            self._overflowed()
        for action, name in notifications(data):
            path = watch.directory.rstrip("/") + "/" + name.replace("\\", "/")
            if "~" in name:
                # It may be a file's short (8.3) name, which no manifest has.
                self._changed(watch.directory, True)
            elif action in (REMOVED, RENAMED_FROM):
                self._changed(path, True)
            elif action != MODIFIED or not self._is_directory(path):
                # A directory is modified when a name in it is added or removed, which has an event
                # of its own.
                self._changed(path, action != MODIFIED and self._is_directory(path))


def notifications(data: bytes) -> Iterator[tuple[int, str]]:
    """Action and relative name of each event in a buffer of FILE_NOTIFY_INFORMATION records.

    Raises ValueError if the buffer is malformed.
    """
    offset = 0
    while data:
        if offset + _HEAD.size > len(data):
            raise ValueError("a notification is cut off")
        step, action, size = _HEAD.unpack_from(data, offset)
        begin = offset + _HEAD.size
        if begin + size > len(data):
            raise ValueError("the name in a notification is cut off")
        yield action, data[begin : begin + size].decode("utf-16-le", "surrogatepass")
        if step == 0:
            return
        offset += step
