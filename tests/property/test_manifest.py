"""The manifest: deltas rebuild it, its summary is its entries', it resolves as kernels do."""

import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from distbuild.mirror.manifest import (
    DIRECTORY,
    MAX_TOMBSTONES,
    WITHHELD,
    Manifest,
    Summary,
    resolve,
)
from distbuild.mirror.roots import trace
from distbuild.protocol.messages import Change, DirectoryEntry, Entry, FileEntry, SymlinkEntry
from tests.support.examples import examples

NAMES = ["a", "b", "c.h", "\udcff"]
DIGESTS = [bytes([n]) * 32 for n in range(3)]

paths = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map(lambda p: "/" + "/".join(p))
entries = st.one_of(
    st.just(DIRECTORY),
    st.just(WITHHELD),
    st.builds(
        FileEntry, st.sampled_from(DIGESTS), st.integers(0, 9), st.just(0o444), st.integers(0, 2)
    ),
    st.builds(SymlinkEntry, st.sampled_from([b"a", b"../b", b"/a/b"])),
)
batches = st.dictionaries(paths, st.none() | entries, max_size=5)


def with_parents(batch: dict[str, Entry | None]) -> dict[str, Entry | None]:
    """A batch as a disk could be: what is there has directories above it."""
    sane = dict(batch)
    for path in [p for p, entry in batch.items() if entry is not None]:
        while (path := os.path.dirname(path)) != "/":
            sane[path] = DIRECTORY
    return sane


def take(copy: dict[str, Entry], delta: list[Change]) -> None:
    for change in delta:
        path = os.fsdecode(change.path)
        if change.entry is None:
            copy.pop(path, None)
        else:
            copy[path] = change.entry


class Manifests(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.manifest = Manifest()
        self.model: dict[str, Entry] = {}
        #: Copies as workers have them, each at the generation that it was last brought to.
        self.copies: list[tuple[int, dict[str, Entry]]] = [(0, {})]

    @rule(batch=batches.map(with_parents))
    def apply(self, batch: dict[str, Entry | None]) -> None:
        before, generation = dict(self.model), self.manifest.generation
        for path in sorted(batch):
            entry = batch[path]
            if not isinstance(entry, DirectoryEntry):
                for below in [p for p in self.model if p.startswith(path + "/")]:
                    del self.model[below]
            if entry is None:
                self.model.pop(path, None)
            else:
                self.model[path] = entry
        raised = self.manifest.apply(batch)
        assert raised == (self.model != before)
        assert self.manifest.generation == generation + raised

    @rule(data=st.data())
    def copy(self, data: st.DataObject) -> None:
        """Bring one copy up to date and keep it beside the one that stays behind."""
        have, copy = data.draw(st.sampled_from(self.copies))
        fresh = {} if have == 0 else dict(copy)
        delta = self.manifest.since(have)
        assert [c.path for c in delta] == sorted({c.path for c in delta}, key=os.fsdecode)
        take(fresh, delta)
        assert fresh == self.model
        self.copies = [*self.copies[-3:], (self.manifest.generation, fresh)]

    @invariant()
    def is_what_was_applied(self) -> None:
        if not hasattr(self, "manifest"):
            return
        manifest, model = self.manifest, self.model
        assert {p: manifest.get(p) for p in manifest.below("/")} == model
        assert len(manifest) == len(model)
        files = {p: e for p, e in model.items() if isinstance(e, FileEntry)}
        assert manifest.counts().files == len(files)
        assert manifest.counts().size == sum(e.size for e in files.values())
        for digest in DIGESTS:
            assert manifest.paths_of(digest) == {p for p, e in files.items() if e.digest == digest}
        for path in ["/", *model]:
            below = {p for p in model if os.path.dirname(p) == path}
            assert manifest.names(path) == {os.path.basename(p) for p in below}

    @invariant()
    def summary_is_that_of_the_entries(self) -> None:
        if not hasattr(self, "manifest"):
            return
        summary = Summary()
        for path, entry in reversed(self.model.items()):
            summary.add(os.fsencode(path), entry)
        assert self.manifest.summary() == summary.digest()


TestManifests = Manifests.TestCase
TestManifests.settings = examples(0.4, stateful_step_count=20)


PARTS = ["a", "b", "c", "f.h"]
targets = st.lists(st.sampled_from([*PARTS, "..", "."]), min_size=1, max_size=4).map("/".join)
layouts = st.dictionaries(
    st.lists(st.sampled_from(PARTS[:3]), max_size=2).map("/".join).map(lambda p: p.strip("/")),
    st.dictionaries(
        st.sampled_from(PARTS), st.tuples(st.sampled_from(["file", "link", "abs"]), targets)
    ),
    max_size=4,
)
questions = st.lists(
    st.lists(st.sampled_from([*PARTS, "..", ".", ""]), min_size=1, max_size=5).map("/".join),
    max_size=6,
)


def build(root: Path, layout: dict[str, dict[str, tuple[str, str]]]) -> None:
    for directory, items in layout.items():
        here = root / directory
        try:
            here.mkdir(parents=True, exist_ok=True)
            if here.resolve() != here:
                continue
        except (OSError, RuntimeError):
            continue
        for name, (kind, target) in items.items():
            if os.path.lexists(here / name):
                continue
            if kind == "file":
                (here / name).touch()
            else:
                os.symlink(target if kind == "link" else f"{root}/{target}", here / name)


def manifest_of(root: Path) -> Manifest:
    """An independent listing: os.walk does not follow links."""
    found: dict[str, Entry | None] = {str(p): DIRECTORY for p in [root, *root.parents]}
    del found["/"]
    for directory, directories, files in os.walk(root):
        for name in [*directories, *files]:
            path = os.path.join(directory, name)
            if os.path.islink(path):
                found[path] = SymlinkEntry(os.fsencode(os.readlink(path)))
            else:
                found[path] = DIRECTORY if os.path.isdir(path) else WITHHELD
    manifest = Manifest()
    manifest.apply(found)
    return manifest


@given(layouts, questions)
def test_paths_lead_where_the_kernel_goes(
    layout: dict[str, dict[str, tuple[str, str]]], asked: list[str]
) -> None:
    root = Path(os.path.realpath(tempfile.mkdtemp()))
    try:
        build(root, layout)
        manifest = manifest_of(root)
        for path in [*(f"{root}/{p}" for p in asked), *list(manifest.below(str(root)))]:
            real = os.path.realpath(path) if os.path.exists(path) else None
            way = trace(path)
            if real is None or os.path.commonpath([real, root]) == str(root):
                # ``..`` may lead above the root, of which the manifest knows only the way.
                assert manifest.resolve(path) == real, path
            assert way.real == real, path
            if real is not None:
                assert way.is_directory == os.path.isdir(path)
                tree = dict(way.entries)
                if not way.is_directory:
                    tree[real] = WITHHELD
                assert resolve(path, tree.get) == real, f"{path}: {tree}"
    finally:
        shutil.rmtree(root)


def test_as_many_links_are_followed_as_the_kernel_follows(tmp_path: Path) -> None:
    root = Path(os.path.realpath(tmp_path))
    (root / "l0").touch()
    for n in range(1, 43):
        (root / f"l{n}").symlink_to(f"l{n - 1}")
    manifest = manifest_of(root)
    for n in (39, 40, 41, 42):
        there = os.path.exists(root / f"l{n}")
        assert manifest.resolve(f"{root}/l{n}") == (f"{root}/l0" if there else None)
        assert trace(f"{root}/l{n}").real == manifest.resolve(f"{root}/l{n}")


def test_of_a_batch_that_changes_nothing_no_generation_comes() -> None:
    manifest = Manifest()
    assert manifest.apply({"/a": DIRECTORY})
    assert not manifest.apply({"/a": DIRECTORY, "/b": None, "/a/c": None})
    assert manifest.generation == 1
    assert repr(manifest) == "<Manifest generation=1 entries=1>"


def test_removals_are_forgotten_after_a_while() -> None:
    """What is remembered depends on what there is; who is too far behind gets everything."""
    manifest = Manifest()
    manifest.apply({"/r": DIRECTORY})
    first = manifest.generation
    for number in range(3):
        paths = [f"/r/{number}-{n}" for n in range(MAX_TOMBSTONES)]
        manifest.apply(dict.fromkeys(paths, DIRECTORY))
        added = manifest.generation
        manifest.apply(dict.fromkeys(paths))
    assert len(manifest._changed) <= 2 * MAX_TOMBSTONES
    assert not manifest.can_tell_since(first)
    assert manifest.is_newer("/r/0-0", first)
    assert manifest.is_newer("/r/never", first)  # it may have been there
    assert manifest.can_tell_since(added)
    assert not manifest.is_newer("/r/never", added)
    assert {change.path for change in manifest.since(added)} == set(map(os.fsencode, paths))
