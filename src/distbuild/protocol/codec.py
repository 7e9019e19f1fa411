"""Compresses file contents and input lists for the wire, and unpacks them with checks of size and
digest or checksum. Used by wrapper, syncer and worker."""

import functools
import hashlib
import os
import struct
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec
import zstandard

from distbuild.protocol.coding import DIGEST_BYTES, FREE_EXPANSION_BYTES, MAX_EXPANSION, Digest
from distbuild.protocol.errors import ProtocolError
from distbuild.protocol.messages import (
    MAX_BLOB_BYTES,
    Blob,
    Bundle,
    InputFile,
    PackedInputs,
)

#: A list of a hundred thousand inputs, decompressed.
MAX_INPUTS_BYTES = 32 * 1024 * 1024
#: Larger outputs are unpacked in pieces of this size.
PIECE_BYTES = 1024 * 1024
#: The largest window that a zstd frame may need; the levels below need 2 MiB.
MAX_WINDOW_BYTES = 8 * 1024 * 1024
#: The type of a block that repeats one byte (RLE_Block).
_REPEATED = 1
_CHECKSUM_BYTES = 4
#: Level 3 is zstd's own default: above it time rises faster than size falls.
COMPRESSION_LEVEL = 3
#: For sources: less time on the dev box, for a larger blob, which is small beside the output. And
#: for headers: level 3 makes them 4 % smaller, and takes a quarter more of the dev box's time.
QUICK_LEVEL = 1
#: For outputs: smaller for more of the worker's time, which is short beside the compile. To unpack
#: takes no longer.
OUTPUT_LEVEL = 6


class _Contexts(threading.local):
    """One of each zstd context per thread: to make one costs as much as to compress ten KB."""

    def __init__(self) -> None:
        self.plain = zstandard.ZstdCompressor(level=COMPRESSION_LEVEL)
        self.quick = zstandard.ZstdCompressor(level=QUICK_LEVEL)
        self.checked = zstandard.ZstdCompressor(level=OUTPUT_LEVEL, write_checksum=True)
        self.decompressor = zstandard.ZstdDecompressor()


_contexts = _Contexts()
_inputs_decoder = msgspec.msgpack.Decoder(PackedInputs)
#: The lengths that a digest may have; an unknown one is empty.
_DIGESTS = (0, DIGEST_BYTES)


def pack(data: bytes, digest: Digest | None = None) -> Blob:
    """Bytes as a blob; the digest is computed when it is not given."""
    return Blob(digest or hashlib.sha256(data).digest(), len(data), _contexts.plain.compress(data))


def pack_quickly(data: bytes) -> Blob:
    """Bytes as a blob, compressed at QUICK_LEVEL."""
    return Blob(hashlib.sha256(data).digest(), len(data), _contexts.quick.compress(data))


def bundle(contents: Mapping[Digest, bytes]) -> Bundle:
    """Contents by digest in one frame, compressed at QUICK_LEVEL.

    Small files compress better together than each alone, and take less time on both sides: a frame
    begins with its tables.
    """
    data = _contexts.quick.compress(b"".join(contents.values()))
    return Bundle(list(contents), [len(content) for content in contents.values()], data)


def pack_output(data: bytes) -> Blob:
    """A compiler's output as a blob, with a checksum that ``unpack_output`` verifies."""
    return Blob(hashlib.sha256(data).digest(), len(data), _contexts.checked.compress(data))


def unpack_output(blob: Blob) -> bytes:
    """As ``unpack``, but content with a checksum (XXH64) is verified by that alone.

    On the dev box, SHA-256 of a large object costs as much as all its other processing; TLS
    protects it against damage on purpose.
    """
    try:
        checked = zstandard.get_frame_parameters(blob.data).has_checksum
    except zstandard.ZstdError as error:
        raise ProtocolError(f"a blob that cannot be unpacked: {error}") from error
    return plain_of(blob.data, blob.size, MAX_BLOB_BYTES) if checked else unpack(blob)


def unpack_parts(blob: Blob) -> Iterable[bytes]:
    """As ``unpack_output``, in pieces: a large output takes the memory of one piece.

    Raises ProtocolError, also after the last piece: the caller must then discard all pieces.
    """
    return (unpack_output(blob),) if blob.size <= PIECE_BYTES else _pieces(blob)


def _pieces(blob: Blob) -> Iterator[bytes]:
    if blob.size > MAX_BLOB_BYTES:
        raise ProtocolError(f"{blob.size} bytes in one frame is more than is taken")
    try:
        facts = zstandard.get_frame_parameters(blob.data)
        if facts.content_size != blob.size or _frame_bytes(blob.data, facts) != len(blob.data):
            raise ProtocolError("a frame of another size than it says")
        hasher = None if facts.has_checksum else hashlib.sha256()
        decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
        size = 0
        with decompressor.stream_reader(blob.data) as reader:
            while piece := reader.read(PIECE_BYTES):
                size += len(piece)
                if hasher is not None:
                    hasher.update(piece)
                yield piece
    except zstandard.ZstdError as error:
        raise ProtocolError(f"a frame that cannot be unpacked: {error}") from error
    if size != blob.size or (hasher is not None and hasher.digest() != blob.digest):
        raise ProtocolError("a blob of other content than it says")


def _frame_bytes(data: bytes, facts: zstandard.FrameParameters) -> int:
    """The length of the frame at the beginning of ``data`` (RFC 8878, 3.1.1), from its block
    headers; -1: truncated. zstd's stream reader reports neither a missing end nor trailing bytes.
    """
    at, is_last = zstandard.frame_header_size(data), False
    while not is_last and at < len(data):
        header = int.from_bytes(data[at : at + 3], "little")
        is_last, kind, size = bool(header & 1), header >> 1 & 3, header >> 3
        at += 3 + (1 if kind == _REPEATED else size)
    return at + (_CHECKSUM_BYTES if facts.has_checksum else 0) if is_last else -1


def is_expanding(size: int, packed: int) -> bool:
    """Whether ``packed`` bytes for outputs of ``size`` bytes may be a decompression bomb."""
    return size > FREE_EXPANSION_BYTES and size > MAX_EXPANSION * packed


def unpack(blob: Blob) -> bytes:
    """The plain bytes, of exactly the blob's size and digest; raises ProtocolError otherwise.

    Uses no more memory than the blob's size, whatever its frame says.
    """
    data = plain_of(blob.data, blob.size, MAX_BLOB_BYTES)
    if hashlib.sha256(data).digest() != blob.digest:
        raise ProtocolError("a blob of other content than it says")
    return data


def plain_of(data: bytes, size: int, most: int) -> bytes:
    """The plain bytes of one frame, exactly ``size``, at most ``most``; raises ProtocolError
    otherwise."""
    if not 0 <= size <= most:
        raise ProtocolError(f"{size} bytes in one frame is more than is taken")
    try:
        if zstandard.frame_content_size(data) != size:
            raise ProtocolError("a frame of another size than it says")
        plain = _contexts.decompressor.decompress(data, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ProtocolError(f"a frame that cannot be unpacked: {error}") from error
    if len(plain) != size:
        raise ProtocolError("a frame of another size than it says")
    return plain


def pack_inputs(inputs: Sequence[InputFile]) -> bytes:
    """A job's inputs as compressed MessagePack pairs of path and digest."""
    data = msgspec.msgpack.encode([(item.path, item.digest) for item in inputs])
    return _contexts.plain.compress(data)


def unpack_inputs(data: bytes) -> list[InputFile]:
    """The inverse of ``pack_inputs``; raises ProtocolError for anything else."""
    try:
        if not 0 <= zstandard.frame_content_size(data) <= MAX_INPUTS_BYTES:
            raise ProtocolError("a list of inputs that is larger than is taken")
        plain = _contexts.decompressor.decompress(data, allow_extra_data=False)
        pairs = _inputs_decoder.decode(plain)
    except (zstandard.ZstdError, msgspec.DecodeError) as error:
        raise ProtocolError(f"a list of inputs that cannot be unpacked: {error}") from error
    if any(not path.startswith(b"/") or len(digest) not in _DIGESTS for path, digest in pairs):
        raise ProtocolError("a list of inputs with one that is none")
    if b"\0" in plain and any(b"\0" in path for path, _ in pairs):
        raise ProtocolError("a list of inputs with a NUL in a path")
    return [InputFile(path, digest) for path, digest in pairs]


MARK_BYTES = 8
#: Cached marks: a worker's jobs read the same headers again and again.
_REMEMBERED = 50_000


@functools.lru_cache(maxsize=_REMEMBERED)
def mark(path: bytes, digest: Digest) -> int:
    """A 64-bit BLAKE2b hash of both; the digest's length is fixed, so the concatenation is
    unambiguous."""
    return int.from_bytes(hashlib.blake2b(digest + path, digest_size=MARK_BYTES).digest(), "little")


def pack_marks(inputs: Iterable[InputFile]) -> bytes:
    """The marks of inputs, in their order."""
    marks = [mark(item.path, item.digest) for item in inputs]
    return struct.pack(f"<{len(marks)}Q", *marks)


def unpack_marks(data: bytes) -> Sequence[int]:
    """The inverse of ``pack_marks``; no marks for anything else."""
    if len(data) % MARK_BYTES:
        return ()
    return struct.unpack(f"<{len(data) // MARK_BYTES}Q", data)


def decoded(words: Sequence[bytes]) -> list[str]:
    """``os.fsdecode`` of each."""
    if not words:
        return []
    # No argument, no path and no variable contains a NUL; a message may.
    parts = os.fsdecode(b"\0".join(words)).split("\0")
    return parts if len(parts) == len(words) else [os.fsdecode(word) for word in words]


def encoded(words: Sequence[str]) -> list[bytes]:
    """``os.fsencode`` of each."""
    if not words:
        return []
    parts = os.fsencode("\0".join(words)).split(b"\0")
    return parts if len(parts) == len(words) else [os.fsencode(word) for word in words]
