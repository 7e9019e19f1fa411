"""Packed content is unpacked into exactly what was promised, or refused."""

import hashlib

import pytest
import zstandard

from distbuild.protocol.blobs import pack, unpack
from distbuild.protocol.errors import ProtocolError
from distbuild.protocol.messages import MAX_BLOB_BYTES, Blob

DATA = b"some content\n" * 100
DIGEST = hashlib.sha256(DATA).digest()
PACKED = zstandard.ZstdCompressor().compress(DATA)


@pytest.mark.parametrize("data", [b"", b"x", DATA])
def test_what_is_packed_comes_back(data: bytes) -> None:
    assert unpack(pack(data)) == data


@pytest.mark.parametrize(
    "blob",
    [
        Blob(DIGEST, len(DATA) - 1, PACKED),
        Blob(DIGEST, MAX_BLOB_BYTES + 1, PACKED),
        Blob(b"\0" * 32, len(DATA), PACKED),
        Blob(DIGEST, len(DATA), PACKED[:-3]),
        Blob(DIGEST, len(DATA), PACKED + b"more"),
        Blob(DIGEST, len(DATA), DATA),
        Blob(DIGEST, 1, zstandard.ZstdCompressor().compress(bytes(50_000_000))),
    ],
    ids=["size", "too large", "digest", "cut off", "trailing", "not packed", "bomb"],
)
def test_a_blob_that_is_not_what_it_says_is_refused(blob: Blob) -> None:
    with pytest.raises(ProtocolError):
        unpack(blob)
