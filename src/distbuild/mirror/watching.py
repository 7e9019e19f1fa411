"""Chooses how changes are noticed on this system.

Notifications are only trusted where they show, at the start, that they come in time.
"""

import logging
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from distbuild.mirror.directory_changes import DirectoryChanges
from distbuild.mirror.windows_watch import WindowsWatcher
from distbuild.system import disk
from distbuild.system.paths import WINDOWS, from_system
from distbuild.system.windows.calls import is_wine

log = logging.getLogger(__name__)


class FileWatcher(Protocol):
    """What the mirror needs of file-change notification."""

    def cover(self, directory: str) -> None:
        """Have one watch for a directory and all below it, where the system has such watches."""

    def add(self, directory: str) -> bool:
        """Watch one directory, not what is below it. False: it cannot be watched."""

    def forget(self, directory: str) -> None:
        """Stop watching a directory and everything below it."""

    def forget_one(self, directory: str) -> None:
        """Stop watching a directory, not what is below it."""

    def barrier(self) -> bool:
        """Return once every change made before the call was told. False: that is not certain."""

    def stop(self) -> None:
        """Release everything."""


class NoWatcher:
    """For systems without notification: watches nothing, so every directory is listed per job."""

    def cover(self, directory: str) -> None:
        """Nothing can be watched."""
        del directory

    def add(self, directory: str) -> bool:
        """Nothing can be watched."""
        del directory
        return False

    def forget(self, directory: str) -> None:
        """Nothing is watched."""
        del directory

    def forget_one(self, directory: str) -> None:
        """Nothing is watched."""
        del directory

    def barrier(self) -> bool:
        """Trivially true: nothing is watched."""
        return True

    def stop(self) -> None:
        """Nothing to release."""


#: Gets ``changed(path, is_directory)`` and ``overflowed()``.
MakeWatcher = Callable[[Callable[[str, bool], None], Callable[[], None]], FileWatcher]
#: So many changes in a row have to be told by the time a barrier is passed.
TRIAL_ROUNDS = 50


def watcher_maker(scratch: Path) -> MakeWatcher:
    """What makes the best watcher for this system; ``scratch`` is a directory to try it in."""
    if not WINDOWS:
        return _inotify

    def make(changed: Callable[[str, bool], None], overflowed: Callable[[], None]) -> FileWatcher:
        if is_wine():
            log.warning("wine loses notifications: directories are listed for each job")
            return NoWatcher()
        if not is_prompt(_windows, scratch):
            log.warning("notifications come late here: directories are listed for each job")
            return NoWatcher()
        return _windows(changed, overflowed)

    return make


def is_prompt(make: MakeWatcher, scratch: Path) -> bool:
    """Whether a watcher has told of each change once its barrier is passed."""
    told: set[str] = set()
    lost: list[bool] = []
    try:
        with tempfile.TemporaryDirectory(dir=scratch) as made:
            inner = Path(made) / "inner"
            inner.mkdir()
            watcher = make(lambda path, _: told.add(path), lambda: lost.append(True))
            try:
                top = disk.realpath(from_system(made))
                watcher.cover(top)
                seen = watcher.add(top) and watcher.add(top + "/inner")
                for name in map(str, range(TRIAL_ROUNDS)):
                    (inner / "new").write_text(name, encoding="ascii")
                    os.replace(inner / "new", inner / name)
                    seen = seen and watcher.barrier() and f"{top}/inner/{name}" in told
                return seen and not lost
            finally:
                watcher.stop()
    except OSError as error:
        log.warning("%s: %s", scratch, error)
        return False


def _inotify(changed: Callable[[str, bool], None], overflowed: Callable[[], None]) -> FileWatcher:
    try:
        from distbuild.mirror.inotify import InotifyWatcher  # Linux only

        return InotifyWatcher(changed, overflowed)
    except (ImportError, OSError) as error:
        log.warning("no change notification (%s): directories are listed for each job", error)
        return NoWatcher()


def _windows(changed: Callable[[str, bool], None], overflowed: Callable[[], None]) -> FileWatcher:
    return WindowsWatcher(changed, overflowed, DirectoryChanges)


class Pending:
    """Changed paths, each with whether it may be a directory, and whether events were lost."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._paths: dict[str, bool] = {}
        self._lost = False
        self._something = threading.Event()

    def changed(self, path: str, is_directory: bool) -> None:
        """A path has changed."""
        with self._lock:
            self._paths[path] = self._paths.get(path, False) or is_directory
        self._something.set()

    def overflowed(self) -> None:
        """Events were lost: anything may have changed."""
        with self._lock:
            self._lost = True
        self._something.set()

    def wake(self) -> None:
        """End a wait although nothing has changed."""
        self._something.set()

    def wait(self) -> None:
        """Return once there is something to take."""
        self._something.wait()

    def take(self) -> tuple[list[str], bool]:
        """The changed paths, sorted, and whether events were lost; then there is nothing."""
        with self._lock:
            self._something.clear()
            paths, self._paths = sorted(self._paths), {}
            lost, self._lost = self._lost, False
        return paths, lost
