"""The plain bytes of contents, and no more of them than they say. Knows no disk and no digest."""

import io
import threading
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
)

CHUNK_BYTES = 1024 * 1024
#: A content up to this size is unpacked in one piece, which costs half as much as in chunks.
ONE_PIECE_BYTES = 4 * CHUNK_BYTES

Chunks = Iterable[bytes | memoryview]


class _Decompressors(threading.local):
    """One for each thread."""

    def __init__(self) -> None:
        self.decompressor = zstandard.ZstdDecompressor()


_contexts = _Decompressors()


def contents_of(bundle: Bundle) -> Iterator[tuple[Digest, int, Chunks]]:
    """Digest, size and plain bytes of each content; raises ProtocolError for a bad bundle.

    Rejected: ``multi_decompress_to_buffer`` for a frame of each, which damages memory when a frame
    is empty.
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
    """Refuse, with ProtocolError, what no content can have."""
    if len(digest) != DIGEST_BYTES or not 0 <= size <= MAX_BLOB_BYTES:
        raise ProtocolError("blob with a bad digest or size")


def expanded(data: bytes, size: int) -> Chunks:
    """The plain bytes, in one piece if they are few; raises ProtocolError for a bad frame."""
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
