"""What the first scan has found so far: its contents go to empty workers before the scan is over.

A worker's store is filled so, and nothing else: its tree is told of the mirror once all of that is
known. Knows no worker and no disk.
"""

import threading

from distbuild.protocol.messages import Digest, FileEntry

#: Listeners are woken each time that so many files more were found.
STEP = 400
#: Contents that were just hashed are kept up to this much, so that they are not read again.
KEEP_BYTES = 16 * 1024 * 1024

Found = tuple[str, FileEntry]


class Ahead:
    """Files in the order in which they were found, until ``close``. For any number of threads."""

    def __init__(self) -> None:
        self._files: list[Found] = []
        self._paths: dict[Digest, Found] = {}
        self._bells: list[threading.Event] = []
        self._lock = threading.Lock()
        self._contents: dict[Digest, bytes] = {}
        self._kept = 0
        self._is_closed = False

    def listen(self, bell: threading.Event) -> None:
        """Have ``bell`` set when there is more."""
        self._bells.append(bell)

    def found(self, path: str, entry: FileEntry) -> None:
        """The scan has hashed this file."""
        if self._is_closed:
            return
        self._paths[entry.digest] = (path, entry)
        self._files.append((path, entry))
        if len(self._files) % STEP == 0:
            for bell in self._bells:
                bell.set()

    def hashed(self, digest: Digest, content: bytes) -> None:
        """The bytes that gave this digest."""
        with self._lock:
            fits = self._kept + len(content) <= KEEP_BYTES and not self._is_closed
            if fits and digest not in self._contents:
                self._contents[digest] = content
                self._kept += len(content)

    def take(self, digest: Digest) -> bytes | None:
        """The bytes of this digest if they are here; they are given out once."""
        with self._lock:
            content = self._contents.pop(digest, None)
            self._kept -= len(content or b"")
            return content

    def after(self, begin: int) -> list[Found]:
        """What was found beyond the first ``begin``, if it is worth a message."""
        files = self._files[begin:]
        return files if len(files) >= STEP else []

    def get(self, digest: Digest) -> Found | None:
        """A file with this content."""
        return self._paths.get(digest)

    def close(self) -> None:
        """The scan is over: the manifest knows it all."""
        with self._lock:
            self._is_closed = True
            self._files, self._paths = [], {}
            self._contents, self._kept = {}, 0
