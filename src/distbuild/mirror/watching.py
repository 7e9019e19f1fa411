"""The interface of file watchers, the choice of one for this system, and the queue of changes.

On Windows notifications are used only if a trial at the start shows that they arrive in time.
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
    """The mirror's interface to file-change notification."""

    def cover(self, directory: str) -> None:
        """Watch a directory and everything below it, if the system has recursive watches."""

    def add(self, directory: str) -> bool:
        """Watch one directory, not recursively. False: it cannot be watched."""

    def forget(self, directory: str) -> None:
        """Stop watching a directory and everything below it."""

    def forget_one(self, directory: str) -> None:
        """Stop watching a directory, but not those below it."""

    def barrier(self) -> bool:
        """Return once every change made before the call was reported. False: not certain."""

    def stop(self) -> None:
        """End all watches and threads."""


class NoWatcher:
    """A watcher that watches nothing, for systems without notification: directories are listed for
    each job."""

    def cover(self, directory: str) -> None:
        del directory

    def add(self, directory: str) -> bool:
        del directory
        return False

    def forget(self, directory: str) -> None:
        del directory

    def forget_one(self, directory: str) -> None:
        del directory

    def barrier(self) -> bool:
        return True

    def stop(self) -> None:
        """Does nothing."""


#: Gets ``changed(path, is_directory)`` and ``overflowed()``.
MakeWatcher = Callable[[Callable[[str, bool], None], Callable[[], None]], FileWatcher]
#: Number of consecutive changes in a trial; each must be reported when its barrier returns.
TRIAL_ROUNDS = 50


def watcher_maker(scratch: Path) -> MakeWatcher:
    """A factory of the best watcher for this system; ``scratch`` is a directory for a trial."""
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
    """Whether, in a trial, a watcher has reported each change when its barrier returns."""
    reported: set[str] = set()
    lost: list[bool] = []
    try:
        with tempfile.TemporaryDirectory(dir=scratch) as made:
            inner = Path(made) / "inner"
            inner.mkdir()
            watcher = make(lambda path, _: reported.add(path), lambda: lost.append(True))
            try:
                top = disk.realpath(from_system(made))
                watcher.cover(top)
                seen = watcher.add(top) and watcher.add(top + "/inner")
                for name in map(str, range(TRIAL_ROUNDS)):
                    (inner / "new").write_text(name, encoding="ascii")
                    os.replace(inner / "new", inner / name)
                    seen = seen and watcher.barrier() and f"{top}/inner/{name}" in reported
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
    """A queue of changed paths between the watcher and the mirror; thread-safe.

    Coalesces changes of one path, and keeps whether events were lost.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._paths: dict[str, bool] = {}
        self._lost = False
        self._something = threading.Event()

    def changed(self, path: str, is_directory: bool) -> None:
        """Add a changed path; ``is_directory``: it may be a directory."""
        with self._lock:
            self._paths[path] = self._paths.get(path, False) or is_directory
        self._something.set()

    def overflowed(self) -> None:
        """Record that events were lost: anything may have changed."""
        with self._lock:
            self._lost = True
        self._something.set()

    def wake(self) -> None:
        """Make ``wait`` return although nothing has changed."""
        self._something.set()

    def wait(self) -> None:
        """Block until something is queued, or ``wake`` is called."""
        self._something.wait()

    def take(self) -> tuple[list[str], bool]:
        """Remove and return the changed paths, sorted, and whether events were lost."""
        with self._lock:
            self._something.clear()
            paths, self._paths = sorted(self._paths), {}
            lost, self._lost = self._lost, False
        return paths, lost
