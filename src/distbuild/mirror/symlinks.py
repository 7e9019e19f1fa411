"""Follows symlinks that leave their root, and files mirrored by name, and mirrors their targets.

No root's events cover the components of such a path: only its last directory is watched, so these
paths are checked with stat for every job. Called by ``Mirroring`` under its lock, which applies
the batches of entries that the generators here yield. Knows no jobs and no generations.
"""

import os
import posixpath
from collections.abc import Collection, Iterable, Iterator, Mapping

import msgspec

from distbuild.mirror import policy
from distbuild.mirror.link_targets import AlikeLinks, LooseFiles
from distbuild.mirror.manifest import Manifest
from distbuild.mirror.roots import (
    Kind,
    Pins,
    Roots,
    destination,
    inside,
    is_our_own,
    trace,
)
from distbuild.mirror.scan import Scanner
from distbuild.mirror.watching import FileWatcher
from distbuild.protocol.messages import Entry, FileEntry, SymlinkEntry, WithheldEntry

#: Entries by path, to be applied to the manifest at once; None removes a path.
Batch = dict[str, Entry | None]

#: A device and inode that nothing has: any present target of a path differs from it.
_ANOTHER = (-1, -1)


class Place(msgspec.Struct, frozen=True):
    """The parts of a mirror; ``home`` is the user's home directory."""

    manifest: Manifest
    roots: Roots
    scanner: Scanner
    watcher: FileWatcher
    home: str

    def is_secret(self, real: str) -> bool:
        """Whether a real path is never mirrored: one of dist_build's own files such as its keys, or
        one in a directory of the user's keys. If a command names a directory in the latter, that
        is the developer's decision, and it is mirrored.
        """
        if not policy.is_secret(real, self.home):
            return is_our_own(real)
        root = self.roots.holding(real)
        return root is None or not policy.is_secret(root.path, self.home)


class Symlinks:
    """Resolves links and named files, so that all components and targets get mirrored.

    Each generator yields batches, and the caller applies one before it takes the next. Links are
    queued, and followed by ``follow_queued``: a chain of any length needs no recursion.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        # Links and named files to follow, and directories that such links lead to: sets that keep
        # their order.
        self._queued: dict[str, None] = {}
        self._found: dict[str, None] = {}
        # A followed path has lost its target, so that other paths may have lost theirs as well.
        self._has_lost = False
        #: Components of the paths of roots and links, targets of links, files named by compiles.
        self.pins = Pins()
        # Links and named files, as spelled -> (device, inode) of their last known target.
        self._outward: dict[str, tuple[int, int] | None] = {}
        # Those of them whose own changes give no event: links in no root, or at a root's path.
        self._alone: set[str] = set()
        self._asked: set[str] = set()
        self._alike = AlikeLinks()
        self._loose = LooseFiles(place.watcher)

    def ask(self, path: str) -> None:
        """Mirror this file from now on, because a compile named it."""
        self._asked.add(path)
        self._queued[path] = None

    def consider(self, link: str, entry: SymlinkEntry, *, fresh: bool) -> None:
        """Queue a link of the manifest if it leaves its root; ``fresh``: it is new or changed."""
        known = link in self._outward or self._alike.has(link)
        if (fresh or not known) and self._leaves(link, entry):
            self._queued[link] = None

    def has_work(self) -> bool:
        """Whether links are queued, or directories found that are not mirrored yet."""
        return bool(self._queued or self._found)

    def follow_queued(self) -> Iterator[Batch]:
        """Follow the queued links, also those that are queued meanwhile."""
        while self._queued:
            path = next(iter(self._queued))
            del self._queued[path]
            yield from self._follow(path)
        if self._has_lost:
            self._has_lost = False
            yield from self.recheck_pinned()

    def take_found(self) -> list[str]:
        """The directories that links lead to, each once, to be mirrored by the caller."""
        found, self._found = list(self._found), {}
        return found

    def heed(self, changed: Iterable[str]) -> Iterator[Batch]:
        """Handle events for these paths: directories with loose files are watched and read again,
        since such a directory may have been replaced."""
        files = self._loose.heed(changed)
        if files:
            yield from self._read_again(files)
            # The inode of another path's target may have been reused: follow every path again.
            self._outward = dict.fromkeys(self._outward, _ANOTHER)

    def part(self, batch: Mapping[str, Entry | None]) -> None:
        """Check each link individually whose target is no file any more."""
        gone = (p for p, e in batch.items() if not isinstance(e, FileEntry | WithheldEntry))
        self._part(self._alike.leading_to(gone))

    def prune(self) -> Iterator[Batch]:
        """Forget links that are not in the manifest any more."""
        get = self._place.manifest.get
        released = []
        for link in self._alike.links():
            if not isinstance(get(link), SymlinkEntry):
                self._alike.remove(link)
                released += self.pins.release(link)
        yield from self.release(released)

    def forget_below(self, directory: str) -> Iterator[Batch]:
        """A directory that is gone is no root any more: forget the files in it that were asked
        for by name."""
        gone = [path for path in self._asked if inside(path, directory)]
        self._asked.difference_update(gone)
        for path in gone:
            self._outward.pop(path, None)
            yield from self.release(self.pins.release(path))

    def release(self, paths: Iterable[str]) -> Iterator[Batch]:
        """These paths are not pinned any more: what no root holds leaves the manifest, unless
        there is something below it that stays."""
        roots, manifest = self._place.roots, self._place.manifest
        batch: Batch = {}
        for path in sorted(paths, reverse=True):
            is_watched = roots.holding(posixpath.dirname(path)) is not None
            self._loose.remove(path, is_watched_anyway=is_watched)
            is_ours = roots.holding(path) is None and manifest.get(path) is not None
            if is_ours and all(child in batch for child in manifest.children(path)):
                batch[path] = None
        if batch:
            yield batch

    def _part(self, links: Iterable[str]) -> None:
        for link in links:
            self._alike.remove(link)
            self._outward[link] = _ANOTHER

    def _read_again(self, files: Collection[str]) -> Iterator[Batch]:
        self._part(self._alike.leading_to(files))
        yield {file: self._place.scanner.entry(file) for file in filter(self._is_reached, files)}

    def _leaves(self, link: str, entry: SymlinkEntry) -> bool:
        """Whether a link leads out of its root, whose events then do not cover its target."""
        root = self._place.roots.holding(link)
        target = posixpath.join(posixpath.dirname(link), os.fsdecode(entry.target))
        target = posixpath.normpath(target)
        real = self._place.manifest.resolve(link)
        if root is None or real is None:
            return True
        return not (inside(target, root.path) and inside(real, root.path))

    def look(self) -> Iterator[Batch]:
        """Detect moved ancestors, new and removed targets, and changes in unwatched directories."""
        get = self._place.manifest.get
        self._part(self._alike.moved())
        moved, unseen, released = [], [], []
        for path, before in list(self._outward.items()):
            if path not in self._asked and not isinstance(get(path), SymlinkEntry):
                del self._outward[path]
                self._alone.discard(path)
                released += self.pins.release(path)
            elif before != destination(path):
                moved.append(path)
            elif path in self._alone:
                unseen.append(path)
        if released:
            yield from self.release(released)
        if unseen:
            # A dangling link that was removed must not lead to a target created later. A link with
            # a new path to the same target must be updated: its old path may lead elsewhere later.
            now = {path: self._place.scanner.entry(path) for path in unseen}
            yield {path: entry for path, entry in now.items() if entry != get(path)}
        if moved:
            self._queued.update(dict.fromkeys(moved))
            yield from self.follow_queued()
        unwatched = list(filter(self._is_reached, self._loose.unwatched()))
        if unwatched:
            yield from self._read_again(unwatched)
            yield from self.recheck_pinned()

    def _is_reached(self, file: str) -> bool:
        """Whether the manifest has a file's directory. Without it no path leads to the file any
        more, though it may exist on the disk again."""
        directory = posixpath.dirname(file)
        return directory == "/" or self._place.manifest.get(directory) is not None

    def follow_all(self) -> None:
        """Queue every link and named file as if it were new."""
        self._part(self._alike.links())
        self._queued.update(dict.fromkeys(self._outward))

    def recheck_pinned(self) -> Iterator[Batch]:
        """Read the entries of all pinned paths again."""
        held = [path for path in self.pins.paths if self._place.manifest.get(path) is not None]
        yield {path: self._place.scanner.entry(path) for path in held}

    def watch_again(self, roots: Collection[str]) -> Iterator[Batch]:
        """Watch the directories of single files below these roots, whose watches were dropped."""
        yield from self._read_again(self._loose.watch_again(roots))

    def _follow(self, path: str) -> Iterator[Batch]:
        """Mirror the target of a link or named file, and every component of its path."""
        if self._alike.has(path):
            self._part([path])
        before = self._outward.get(path)
        # Recorded before it is read, so that the next job detects a switch in between.
        self._outward[path] = destination(path)
        root = self._place.roots.holding(path)
        if path not in self._asked and (root is None or root.path == path):
            self._alone.add(path)
        else:
            self._alone.discard(path)
        way = trace(path)
        file = "" if way.real is None or way.is_directory else way.real
        takes_file = bool(file) and not (policy.is_pseudo_fs(file) or self._place.is_secret(file))
        released = self.pins.hold(path, [*way.entries, file] if takes_file else way.entries)
        if takes_file:
            self._want_ignored([*way.entries, file])
        yield dict(way.entries)
        if file:
            if takes_file:
                yield self._file_entry(file)
            self._join(path, file)
        elif way.real is not None:
            self._find_directory(path, way.real)
        yield from self.release(released)
        self._has_lost |= way.real is None and before is not None

    def _want_ignored(self, paths: Iterable[str]) -> None:
        """Mirror these although their names are ignored: a link of another name leads to them."""
        ignored = policy.Handling.IGNORE
        is_ignored = (p for p in paths if policy.handling(posixpath.basename(p)) is ignored)
        self._place.scanner.wanted.update(is_ignored)

    def _join(self, path: str, file: str) -> None:
        """Check a link together with others if every change of its target file gives an event."""
        entry = self._place.manifest.get(path)
        apart = path in self._asked or path in self._alone  # these have checks of their own
        if apart or not isinstance(entry, SymlinkEntry):
            return
        if self._loose.is_watched(file) and self._alike.add(path, entry, file):
            # The key may be missing: applying the link's components may have followed it already.
            self._outward.pop(path, None)

    def _find_directory(self, link: str, real: str) -> None:
        """Note a link's target directory, unless the link is in a shallow root, of whose
        directories only the names are mirrored."""
        root = self._place.roots.holding(link)
        if root is not None and root.kind is Kind.SHALLOW:
            return
        is_wide = policy.is_broad(real, self._place.home)
        if not (is_wide or policy.is_pseudo_fs(real) or self._place.is_secret(real)):
            self._found[real] = None

    def _file_entry(self, real: str) -> Batch:
        root = self._place.roots.holding(real)
        if root is None or root.path == real:
            self._loose.add(real)
        return {real: self._place.scanner.entry(real)}
