"""A content-addressed store of blobs on the worker's disk. Knows no client, tree, job or network.

A blob lives at ``root/ab/cdef…``, named by the SHA-256 of its bytes. Trees hold hard links to
blobs, so a blob whose link count is one is used by nobody.
"""

import contextlib
import errno
import hashlib
import io
import itertools
import os
import posixpath
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from distbuild import disk
from distbuild.mirror.unpacking import CHUNK_BYTES, expanded
from distbuild.protocol.errors import InfrastructureError, ProtocolError
from distbuild.protocol.messages import DIGEST_BYTES, MAX_BLOB_BYTES, Blob, Digest, FileEntry
from distbuild.system_paths import WINDOWS, from_system

#: A blob that no tree has linked for so long is removed at the next start.
KEEP_UNUSED_S = 14 * 24 * 3600
#: The last moment that utimensat(2) takes; a file system then cuts it to what it can keep.
_LAST_NS = (2**63 - 1) * 10**9
#: The last is FAT's answer on Windows.
_NO_LINK = frozenset({errno.EMLINK, errno.EXDEV, errno.EPERM, errno.EINVAL})
#: A new file that nobody but us writes, and nobody at all once it is closed.
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | disk.O_PRIVATE
_READABLE = 0o666 if WINDOWS else 0o444


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """What the store holds, for /status."""

    files: int
    bytes: int


class Store:
    """Blobs below ``root``. Every method raises InfrastructureError when the disk fails."""

    def __init__(self, root: Path) -> None:
        self._root = os.fsencode(from_system(str(root)))
        self._lock = threading.Lock()
        #: A crash may have left garbage under a right name: each blob is hashed once per process.
        self._verified: set[Digest] = set()
        #: What may be here, once it was listed: of all else it need not be asked whether it is.
        self._listed: set[Digest] | None = None
        self._files = 0
        self._bytes = 0
        self._numbers = itertools.count(1)
        self._filling = threading.Lock()
        with translated():
            disk.makedirs(self._root, mode=0o700, exist_ok=True)

    def __repr__(self) -> str:
        return f"Store({self._files} files, {self._bytes} bytes)"

    def missing(self, digests: Iterable[Digest]) -> list[Digest]:
        """Those of ``digests`` that have to be sent, each once, in the order given."""
        return [digest for digest in dict.fromkeys(digests) if not self._holds(digest)]

    def recheck(self, digest: Digest) -> bool:
        """Whether the blob's bytes are still right; one that is wrong is removed."""
        with self._lock:
            self._verified.discard(digest)
        return self._holds(digest)

    def put(self, blob: Blob) -> None:
        """Keep a blob from the network; raises ProtocolError when it is not what it says."""
        if len(blob.digest) != DIGEST_BYTES or not 0 <= blob.size <= MAX_BLOB_BYTES:
            raise ProtocolError("blob with a bad digest or size")
        if self._holds(blob.digest):
            return
        if not self._keep(expanded(blob), blob.digest, blob.size):
            raise ProtocolError(f"blob {blob.digest.hex()} has other content than its digest")

    def put_all(self, blobs: Iterable[Blob]) -> None:
        """``put`` for each, one batch after the other.

        To write a small file takes a dozen calls that let go of Python's lock: threads that do so
        at the same time take it from each other each time, and together are slower than one.
        """
        with self._filling:
            for blob in blobs:
                self.put(blob)

    def add_file(self, path: bytes, entry: FileEntry) -> bool:
        """Copy this machine's file at ``path`` if it is what ``entry`` says; False if not."""
        try:
            with disk.open_to_read(path) as file:
                return self._keep(_chunks(file), entry.digest, entry.size)
        except OSError:
            return False

    def place(self, entry: FileEntry, destination: bytes, *, may_link: bool) -> bool:
        """Make ``destination`` (absent) the blob's content, with the entry's time and mode.

        True: it is a link to the blob; False: a copy of its own, because ``may_link`` is False or
        ``link`` refused.
        """
        with translated():
            if may_link and self._link(self._path(entry.digest), entry, destination):
                return True
            disk.copyfile(self._path(entry.digest), destination)
            _dress(destination, entry)
            return False

    def link(self, entry: FileEntry, destination: bytes) -> bool:
        """Make ``destination`` a link to the blob, with the entry's time and mode, in one step.

        False: refused, because another tree's link has another time or mode, or by the file
        system. Raises FileExistsError and FileNotFoundError for the destination as link(2) does.
        """
        return self._link(self._path(entry.digest), entry, destination)

    def evict(self, now: float, cap: int | None = None) -> None:
        """Remove what nobody has used for long, and the oldest unused above ``cap`` bytes."""
        with translated():
            found = sorted(self._scan(), key=lambda blob: _last_used(blob[1]))
        total = sum(stat.st_size for _, stat in found)
        files = len(found)
        for digest, stat in found:
            too_much = cap is not None and total > cap
            if stat.st_nlink > 1 or not (too_much or now - _last_used(stat) > KEEP_UNUSED_S):
                continue
            if self._remove_unused(digest):
                total -= stat.st_size
                files -= 1
        with self._lock:
            self._files, self._bytes = files, total
            # What was kept meanwhile was verified as well.
            self._listed = {digest for digest, _ in found} | self._verified

    def status(self) -> StoreStatus:
        """How much is held."""
        return StoreStatus(self._files, self._bytes)

    def _link(self, source: bytes, entry: FileEntry, destination: bytes) -> bool:
        with self._lock:
            stat = disk.lstat(source)
            if stat.st_nlink == 1:
                _dress(source, entry, stat.st_mode)
            elif stat.st_mtime_ns != entry.mtime_ns or stat.st_mode & 0o777 != tree_mode(entry):
                return False
            try:
                disk.link(source, destination)
            except OSError as error:
                if error.errno in _NO_LINK:
                    return False
                raise
            return True

    def _path(self, digest: Digest) -> bytes:
        name = digest.hex().encode()
        return b"%s/%s/%s" % (self._root, name[:2], name[2:])

    def _holds(self, digest: Digest) -> bool:
        if self._listed is not None and digest not in self._listed:
            return False
        path = self._path(digest)
        with self._lock:
            if not disk.exists(path):
                return False
            if digest in self._verified:
                return True
        try:
            with disk.open_to_read(path) as file:
                good = hashlib.file_digest(file, "sha256").digest() == digest
        except FileNotFoundError:
            return False
        except OSError as error:
            raise InfrastructureError(f"store: {error}") from error
        with self._lock, contextlib.suppress(FileNotFoundError):
            if good and disk.exists(path):
                self._verified.add(digest)
                return True
            disk.unlink(path)
        return False

    def _keep(self, chunks: Iterable[bytes], digest: Digest, size: int) -> bool:
        path = self._path(digest)
        with translated():
            handle, temporary = self._make_temporary(posixpath.dirname(path))
            try:
                try:
                    good = _write_hashed(chunks, handle, digest, size)
                finally:
                    os.close(handle)
                if not good:
                    return False
                disk.rename(temporary, path)
                temporary = b""
            finally:
                if temporary:
                    disk.unlink(temporary)
        with self._lock:
            self._verified.add(digest)
            if self._listed is not None:
                self._listed.add(digest)
            self._files += 1
            self._bytes += size
        return True

    def _make_temporary(self, folder: bytes) -> tuple[int, bytes]:
        """A new file, open for writing and for nothing else later, whose name is no digest."""
        name = b"%s/.new-%d-%d" % (folder, os.getpid(), next(self._numbers))
        try:
            return disk.open_descriptor(name, _NEW, _READABLE), name
        except FileNotFoundError:
            disk.makedirs(folder, exist_ok=True)
        except FileExistsError:
            disk.unlink(name)  # a process of this number died here
        return disk.open_descriptor(name, _NEW, _READABLE), name

    def _scan(self) -> Iterator[tuple[Digest, os.stat_result]]:
        for folder in disk.listdir(self._root):
            for name in disk.listdir(self._root + b"/" + folder):
                path = self._root + b"/" + folder + b"/" + name
                try:
                    digest = bytes.fromhex((folder + name).decode())
                except ValueError:
                    if not name.startswith(b".new-%d-" % os.getpid()):
                        disk.unlink(path)  # the temporary file of a process that died
                else:
                    yield digest, disk.lstat(path)

    def _remove_unused(self, digest: Digest) -> bool:
        with self._lock, contextlib.suppress(FileNotFoundError):
            path = self._path(digest)
            if digest not in self._verified and disk.lstat(path).st_nlink == 1:
                disk.unlink(path)
                return True
        return False


def tree_mode(entry: FileEntry) -> int:
    """The permission bits of a file in a tree: nobody writes through a link to a blob."""
    if WINDOWS:
        return 0o666  # of a link that cannot be written none can be removed
    return 0o555 if entry.mode & 0o111 else 0o444


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """The one edge at which the disk's errors become ours."""
    try:
        yield
    except OSError as error:
        raise InfrastructureError(f"disk: {error}") from error


def _dress(path: bytes, entry: FileEntry, mode: int = 0) -> None:
    if mode & 0o7777 != tree_mode(entry):
        disk.chmod(path, tree_mode(entry))
    time_ns = max(-_LAST_NS, min(entry.mtime_ns, _LAST_NS))
    used_ns = time.time_ns() if WINDOWS else time_ns
    disk.utime(path, ns=(used_ns, time_ns))


def _last_used(status: os.stat_result) -> float:
    """When a blob was last linked or unlinked (Unix time); Windows keeps no time of that, so that
    of the last access says it."""
    return status.st_atime if WINDOWS else status.st_ctime


def _chunks(file: io.FileIO) -> Iterator[bytes]:
    while chunk := file.read(CHUNK_BYTES):
        yield chunk


def _write_hashed(chunks: Iterable[bytes], handle: int, digest: Digest, size: int) -> bool:
    hasher, total = hashlib.sha256(), 0
    for chunk in chunks:
        total += len(chunk)
        if total > size:
            return False
        hasher.update(chunk)
        rest = memoryview(chunk)
        while rest:
            rest = rest[os.write(handle, rest) :]
    return total == size and hasher.digest() == digest
