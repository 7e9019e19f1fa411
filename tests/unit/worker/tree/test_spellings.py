"""The tree of a dev box on whose disk spellings do not count, tried on a disk where they do."""

import os
from pathlib import Path

import pytest

from distbuild.mirror.manifest import DIRECTORY
from distbuild.protocol.errors import ProtocolError
from distbuild.system.windows.names import fold
from distbuild.worker.tree.paths import check_path
from distbuild.worker.tree.store import OwnFiles, Store
from distbuild.worker.tree.tree import Tree
from tests.unit.worker.tree.test_tree import A, B, Entries, delta, full, store, text

__all__ = ["store"]

OLD: Entries = {b"/C": DIRECTORY, b"/C/Inc": DIRECTORY, b"/C/Inc/Foo.h": A}


@pytest.fixture
def tree(tmp_path: Path, store: Store) -> Tree:
    made = Tree(os.fsencode(tmp_path / "t"), store, OwnFiles(store, enabled=False), fold)
    assert made.apply(full(OLD)).state == "applied"
    return made


def test_every_spelling_finds_the_entry_and_its_digest(tree: Tree) -> None:
    assert tree.lookup("/C/INC/foo.H") == A
    assert tree.spelled(b"/c/INC/foo.H") == b"/C/Inc/Foo.h"
    assert tree.spelled(b"/C/Inc/bar.h") == b"/C/Inc/bar.h"
    assert tree.digest_at(tree.spelled(b"/C/INC/foo.H")) == A.digest


def test_a_respelled_file_stands_under_its_new_name(tree: Tree) -> None:
    new: Entries = {b"/C": DIRECTORY, b"/C/Inc": DIRECTORY, b"/C/Inc/FOO.h": B}
    assert tree.apply(delta(OLD, new, 1, 2)).state == "applied"
    assert tree.lookup("/C/Inc/Foo.h") == B
    assert tree.spelled(b"/C/Inc/Foo.h") == b"/C/Inc/FOO.h"
    assert os.listdir(tree.ground.real(b"/C/Inc")) == [b"FOO.h"]
    assert text(tree, b"/C/Inc/FOO.h") == b"b\n"


def test_a_respelled_directory_keeps_what_is_in_it(tree: Tree) -> None:
    new: Entries = {b"/C": DIRECTORY, b"/C/inc": DIRECTORY, b"/C/inc/Foo.h": A}
    assert tree.apply(delta(OLD, new, 1, 2)).state == "applied"
    assert tree.lookup("/C/INC/FOO.H") == A
    assert os.listdir(tree.ground.real(b"/C/inc")) == [b"Foo.h"]


def test_a_cleaned_tree_knows_no_spelling(tree: Tree) -> None:
    tree.clean()
    assert tree.lookup("/C/INC/foo.H") is None
    assert tree.spelled(b"/C/INC/foo.H") == b"/C/INC/foo.H"


@pytest.mark.parametrize(
    "path",
    [
        b"/C/nul",
        b"/C/aux.h",
        b"/C/x.h:s",
        b"/C/..\\..\\x",
        b"/C/a.",
        b"/C/a /b",
        b"/C/\xff",
        b"/C/?",
    ],
)
def test_what_windows_would_take_for_something_else_is_refused(path: bytes) -> None:
    assert check_path(path, windows=False) == path
    with pytest.raises(ProtocolError):
        check_path(path, windows=True)


def test_ordinary_names_are_taken_on_windows() -> None:
    path = "/C/Program Files (x86)/é/\ud800.h".encode("utf-8", "surrogatepass")
    assert check_path(path, windows=True) == path
