from distbuild.protocol.codec import pack_quickly
from distbuild.syncer.prepare import Sources

A, B, C = b"int a;\n" * 10, b"int b;\n" * 10, b"int c;\n" * 10


def test_the_same_text_at_the_same_place_is_found() -> None:
    sources = Sources()
    blob = pack_quickly(A)
    sources.remember("/x.c", "c", A, blob)
    assert sources.find("/x.c", "c", bytes(bytearray(A))) is blob


def test_another_text_place_or_language_is_not() -> None:
    sources = Sources()
    sources.remember("/x.c", "c", A, pack_quickly(A))
    assert sources.find("/x.c", "c", B) is None
    assert sources.find("/x.c", "c++", A) is None
    assert sources.find("/y.c", "c", A) is None


def test_a_newer_text_takes_the_place_of_the_older() -> None:
    sources = Sources()
    sources.remember("/x.c", "c", A, pack_quickly(A))
    sources.remember("/x.c", "c", B, pack_quickly(B))
    assert sources.find("/x.c", "c", A) is None
    assert sources.find("/x.c", "c", B) is not None


def test_what_nobody_asked_for_the_longest_goes_first() -> None:
    blobs = {data: pack_quickly(data) for data in (A, B, C)}
    room = sum(len(data) + len(blobs[data].data) for data in (A, B))
    sources = Sources(room)
    sources.remember("/a.c", "c", A, blobs[A])
    sources.remember("/b.c", "c", B, blobs[B])
    assert sources.find("/a.c", "c", A)
    sources.remember("/c.c", "c", C, blobs[C])
    assert sources.find("/b.c", "c", B) is None
    assert sources.find("/a.c", "c", A)
    assert sources.find("/c.c", "c", C)


def test_what_is_larger_than_all_room_is_not_kept() -> None:
    sources = Sources(len(A))
    sources.remember("/a.c", "c", A, pack_quickly(A))
    assert sources.find("/a.c", "c", A) is None
    sources.remember("/b.c", "c", b"", pack_quickly(b""))
    assert sources.find("/b.c", "c", b"") is not None
