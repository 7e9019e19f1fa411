"""Unpacks blobs from the network and writes them to a worker's files, with digests verified.

Used by the store, which it does not know.
"""

import hashlib
import io
import os
import posixpath
import threading
import time
from collections.abc import Iterable, Iterator

import zstandard

from distbuild.protocol.codec import plain_of
from distbuild.protocol.errors import ProtocolError
from distbuild.protocol.messages import (
    DIGEST_BYTES,
    MAX_BLOB_BYTES,
    MAX_BUNDLE_BYTES,
    Bundle,
    Digest,
    FileEntry,
)
from distbuild.system import disk
from distbuild.system.paths import WINDOWS

CHUNK_BYTES = 1024 * 1024
#: A content up to this size is unpacked in one piece, which costs half as much as in chunks.
ONE_PIECE_BYTES = 4 * CHUNK_BYTES

Chunks = Iterable[bytes | memoryview]


class _Decompressors(threading.local):
    """One zstd decompressor for each thread."""

    def __init__(self) -> None:
        self.decompressor = zstandard.ZstdDecompressor()


_contexts = _Decompressors()


def contents_of(bundle: Bundle) -> Iterator[tuple[Digest, int, Chunks]]:
    """Digest, size and plain bytes of each content; raises ProtocolError for a bad bundle.

    Rejected: ``multi_decompress_to_buffer`` with one frame per content: it corrupts memory when a
    frame is empty.
    """
    sizes, digests = bundle.sizes, bundle.digests
    if len(sizes) != len(digests):
        raise ProtocolError(f"a bundle of {len(digests)} contents with {len(sizes)} sizes")
    for digest, size in zip(digests, sizes, strict=True):
        check_promise(digest, size)
    if len(sizes) == 1:
        yield digests[0], sizes[0], expanded(bundle.data, sizes[0])
        return
    plain, begin = memoryview(plain_of(bundle.data, sum(sizes), MAX_BUNDLE_BYTES)), 0
    for digest, size in zip(digests, sizes, strict=True):
        yield digest, size, (plain[begin : begin + size],)
        begin += size


def check_promise(digest: Digest, size: int) -> None:
    """Raise ProtocolError for a digest or a size that no content can have."""
    if len(digest) != DIGEST_BYTES or not 0 <= size <= MAX_BLOB_BYTES:
        raise ProtocolError("blob with a bad digest or size")


def expanded(data: bytes, size: int) -> Chunks:
    """The plain bytes, up to ONE_PIECE_BYTES as one chunk; raises ProtocolError for a bad frame."""
    if size > ONE_PIECE_BYTES:
        return expand(data, size)
    try:
        if zstandard.frame_content_size(data) != size:
            return expand(data, size)
        return (_contexts.decompressor.decompress(data),)
    except zstandard.ZstdError as error:
        raise ProtocolError(f"blob cannot be decompressed: {error}") from error


def expand(data: bytes, size: int) -> Iterator[bytes]:
    """The plain bytes in chunks; raises ProtocolError past the declared size."""
    total = 0
    try:
        with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)) as reader:
            while chunk := reader.read(CHUNK_BYTES):
                total += len(chunk)
                if total > size:
                    raise ProtocolError("blob is larger than it says")
                yield chunk
    except zstandard.ZstdError as error:
        raise ProtocolError(f"blob cannot be decompressed: {error}") from error


#: Creates a file that only this process can write, and no process once it is closed.
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | disk.O_PRIVATE
_READABLE = 0o666 if WINDOWS else 0o444
#: The last time that utimensat(2) accepts; a file system then clamps it to its own range.
_LAST_NS = (2**63 - 1) * 10**9


def tree_mode(entry: FileEntry) -> int:
    """The permission bits of a file in a tree: read-only, as a link shares the blob's bytes."""
    if WINDOWS:
        return 0o666  # Windows removes no link to a read-only file
    return 0o555 if entry.mode & 0o111 else 0o444


def dress(path: bytes, entry: FileEntry, mode: int = 0) -> None:
    """Set the entry's mode and time on a file that has ``mode`` (0: not known). Raises OSError."""
    if mode & 0o7777 != tree_mode(entry):
        disk.chmod(path, tree_mode(entry))
    time_ns = max(-_LAST_NS, min(entry.mtime_ns, _LAST_NS))
    used_ns = time.time_ns() if WINDOWS else time_ns
    disk.utime(path, ns=(used_ns, time_ns))


def write_new(path: bytes, chunks: Chunks, digest: Digest, size: int) -> int | None:
    """Write a new file; returns its mode, or None if the chunks have another digest or size.

    After a failure the caller removes the file. Raises OSError, and FileExistsError before it has
    consumed any of the chunks.
    """
    handle = _open_new(path)
    try:
        good = _write_hashed(chunks, handle, digest, size)
        return disk.fstat(handle).st_mode if good else None
    finally:
        os.close(handle)


def copy_new(source: bytes, destination: bytes, entry: FileEntry) -> None:
    """Copy a blob to a new file with the entry's mode and time. Raises OSError.

    Written for small files, most of a tree: ``shutil.copyfile`` takes twice as many calls.
    """
    with disk.open_to_read(source) as file:
        handle = disk.open_descriptor(destination, _NEW, tree_mode(entry))
        try:
            for chunk in chunks_of(file):
                _write_all(handle, chunk)
            mode = disk.fstat(handle).st_mode
        finally:
            os.close(handle)
    dress(destination, entry, mode)


def put_in_place(temporary: bytes, path: bytes) -> None:
    """Rename a file to its final name, or remove it if that fails. Raises OSError."""
    try:
        disk.rename(temporary, path)
    except OSError:
        disk.discard(temporary)
        raise


def chunks_of(file: io.FileIO) -> Iterator[bytes]:
    """The bytes of a file, in chunks."""
    while chunk := file.read(CHUNK_BYTES):
        yield chunk


def _open_new(path: bytes) -> int:
    """The descriptor of a new file, the only one to write it; creates missing directories."""
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
        _write_all(handle, chunk)
    return total == size and hasher.digest() == digest


def _write_all(handle: int, chunk: bytes | memoryview) -> None:
    written = os.write(handle, chunk)
    while written < len(chunk):
        written += os.write(handle, memoryview(chunk)[written:])
