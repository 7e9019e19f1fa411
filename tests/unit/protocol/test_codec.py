"""Packed content is unpacked into exactly what was promised, or refused."""

import hashlib
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import zstandard

from distbuild.protocol.codec import (
    MAX_INPUTS_BYTES,
    PIECE_BYTES,
    is_expanding,
    pack,
    pack_inputs,
    pack_output,
    unpack,
    unpack_inputs,
    unpack_parts,
)
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


LARGE = bytes(range(256)) * (3 * PIECE_BYTES // 256) + b"end"


@pytest.mark.parametrize("packed", [pack, pack_output])
@pytest.mark.parametrize("data", [b"", b"x", LARGE[:PIECE_BYTES], LARGE])
def test_an_output_comes_back_in_pieces(packed: Callable[[bytes], Blob], data: bytes) -> None:
    pieces = list(unpack_parts(packed(data)))
    assert b"".join(pieces) == data
    assert max(map(len, pieces), default=0) <= PIECE_BYTES


def _changed(blob: Blob, **fields: Any) -> Blob:
    return msgspec.structs.replace(blob, **fields)


def _wide(data: bytes) -> bytes:
    """Packed so that its reader has to keep 64 MiB."""
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=26)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj(size=len(data))
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    "blob",
    [
        _changed(pack_output(LARGE), size=len(LARGE) - 1),
        _changed(pack_output(LARGE), size=MAX_BLOB_BYTES + 1),
        _changed(pack_output(LARGE), size=-1),
        _changed(pack_output(LARGE), data=pack_output(LARGE).data[:-3]),
        _changed(pack_output(LARGE), data=pack_output(LARGE).data[:-1] + b"\0"),
        _changed(pack_output(LARGE), data=pack_output(LARGE).data + b"\0"),
        _changed(pack_output(LARGE), data=pack_output(LARGE).data[:100]),
        _changed(pack(LARGE), digest=bytes(32)),
        _changed(pack(LARGE), data=LARGE),
        Blob(bytes(32), 100 * PIECE_BYTES, _wide(bytes(100 * PIECE_BYTES))),
    ],
    ids=[
        "size",
        "too large",
        "negative",
        "cut off",
        "checksum",
        "more",
        "cut short",
        "digest",
        "not packed",
        "window",
    ],
)
def test_a_large_output_that_is_not_what_it_says_is_refused(blob: Blob) -> None:
    with pytest.raises(ProtocolError):
        list(unpack_parts(blob))


def test_what_shrinks_like_no_object_is_told() -> None:
    assert not is_expanding(64 * PIECE_BYTES, 1)
    assert is_expanding(64 * PIECE_BYTES + 1, 1)
    assert not is_expanding(1024 * PIECE_BYTES, 20 * PIECE_BYTES)


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
        pack_inputs([InputFile(b"/x", b"d" * 32)])[:-1],
        pack_inputs([InputFile(b"/x", b"d")]),
        pack_inputs([InputFile(b"/x", b"d" * 33)]),
        pack_inputs([InputFile(b"x", b"d" * 32)]),
        pack_inputs([InputFile(b"", b"d" * 32)]),
        pack_inputs([InputFile(b"/x\0", b"d" * 32)]),
        pack(b"\xdd\x00\x01\x86\xa1" + b"\x92\xc4\x01/\xc4\x00" * 100_001).data,
        pack_inputs([]) + b"x",
        pack(bytes(MAX_INPUTS_BYTES + 1)).data,
    ],
)
def test_what_is_no_list_of_inputs_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        unpack_inputs(data)
