"""One client's mirror on a worker: its entries, their generation and their files on disk.

All changes of the tree are made here, under one lock. Knows no network and no compiler.
"""

import logging
import os
import threading
import time
from collections.abc import Iterable

import msgspec

from distbuild.mirror.manifest import DIRECTORY, Fold, Spellings, Summary, resolve
from distbuild.protocol.errors import InfrastructureError, ProtocolError
from distbuild.protocol.messages import (
    Changes,
    ChangesReply,
    Digest,
    DirectoryEntry,
    Entry,
    FileEntry,
)
from distbuild.system.paths import ERRORS
from distbuild.worker.tree.job_files import JobFiles
from distbuild.worker.tree.next_state import (
    Entries,
    TreeState,
    TreeUpdate,
    next_entries,
    next_summary,
)
from distbuild.worker.tree.on_disk import DiskTree
from distbuild.worker.tree.paths import LongPaths, check_path, checked, left_out
from distbuild.worker.tree.store import OwnFiles, Store, translated

_log = logging.getLogger(__name__)

#: Lost files are looked for at most during this share of the time.
LOOKING_SHARE = 0.05


class TreeStatus(msgspec.Struct, frozen=True):
    """A tree's generation and size, for /status."""

    generation: int
    files: int
    bytes: int


class Tree:
    """The entries below ``root``. After a disk error the tree is empty and needs a full listing.

    ``fold``: see Manifest. Entries are keyed by the dev box's own spelling.
    """

    def __init__(
        self,
        root: bytes,
        store: Store,
        own_files: OwnFiles,
        fold: Fold | None = None,
        looking_share: float = LOOKING_SHARE,
    ) -> None:
        self._fold = fold
        self._looking_share = looking_share
        self._spellings = Spellings(fold) if fold is not None else None
        self.long_paths = LongPaths(len(root), fold) if fold is not None else None
        self._lock = threading.Lock()
        self._store = store
        self._own_files = own_files
        with translated():
            self.ground = DiskTree(root, store)
        self.holds = JobFiles(self._lock, self.ground, store, self.lookup, self._entries_have)
        self.epoch = ""
        self.generation = 0
        self.roots: tuple[bytes, ...] = ()
        self._entries: Entries = {}
        # Entries that are not put on disk: their name is too long, or they are below a link.
        self._left_out: set[bytes] = set()
        self._summary = Summary()
        self._position = ("", 0, self._summary.digest())
        self._files, self._bytes = 0, 0
        self._revision = 0
        # Path -> the revision in which it last changed; removed paths are kept.
        self._changed: dict[bytes, int] = {}
        self._all_changed = 0
        # The last revision that put lost files again, and when they may be looked for next.
        self._put_again = 0
        self._next_look = 0.0
        self._looking = threading.Lock()

    def __repr__(self) -> str:
        return f"Tree(epoch={self.epoch!r}, generation={self.generation}, {len(self._entries)})"

    def apply(self, changes: Changes) -> ChangesReply:
        """Apply ``changes`` as a whole, or reply what is needed for that and apply nothing.

        Raises ProtocolError for paths outside the tree and InfrastructureError for a bad disk.
        """
        for root in changes.roots:
            if root != b"/":
                check_path(root)
        with self._lock:
            if changes.entries is None:
                return self._adopt_if_equal(changes)
            full = changes.base == 0
            if changes.epoch == self.epoch and changes.target < self.generation:
                return ChangesReply("applied", self.generation)
            # A change states a path's new entry (idempotent): some may have been applied already.
            if not full and not (changes.epoch == self.epoch and changes.base <= self.generation):
                return ChangesReply("need_full")
            wanted, touched = next_entries(self._entries, changes, self.ground.is_directory)
            summary = next_summary(self._summary, self._entries, wanted, touched)
            if summary.digest() != changes.summary:
                if full:
                    raise ProtocolError("the listing is not what its summary says")
                return ChangesReply("need_full")
            hidden = self._next_left_out(wanted, changes)
            placed = sorted({*touched, *(hidden ^ self._left_out)} - hidden)
            missing = self._missing(wanted, placed)
            if missing:
                return ChangesReply("need_blobs", self.generation, missing)
            self._become(wanted, touched, hidden)
            self._summary = summary
            return self._adopt(changes)

    def lacking(self, changes: Changes) -> ChangesReply:
        """The contents that have to be sent before these entries can be applied; applies none.

        Raises ProtocolError for paths outside the tree and InfrastructureError for a bad disk.
        """
        named = checked(changes)
        entries = {path: entry for path, entry in named.items() if entry is not None}
        return ChangesReply("need_blobs", 0, self._missing(entries, sorted(entries)))

    def position(self) -> tuple[str, int, Digest]:
        """A snapshot of epoch, generation and summary.

        Does not wait for a change in progress: a full listing takes minutes, and a worker that
        does not ask for jobs meanwhile counts as down.
        """
        return self._position

    def revision(self) -> int:
        """A number that grows with every change of the tree."""
        with self._lock:
            return self._revision

    def is_changed_since(self, revision: int, paths: Iterable[bytes]) -> bool:
        """Whether any of ``paths`` changed after ``revision``."""
        with self._lock:
            if self._all_changed > revision:
                return True
            return any(self._changed.get(path, 0) > revision for path in paths)

    def lookup(self, path: str) -> Entry | None:
        """The entry at a path, without following links; directories need no entry of their own."""
        name = path.encode("utf-8", ERRORS)
        if self._spellings is not None and name not in self._entries:
            name = self._spellings.get(path).encode("utf-8", ERRORS)
        entry = None if name in self._left_out else self._entries.get(name)
        if entry is None and self.ground.is_directory(name):
            return DIRECTORY
        return entry

    def resolve(self, path: str) -> str | None:
        """``path`` with every symlink of the tree followed; None where it leaves the tree."""
        return resolve(path, self.lookup)

    def spelled(self, path: bytes) -> bytes:
        """The path as the dev box spells it, as far as that is known."""
        if self._spellings is None or path in self._entries:
            return path
        return os.fsencode(self._spellings.get(os.fsdecode(path)))

    def digest_at(self, path: bytes) -> Digest:
        """The digest of a file of the manifest or of a running job, if its bytes are on disk.

        Empty if there is no such file, or if its bytes had changed: then it is repaired, so that
        the next compile reads the manifest's content.
        """
        entry = self._file_at(path)
        if entry is None or self.ground.is_intact(path, entry.digest):
            return entry.digest if entry else b""
        with self._lock:
            entry = self._file_at(path)
            if entry is None or self.ground.is_intact(path, entry.digest):
                return entry.digest if entry else b""
            self._repair(path, entry)
            return b""

    def has_lost_files(self, revision: int) -> bool:
        """After a failed compile that began at ``revision``: whether it may have failed because
        something deleted or replaced files of the tree, all of which are put again.

        The whole tree is looked at, unless that was done a moment ago.
        """
        with self._looking:
            began = time.monotonic()
            if began >= self._next_look:
                try:
                    self._put_lost()
                finally:
                    now = time.monotonic()
                    self._next_look = now + (now - began) / self._looking_share
            return self._put_again > revision

    def _put_lost(self) -> None:
        with self._lock:
            entries = self._entries.copy()
        for path, entry in entries.items():
            if self.ground.is_in_place(path, entry) or path in self._left_out:
                continue
            with self._lock:
                now = self._entries.get(path)
                if now is None or path in self._left_out or self.holds.holds(path):
                    continue
                if not self.ground.is_in_place(path, now):
                    try:
                        self._repair(path, now)
                    except InfrastructureError:
                        self._reset()
                        raise
                    self._put_again = self._revision

    def status(self) -> TreeStatus:
        """Counts of regular files with content. Does not wait for a change in progress."""
        return TreeStatus(self.generation, self._files, self._bytes)

    def clean(self) -> None:
        """Remove all entries and files."""
        with self._lock:
            self._reset()

    def _file_at(self, path: bytes) -> FileEntry | None:
        entry = self.holds.entry_at(path)
        if entry is None and path not in self._left_out:
            found = self._entries.get(path)
            entry = found if isinstance(found, FileEntry) else None
        return entry

    def _repair(self, path: bytes, entry: Entry) -> None:
        """Put the entry at ``path`` again; if its blob is bad, have it sent with a full listing."""
        _log.warning("%r in the tree is not what was put there", path)
        self._revision += 1
        self._changed[path] = self._revision
        good = not isinstance(entry, FileEntry) or self._store.recheck(entry.digest)
        with translated():
            self.ground.remove(path)
            if isinstance(entry, DirectoryEntry):
                self.ground.put_directory(path)
            elif good:
                self.ground.put(path, entry)
        if not isinstance(entry, FileEntry) or good or self.holds.holds(path):
            return
        del self._entries[path]
        self._summary.remove(path, entry)
        self._files -= 1
        self._bytes -= entry.size
        self.epoch, self.generation = "", 0
        self._position = ("", 0, self._summary.digest())

    def _entries_have(self, path: bytes) -> bool:
        return path in self._entries

    def _adopt_if_equal(self, changes: Changes) -> ChangesReply:
        if self._entries and self._summary.digest() == changes.summary:
            return self._adopt(changes)
        return ChangesReply("need_full")

    def _adopt(self, changes: Changes) -> ChangesReply:
        self.epoch, self.generation = changes.epoch, changes.target
        self._position = (self.epoch, self.generation, self._summary.digest())
        self.roots = tuple(root for root in changes.roots if root != b"/")
        return ChangesReply("applied", self.generation)

    def _next_left_out(self, wanted: Entries, changes: Changes) -> set[bytes]:
        """Those of ``wanted`` that are not put on disk: see ``paths.left_out``."""
        named = (change.path for change in changes.entries or ())
        asked = wanted.keys() if changes.base == 0 else {*named, *self._left_out} & wanted.keys()
        return left_out(asked, wanted, self.ground.root)

    def _missing(self, wanted: Entries, touched: list[bytes]) -> list[Digest]:
        files = [(p, e) for p in touched if isinstance(e := wanted.get(p), FileEntry)]
        missing = set(self._store.missing(entry.digest for _, entry in files))
        for path, entry in files:
            if entry.digest in missing and self._own_files.supply(path, entry):
                missing.discard(entry.digest)
        return [d for d in dict.fromkeys(e.digest for _, e in files) if d in missing]

    def _become(self, wanted: Entries, touched: list[bytes], hidden: set[bytes]) -> None:
        if not touched and hidden == self._left_out:
            return  # A lease and a push bring the same changes: jobs in between are not disturbed.
        self._revision += 1
        for path in touched:
            self._changed[path] = self._revision
        before, after = TreeState(self._entries, self._left_out), TreeState(wanted, hidden)
        change = TreeUpdate(self.ground, self.holds.holds, before, after)
        try:
            with translated():
                # Where spellings are folded, an empty directory may be wanted under another one.
                change.run(touched, prune=self._spellings is None)
        except InfrastructureError:
            self._reset()
            raise
        for entries, sign in ((self._entries, -1), (wanted, +1)):
            sizes = [e.size for p in touched if isinstance(e := entries.get(p), FileEntry)]
            self._files += sign * len(sizes)
            self._bytes += sign * sum(sizes)
        self._entries, self._left_out = wanted, hidden
        self._spell(touched)

    def _spell(self, touched: list[bytes]) -> None:
        if self._spellings is None or self.long_paths is None:
            return
        for path in touched:
            entry = self._entries.get(path)
            note = self._spellings.discard if entry is None else self._spellings.add
            note(os.fsdecode(path))
            # Removed paths first: one may be added again in another spelling.
            self.long_paths.note(path, is_file=False)
        for path in touched:
            entry = self._entries.get(path)
            if entry is not None and not isinstance(entry, DirectoryEntry):
                self.long_paths.note(path, is_file=True)

    def _reset(self) -> None:
        self._revision += 1
        self._all_changed = self._revision
        self._entries, self._summary = {}, Summary()
        if self._fold is not None:
            self._spellings = Spellings(self._fold)
            self.long_paths = LongPaths(len(self.ground.root), self._fold)
        self._left_out = set()
        self._files, self._bytes = 0, 0
        self._changed.clear()
        self.epoch, self.generation, self.roots = "", 0, ()
        self._position = ("", 0, self._summary.digest())
        with translated():
            self.ground.clear()
