"""The files that the first scan has found so far: empty workers get their contents during the scan.

This fills only the workers' stores; their trees get the manifest once it is complete. Knows no
worker, no content and no disk.
"""

import threading

from distbuild.protocol.messages import Digest, FileEntry

Found = tuple[str, FileEntry]


class FoundFiles:
    """Files in the order in which they were found, until ``close``; thread-safe.

    ``step``: this many are enough for a message.
    """

    def __init__(self, step: int) -> None:
        self._step = step
        self._files: list[Found] = []
        self._paths: dict[Digest, Found] = {}
        self._bells: list[threading.Event] = []
        self.is_closed = False

    def listen(self, event: threading.Event) -> None:
        """Set ``event`` after every ``step`` files found."""
        self._bells.append(event)

    def found(self, path: str, entry: FileEntry) -> None:
        """Add a file that the scan has hashed; ignored after ``close``."""
        if self.is_closed:
            return
        self._paths[entry.digest] = (path, entry)
        self._files.append((path, entry))
        if len(self._files) % self._step == 0:
            for event in self._bells:
                event.set()

    def after(self, begin: int) -> list[Found]:
        """The files found after the first ``begin``; none while the scan goes on and they are fewer
        than ``step``, too few for a message."""
        files = self._files[begin:]
        return files if self.is_closed or len(files) >= self._step else []

    def get(self, digest: Digest) -> Found | None:
        """A file with this content, as found by the scan."""
        return self._paths.get(digest)

    def close(self) -> None:
        """Stop collecting: the scan is over, and the manifest has all files."""
        self.is_closed = True

    def forget(self) -> None:
        """Drop all files: no worker is filled with them any more."""
        self._files, self._paths = [], {}
