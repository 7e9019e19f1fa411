"""The watcher on Windows: one notification for a directory with all that is below it.

A watch for each directory would keep every directory above it from being renamed. Knows the
calls of Windows only by ``ChangeReader``, so that it runs on every system.
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

#: FILE_NOTIFY_INFORMATION: offset of the next one, action, bytes of the name, which follows.
_HEAD = struct.Struct("<III")
#: How often who waits for the thread looks whether it has ended (seconds).
_LOOK_S = 1.0
ADDED, REMOVED, MODIFIED, RENAMED_FROM, RENAMED_TO = 1, 2, 3, 4, 5


class ChangeReader(Protocol):
    """What ``DirectoryChanges`` does; ``wake`` is called from any thread, the rest from one."""

    def open(self, path: str, *, deep: bool) -> int:
        """Watch a directory, in Windows' form; its key."""

    def close(self, key: int) -> None:
        """End a watch."""

    def wait(self, timeout_ms: int = ...) -> Completion | None:
        """What a watch has to tell, ``WOKEN``, or None after the timeout."""

    def wake(self) -> None:
        """Have ``wait`` return."""

    def stop(self) -> None:
        """Release everything."""


@dataclass(frozen=True, slots=True)
class _WatchedDirectory:
    directory: str
    deep: bool


class WindowsWatcher:
    """Calls ``changed(path, is_directory)`` and ``overflowed()`` from a thread of its own.

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
        """See Watcher."""
        self._open(_WatchedDirectory(directory, deep=True))

    def add(self, directory: str) -> bool:
        """See Watcher."""
        return self._open(_WatchedDirectory(directory, deep=False))

    def forget(self, directory: str) -> None:
        """See Watcher. What a directory above covers stays covered."""
        self._close(lambda d: d == directory or d.startswith(directory + "/"))

    def forget_one(self, directory: str) -> None:
        """See Watcher."""
        self._close(lambda d: d == directory)

    def barrier(self) -> bool:
        """See Watcher.

        NTFS tells of a change within the call that makes it, to the thread that listens: once that
        has found nothing more to take in, all earlier changes were told. What a program has not
        closed or flushed yet shows nowhere.
        """
        self._ask(self._drain)
        return True

    def stop(self) -> None:
        """See Watcher."""
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
        """Have the thread do something, and wait for it. Raises what ``task`` raises."""
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
        # What they have to tell of the time before is told.
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
            self._tell(watch, completion.data)
        except Exception:
            log.exception("events lost: %s", watch.directory)
            self._overflowed()

    def _tell(self, watch: _WatchedDirectory, data: bytes) -> None:
        if not data:
            self._overflowed()
        for action, name in notifications(data):
            path = watch.directory.rstrip("/") + "/" + name.replace("\\", "/")
            if "~" in name:
                # Perhaps a file's short name, which no manifest knows.
                self._changed(watch.directory, True)
            elif action in (REMOVED, RENAMED_FROM):
                self._changed(path, True)
            elif action != MODIFIED or not self._is_directory(path):
                # A directory is modified when a name comes or goes in it: that is told by itself.
                self._changed(path, action != MODIFIED and self._is_directory(path))


def notifications(data: bytes) -> Iterator[tuple[int, str]]:
    """Action and relative name of each event. Raises ValueError for what is no such list."""
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
