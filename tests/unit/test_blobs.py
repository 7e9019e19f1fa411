"""Packed content is unpacked into exactly what was promised, or refused."""

import hashlib

import msgspec
import pytest
import zstandard

from distbuild.protocol.blobs import MAX_INPUTS_BYTES, pack, pack_inputs, unpack, unpack_inputs
from distbuild.protocol.errors import ProtocolError
from distbuild.protocol.messages import MAX_BLOB_BYTES, Blob, InputFile

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


def test_inputs_come_out_as_they_went_in() -> None:
    inputs = [InputFile(b"/usr/include/caf\xe9%d.h" % n, bytes([n]) * 32) for n in range(200)]
    packed = pack_inputs(inputs)
    assert unpack_inputs(packed) == inputs
    assert len(packed) < sum(len(item.path) for item in inputs)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no zstd",
        pack(b"no list").data,
        pack(msgspec.msgpack.encode([(b"/x",)])).data,
        pack_inputs([InputFile(b"/x", b"d")])[:-1],
        pack_inputs([]) + b"x",
        pack(bytes(MAX_INPUTS_BYTES + 1)).data,
    ],
)
def test_what_is_no_list_of_inputs_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        unpack_inputs(data)
