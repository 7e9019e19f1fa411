"""The manifest: all mirrored paths with their entries, and the generation of each last change.

Pure: knows no disk, no worker and no clock. Paths are absolute ``str`` (surrogateescape) without
``.``, ``..`` or doubled slashes; they become ``bytes`` only on the wire.
"""

import hashlib
import os
import posixpath
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import msgspec

from distbuild.mirror.name_index import NameIndex
from distbuild.protocol.messages import (
    Change,
    DirectoryEntry,
    Entry,
    FileEntry,
    SymlinkEntry,
    WithheldEntry,
)
from distbuild.system.paths import follow_links

T = TypeVar("T")
#: Maps all spellings of one path to the same key, as ``windows.names.fold`` does.
Fold = Callable[[str], str]


class Spellings:
    """The present spelling of each existing path, for a file system that ignores case."""

    def __init__(self, fold: Fold) -> None:
        self._fold = fold
        self._known: dict[str, str] = {}

    def get(self, path: str) -> str:
        """The present spelling of a path; ``path`` itself if it is not known."""
        return self._known.get(self._fold(path), path)

    def add(self, path: str) -> None:
        """Make ``path`` the only spelling of the path."""
        self._known[self._fold(path)] = path

    def discard(self, path: str) -> None:
        """Remove a path, unless another spelling has replaced ``path`` already."""
        folded = self._fold(path)
        if self._known.get(folded) == path:
            del self._known[folded]

    def respelled(self, batch: Mapping[str, T | None]) -> dict[str, T | None]:
        """The batch with at most one existing spelling of each path.

        An existing path appears in the disk's spelling, and its previous spelling is removed. A
        removed path (None) does not affect the file that is known under another spelling.
        """
        states: dict[str, T | None] = {}
        present: dict[str, str] = {}
        for path, state in batch.items():
            if state is not None:
                present.setdefault(self._fold(path), path)
        for path, state in batch.items():
            folded = self._fold(path)
            known, now = self._known.get(folded), present.get(folded)
            if now is None and known in (None, path):
                states[path] = None
            elif path == now:
                states[path] = state
            if known not in (None, now) and now is not None:
                states[str(known)] = None
        return states


DIRECTORY = DirectoryEntry()
WITHHELD = WithheldEntry()

PRECOMPILED_SUFFIXES = (".gch", ".pch")
#: So many removed paths are remembered at least.
MAX_TOMBSTONES = 10_000
_MASK = (1 << 256) - 1
_entry_encoder = msgspec.msgpack.Encoder()


class Summary:
    """An order-independent digest of a set of (path, entry) pairs that is updated incrementally.

    The sum of the pairs' SHA-256 modulo 2**256: equal sets give equal sums regardless of the order
    of changes. It guards against a missed change, not against an adversary.
    """

    def __init__(self) -> None:
        self._sum = 0

    def add(self, path: bytes, entry: Entry) -> None:
        """Add a pair that is not in the set."""
        self._sum = (self._sum + _pair_digest(path, entry)) & _MASK

    def remove(self, path: bytes, entry: Entry) -> None:
        """Remove a pair, which must be in the set."""
        self._sum = (self._sum - _pair_digest(path, entry)) & _MASK

    def digest(self) -> bytes:
        """32 bytes; 32 zeros for the empty set."""
        return self._sum.to_bytes(32, "big")


def _pair_digest(path: bytes, entry: Entry) -> int:
    body = path + b"\0" + _entry_encoder.encode(entry)
    return int.from_bytes(hashlib.sha256(body).digest(), "big")


class Counts(msgspec.Struct, frozen=True):
    """Number of files in a manifest, and their total ``size`` in bytes, not compressed."""

    files: int
    size: int


class Manifest:
    """Paths and their entries, with the generation in which each was last changed.

    ``fold`` maps all spellings of one path to the same key; None where each spelling is a path of
    its own. Entries are stored under the disk's spelling and can be looked up under any.
    """

    def __init__(self, fold: Fold | None = None) -> None:
        self.generation = 0
        #: The last generation all of whose changes are in the manifest; another thread may be
        #: adding those of ``generation``.
        self.applied = 0
        #: The paths by their last component.
        self.index = NameIndex()
        self._entries: dict[str, Entry] = {}
        self._spellings = Spellings(fold) if fold is not None else None
        self._names: dict[str, set[str]] = {}
        # Path -> generation of its last change, oldest first. Removed paths stay as tombstones,
        # so that a worker that is behind receives the removal, but for those from before
        # ``_complete_since``.
        self._changed: dict[str, int] = {}
        self._complete_since = 0
        #: Paths of precompiled headers, by their suffix.
        self.precompiled: set[str] = set()
        # Digest -> paths of the files with this content.
        self._holders: dict[bytes, set[str]] = {}
        #: The digests of which there are several files.
        self.copied: set[bytes] = set()
        self._summary = Summary()
        self._files = 0
        self._size = 0

    def __repr__(self) -> str:
        return f"<Manifest generation={self.generation} entries={len(self._entries)}>"

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, path: str) -> Entry | None:
        """The entry at exactly this path; symlinks in it are not followed."""
        entry = self._entries.get(path)
        if entry is None and self._spellings is not None:
            return self._entries.get(self._spellings.get(path))
        return entry

    def spelled(self, path: str) -> str:
        """The path in the disk's spelling if that is known, else ``path``."""
        return path if self._spellings is None else self._spellings.get(path)

    def counts(self) -> Counts:
        """Number and total size of the regular files whose content is mirrored."""
        return Counts(self._files, self._size)

    def summary(self) -> bytes:
        """The order-independent digest of all entries, 32 bytes."""
        return self._summary.digest()

    def apply(self, batch: Mapping[str, Entry | None]) -> bool:
        """Apply a batch of new states (None: removed) as one generation.

        States equal to the present ones are skipped; if all are, the generation stays. Removing a
        directory removes everything below it. Returns whether anything changed.
        """
        if self._spellings is not None:
            batch = self._spellings.respelled(batch)
        differences = {p: e for p, e in batch.items() if self._entries.get(p) != e}
        if not differences:
            return False
        self.generation += 1
        for path in sorted(differences):
            entry = differences[path]
            if entry is not None and self._is_behind(path):
                entry = None  # it was seen through a symlink, and is not below this path
            before = self._entries.get(path)
            if isinstance(before, DirectoryEntry) and not isinstance(entry, DirectoryEntry):
                for below in [p for p in self.below(path) if differences.get(p) is None]:
                    self._set(below, None)
            self._set(path, entry)
        self.applied = self.generation
        self._forget_removals()
        return True

    def _forget_removals(self) -> None:
        """Drop the older half of the tombstones once there are more of them than entries."""
        removed = len(self._changed) - len(self._entries)
        if removed <= max(MAX_TOMBSTONES, len(self._entries)):
            return
        left = removed // 2
        for path, generation in list(self._changed.items()):
            if path not in self._entries:
                if left == 0 and generation > self._complete_since:
                    return
                left = max(0, left - 1)
                self._complete_since = generation
                del self._changed[path]

    def can_tell_since(self, generation: int) -> bool:
        """Whether ``since`` has every removal after ``generation``."""
        return generation >= self._complete_since

    def _is_behind(self, path: str) -> bool:
        """Whether the nearest known entry above a path is no directory."""
        while (path := path.rpartition("/")[0]) != "":
            above = self._entries.get(path)
            if above is not None:
                return not isinstance(above, DirectoryEntry)
        return False

    def _set(self, path: str, entry: Entry | None) -> None:
        before = self._entries.get(path)
        if before == entry:
            return
        parent, name = posixpath.split(path)
        if before is not None:
            self._account(path, before, -1)
        if entry is None:
            del self._entries[path]
            if self._spellings is not None:
                self._spellings.discard(path)
            self.precompiled.discard(path)
            self._names[parent].discard(name)
            if not self._names[parent]:
                del self._names[parent]
        else:
            self._entries[path] = entry
            if self._spellings is not None:
                self._spellings.add(path)
            if path.endswith(PRECOMPILED_SUFFIXES):
                self.precompiled.add(path)
            self._names.setdefault(parent, set()).add(name)
            self._account(path, entry, +1)
        self.index.note(path, name, before, entry, self.generation)
        self._changed.pop(path, None)
        self._changed[path] = self.generation

    def _account(self, path: str, entry: Entry, sign: int) -> None:
        update = self._summary.add if sign > 0 else self._summary.remove
        update(os.fsencode(path), entry)
        if isinstance(entry, FileEntry):
            self._files += sign
            self._size += sign * entry.size
            holders = self._holders.setdefault(entry.digest, set())
            if sign > 0:
                holders.add(path)
                if len(holders) == 2:
                    self.copied.add(entry.digest)
            else:
                holders.discard(path)
                if len(holders) < 2:
                    self.copied.discard(entry.digest)
                if not holders:
                    del self._holders[entry.digest]

    def is_newer(self, path: str, generation: int) -> bool:
        """Whether the entry at a path was changed after ``generation``, or may have been."""
        changed = self._changed.get(path)
        return not self.can_tell_since(generation) if changed is None else changed > generation

    def changed_at(self, path: str) -> int | None:
        """The generation of the last change at a path; None: never mirrored, or long removed."""
        return self._changed.get(path)

    def has_newer(self, path: str, generation: int) -> bool:
        """Whether any entry passed in resolving ``path`` changed after ``generation``: in a tree
        of that generation the path may lead elsewhere, or nowhere."""
        is_newer = False

        def lookup(step: str) -> Entry | None:
            nonlocal is_newer
            is_newer = is_newer or self.is_newer(self.spelled(step), generation)
            return self.get(step)

        resolve(path, lookup)
        return is_newer

    def paths_of(self, digest: bytes) -> frozenset[str]:
        """The files with this content."""
        return frozenset(self._holders.get(digest, ()))

    def names(self, directory: str) -> frozenset[str]:
        """The names directly in a directory; empty if it has none or does not exist."""
        return frozenset(self._names.get(directory, ()))

    def children(self, directory: str) -> list[str]:
        """The paths directly in a directory."""
        prefix = directory.rstrip("/") + "/"
        return [prefix + name for name in self._names.get(directory, ())]

    def below(self, path: str) -> Iterator[str]:
        """Every path below ``path``, children before grandchildren; not ``path`` itself."""
        pending = [path]
        while pending:
            directory = pending.pop()
            prefix = directory if directory.endswith("/") else directory + "/"
            for name in sorted(self._names.get(directory, ())):
                child = prefix + name
                yield child
                if child in self._names:
                    pending.append(child)

    def since(self, generation: int) -> list[Change]:
        """The changes after ``generation``, sorted by path; all entries for 0. Complete if
        ``can_tell_since(generation)``."""
        if generation <= 0:
            paths = list(self._entries)
        else:
            paths = []
            for path in reversed(self._changed):
                if self._changed[path] <= generation:
                    break
                paths.append(path)
        paths.sort()
        return [Change(os.fsencode(p), self._entries.get(p)) for p in paths]

    def resolve(self, path: str) -> str | None:
        """The path with every symlink followed, or None if that leaves the manifest."""
        if self._spellings is None:
            return follow_links(path, self._entries.get, SymlinkEntry, DirectoryEntry)
        real = resolve(path, self.get)
        return None if real is None else self._spellings.get(real)

    def leads_to_file(self, path: str) -> bool:
        """Whether a path leads to a file whose content is mirrored."""
        real = self.resolve(path)
        return real is not None and isinstance(self.get(real), FileEntry)


def resolve(path: str, lookup: Callable[[str], Entry | None]) -> str | None:
    """``path`` with every symlink among the entries of ``lookup`` followed: the path of another
    entry, or ``/``, which need not be an entry; see ``follow_links``."""
    return follow_links(path, lookup, SymlinkEntry, DirectoryEntry)
