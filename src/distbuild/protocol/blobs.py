"""Content on its way: packed with its digest, and unpacked into exactly what was promised."""

import hashlib

import zstandard

from distbuild.protocol.errors import ProtocolError
from distbuild.protocol.messages import MAX_BLOB_BYTES, Blob, Digest

#: Level 3 is zstd's own default: above it time rises faster than size falls.
COMPRESSION_LEVEL = 3


def pack(data: bytes, digest: Digest | None = None) -> Blob:
    """Bytes as a blob; the digest is computed when it is not given."""
    packed = zstandard.ZstdCompressor(level=COMPRESSION_LEVEL).compress(data)
    return Blob(digest or hashlib.sha256(data).digest(), len(data), packed)


def unpack(blob: Blob) -> bytes:
    """The plain bytes, of exactly the blob's size and digest; raises ProtocolError otherwise.

    Takes no more memory than the blob says it needs, whatever its frame says.
    """
    if blob.size > MAX_BLOB_BYTES:
        raise ProtocolError(f"{blob.size} bytes in one blob is more than is taken")
    try:
        if zstandard.frame_content_size(blob.data) != blob.size:
            raise ProtocolError("a blob of another size than it says")
        data = zstandard.ZstdDecompressor().decompress(blob.data, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ProtocolError(f"a blob that cannot be unpacked: {error}") from error
    if len(data) != blob.size or hashlib.sha256(data).digest() != blob.digest:
        raise ProtocolError("a blob of other content than it says")
    return data
