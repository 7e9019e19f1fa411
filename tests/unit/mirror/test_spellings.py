"""Where several spellings mean one file, a manifest knows it under the disk's own."""

import pytest

from distbuild.mirror.manifest import DIRECTORY, WITHHELD, Manifest
from distbuild.protocol.messages import Change, FileEntry, SymlinkEntry
from distbuild.system.windows.names import fold

A = FileEntry(b"a" * 32, 1, 0o444, 0)
B = FileEntry(b"b" * 32, 1, 0o444, 0)


@pytest.fixture
def manifest() -> Manifest:
    made = Manifest(fold)
    made.apply({"/C": DIRECTORY, "/C/Inc": DIRECTORY, "/C/Inc/Foo.h": A})
    return made


@pytest.mark.parametrize("path", ["/C/Inc/Foo.h", "/C/INC/FOO.H", "/C/inc/foo.h", "/C/inc/foo.h."])
def test_every_spelling_finds_the_file(manifest: Manifest, path: str) -> None:
    assert manifest.get(path) == A
    assert manifest.resolve(path) == "/C/Inc/Foo.h"
    assert manifest.spelled(path) == "/C/Inc/Foo.h"


def test_without_folding_each_spelling_is_a_file_of_its_own() -> None:
    manifest = Manifest()
    manifest.apply({"/a.h": A, "/A.h": B})
    assert manifest.get("/a.h") == A
    assert manifest.get("/A.H") is None
    assert manifest.resolve("/A.H") is None
    assert manifest.spelled("/A.H") == "/A.H"


def test_a_link_leads_to_the_disk_s_spelling(manifest: Manifest) -> None:
    manifest.apply({"/C/link": SymlinkEntry(b"INC", to_directory=True)})
    assert manifest.resolve("/C/LINK/foo.H") == "/C/Inc/Foo.h"


def test_what_is_gone_under_another_spelling_is_no_change(manifest: Manifest) -> None:
    assert not manifest.apply({"/C/inc/FOO.h": None})
    assert manifest.apply({"/C/Inc/Foo.h": None})
    assert manifest.get("/C/INC/FOO.H") is None


def test_a_new_spelling_takes_the_place_of_the_old_one(manifest: Manifest) -> None:
    assert manifest.apply({"/C/Inc/FOO.h": B})
    assert manifest.names("/C/Inc") == {"FOO.h"}
    assert manifest.get("/C/Inc/Foo.h") == B
    assert manifest.since(1) == [Change(b"/C/Inc/FOO.h", B), Change(b"/C/Inc/Foo.h", None)]


def test_the_old_name_s_end_does_not_end_the_new_one(manifest: Manifest) -> None:
    manifest.apply({"/C/Inc/Foo.h": None, "/C/Inc/foo.h": A})
    assert manifest.get("/C/INC/FOO.H") == A
    assert manifest.names("/C/Inc") == {"foo.h"}


@pytest.mark.parametrize("name", ["INC", "inc"])
def test_a_respelled_directory_keeps_what_is_in_it(manifest: Manifest, name: str) -> None:
    manifest.apply({f"/C/{name}": DIRECTORY, f"/C/{name}/Foo.h": A, f"/C/{name}/x.c": WITHHELD})
    assert manifest.names("/C") == {name}
    assert manifest.get("/C/Inc/Foo.h") == A
    assert manifest.resolve("/C/Inc/X.C") == f"/C/{name}/x.c"
    assert manifest.names("/C/Inc") == set()


def test_of_two_spellings_at_once_one_counts(manifest: Manifest) -> None:
    manifest.apply({"/C/Inc/x.h": A, "/C/Inc/X.h": B})
    assert manifest.names("/C/Inc") == {"Foo.h", "x.h"}


def test_equal_states_are_no_change(manifest: Manifest) -> None:
    assert not manifest.apply({"/C/Inc/Foo.h": A})
    assert not manifest.apply({"/C/inc/bar.h": None})
    assert manifest.generation == 1
