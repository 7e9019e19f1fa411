"""Two developers on one worker: each has its own tree, whatever the other's syncer says."""

import hashlib
import os
from pathlib import Path

import pytest

from distbuild.mirror.manifest import Summary
from distbuild.protocol.errors import ProtocolError
from distbuild.protocol.messages import Change, Changes, FileEntry
from distbuild.protocol.names import client_label
from distbuild.worker.tree.store import OwnFiles, Store
from distbuild.worker.tree.trees import Trees

ALICE, BOB = "https://alice:5000", "https://bob:5000"
SECRET = "a" * 64


@pytest.fixture
def trees(tmp_path: Path) -> Trees:
    store = Store(tmp_path / "store")
    return Trees(tmp_path / "sandbox", store, OwnFiles(store, enabled=False))


def test_a_client_belongs_to_the_syncer_that_named_it(trees: Trees) -> None:
    tree = trees.tree_for(ALICE, SECRET)
    with pytest.raises(ProtocolError, match="another syncer's client") as refused:
        trees.tree_for(BOB, SECRET)
    assert SECRET not in str(refused.value)
    assert trees.tree_for(ALICE, SECRET) is tree


def test_so_does_one_whose_headers_were_pushed_before(trees: Trees) -> None:
    pushed = trees.tree(SECRET)
    assert trees.tree_for(ALICE, SECRET) is pushed
    with pytest.raises(ProtocolError):
        trees.tree_for(BOB, SECRET)


def test_an_id_is_neither_on_disk_nor_in_the_status(trees: Trees, tmp_path: Path) -> None:
    trees.tree_for(ALICE, SECRET)
    assert list(trees.status()) == [client_label(SECRET)]
    assert (tmp_path / "sandbox" / client_label(SECRET)).is_dir()
    assert not any(SECRET in str(path) for path in tmp_path.rglob("*"))


def test_a_label_is_no_id(trees: Trees) -> None:
    """It is public: whoever names it has a tree of his own, which is empty."""
    content = hashlib.sha256(b"").digest()
    entry = FileEntry(content, 0, 0o644, 5)
    summary = Summary()
    summary.add(b"/a.h", entry)
    store_tree = trees.tree(SECRET)
    changes = Changes(SECRET, "e", 0, 7, summary.digest(), [Change(b"/a.h", entry)])
    assert store_tree.apply(changes).state in ("applied", "need_blobs")
    other = trees.tree_for(BOB, client_label(SECRET))
    assert other is not store_tree
    assert other.position() == ("", 0, Summary().digest())
    assert other.ground.root != store_tree.ground.root


@pytest.mark.parametrize("client", ["../" + SECRET, "/etc", "a\0b", ".jobs", "", "x" * 101])
def test_what_is_no_id_makes_no_tree(trees: Trees, client: str, tmp_path: Path) -> None:
    before = os.listdir(tmp_path / "sandbox")
    for named in (trees.tree, lambda c: trees.tree_for(BOB, c)):
        with pytest.raises(ProtocolError):
            named(client)
    assert os.listdir(tmp_path / "sandbox") == before
