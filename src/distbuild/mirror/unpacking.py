"""A blob's plain bytes, and no more of them than it says. Knows no disk and no digest."""

import io
import threading
from collections.abc import Iterable, Iterator

import zstandard

from distbuild.protocol.errors import ProtocolError
from distbuild.protocol.messages import Blob

CHUNK_BYTES = 1024 * 1024
#: A blob up to this size is unpacked in one piece, which costs half as much as in chunks.
ONE_PIECE_BYTES = 4 * CHUNK_BYTES


class _Contexts(threading.local):
    """One for each thread."""

    def __init__(self) -> None:
        self.decompressor = zstandard.ZstdDecompressor()


_contexts = _Contexts()


def expanded(blob: Blob) -> Iterable[bytes]:
    """The plain bytes, in one piece if they are few; raises ProtocolError for a bad frame.

    Rejected: ``multi_decompress_to_buffer`` for a whole batch, which damages memory when a frame
    is empty.
    """
    if blob.size > ONE_PIECE_BYTES:
        return expand(blob)
    try:
        if zstandard.frame_content_size(blob.data) != blob.size:
            return expand(blob)
        return (_contexts.decompressor.decompress(blob.data),)
    except zstandard.ZstdError as error:
        raise ProtocolError(f"blob cannot be decompressed: {error}") from error


def expand(blob: Blob) -> Iterator[bytes]:
    """The plain bytes in chunks; raises ProtocolError past the declared size."""
    total = 0
    try:
        with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(blob.data)) as reader:
            while chunk := reader.read(CHUNK_BYTES):
                total += len(chunk)
                if total > blob.size:
                    raise ProtocolError("blob is larger than it says")
                yield chunk
    except zstandard.ZstdError as error:
        raise ProtocolError(f"blob cannot be decompressed: {error}") from error
