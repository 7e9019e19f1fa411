"""Inputs by their marks: what is not unpacked any more, and what always is looked at."""

import hashlib

import pytest

from distbuild.mirror.manifest import Manifest
from distbuild.protocol.codec import mark, pack_inputs, pack_marks, pack_quickly
from distbuild.protocol.errors import ProtocolError
from distbuild.protocol.messages import FileEntry, InputFile, JobFile, ResultRequest
from distbuild.syncer.evidence import Inputs, Proved
from distbuild.syncer.include_lookup import IncludeFacts

SOURCE, HEADER, OTHER = b"/p/x.c", b"/p/a.h", b"/p/b.h"


def digest(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()


def entry(text: bytes) -> FileEntry:
    return FileEntry(digest(text), len(text), 0o444, 1)


class FakeTexts:
    """Same method as ``Texts``: all are plain, but what is said."""

    def __init__(self, said: dict[str, IncludeFacts | None]) -> None:
        self.said = said

    def about(self, path: str, digest: bytes) -> IncludeFacts | None:
        return self.said.get(path, IncludeFacts())


def proving(**said: IncludeFacts | None) -> Proved:
    """``said``: by the names of headers."""
    texts = FakeTexts({f"/p/{name}.h": facts for name, facts in said.items()})
    return Proved(texts)  # type: ignore[arg-type]


OWN = JobFile(SOURCE, entry(b"source"), pack_quickly(b"source"))
READ = [InputFile(SOURCE, digest(b"source")), InputFile(HEADER, digest(b"a"))]


def result(read: list[InputFile]) -> Inputs:
    return Inputs(ResultRequest("1", "w", packed_inputs=pack_inputs(read), marks=pack_marks(read)))


def sealed(read: list[InputFile]) -> Inputs:
    """The marks of these, and a list that cannot be unpacked."""
    return Inputs(ResultRequest("1", "w", packed_inputs=b"no list", marks=pack_marks(read)))


def manifest(**more: FileEntry) -> Manifest:
    made = Manifest()
    made.apply({"/p/a.h": entry(b"a"), **{f"/p/{name}.h": e for name, e in more.items()}})
    return made


def paths(rest: list[InputFile]) -> list[bytes]:
    return [item.path for item in rest]


def test_what_an_earlier_job_has_read_is_not_unpacked() -> None:
    proved, now = proving(), manifest()
    assert not proved.knows(sealed(READ), [OWN], now)
    assert paths(proved.rest(result(READ), {SOURCE}, now)) == [SOURCE, HEADER]
    assert proved.knows(sealed(READ), [OWN], now)
    assert paths(proved.rest(result(READ), {SOURCE}, now)) == [SOURCE]


def test_after_a_change_of_the_mirror_all_is_looked_at_again() -> None:
    proved, now = proving(), manifest()
    proved.rest(result(READ), {SOURCE}, now)
    now.apply({"/p/a.h": entry(b"changed")})
    assert not proved.knows(sealed(READ), [OWN], now)
    assert paths(proved.rest(result(READ), {SOURCE}, now)) == [SOURCE, HEADER]
    assert not proved.knows(sealed(READ), [OWN], now)


@pytest.mark.parametrize(
    "read",
    [
        [READ[1]],
        [InputFile(SOURCE, digest(b"older")), READ[1]],
        [READ[0], InputFile(HEADER, digest(b"older"))],
        [*READ, InputFile(OTHER, digest(b"b"))],
    ],
    ids=["no source", "another source", "another header", "one more"],
)
def test_other_inputs_are_not_known(read: list[InputFile]) -> None:
    proved, now = proving(), manifest()
    proved.rest(result(READ), {SOURCE}, now)
    assert proved.knows(sealed(READ), [OWN], now)
    assert not proved.knows(sealed(read), [OWN], now)


def test_another_source_that_is_mirrored_is_no_substitute_for_the_one_that_came() -> None:
    proved, now = proving(), manifest()
    now.apply({"/p/x.c": entry(b"mirrored")})
    read = [InputFile(SOURCE, digest(b"mirrored")), READ[1]]
    proved.rest(result(read), set(), now)
    assert not proved.knows(sealed(read), [OWN], now)
    assert paths(proved.rest(result(read), {SOURCE}, now)) == [SOURCE]


@pytest.mark.parametrize("facts", [IncludeFacts(odd=True), None])
def test_what_asks_for_more_is_looked_at_each_time(facts: IncludeFacts | None) -> None:
    proved, now = proving(b=facts), manifest(b=entry(b"b"))
    read = [*READ, InputFile(OTHER, digest(b"b"))]
    for _ in range(2):
        assert OTHER in paths(proved.rest(result(read), {SOURCE}, now))
        assert not proved.knows(sealed(read), [OWN], now)


def test_what_is_wrong_is_looked_at_each_time() -> None:
    proved, now = proving(), manifest(b=entry(b"other"))
    read = [*READ, InputFile(OTHER, digest(b"b"))]
    for _ in range(2):
        assert OTHER in paths(proved.rest(result(read), {SOURCE}, now))
        assert not proved.knows(sealed(read), [OWN], now)


def test_inputs_may_come_without_marks() -> None:
    proved, now = proving(), manifest()
    bare = ResultRequest("1", "w", packed_inputs=pack_inputs(READ))
    assert paths(proved.rest(Inputs(bare), {SOURCE}, now)) == [SOURCE, HEADER]
    assert not proved.knows(Inputs(bare), [OWN], now)
    assert proved.knows(sealed(READ), [OWN], now)
    listed = Inputs(ResultRequest("1", "w", inputs=READ, marks=b"12345678"))
    assert paths(proved.rest(listed, {SOURCE}, now)) == [SOURCE]


def test_a_mark_of_something_else_is_not_learned() -> None:
    proved, now = proving(), manifest()
    lie = [READ[0], InputFile(OTHER, digest(b"b"))]
    told = ResultRequest("1", "w", packed_inputs=pack_inputs(READ), marks=pack_marks(lie))
    proved.rest(Inputs(told), {SOURCE}, now)
    assert not proved.knows(sealed(lie), [OWN], now)


def test_a_list_that_is_none_is_an_error_once_somebody_looks() -> None:
    with pytest.raises(ProtocolError):
        proving().rest(sealed(READ), {SOURCE}, manifest())
    assert mark(SOURCE, digest(b"source")) in sealed(READ).marks


def test_whether_there_are_inputs_is_known_without_looking() -> None:
    assert sealed(READ)
    assert Inputs(ResultRequest("1", "w", inputs=READ))
    assert not Inputs(ResultRequest("1", "w"))
