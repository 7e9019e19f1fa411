"""When a cached result is valid, beside a model that compares everything."""

import os
import posixpath
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distbuild.cache.variants import (
    Candidates,
    SearchScope,
    Variant,
    is_settled,
    is_valid,
    packed,
    places_of,
    unpacked,
)
from distbuild.mirror.manifest import DIRECTORY, WITHHELD, Manifest
from distbuild.protocol.messages import Entry, FileEntry, SymlinkEntry

DIRECTORIES = ("/p", "/p/a", "/p/b", "/p/a/sub", "/p/b/sub", "/q", "/q/sub")
NAMES = ("x.h", "y.h", "z.h")
Batch = Mapping[str, Entry | None]


def file(content: int) -> FileEntry:
    return FileEntry(bytes([content]) * 32, 1, 0o444, 0)


FILES = st.integers(1, 3).map(file)
LINKS = st.sampled_from(DIRECTORIES).map(lambda target: SymlinkEntry(os.fsencode(target)))
FILE_LINKS = st.sampled_from(("/q/z.h", "/p/a/y.h", "x.h")).map(
    lambda target: SymlinkEntry(os.fsencode(target))
)
BATCHES = st.lists(
    st.dictionaries(
        st.builds(posixpath.join, st.sampled_from(DIRECTORIES), st.sampled_from(NAMES)),
        st.none() | FILES | FILE_LINKS | st.just(WITHHELD),
        max_size=3,
    )
    | st.dictionaries(
        st.sampled_from(DIRECTORIES), st.none() | st.just(DIRECTORY) | LINKS, max_size=2
    ),
    max_size=8,
)
SEARCH = SearchScope(("/p/a", "/p/b"), ("/p/a", "/p/b"), ("x.h", "y.h"))
START: Batch = {
    **dict.fromkeys(DIRECTORIES, DIRECTORY),
    "/p/a/x.h": file(1),
    "/p/b/y.h": file(2),
    "/q/sub/y.h": file(3),
}
INPUTS = (("/p/a/x.h", b"\1" * 32), ("/p/b/y.h", b"\2" * 32))


def model(manifest: Manifest) -> tuple[object, ...]:
    """All that decides which files a search finds: paths of the names, and the links."""
    tops = {"/p/a/", "/p/b/"}
    while True:
        links = [p for p in manifest._entries if isinstance(manifest.get(p), SymlinkEntry)]
        inside = [p for p in links if p.startswith(tuple(tops))]
        led = {f"{manifest.resolve(p)}/" for p in inside if manifest.resolve(p)} - tops
        if not led:
            break
        tops |= led
    found = [
        (p, type(manifest.get(p)))
        for p in manifest._entries
        if p.startswith(tuple(tops)) and posixpath.basename(p) in SEARCH.names
    ]
    targets = {p: manifest.resolve(p) for p in inside}
    kinds = {p: type(manifest.get(real)) if real else None for p, real in targets.items()}
    leads = [(p, str(manifest.get(p)), targets[p], kinds[p]) for p in inside]
    return sorted(found, key=str), sorted(leads, key=str)


def is_equal(manifest: Manifest) -> bool:
    entries = [(manifest.get(path), digest) for path, digest in INPUTS]
    return all(isinstance(e, FileEntry) and e.digest == digest for e, digest in entries)


@given(BATCHES)
def test_it_is_valid_if_nothing_that_it_could_find_differs(batches: list[Batch]) -> None:
    manifest = Manifest()
    manifest.apply(START)
    candidates = Candidates(manifest)
    first = model(manifest)
    variant = Variant(1, INPUTS, SEARCH, candidates.sum(SEARCH), manifest.generation)
    late = Variant(1, INPUTS, SEARCH, variant.candidates)  # as after a restart
    for batch in batches:
        manifest.apply(batch)
        expected = is_equal(manifest) and model(manifest) == first
        for known in (variant, late):
            now = manifest.generation
            assert expected == is_valid(
                known, manifest, candidates, now, lambda: SEARCH.directories
            )
        late.matched = 0


@given(BATCHES)
def test_it_is_settled_if_nothing_that_it_could_find_has_changed(batches: list[Batch]) -> None:
    manifest = Manifest()
    manifest.apply(START)
    began, before = manifest.generation, model(manifest)
    variant, candidates = Variant(1, INPUTS, SEARCH, 0), Candidates(manifest)
    for batch in batches:
        manifest.apply(batch)
        if is_settled(variant, manifest, candidates, began):
            assert is_equal(manifest)
            assert model(manifest) == before


def test_it_is_not_settled_while_another_thread_applies_a_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    manifest = Manifest()
    manifest.apply({**START, "/p/a/y.h": DIRECTORY})
    began, before = manifest.generation, Candidates(manifest).sum(SEARCH)
    seen = []

    def meanwhile(*noted: Any) -> None:
        candidates = Candidates(manifest)
        variant = Variant(1, INPUTS, SEARCH, candidates.sum(SEARCH))
        seen.append(
            (variant.candidates == before, is_settled(variant, manifest, candidates, began))
        )
        note(*noted)

    note = manifest.index.note
    monkeypatch.setattr(manifest.index, "note", meanwhile)
    manifest.apply({"/p/a/y.h": file(4)})
    assert seen == [(False, False)]


@given(BATCHES)
def test_the_index_has_every_path_under_its_name(batches: list[Batch]) -> None:
    manifest = Manifest()
    for batch in (START, *batches):
        manifest.apply(batch)
    paths = list(manifest._entries)
    for name in {*map(posixpath.basename, paths), *NAMES}:
        named = [path for path in paths if posixpath.basename(path) == name]
        assert sorted(manifest.index.paths(name)) == sorted(named)
    links = {path for path in paths if isinstance(manifest.get(path), SymlinkEntry)}
    assert manifest.index.links == links


@given(BATCHES)
def test_the_manifest_knows_contents_that_several_files_have(batches: list[Batch]) -> None:
    manifest = Manifest()
    for batch in (START, *batches):
        manifest.apply(batch)
        entries = map(manifest.get, manifest._entries)
        counts = Counter(entry.digest for entry in entries if isinstance(entry, FileEntry))
        assert manifest.copied == {digest for digest, count in counts.items() if count > 1}


def test_a_moved_search_directory_is_another_one() -> None:
    manifest = Manifest()
    manifest.apply({**START, "/p/c": SymlinkEntry(b"/q")})
    candidates = Candidates(manifest)
    variant = Variant(1, INPUTS, SEARCH, candidates.sum(SEARCH))
    moved = ("/p/b", "/p/a")
    assert not is_valid(variant, manifest, candidates, manifest.generation, lambda: moved)


def test_an_input_that_was_removed_long_ago_is_not_unchanged() -> None:
    manifest = Manifest()
    manifest.apply(START)
    candidates = Candidates(manifest)
    unknown = (*INPUTS, ("/p/a/never.h", b"\5" * 32))
    variant = Variant(1, unknown, SEARCH, candidates.sum(SEARCH), manifest.generation)
    manifest.apply({"/q/z.h": file(1)})
    directories = SEARCH.directories
    assert not is_valid(variant, manifest, candidates, manifest.generation, lambda: directories)


def test_places_below_another_one_are_left_out() -> None:
    assert places_of(["/src", "/i", "/i/sub", "/else", "/in"]) == ("/else", "/i", "/in", "/src")
    assert places_of(["/src", "/"]) == ("/",)


def test_a_variant_is_stored_whole() -> None:
    odd = (("/ü\udcff/x.h", b"\0" * 32), *INPUTS)
    for inputs, search in (
        (INPUTS, SEARCH),
        (odd, SearchScope((), ("/ü\udcff",), ())),
        ((), SEARCH),
    ):
        variant = Variant(7, inputs, search, (1 << 128) - 1)
        shared: dict[tuple[str, bytes], tuple[str, bytes]] = {}
        known = [unpacked(7, packed(variant), shared) for _ in range(2)]
        assert known == [variant, variant]
        assert all(a is b for a, b in zip(known[0].inputs, known[1].inputs, strict=True))
