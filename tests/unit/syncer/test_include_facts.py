import hashlib
from pathlib import Path

import pytest

from distbuild.syncer.include_lookup import IncludeFacts, Texts


def told(texts: Texts, path: Path, text: bytes) -> IncludeFacts | None:
    return texts.about(str(path), hashlib.sha256(text).digest())


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        (b'#include "b.h"\n', IncludeFacts()),
        (b'__asm__(".incbin \\"x\\"");\n', IncludeFacts()),
        (b'#include "../b.h"\n', IncludeFacts(odd=True)),
        (b'\x7fELF\n#include "../b.h"\n', IncludeFacts()),
        (b"", IncludeFacts()),
    ],
)
def test_what_a_text_asks_for(tmp_path: Path, text: bytes, facts: IncludeFacts) -> None:
    path = tmp_path / "a.h"
    path.write_bytes(text)
    found = told(Texts(), path, text)
    assert found == facts
    assert found is not None
    assert found.is_plain == (facts == IncludeFacts())


def test_of_another_text_than_the_one_that_is_there_nothing_is_told(tmp_path: Path) -> None:
    texts, path = Texts(), tmp_path / "a.h"
    assert told(texts, path, b"one") is None
    path.write_bytes(b"two")
    assert told(texts, path, b"one") is None
    path.write_bytes(b"one")
    assert told(texts, path, b"one") == IncludeFacts()


def test_a_text_is_read_once(tmp_path: Path) -> None:
    texts, path = Texts(), tmp_path / "a.h"
    path.write_bytes(b"one")
    told(texts, path, b"one")
    path.unlink()
    assert told(texts, path, b"one") == IncludeFacts()
