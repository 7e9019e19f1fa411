"""A tree holds exactly what its manifest says, whatever the way that led there."""

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distbuild.mirror.manifest import DIRECTORY, WITHHELD, Summary
from distbuild.protocol.codec import pack
from distbuild.protocol.messages import (
    Change,
    Changes,
    DirectoryEntry,
    Entry,
    FileEntry,
    SymlinkEntry,
)
from distbuild.worker.tree.on_disk import WITHHELD_TEXT
from distbuild.worker.tree.paths import rerooted_target
from distbuild.worker.tree.store import OwnFiles, Store
from distbuild.worker.tree.tree import Tree
from tests.support.examples import examples

Entries = dict[bytes, Entry]
CONTENTS = [b"", b"int a;\n", b"#pragma once\n", b"\xff\x00binary"]
NAMES = [b"a", b"b", b"a.h", b"\xff", b"a-b"]


def file_entry(content: bytes, mtime_ns: int, mode: int) -> FileEntry:
    return FileEntry(hashlib.sha256(content).digest(), len(content), mode, mtime_ns)


leaves = st.one_of(
    st.builds(
        file_entry,
        st.sampled_from(CONTENTS),
        st.integers(0, 2**60),
        st.sampled_from([0o644, 0o755]),
    ),
    st.builds(SymlinkEntry, st.sampled_from([b"a", b"../b", b"/a/b", b"../../../../x", b"/"])),
    st.just(WITHHELD),
)
nodes: st.SearchStrategy[object] = st.recursive(
    leaves | st.just({}),
    lambda inner: st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)
manifests = st.dictionaries(st.sampled_from(NAMES), nodes, max_size=4).map(lambda top: flat(top))


def flat(tree: Mapping[bytes, object], prefix: bytes = b"") -> Entries:
    found: Entries = {}
    for name, node in tree.items():
        path = prefix + b"/" + name
        if isinstance(node, dict):
            found[path] = DIRECTORY
            found |= flat(node, path)
        else:
            assert isinstance(node, Entry)
            found[path] = node
    return found


def summary_of(entries: Entries) -> bytes:
    summary = Summary()
    for path, entry in entries.items():
        summary.add(path, entry)
    return summary.digest()


def difference(old: Entries, new: Entries, generation: int) -> Changes:
    paths = [path for path in old | new if old.get(path) != new.get(path)]
    return Changes(
        "c",
        "e",
        generation,
        generation + 1,
        summary_of(new),
        [Change(path, new.get(path)) for path in paths],
    )


def on_disk(tree: Tree) -> dict[bytes, object]:
    """Every name below the tree with all that the manifest says about it."""
    root = tree.ground.root
    found: dict[bytes, object] = {}
    for directory, folders, files in os.walk(root):
        for name in folders + files:
            real = os.path.join(directory, name)
            status = os.lstat(real)
            if os.path.islink(real):
                what: object = os.readlink(real)
            elif os.path.isdir(real):
                what = "directory"
            else:
                content = Path(os.fsdecode(real)).read_bytes()
                mtime = 0 if content == WITHHELD_TEXT else status.st_mtime_ns
                what = (content, mtime, status.st_mode & 0o777)
            found[real[len(root) :]] = what
    return found


def expected(entries: Entries) -> dict[bytes, object]:
    contents = {hashlib.sha256(content).digest(): content for content in CONTENTS}
    found: dict[bytes, object] = {}
    for path, entry in entries.items():
        if isinstance(entry, DirectoryEntry):
            found[path] = "directory"
        elif isinstance(entry, SymlinkEntry):
            found[path] = rerooted_target(path, entry.target)
        elif isinstance(entry, FileEntry):
            mode = 0o555 if entry.mode & 0o111 else 0o444
            found[path] = (contents[entry.digest], entry.mtime_ns, mode)
        else:
            found[path] = (WITHHELD_TEXT, 0, 0o444)
    return found


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


@examples(1.5)
@given(steps=st.lists(manifests, min_size=1, max_size=4))
def test_applying_the_difference_of_two_manifests_gives_the_second(
    steps: list[Entries], directory: Path
) -> None:
    store = Store(directory / "store")
    for content in CONTENTS:
        store.put(pack(content, hashlib.sha256(content).digest()))
    tree = Tree(os.fsencode(directory / "c"), store, OwnFiles(store, enabled=False))
    entries: Entries = {}
    for generation, wanted in enumerate(steps):
        assert tree.apply(difference(entries, wanted, generation)).state == "applied"
        entries = wanted
        assert on_disk(tree) == expected(entries)
        inodes = [
            os.lstat(tree.ground.real(p)).st_ino
            for p, e in entries.items()
            if isinstance(e, FileEntry)
        ]
        assert len(inodes) == len(set(inodes))
        status = tree.status()
        sizes = [e.size for e in entries.values() if isinstance(e, FileEntry)]
        assert (status.generation, status.files, status.bytes) == (
            generation + 1,
            len(sizes),
            sum(sizes),
        )


odd_paths = st.lists(st.sampled_from([b"a", b"b", b"n" * 256]), min_size=1, max_size=3).map(
    lambda names: b"/" + b"/".join(names)
)
odd_manifests = st.dictionaries(odd_paths | st.just(b"/top"), leaves | st.just(DIRECTORY))


def placed(entries: Entries) -> Entries:
    """Those that are below no link or file, with no name that is too long."""
    found = {}
    for path, entry in entries.items():
        above = [entries.get(bytes(p)) for p in map(os.fsencode, Path(os.fsdecode(path)).parents)]
        closed = any(e is not None and not isinstance(e, DirectoryEntry) for e in above)
        if not closed and b"n" * 256 not in path:
            found[path] = entry
    return found


@examples(1.5)
@given(steps=st.lists(odd_manifests, min_size=1, max_size=4))
def test_what_cannot_be_on_disk_is_left_out_until_it_can(
    steps: list[Entries], directory: Path
) -> None:
    store = Store(directory / "store")
    for content in CONTENTS:
        store.put(pack(content, hashlib.sha256(content).digest()))
    tree = Tree(os.fsencode(directory / "c"), store, OwnFiles(store, enabled=False))
    entries: Entries = {}
    for generation, wanted in enumerate(steps):
        changes = difference(entries, wanted, generation)
        reply = tree.apply(changes)
        if reply.state == "need_full":  # what was below a link is not said again
            listing = [Change(path, entry) for path, entry in wanted.items()]
            changes = Changes("c", "e", 0, generation + 1, summary_of(wanted), listing)
            reply = tree.apply(changes)
        assert reply.state == "applied"
        entries = wanted
        shown = on_disk(tree)
        should = expected(placed(entries))
        assert {path: shown.get(path) for path in should} == should
        # Directories that are no entries stand where something is in them.
        rest = shown.keys() - should.keys()
        assert all(shown[p] == "directory" for p in rest)
        assert all(any(q.startswith(p + b"/") for q in should) for p in rest)
        for path, entry in entries.items():
            if isinstance(entry, FileEntry):
                assert tree.digest_at(path) == (entry.digest if path in should else b"")


@examples(0.5)
@given(first=manifests, second=manifests)
def test_a_full_listing_replaces_whatever_was_there(
    first: Entries, second: Entries, directory: Path
) -> None:
    store = Store(directory / "store")
    for content in CONTENTS:
        store.put(pack(content, hashlib.sha256(content).digest()))
    tree = Tree(os.fsencode(directory / "c"), store, OwnFiles(store, enabled=False))
    for generation, entries in ((5, first), (9, second)):
        listing = [Change(path, entry) for path, entry in entries.items()]
        changes = Changes("c", f"e{generation}", 0, generation, summary_of(entries), listing)
        assert tree.apply(changes).state == "applied"
        assert on_disk(tree) == expected(entries)
