"""Applies a syncer's changes to a worker's tree: first to its list of entries, then to its disk.

Checks the paths of changes, which come from the network. Knows no lock.
"""

import copy
from bisect import bisect_left
from collections.abc import Callable

import msgspec

from distbuild.mirror.manifest import Summary
from distbuild.protocol.messages import Changes, DirectoryEntry, Entry
from distbuild.worker.tree.on_disk import DiskTree
from distbuild.worker.tree.paths import Above, Behind, Vacant, checked

Entries = dict[bytes, Entry]


def next_entries(
    old: Entries, changes: Changes, is_directory: Callable[[bytes], bool]
) -> tuple[Entries, list[bytes]]:
    """The entries after ``changes``, and the paths that differ, sorted.

    ``is_directory`` is for directories that have no entry. Raises ProtocolError for paths outside
    the tree.
    """
    named = checked(changes)
    if changes.base == 0:
        wanted = {path: entry for path, entry in named.items() if entry is not None}
        considered = old.keys() | wanted.keys()
    else:
        wanted = dict(old)
        closed = [p for p, e in named.items() if not isinstance(e, DirectoryEntry)]
        gone = _below(
            [p for p in closed if isinstance(old.get(p), DirectoryEntry) or is_directory(p)], old
        )
        for path in gone:
            wanted.pop(path, None)
        for path, entry in named.items():
            if entry is None:
                wanted.pop(path, None)
            else:
                wanted[path] = entry
        considered = named.keys() | gone
    touched = sorted(p for p in considered if wanted.get(p) != old.get(p))
    return wanted, touched


def next_summary(summary: Summary, old: Entries, wanted: Entries, touched: list[bytes]) -> Summary:
    """The summary of ``wanted``, computed from that of ``old``."""
    summary = copy.copy(summary)
    for path in touched:
        if (before := old.get(path)) is not None:
            summary.remove(path, before)
        if (after := wanted.get(path)) is not None:
            summary.add(path, after)
    return summary


def _below(tops: list[bytes], entries: Entries) -> set[bytes]:
    """The paths of the entries below ``tops``, which stop being directories."""
    if not tops:
        return set()
    names = sorted(entries)
    below: set[bytes] = set()
    for top in (top.rstrip(b"/") for top in tops):
        begin, end = bisect_left(names, top + b"/"), bisect_left(names, top + b"0")
        below.update(names[begin:end])
    return below


class TreeState(msgspec.Struct, frozen=True):
    """Entries, and the paths of those that are not put on disk (``hidden``)."""

    entries: Entries
    hidden: set[bytes]


class TreeUpdate(msgspec.Struct, frozen=True):
    """From ``old`` to ``new``. ``is_held``: a running job's file is at a path, and is kept."""

    ground: DiskTree
    is_held: Callable[[bytes], bool]
    old: TreeState
    new: TreeState

    def run(self, touched: list[bytes], *, prune: bool) -> None:
        """Update the disk. ``touched``: the paths whose entries differ; ``prune``: remove empty
        directories without entries. Raises OSError."""
        moved = sorted({*touched, *(self.new.hidden ^ self.old.hidden)})
        self._make_room(moved)
        for path in moved:
            entry = self._entry(path)
            if isinstance(entry, DirectoryEntry):
                self.ground.put_directory(path)
            elif entry is not None and not self.is_held(path):
                self.ground.put(path, entry)
        if prune:
            self._prune(touched)

    def _entry(self, path: bytes) -> Entry | None:
        return None if path in self.new.hidden else self.new.entries.get(path)

    def _make_room(self, moved: list[bytes]) -> None:
        old, new = self.old, self.new
        was_behind, stays = Behind(old.entries), Above(new.entries, new.hidden)
        is_vacant = Vacant(self.ground.is_absent)
        for path in reversed(moved):
            # A file at a hidden path, or at one behind a link, belongs to another entry.
            left_out = path in old.hidden or (path in new.hidden and path not in old.entries)
            if left_out or was_behind(path):
                continue
            entry = self._entry(path)
            if entry is not None and path not in old.entries and is_vacant(path):
                continue
            # A directory may have lost its own entry and still have entries below it.
            if path in new.entries or not (self.ground.is_directory(path) and stays(path)):
                self._clear_way(path, entry)

    def _clear_way(self, path: bytes, entry: Entry | None) -> None:
        """Remove the file or directory at a path unless ``entry`` can replace it in place."""
        wants_directory = isinstance(entry, DirectoryEntry)
        if self.is_held(path) and not wants_directory:
            return
        if entry is None or wants_directory != self.ground.is_directory(path):
            self.ground.remove(path)

    def _prune(self, touched: list[bytes]) -> None:
        will_be_behind = Behind(self.new.entries)
        for path in touched:
            gone = path in self.old.entries and path not in self.new.entries
            if gone and not will_be_behind(path):
                self.ground.prune(path, self.new.entries)
