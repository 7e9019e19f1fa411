"""What the watcher told and nobody has taken in yet. Any thread tells, one takes."""

import threading


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
