"""The files in which a store keeps its blobs, on their way to the disk. Knows no store."""

import hashlib
import io
import os
import posixpath
import time
from collections.abc import Iterator

from distbuild.protocol.messages import Digest, FileEntry
from distbuild.system import disk
from distbuild.system.paths import WINDOWS
from distbuild.worker.tree.unpacking import CHUNK_BYTES, Chunks

#: A new file that nobody but us writes, and nobody at all once it is closed.
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | disk.O_PRIVATE
_READABLE = 0o666 if WINDOWS else 0o444
#: The last moment that utimensat(2) takes; a file system then cuts it to what it can keep.
_LAST_NS = (2**63 - 1) * 10**9


def tree_mode(entry: FileEntry) -> int:
    """The permission bits of a file in a tree: nobody writes through a link to a blob."""
    if WINDOWS:
        return 0o666  # of a link that cannot be written none can be removed
    return 0o555 if entry.mode & 0o111 else 0o444


def dress(path: bytes, entry: FileEntry, mode: int = 0) -> None:
    """Give a file of this ``mode`` (0: not known) the entry's mode and time. Raises OSError."""
    if mode & 0o7777 != tree_mode(entry):
        disk.chmod(path, tree_mode(entry))
    time_ns = max(-_LAST_NS, min(entry.mtime_ns, _LAST_NS))
    used_ns = time.time_ns() if WINDOWS else time_ns
    disk.utime(path, ns=(used_ns, time_ns))


def write_new(path: bytes, chunks: Chunks, digest: Digest, size: int) -> int | None:
    """Write what has this digest and size: the file's mode, or None if the chunks are not that.

    A file that is left after a failure is the caller's to remove. Raises OSError, and
    FileExistsError before it has taken any of the chunks.
    """
    handle = _open_new(path)
    try:
        good = _write_hashed(chunks, handle, digest, size)
        return disk.fstat(handle).st_mode if good else None
    finally:
        os.close(handle)


def put_in_place(temporary: bytes, path: bytes) -> None:
    """Rename a file to its own name, or remove it where that fails. Raises OSError."""
    try:
        disk.rename(temporary, path)
    except OSError:
        disk.discard(temporary)
        raise


def chunks_of(file: io.FileIO) -> Iterator[bytes]:
    """The bytes of a file, some at a time."""
    while chunk := file.read(CHUNK_BYTES):
        yield chunk


def _open_new(path: bytes) -> int:
    """A new file, open for writing and for nothing else later."""
    try:
        return disk.open_descriptor(path, _NEW, _READABLE)
    except FileNotFoundError:
        disk.makedirs(posixpath.dirname(path), exist_ok=True)
        return disk.open_descriptor(path, _NEW, _READABLE)


def _write_hashed(chunks: Chunks, handle: int, digest: Digest, size: int) -> bool:
    hasher, total = hashlib.sha256(), 0
    for chunk in chunks:
        total += len(chunk)
        if total > size:
            return False
        hasher.update(chunk)
        written = os.write(handle, chunk)
        while written < len(chunk):
            written += os.write(handle, memoryview(chunk)[written:])
    return total == size and hasher.digest() == digest
