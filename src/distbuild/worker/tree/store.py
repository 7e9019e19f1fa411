"""A content-addressed store of blobs on the worker's disk. Knows no client, tree, job or network.

A blob lives at ``root/ab/cdef…``, named by the SHA-256 of its bytes. Trees hold hard links to
blobs, so a blob whose link count is one is not in use.
"""

import contextlib
import errno
import hashlib
import itertools
import math
import os
import posixpath
import re
import stat
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from distbuild.mirror.digest_cache import DigestCache
from distbuild.protocol.errors import InfrastructureError, ProtocolError
from distbuild.protocol.messages import Blob, Bundle, Digest, FileEntry
from distbuild.system import disk
from distbuild.system.paths import WINDOWS, from_system
from distbuild.worker.tree.blob_file import (
    Chunks,
    check_promise,
    chunks_of,
    contents_of,
    copy_new,
    dress,
    expanded,
    put_in_place,
    tree_mode,
    write_new,
)

#: A blob that no tree has linked for this time is removed.
KEEP_UNUSED_S = 14 * 24 * 3600
#: A blob that came or was unlinked so recently (seconds) stays: a tree may be about to link it.
KEEP_RECENT_S = 600
#: An eviction above the cap leaves this share of it, so that the next one is not due at once.
LEAVES = 0.9
#: The names of the store's folders; the home's marker or a file system's own may be beside them.
_FOLDER = re.compile(rb"[0-9a-f]{2}")
#: With less free space the disk counts as full: sources, objects and headers need some.
MIN_FREE_BYTES = 64 * 1024**2
#: Errors for a link that a file system refuses; the last is FAT's on Windows.
_NO_LINK = frozenset({errno.EMLINK, errno.EXDEV, errno.EPERM, errno.EINVAL})


class StoreStatus(msgspec.Struct, frozen=True):
    """The store's contents and its disk's free space, for /status."""

    files: int
    bytes: int
    free_bytes: int
    is_full: bool


class Store:
    """Blobs below ``root``. Every method raises InfrastructureError when the disk fails."""

    def __init__(self, root: Path) -> None:
        self._root = os.fsencode(from_system(str(root)))
        self._lock = threading.Lock()
        #: Blobs that were hashed, once per process: a crash may leave garbage under a right name.
        self._verified: set[Digest] = set()
        #: All blobs that may exist, once listed: for any other the disk need not be asked.
        self._listed: set[Digest] | None = None
        #: Blobs that are being written under their own names.
        self._writing: set[Digest] = set()
        #: Modes of the blobs that this process has written and not linked yet: the disk need not
        #: be asked for their status.
        self._fresh: dict[Digest, int] = {}
        #: Blobs that were reported as present since the last eviction, and between the one before
        #: and that: a tree may be about to link them.
        self._reported: set[Digest] = set()
        self._reported_before: set[Digest] = set()
        #: Sizes of the blobs that were stored since the last eviction began.
        self._added: dict[Digest, int] = {}
        self._files = 0
        self._bytes = 0
        self._numbers = itertools.count(1)
        self._filling = threading.Lock()
        with translated():
            disk.makedirs(self._root, mode=0o700, exist_ok=True)

    def __repr__(self) -> str:
        return f"Store({self._files} files, {self._bytes} bytes)"

    def missing(self, digests: Iterable[Digest]) -> list[Digest]:
        """Those of ``digests`` that the store lacks, each once, in the order given."""
        asked = dict.fromkeys(digests)
        missing = [digest for digest in asked if not self._holds(digest)]
        with self._lock:
            self._reported.update(asked.keys() - missing)
        return missing

    def recheck(self, digest: Digest) -> bool:
        """Hash the blob again: whether it is right; a wrong one is removed."""
        with self._lock:
            self._verified.discard(digest)
            self._fresh.pop(digest, None)
        return self._holds(digest)

    def put(self, blob: Blob) -> None:
        """Store a blob from the network; raises ProtocolError if its digest or size is wrong."""
        check_promise(blob.digest, blob.size)
        if self._holds(blob.digest):
            self._reported.add(blob.digest)
        else:
            self._take(blob.digest, blob.size, expanded(blob.data, blob.size))

    def put_all(self, bundles: Iterable[Bundle]) -> None:
        """Store contents from the network, one batch after the other; raises as ``put`` does.

        Writing a small file takes a dozen calls that release Python's global lock: concurrent
        threads contend for it at each of them, and together are slower than one.
        """
        with self._filling:
            for bundle in bundles:
                for digest, size, chunks in contents_of(bundle):
                    if not self._holds(digest):
                        self._take(digest, size, chunks)

    def _take(self, digest: Digest, size: int, chunks: Chunks) -> None:
        if not self._keep(chunks, digest, size):
            raise ProtocolError(f"blob {digest.hex()} has other content than its digest")

    def add_file(self, path: bytes, entry: FileEntry) -> bool:
        """Copy this machine's file at ``path``; False if it is not the blob of ``entry``."""
        try:
            with disk.open_to_read(path) as file:
                return self._keep(chunks_of(file), entry.digest, entry.size)
        except OSError:
            return False

    def place(self, entry: FileEntry, destination: bytes, *, may_link: bool) -> bool:
        """Create ``destination`` (absent) with the blob's content and the entry's time and mode.

        True: it is a link to the blob; False: it is a copy, because ``may_link`` is False or
        ``link`` refused.
        """
        with translated():
            if may_link and self._link(self._path(entry.digest), entry, destination):
                return True
            copy_new(self._path(entry.digest), destination, entry)
            return False

    def link(self, entry: FileEntry, destination: bytes) -> bool:
        """Make ``destination`` a link to the blob, with the entry's time and mode, in one step.

        False: another tree's link has another time or mode, or the file system refuses. Raises
        FileExistsError and FileNotFoundError for the destination as link(2) does.
        """
        return self._link(self._path(entry.digest), entry, destination)

    def evict(self, now: float, cap: int | None = None) -> None:
        """Remove blobs unused for KEEP_UNUSED_S, and the oldest unused ones above ``cap`` bytes.
        ``now``: Unix time (seconds). Blobs that a tree uses, or may be about to use, stay."""
        with self._lock:
            self._reported, self._reported_before = set(), self._reported
            self._added.clear()
        with translated():
            found = sorted(self._scan())
        files, total = len(found), sum(size for _, size, _, _ in found)
        enough = math.inf if cap is None or total <= cap else LEAVES * cap
        for used, size, links, digest in found:
            if links > 1 or not (total > enough or now - used > KEEP_UNUSED_S):
                continue
            with translated():
                if self._remove_unused(digest, now):
                    total -= size
                    files -= 1
        listed = {digest for _, _, _, digest in found}
        with self._lock:
            late = {digest: size for digest, size in self._added.items() if digest not in listed}
            self._files, self._bytes = files + len(late), total + sum(late.values())
            self._listed = listed | self._verified

    def status(self) -> StoreStatus:
        free = self.free_bytes()
        return StoreStatus(self._files, self._bytes, free, free < MIN_FREE_BYTES)

    def free_bytes(self) -> int:
        """Free bytes of its disk; 0 for a disk that fails."""
        try:
            return disk.free_bytes(self._root)
        except FileNotFoundError:
            return MIN_FREE_BYTES  # the store was removed; the next write recreates it
        except OSError:
            return 0

    def is_full(self) -> bool:
        """Whether its disk has too little free space for jobs."""
        return self.free_bytes() < MIN_FREE_BYTES

    def _link(self, source: bytes, entry: FileEntry, destination: bytes) -> bool:
        with self._lock:
            fresh = self._fresh.pop(entry.digest, None)
            if fresh is not None:
                self._dress_fresh(source, entry, fresh)
            elif (stat := disk.lstat(source)).st_nlink == 1:
                dress(source, entry, stat.st_mode)
            elif stat.st_mtime_ns != entry.mtime_ns or stat.st_mode & 0o777 != tree_mode(entry):
                return False
            try:
                disk.link(source, destination)
            except OSError as error:
                if error.errno in _NO_LINK:
                    return False
                raise
            return True

    def _dress_fresh(self, source: bytes, entry: FileEntry, mode: int) -> None:
        try:
            dress(source, entry, mode)
        except FileNotFoundError:
            # Another process removes blobs: the status of every unlinked one is invalidated.
            self._fresh.clear()
            raise

    def _path(self, digest: Digest) -> bytes:
        name = digest.hex().encode()
        return b"%s/%s/%s" % (self._root, name[:2], name[2:])

    def _holds(self, digest: Digest) -> bool:
        with self._lock:
            known = self._is_known(digest)
        if known is not None:
            return known
        path = self._path(digest)
        try:
            with disk.open_to_read(path) as file:
                good = hashlib.file_digest(file, "sha256").digest() == digest
        except FileNotFoundError:
            return False
        except OSError as error:
            raise InfrastructureError(f"store: {error}") from error
        with self._lock, contextlib.suppress(FileNotFoundError):
            # Meanwhile another thread may have found it bad, and be rewriting it.
            if (known := self._is_known(digest)) is not None:
                return known
            if good:
                self._verified.add(digest)
                return True
            disk.unlink(path)
        return False

    def _is_known(self, digest: Digest) -> bool | None:
        """Whether the blob is here; None if the file has to be hashed to know that."""
        if self._listed is not None and digest not in self._listed:
            return False
        if digest in self._fresh:
            return True
        if digest in self._writing or not disk.exists(self._path(digest)):
            return False
        return True if digest in self._verified else None

    def _keep(self, chunks: Chunks, digest: Digest, size: int) -> bool:
        """Write a blob under its own name; whether its digest and size were right.

        A crash may leave a partial one: a later process hashes each blob before it trusts it.
        """
        path = self._path(digest)
        with self._lock:
            if self._is_known(digest):
                return True  # another thread was faster
            is_first = digest not in self._writing
            self._writing.add(digest)
        # Another thread that is writing the same blob has that name; this one does not wait.
        written = path if is_first else self._temporary(path)
        mode = None
        with translated():
            try:
                mode = write_new(written, chunks, digest, size)
            except FileExistsError:
                # Left by a crash, or by another writer that has finished.
                written = self._temporary(path)
                mode = write_new(written, chunks, digest, size)
            finally:
                with self._lock:
                    try:
                        self._settle(digest, written, path, mode)
                    finally:
                        if is_first or mode is not None:
                            self._writing.discard(digest)
                    if mode is not None:
                        self._note_held(digest, size)
        return mode is not None

    def _settle(self, digest: Digest, written: bytes, path: bytes, mode: int | None) -> None:
        """Put a written file in place, or remove it without a mode. The caller holds the lock."""
        # Meanwhile another writer may have put the same blob at ``path``.
        has_place = written != path or digest in self._writing
        if mode is None:
            if has_place:
                disk.discard(written)
        elif written != path:
            put_in_place(written, path)
        elif has_place:
            self._fresh[digest] = mode

    def _note_held(self, digest: Digest, size: int) -> None:
        if digest not in self._verified:
            self._verified.add(digest)
            self._added[digest] = size
            self._files += 1
            self._bytes += size
        if self._listed is not None:
            self._listed.add(digest)

    def _temporary(self, path: bytes) -> bytes:
        """A new name beside ``path`` that is no digest."""
        number = (os.getpid(), next(self._numbers))
        return b"%s/.new-%d-%d" % (posixpath.dirname(path), *number)

    def _scan(self) -> Iterator[tuple[float, int, int, Digest]]:
        """Of each blob: when it was last used, its size, its number of links and its digest."""
        for folder in filter(_FOLDER.fullmatch, disk.listdir(self._root)):
            for name in disk.listdir(self._root + b"/" + folder):
                path = self._root + b"/" + folder + b"/" + name
                with contextlib.suppress(FileNotFoundError):  # it was removed meanwhile
                    try:
                        digest = bytes.fromhex((folder + name).decode())
                    except ValueError:
                        if not name.startswith(b".new-%d-" % os.getpid()):
                            disk.unlink(path)  # the temporary file of a process that died
                    else:
                        status = disk.lstat(path)
                        yield _last_used(status), status.st_size, status.st_nlink, digest

    def _remove_unused(self, digest: Digest, now: float) -> bool:
        path = self._path(digest)
        with self._lock, contextlib.suppress(FileNotFoundError):
            status = disk.lstat(path)
            is_recent = digest in self._verified and now - _last_used(status) < KEEP_RECENT_S
            if digest in self._writing or is_recent or status.st_nlink > 1:
                return False
            if digest in self._reported or digest in self._reported_before:
                return False
            disk.unlink(path)
            self._verified.discard(digest)
            self._fresh.pop(digest, None)
            return True
        return False


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """The edge at which the disk's OSError becomes InfrastructureError."""
    try:
        yield
    except OSError as error:
        raise InfrastructureError(f"disk: {error}") from error


def _last_used(status: os.stat_result) -> float:
    """When a blob was last linked or unlinked (Unix time); on Windows, last read instead."""
    return status.st_atime if WINDOWS else status.st_ctime


#: Digests of own files that are cached at most (some 400 bytes each).
_MAX_OWN_DIGESTS = 100_000


class OwnFiles:
    """Supplies blobs from world-readable files; with ``enabled`` False it supplies none."""

    def __init__(self, store: Store, *, enabled: bool = True) -> None:
        self._store = store
        self._enabled = enabled
        self._digests = DigestCache(most=_MAX_OWN_DIGESTS)

    def supply(self, path: bytes, entry: FileEntry) -> bool:
        """Whether the file at ``path`` has the entry's bytes; it is then copied into the store."""
        if not self._enabled:
            return False
        try:
            found = disk.stat(path)
            if not stat.S_ISREG(found.st_mode) or found.st_size != entry.size:
                return False
            # A peer must not read, through this worker, files that its other users may not.
            if not _is_world_readable(path, found):
                return False
            digest = self._digests.of(path, found)
        except OSError:
            return False
        return digest == entry.digest and self._store.add_file(path, entry)


def _is_world_readable(path: bytes, status: os.stat_result) -> bool:
    """On Windows, which has no mode bits: whether it was installed for all users."""
    if WINDOWS:
        return path.startswith((b"/C/Program Files/", b"/C/Program Files (x86)/"))
    return bool(status.st_mode & stat.S_IROTH)
