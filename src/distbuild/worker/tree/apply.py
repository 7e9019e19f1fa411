"""Turns what a tree has on disk into what it is to have. Knows no network and no lock."""

from collections.abc import Callable

import msgspec

from distbuild.protocol.messages import DirectoryEntry, Entry
from distbuild.worker.tree.next_state import Entries
from distbuild.worker.tree.on_disk import DiskTree
from distbuild.worker.tree.paths import Above, Behind, Vacant


class TreeState(msgspec.Struct, frozen=True):
    """Entries, and those of them that the disk does not have at their place (``hidden``)."""

    entries: Entries
    hidden: set[bytes]


class TreeUpdate(msgspec.Struct, frozen=True):
    """From ``old`` to ``new``. ``is_held``: a running job's file is at a path, and stays."""

    ground: DiskTree
    is_held: Callable[[bytes], bool]
    old: TreeState
    new: TreeState

    def run(self, touched: list[bytes], *, prune: bool) -> None:
        """``touched`` are the paths whose entries differ; ``prune``: directories without entries
        go when they are empty. Raises OSError."""
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
            # What is at a path that was left out, or behind a link, is not its own.
            left_out = path in old.hidden or (path in new.hidden and path not in old.entries)
            if left_out or was_behind(path):
                continue
            entry = self._entry(path)
            if entry is not None and path not in old.entries and is_vacant(path):
                continue
            # No entry any more, perhaps, and still on the way to some.
            if path in new.entries or not (self.ground.is_directory(path) and stays(path)):
                self._clear_way(path, entry)

    def _clear_way(self, path: bytes, entry: Entry | None) -> None:
        """Remove what is at a path unless it can become ``entry`` as it is."""
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
