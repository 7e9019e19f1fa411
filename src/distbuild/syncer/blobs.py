"""Turns digests of the manifest into blobs, ready to be sent. Reads the dev box's disk.

Workers that are filled at the same time ask for the same contents: each is packed once for all,
and what the scan has just read is not read again.
"""

import contextlib
import hashlib
import logging
import threading
from collections.abc import Iterable, Iterator, Sequence

from distbuild import disk
from distbuild.mirror.manifest import Manifest
from distbuild.protocol.blobs import Packer
from distbuild.protocol.messages import BATCH_BYTES, Blob, Digest, FileEntry
from distbuild.syncer.ahead import Ahead

log = logging.getLogger(__name__)

#: Packed contents that are kept for the other workers. What a slower one asks for later than that
#: is packed again.
KEEP_BYTES = 40 * 1024 * 1024
#: Contents that were just hashed wait up to this much (plain) for a sender to pack them. Beyond it
#: whoever hashes packs a group of so much itself.
RAW_BYTES = 16 * 1024 * 1024
RAW_GROUP_BYTES = 1024 * 1024
#: Headers become 4 % larger than with level 3, and take a fifth less of the dev box's time.
LEVEL = 1


class BlobSource:
    """The contents behind the manifest's digests. For any number of threads."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._lock = threading.Lock()
        self.ahead = Ahead()
        self._users = 0
        # Packed, oldest first; empty while nobody sends.
        self._kept: dict[Digest, Blob] = {}
        self._kept_bytes = 0
        # Hashed, and not packed yet, oldest first.
        self._raw: dict[Digest, bytes] = {}
        self._raw_bytes = 0
        # What a thread packs just now, and how others learn that it is done.
        self._busy: dict[Digest, threading.Event] = {}
        self._packers: list[Packer] = []
        self.sent = 0
        self.sent_bytes = 0

    def read(self, digest: Digest) -> bytes | None:
        """The content with this digest, or None when no mirrored file has it any more."""
        for path, _ in self._files_of(digest):
            try:
                with disk.open_to_read(path) as file:
                    data = file.read()
            except OSError as error:
                log.debug("%s: %s", path, error)
                continue
            if hashlib.sha256(data).digest() == digest:
                return data
        return None

    def _files_of(self, digest: Digest) -> Iterator[tuple[str, FileEntry]]:
        for path in self._manifest.paths_of(digest):
            entry = self._manifest.get(path)
            if isinstance(entry, FileEntry) and entry.digest == digest:
                yield path, entry
        found = self.ahead.get(digest)
        if found is not None:
            yield found

    def size_of(self, digest: Digest) -> int:
        """The plain size of a content of the mirror; 0 when no file has it any more."""
        return next((entry.size for _, entry in self._files_of(digest)), 0)

    def groups(self, digests: Iterable[Digest]) -> Iterator[list[Digest]]:
        """The digests in groups of some megabytes of plain content, each for one ``batch``."""
        group: list[Digest] = []
        size = 0
        for digest in digests:
            group.append(digest)
            size += self.size_of(digest)
            if size >= BATCH_BYTES:
                yield group
                group, size = [], 0
        if group:
            yield group

    def batches(self, digests: Iterable[Digest]) -> Iterator[list[Blob]]:
        """The blobs that can be had, in batches of some megabytes; what cannot is left out."""
        with self.sending():
            for group in self.groups(digests):
                blobs = self.batch(group)
                if blobs:
                    yield blobs

    @contextlib.contextmanager
    def sending(self) -> Iterator[None]:
        """Keep what is packed meanwhile for other senders."""
        self.begin()
        try:
            yield
        finally:
            self.end()

    def begin(self) -> None:
        """Somebody sends, or is about to; until ``end``."""
        with self._lock:
            self._users += 1

    def end(self) -> None:
        """The last one to go takes along what was kept."""
        with self._lock:
            self._users -= 1
            self._tidy()

    def scanned(self) -> None:
        """The first scan is over."""
        with self._lock:
            self.ahead.close()
            self._tidy()

    def _tidy(self) -> None:
        if self._users == 0:
            self._kept.clear()
            self._raw.clear()
            self._packers.clear()
            self._kept_bytes = self._raw_bytes = 0
            if self.ahead.is_closed:
                self.ahead.forget()

    def hashed(self, digest: Digest, content: bytes) -> None:
        """Content that was just read: not read again for whoever is sent something just now.

        A thread that reads files beside the one that scans takes Python's lock from it at each of
        a dozen calls, and both are slower than one that does all.
        """
        with self._lock:
            is_full = self._kept_bytes + self._raw_bytes >= KEEP_BYTES
            if not self._users or is_full or digest in self._kept or digest in self._busy:
                return
            self._raw_bytes += len(content) - len(self._raw.get(digest, b""))
            self._raw[digest] = content
            if self._raw_bytes <= RAW_BYTES:
                return
            late = self._oldest_raw()
            done = threading.Event()
            self._busy.update(dict.fromkeys(late, done))
        self._pack_claimed(late, {}, done)

    def _oldest_raw(self) -> list[Digest]:
        late, size = [], 0
        for digest, content in self._raw.items():
            if size >= RAW_GROUP_BYTES:
                break
            if digest not in self._busy:
                late.append(digest)
                size += len(content)
        return late

    def batch(self, digests: Iterable[Digest]) -> list[Blob]:
        """The blobs of ``digests`` that can be had, in their order.

        A file that changed since it was hashed is left out: its event is on the way, and with it
        another generation.
        """
        digests = list(dict.fromkeys(digests))
        done = threading.Event()
        with self._lock:
            found = {d: self._kept[d] for d in digests if d in self._kept}
            others = {d: self._busy[d] for d in digests if d in self._busy}
            own = [d for d in digests if d not in found and d not in others]
            self._busy.update(dict.fromkeys(own, done))
        # Before others are waited for, so that no two wait for each other.
        self._pack_claimed(own, found, done)
        for digest, event in others.items():
            event.wait()
            with self._lock:
                blob = self._kept.get(digest)
            found.update(self._pack([digest]) if blob is None else {digest: blob})
        blobs = [found[d] for d in digests if d in found]
        with self._lock:
            self.sent += len(blobs)
            self.sent_bytes += sum(len(blob.data) for blob in blobs)
        return blobs

    def _pack_claimed(
        self, own: list[Digest], found: dict[Digest, Blob], done: threading.Event
    ) -> None:
        """Pack what others now wait for at ``done``."""
        try:
            found.update(self._pack(own))
        finally:
            self._settle(own, found, done)

    def _settle(self, own: list[Digest], found: dict[Digest, Blob], done: threading.Event) -> None:
        with self._lock:
            for digest in own:
                del self._busy[digest]
                if self._users and digest in found and digest not in self._kept:
                    self._kept[digest] = found[digest]
                    self._kept_bytes += len(found[digest].data)
            while self._kept_bytes > KEEP_BYTES:
                oldest = next(iter(self._kept))
                self._kept_bytes -= len(self._kept.pop(oldest).data)
        done.set()

    def _pack(self, digests: Sequence[Digest]) -> dict[Digest, Blob]:
        with self._lock:
            packer = self._packers.pop() if self._packers else Packer(LEVEL)
            contents = {d: self._raw.pop(d) for d in digests if d in self._raw}
            self._raw_bytes -= sum(map(len, contents.values()))
        for digest in digests:
            data = contents.get(digest)
            data = self.read(digest) if data is None else data
            if data is None:
                log.info("%s… is asked for, but its file has changed", digest.hex()[:12])
            else:
                contents[digest] = data
        packed = packer.pack_all(contents)
        with self._lock:
            if self._users:
                self._packers.append(packer)
        return packed
