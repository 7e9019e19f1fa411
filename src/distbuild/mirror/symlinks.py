"""Follows symlinks that leave their root, and files mirrored by name, and mirrors their targets.

No root's events cover the components of such a path: only its last directory is watched, so these
paths are checked with stat for every job. Called by ``Mirroring`` under its lock. Knows no jobs
and no generations.
"""

import os
import posixpath
from collections.abc import Callable, Collection, Iterable, Mapping

import msgspec

from distbuild.mirror import policy
from distbuild.mirror.manifest import Manifest
from distbuild.mirror.roots import Kind, Roots, destination, inside, is_our_own, standing, trace
from distbuild.mirror.scan import Scanner
from distbuild.mirror.watching import FileWatcher
from distbuild.protocol.messages import Entry, FileEntry, SymlinkEntry, WithheldEntry
from distbuild.system import disk


class AlikeLinks:
    """Groups symlinks by target directory, as spelled: one stat validates thousands of links.

    Knows no manifest.
    """

    def __init__(self) -> None:
        # Target directory, as spelled -> its device and inode, and its real path at that time.
        self._directories: dict[str, tuple[tuple[int, int] | None, str]] = {}
        self._links: dict[str, set[str]] = {}
        self._at: dict[str, tuple[str, str]] = {}
        self._leading_to: dict[str, set[str]] = {}

    def add(self, link: str, entry: SymlinkEntry, file: str) -> bool:
        """Add a link that leads to ``file``. False: its directory does not lead to that file."""
        self.remove(link)
        target = posixpath.join(posixpath.dirname(link), os.fsdecode(entry.target))
        directory, name = posixpath.split(target)
        known = self._directories.get(directory)
        if known is None:
            # In this order, so that a switch in between is detected by the next ``moved``.
            known = destination(directory), disk.realpath(directory)
        if known[0] is None or posixpath.join(known[1], name) != file:
            return False
        self._directories[directory] = known
        self._links.setdefault(directory, set()).add(link)
        self._at[link] = directory, file
        self._leading_to.setdefault(file, set()).add(link)
        return True

    def has(self, link: str) -> bool:
        """Whether this link is in a group."""
        return link in self._at

    def remove(self, link: str) -> None:
        """Remove this link if it is in a group."""
        if link not in self._at:
            return
        directory, file = self._at.pop(link)
        _take(self._leading_to, file, link)
        _take(self._links, directory, link)
        if directory not in self._links:
            del self._directories[directory]

    def leading_to(self, files: Iterable[str]) -> list[str]:
        """The links to any of these files."""
        return [link for file in files for link in self._leading_to.get(file, ())]

    def links(self) -> list[str]:
        """The links of all groups."""
        return list(self._at)

    def moved(self) -> list[str]:
        """The links whose target directory was replaced."""
        return [
            link
            for directory, (before, _) in self._directories.items()
            if before != destination(directory)
            for link in self._links[directory]
        ]


def _take(sets: dict[str, set[str]], key: str, value: str) -> None:
    """Remove a value from the set at a key, and the set once it is empty."""
    sets[key].discard(value)
    if not sets[key]:
        del sets[key]


class _Directory(msgspec.Struct):
    """``watched`` is the device and inode of the watched directory; None: it is not watched."""

    watched: tuple[int, int] | None = None
    files: set[str] = msgspec.field(default_factory=set)


class LooseFiles:
    """Watches the directories of single files in no root, by real path. Files are never removed."""

    def __init__(self, watcher: FileWatcher) -> None:
        self._watcher = watcher
        self._directories: dict[str, _Directory] = {}

    def add(self, file: str) -> None:
        """Watch the file's directory that is now at its path."""
        path = posixpath.dirname(file)
        directory = self._directories.setdefault(path, _Directory())
        directory.files.add(file)
        self._watch(path, directory)

    def is_watched(self, file: str) -> bool:
        """Whether every change of a file gives an event."""
        directory = self._directories.get(posixpath.dirname(file))
        return directory is not None and directory.watched is not None and file in directory.files

    def watch_again(self, roots: Collection[str]) -> set[str]:
        """Watch the directories at or below these roots again, whose watches were dropped; returns
        their files."""
        return self._renew(
            path for path in self._directories if any(inside(path, root) for root in roots)
        )

    def heed(self, changed: Iterable[str]) -> set[str]:
        """Watch the changed directories again; returns their files. A watch ends with its
        directory, and a new directory at the path may have the device and inode of the old."""
        return self._renew(path for path in changed if path in self._directories)

    def _renew(self, paths: Iterable[str]) -> set[str]:
        files: set[str] = set()
        for path in paths:
            directory = self._directories[path]
            directory.watched = None
            self._watch(path, directory)
            files.update(directory.files)
        return files

    def unwatched(self) -> list[str]:
        """Files whose changes give no event."""
        alone = (d for d in self._directories.values() if d.watched is None)
        return [file for directory in alone for file in directory.files]

    def _watch(self, path: str, directory: _Directory) -> None:
        # Read before the watch is set, so that a replacement in between is detected the next time.
        now = standing(path)
        if directory.watched is None or directory.watched != now:
            # The old watch may be on a directory that was moved away.
            self._watcher.forget_one(path)
        directory.watched = now if self._watcher.add(path) else None


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
    """Resolves links and named files, and mirrors all components and targets: entries through
    ``apply``, directories through ``require``."""

    def __init__(
        self,
        place: Place,
        apply: Callable[[dict[str, Entry | None]], None],
        require: Callable[[str], None],
    ) -> None:
        self._place = place
        self._apply = apply
        self._require = require
        #: Components of the paths of roots and links, targets of links, files named by compiles.
        self.pinned: set[str] = set()
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
        self._follow_each([path])

    def consider(self, link: str, entry: SymlinkEntry, *, fresh: bool) -> None:
        """Follow a link of the manifest if it leaves its root; ``fresh``: it is new or changed."""
        known = link in self._outward or self._alike.has(link)
        if (fresh or not known) and self._leaves(link, entry):
            self._follow_each([link])

    def heed(self, changed: Iterable[str]) -> None:
        """Handle events for these paths: directories with loose files are watched and read again,
        since such a directory may have been replaced."""
        files = self._loose.heed(changed)
        if files:
            self._read_again(files)
            # The inode of another path's target may have been reused: follow every path again.
            self._outward = dict.fromkeys(self._outward, _ANOTHER)

    def part(self, batch: Mapping[str, Entry | None]) -> None:
        """Check each link individually whose target is no file any more."""
        gone = (p for p, e in batch.items() if not isinstance(e, FileEntry | WithheldEntry))
        self._part(self._alike.leading_to(gone))

    def _part(self, links: Iterable[str]) -> None:
        for link in links:
            self._alike.remove(link)
            self._outward[link] = _ANOTHER

    def _read_again(self, files: Collection[str]) -> None:
        self._part(self._alike.leading_to(files))
        reached = {
            file: self._place.scanner.entry(file) for file in filter(self._is_reached, files)
        }
        if reached:
            self._apply(reached)

    def _leaves(self, link: str, entry: SymlinkEntry) -> bool:
        """Whether a link leads out of its root, whose events then do not cover its target."""
        root = self._place.roots.holding(link)
        target = posixpath.join(posixpath.dirname(link), os.fsdecode(entry.target))
        target = posixpath.normpath(target)
        real = self._place.manifest.resolve(link)
        if root is None or real is None:
            return True
        return not (inside(target, root.path) and inside(real, root.path))

    def look(self) -> None:
        """Detect moved ancestors, new and removed targets, and changes in unwatched directories."""
        get = self._place.manifest.get
        self._part(self._alike.moved())
        moved, unseen = [], []
        for path, before in list(self._outward.items()):
            if path not in self._asked and not isinstance(get(path), SymlinkEntry):
                del self._outward[path]
                self._alone.discard(path)
            elif before != destination(path):
                moved.append(path)
            elif path in self._alone:
                unseen.append(path)
        # A dangling link that was removed must not lead to a target created later. A link with a
        # new path to the same target must be updated: its old path may lead elsewhere later.
        now = {path: self._place.scanner.entry(path) for path in unseen}
        self._apply({path: entry for path, entry in now.items() if entry != get(path)})
        self._follow_each(moved)
        unwatched = list(filter(self._is_reached, self._loose.unwatched()))
        if unwatched:
            self._read_again(unwatched)
            self.recheck_pinned()

    def _is_reached(self, file: str) -> bool:
        """Whether the manifest has a file's directory. Without it no path leads to the file any
        more, though it may exist on the disk again."""
        directory = posixpath.dirname(file)
        return directory == "/" or self._place.manifest.get(directory) is not None

    def follow_all(self) -> None:
        """Follow every link and named file as if for the first time."""
        self._part(self._alike.links())
        self._follow_each(list(self._outward))

    def recheck_pinned(self) -> None:
        """Read the entries of all pinned paths again."""
        held = [path for path in self.pinned if self._place.manifest.get(path) is not None]
        self._apply({path: self._place.scanner.entry(path) for path in held})

    def watch_again(self, roots: Collection[str]) -> None:
        """Watch the directories of single files below these roots, whose watches were dropped."""
        self._read_again(self._loose.watch_again(roots))

    def _follow_each(self, paths: Iterable[str]) -> None:
        ended = [path for path in paths if self._follow(path)]
        if ended:
            self.recheck_pinned()

    def _follow(self, path: str) -> bool:
        """Mirror the target of a link or named file, and every component of its path.

        Returns True if it has lost its target, so that other paths may have lost theirs as well.
        """
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
        self.pinned.update(way.entries)
        self._apply(dict(way.entries))
        if way.real is None:
            return before is not None
        if way.is_directory:
            self._follow_directory(path, way.real)
        else:
            self._follow_file(way.real)
            self._join(path, way.real)
        return False

    def _join(self, path: str, file: str) -> None:
        """Check a link together with others if every change of its target file gives an event."""
        entry = self._place.manifest.get(path)
        apart = path in self._asked or path in self._alone  # these have checks of their own
        if apart or not isinstance(entry, SymlinkEntry):
            return
        if self._loose.is_watched(file) and self._alike.add(path, entry, file):
            # The key may be missing: applying the link's components may have followed it already.
            self._outward.pop(path, None)

    def _follow_directory(self, link: str, real: str) -> None:
        """Mirror a link's target directory, unless the link is in a shallow root, of whose
        directories only the names are mirrored."""
        root = self._place.roots.holding(link)
        if root is not None and root.kind is Kind.SHALLOW:
            return
        is_wide = policy.is_broad(real, self._place.home)
        if not (is_wide or policy.is_pseudo_fs(real) or self._place.is_secret(real)):
            self._require(real)

    def _follow_file(self, real: str) -> None:
        if policy.is_pseudo_fs(real) or self._place.is_secret(real):
            return
        self.pinned.add(real)
        root = self._place.roots.holding(real)
        if root is None or root.path == real:
            self._loose.add(real)
        self._apply({real: self._place.scanner.entry(real)})
