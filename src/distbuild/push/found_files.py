"""What the first scan has found so far: its contents go to empty workers before the scan is over.

A worker's store is filled so, and nothing else: its tree is told of the mirror once all of that is
known. Knows no worker, no content and no disk.
"""

import threading

from distbuild.protocol.messages import Digest, FileEntry

#: Listeners are woken each time that so many files more were found.
STEP = 400

Found = tuple[str, FileEntry]


class Ahead:
    """Files in the order in which they were found, until ``close``. For any number of threads."""

    def __init__(self) -> None:
        self._files: list[Found] = []
        self._paths: dict[Digest, Found] = {}
        self._bells: list[threading.Event] = []
        self.is_closed = False

    def listen(self, bell: threading.Event) -> None:
        """Have ``bell`` set when there is more."""
        self._bells.append(bell)

    def found(self, path: str, entry: FileEntry) -> None:
        """The scan has hashed this file."""
        if self.is_closed:
            return
        self._paths[entry.digest] = (path, entry)
        self._files.append((path, entry))
        if len(self._files) % STEP == 0:
            for bell in self._bells:
                bell.set()

    def after(self, begin: int) -> list[Found]:
        """What was found beyond the first ``begin``, if it is worth a message.

        All that is left, once the scan is over.
        """
        files = self._files[begin:]
        return files if self.is_closed or len(files) >= STEP else []

    def get(self, digest: Digest) -> Found | None:
        """A file with this content."""
        return self._paths.get(digest)

    def close(self) -> None:
        """The scan is over: the manifest knows it all."""
        self.is_closed = True

    def forget(self) -> None:
        """Nobody is filled any more with what was found."""
        self._files, self._paths = [], {}
