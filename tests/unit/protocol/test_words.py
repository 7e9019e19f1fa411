import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distbuild.protocol.codec import decoded, encoded

WORDS = st.lists(st.binary(max_size=12), max_size=5)


@given(WORDS)
def test_many_words_are_decoded_as_each_would_be(words: list[bytes]) -> None:
    assert decoded(words) == [os.fsdecode(word) for word in words]


@given(WORDS)
def test_many_words_are_encoded_as_each_would_be(words: list[bytes]) -> None:
    assert encoded([os.fsdecode(word) for word in words]) == words


@pytest.mark.parametrize("words", [[], [b""], [b"", b""], [b"a\0b", b"c"], [b"\xff\xfe", b"\xc3"]])
def test_odd_words(words: list[bytes]) -> None:
    assert decoded(words) == [os.fsdecode(word) for word in words]
    assert encoded(decoded(words)) == words
