"""Decides whether an earlier compile's result equals that of a compile now, without a look at the
disk: by the mirror's digests, and by the generations of its changes.

A result is valid while all its inputs have the same content and while no path came or went that a
search for one of its includes could find. Pure.
"""

import hashlib
import os
import posixpath
import sys
from collections.abc import Callable, Iterable

import msgspec

from distbuild.mirror.manifest import PRECOMPILED_SUFFIXES, Manifest
from distbuild.protocol.codec import unpack_output
from distbuild.protocol.messages import (
    Digest,
    DirectoryEntry,
    FileEntry,
    ResultRequest,
    SymlinkEntry,
)

#: So many groups of directories keep their candidates in memory.
MAX_GROUPS = 500
_SUM_BYTES = 16
_MASK = (1 << 8 * _SUM_BYTES) - 1


class SearchScope(msgspec.Struct, frozen=True):
    """Where and for which names a compile looks.

    ``directories``: the real paths of its search directories, in order. ``places``: real paths of
    all directories in which it may find a file, in any order, at any depth. ``names``: the last
    components of the paths that it looks for.
    """

    directories: tuple[str, ...]
    places: tuple[str, ...]
    names: tuple[str, ...]


class Variant(msgspec.Struct):
    """One result of a command: what it read, and what its searches could have found."""

    #: The entry in the storage.
    number: int
    inputs: tuple[tuple[str, Digest], ...]
    search: SearchScope
    #: ``Candidates.sum`` of ``search`` at the time of the compile.
    candidates: int
    #: The last generation for which it was found valid; 0: none of this process.
    matched: int = 0
    #: The checksum of its description in the storage.
    stamp: bytes = b""


class _Group:
    """The sums of names below the same directories. ``tops`` end with a slash."""

    def __init__(
        self, tops: tuple[str, ...], linked: tuple[str, ...], links: int, changed: int
    ) -> None:
        self.tops = tops
        #: What symlinks there lead to: directories, which end with a slash, and files.
        self.linked = linked
        #: A sum over the symlinks and what they lead to; 0: there is none.
        self.links = links
        #: ``Candidates.links_moved`` when it was made.
        self.changed = changed
        self.sums: dict[str, tuple[int, int]] = {}


class Candidates:
    """Sums over the mirrored paths that a search could find. Equal sums: the same paths of the same
    kinds. Thread-safe."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._groups: dict[tuple[str, ...], _Group] = {}
        # The parts of all symlinks' targets, and the generation of the symlinks that they are of.
        self._targets: tuple[int, frozenset[str]] = (-1, frozenset())
        # ``links_moved``, and the generation of the names that it was found in.
        self._moved = (-1, 0)

    def links_moved(self) -> int:
        """The last generation in which a symlink, or a path of a name that is a part of a symlink's
        target, came, went or changed its kind: before it, links lead where they led since."""
        index, manifest = self._manifest.index, self._manifest
        known, changed = self._moved, index.changed
        if known[0] == changed:
            return known[1]
        at, names = self._targets
        if at != index.links_changed:
            at = index.links_changed
            entries = map(manifest.get, set(index.links))
            targets = (e.target for e in entries if isinstance(e, SymlinkEntry))
            names = frozenset(os.fsdecode(part) for t in targets for part in t.split(b"/"))
            if at <= manifest.applied:
                self._targets = at, names
        moved = max(map(index.changed_at, names), default=0)
        moved = max(moved, at)
        if changed <= manifest.applied:
            self._moved = changed, moved
        return moved

    def sum(self, search: SearchScope) -> int:
        """The order-free sum over all names, with the symlinks."""
        group = self._group(search.places)
        index, sums, applied = self._manifest.index, group.sums, self._manifest.applied
        total = group.links
        for name in search.names:
            changed = index.changed_at(name)
            known = sums.get(name)
            if known is None or known[0] != changed:
                known = changed, self._sum_of(name, group.tops)
                if changed <= applied:
                    sums[name] = known
            total += known[1]
        return total & _MASK

    def linked(self, search: SearchScope) -> tuple[str, ...]:
        """What symlinks lead to where the compile may find files: directories, which end with a
        slash, and files."""
        return self._group(search.places).linked

    def may_find(self, search: SearchScope, path: str) -> bool:
        """Whether a mirrored path is below a directory in which the compile may find files."""
        return path.startswith(self._group(search.places).tops)

    def matching(self, search: SearchScope, operand: str) -> set[str]:
        """The real paths of the mirrored files that an include of ``operand`` may lead to."""
        group, end = self._group(search.places), "/" + operand
        resolve, found = self._manifest.resolve, set[str]()
        for path in self._manifest.index.paths(posixpath.basename(operand)):
            is_below = path.startswith(group.tops) and path.endswith(end)
            if is_below or path.startswith(group.linked):
                real = resolve(path)
                if real is not None and not isinstance(self._manifest.get(real), DirectoryEntry):
                    found.add(real)
        return found

    def _sum_of(self, name: str, tops: tuple[str, ...]) -> int:
        paths = [path for path in self._manifest.index.paths(name) if path.startswith(tops)]
        if not paths:
            return 0
        get = self._manifest.get
        return _digest(f"{path}\0{type(get(path)).__name__}" for path in sorted(paths))

    def _group(self, places: tuple[str, ...]) -> _Group:
        known = self._groups.get(places)
        moved = self.links_moved()
        if known is not None and known.changed == moved:
            return known
        group = self._closed(places, moved)
        if group.changed <= self._manifest.applied:
            if len(self._groups) >= MAX_GROUPS:
                self._groups.clear()
            self._groups[places] = group
        return group

    def _closed(self, places: tuple[str, ...], moved: int) -> _Group:
        """The places, with the directories to which symlinks below them lead."""
        manifest = self._manifest
        tops = dict.fromkeys(place.rstrip("/") + "/" for place in places)
        links, linked = dict[str, str](), dict[str, None]()
        left = set(manifest.index.links)
        is_growing = True
        while is_growing:
            is_growing = False
            begins = tuple(tops)
            for link in [link for link in left if link.startswith(begins)]:
                left.discard(link)
                entry, real = manifest.get(link), manifest.resolve(link)
                target = entry.target if isinstance(entry, SymlinkEntry) else b""
                led = None if real is None else manifest.get(real)
                links[link] = f"{link}\0{target!r}\0{real}\0{type(led).__name__}"
                if real is not None and isinstance(led, DirectoryEntry):
                    top = real.rstrip("/") + "/"
                    is_growing |= top not in tops
                    tops[top] = linked[top] = None
                elif real is not None:
                    linked[real] = None
        total = _digest(links[link] for link in sorted(links)) if links else 0
        return _Group(tuple(tops), tuple(linked), total, moved)


def _digest(parts: Iterable[str]) -> int:
    text = "\n".join(parts).encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=_SUM_BYTES).digest(), "big")


def is_valid(
    variant: Variant,
    manifest: Manifest,
    candidates: Candidates,
    generation: int,
    directories: Callable[[], tuple[str, ...]],
) -> bool:
    """Whether a compile now would read the same.

    ``generation``: all its changes are in the manifest, and those before the compile began are
    among them. ``directories``: the real paths of the search directories now.
    """
    matched = variant.matched
    if matched == generation == manifest.generation:
        return True
    if not (matched and _is_unchanged(variant, manifest, matched)):
        get = manifest.get
        for path, digest in variant.inputs:
            entry = get(path)
            if not isinstance(entry, FileEntry) or entry.digest != digest:
                return False
    if not matched or manifest.index.changed > matched:
        if directories() != variant.search.directories:
            return False
        if candidates.sum(variant.search) != variant.candidates:
            return False
    variant.matched = max(variant.matched, generation)
    return True


def first_changed(variant: Variant, manifest: Manifest) -> str:
    """The first input that is another now; "": none."""
    for path, digest in variant.inputs:
        entry = manifest.get(path)
        if not isinstance(entry, FileEntry) or entry.digest != digest:
            return path
    return ""


def _is_unchanged(variant: Variant, manifest: Manifest, since: int) -> bool:
    changed_at = manifest.changed_at
    for path, _ in variant.inputs:
        changed = changed_at(path)
        if changed is None or changed > since:
            return False
    return True


def is_settled(
    variant: Variant, manifest: Manifest, candidates: Candidates, generation: int
) -> bool:
    """Whether nothing that the variant depends on changed after ``generation``."""
    now = manifest.generation
    if now == generation:
        return True
    if manifest.applied < now:  # the sum may be of an entry whose change is not noted yet
        return False
    index = manifest.index
    if candidates.links_moved() > generation or not _is_unchanged(variant, manifest, generation):
        return False
    if index.changed <= generation:
        return True
    return all(
        index.changed_at(name + suffix) <= generation
        for name in variant.search.names
        for suffix in ("", *PRECOMPILED_SUFFIXES)
    )


def places_of(directories: Iterable[str]) -> tuple[str, ...]:
    """The directories in which a compile may find files, sorted, without those below another."""
    kept: list[str] = []
    tops: tuple[str, ...] = ()
    for place in sorted(directories):
        if not f"{place}/".startswith(tops):
            kept.append(place)
            tops = (*tops, place.rstrip("/") + "/")
    return tuple(kept)


class _About(msgspec.Struct, frozen=True, array_like=True):
    """A variant, packed."""

    digests: list[Digest]
    #: These are joined by NULs.
    paths: bytes
    directories: bytes
    places: bytes
    names: bytes
    candidates: bytes


InputPair = tuple[str, Digest]
_about_decoder = msgspec.msgpack.Decoder(_About)


def _joined(texts: Iterable[str]) -> bytes:
    return os.fsencode("\0".join(texts))


def _parted(data: bytes) -> tuple[str, ...]:
    return tuple(map(sys.intern, os.fsdecode(data).split("\0"))) if data else ()


def packed(variant: Variant) -> bytes:
    """A variant without its number and state, for the storage."""
    search = variant.search
    about = _About(
        [digest for _, digest in variant.inputs],
        _joined(path for path, _ in variant.inputs),
        _joined(search.directories),
        _joined(search.places),
        _joined(search.names),
        variant.candidates.to_bytes(16, "little"),
    )
    return msgspec.msgpack.encode(about)


def unpacked(number: int, data: bytes, shared: dict[InputPair, InputPair]) -> Variant:
    """The inverse of ``packed``. ``shared``: equal inputs of all variants."""
    about = _about_decoder.decode(data)
    search = SearchScope(_parted(about.directories), _parted(about.places), _parted(about.names))
    pairs = zip(_parted(about.paths), about.digests, strict=True)
    inputs = tuple([shared.setdefault(pair, pair) for pair in pairs])
    return Variant(number, inputs, search, int.from_bytes(about.candidates, "little"))


def differences(hit: ResultRequest, result: ResultRequest) -> list[str]:
    """What two results of one command have differently, with both digests."""
    pairs = {
        "exit code": (b"%d" % hit.exit_code, b"%d" % result.exit_code),
        "standard output": (hit.stdout, result.stdout),
        "standard error": (hit.stderr, result.stderr),
    }
    ours, theirs = (
        {os.fsdecode(f.path): unpack_output(f.blob) for f in r.outputs} for r in (hit, result)
    )
    for path in sorted({*ours, *theirs}):
        pairs[path] = ours.get(path, b""), theirs.get(path, b"")
    return [
        f"{name}: SHA-256 {hashlib.sha256(a).hexdigest()}, now {hashlib.sha256(b).hexdigest()}"
        for name, (a, b) in pairs.items()
        if a != b
    ]
