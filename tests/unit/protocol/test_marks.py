import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distbuild.protocol.codec import mark, pack_marks, unpack_marks
from distbuild.protocol.messages import InputFile

ONE, TWO = (hashlib.sha256(text).digest() for text in (b"1", b"2"))


def test_a_mark_is_of_the_path_and_of_what_was_read() -> None:
    marks = {mark(path, digest) for path in (b"/a.h", b"/b.h") for digest in (ONE, TWO)}
    assert len(marks) == 4


def test_a_mark_is_the_same_on_every_machine() -> None:
    digest = hashlib.blake2b(ONE + b"/a.h", digest_size=8).digest()
    assert mark(b"/a.h", ONE) == int.from_bytes(digest, "little")
    assert pack_marks([InputFile(b"/a.h", ONE)]) == digest


@given(st.lists(st.tuples(st.binary(), st.sampled_from([ONE, TWO]))))
def test_marks_come_in_the_order_of_their_inputs(pairs: list[tuple[bytes, bytes]]) -> None:
    packed = pack_marks([InputFile(path, digest) for path, digest in pairs])
    assert list(unpack_marks(packed)) == [mark(path, digest) for path, digest in pairs]


@pytest.mark.parametrize("data", [b"", b"1234567", b"123456789"])
def test_what_is_no_list_of_marks_has_none(data: bytes) -> None:
    assert list(unpack_marks(data)) == []
