"""The ways that no root's events speak of: links that leave their root, files asked for by name.

Along such a way nothing is watched but the last directory, so each is looked at for every job.
Called under the mirror's lock. Knows no jobs and no generations.
"""

import os
import posixpath
from collections.abc import Callable, Collection, Iterable, Mapping

import msgspec

from distbuild.mirror import policy
from distbuild.mirror.manifest import Manifest
from distbuild.mirror.roots import (
    Kind,
    Pins,
    Roots,
    destination,
    inside,
    is_our_own,
    standing,
    trace,
)
from distbuild.mirror.scan import Scanner
from distbuild.mirror.watching import FileWatcher
from distbuild.protocol.messages import Entry, FileEntry, SymlinkEntry, WithheldEntry
from distbuild.system import disk


class AlikeLinks:
    """Links by the directory of their target, as spelled. Knows no manifest."""

    def __init__(self) -> None:
        # What each leads to: device and inode, and the real path at that time.
        self._directories: dict[str, tuple[tuple[int, int] | None, str]] = {}
        self._links: dict[str, set[str]] = {}
        self._at: dict[str, tuple[str, str]] = {}
        self._leading_to: dict[str, set[str]] = {}

    def add(self, link: str, entry: SymlinkEntry, file: str) -> bool:
        """Look at this link, which leads to ``file``, together with others. False: one cannot."""
        self.remove(link)
        target = posixpath.join(posixpath.dirname(link), os.fsdecode(entry.target))
        directory, name = posixpath.split(target)
        known = self._directories.get(directory)
        if known is None:
            # In this order: what is switched meanwhile shows the next time.
            known = destination(directory), disk.realpath(directory)
        if known[0] is None or posixpath.join(known[1], name) != file:
            return False
        self._directories[directory] = known
        self._links.setdefault(directory, set()).add(link)
        self._at[link] = directory, file
        self._leading_to.setdefault(file, set()).add(link)
        return True

    def has(self, link: str) -> bool:
        """Whether this link is looked at here."""
        return link in self._at

    def remove(self, link: str) -> None:
        """Look at this link no more, if it is in here."""
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
        """All links in here."""
        return list(self._at)

    def moved(self) -> list[str]:
        """The links whose directory is not what it was."""
        return [
            link
            for directory, (before, _) in self._directories.items()
            if before != destination(directory)
            for link in self._links[directory]
        ]


def _take(sets: dict[str, set[str]], key: str, value: str) -> None:
    """Remove a value from the set at a key, and the set when nothing is left in it."""
    sets[key].discard(value)
    if not sets[key]:
        del sets[key]


class _Directory(msgspec.Struct):
    """``watched`` is the device and inode of the directory with the watch; None: it has none."""

    watched: tuple[int, int] | None = None
    files: set[str] = msgspec.field(default_factory=set)


class LooseFiles:
    """By real path."""

    def __init__(self, watcher: FileWatcher) -> None:
        self._watcher = watcher
        self._directories: dict[str, _Directory] = {}

    def add(self, file: str) -> None:
        """Have the directory watched that stands there now."""
        path = posixpath.dirname(file)
        directory = self._directories.setdefault(path, _Directory())
        directory.files.add(file)
        self._watch(path, directory)

    def remove(self, file: str, *, is_watched_anyway: bool) -> None:
        """Watch for a file no more, if it is in here. ``is_watched_anyway``: its directory is
        watched for a root."""
        path = posixpath.dirname(file)
        directory = self._directories.get(path)
        if directory is None or file not in directory.files:
            return
        directory.files.discard(file)
        if not directory.files:
            del self._directories[path]
            if not is_watched_anyway:
                self._watcher.forget_one(path)

    def is_watched(self, file: str) -> bool:
        """Whether events tell of every change of a file."""
        directory = self._directories.get(posixpath.dirname(file))
        return directory is not None and directory.watched is not None and file in directory.files

    def watch_again(self, roots: Collection[str]) -> set[str]:
        """Watch the directories below these, of which the watches were given up; their files."""
        return self._renew(
            path for path in self._directories if any(inside(path, root) for root in roots)
        )

    def heed(self, changed: Iterable[str]) -> set[str]:
        """The files of those directories of which an event told: a watch goes with its directory,
        and a new one at the path may have the device and inode of the old."""
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
        """Files of which no event tells."""
        alone = (d for d in self._directories.values() if d.watched is None)
        return [file for directory in alone for file in directory.files]

    def _watch(self, path: str, directory: _Directory) -> None:
        # Looked at first: if another one comes in its place meanwhile, that shows the next time.
        now = standing(path)
        if directory.watched is None or directory.watched != now:
            # The watch may be on a directory that was moved away.
            self._watcher.forget_one(path)
        directory.watched = now if self._watcher.add(path) else None


#: Device and inode of nothing: whatever a path leads to now is another thing.
_ANOTHER = (-1, -1)


class Place(msgspec.Struct, frozen=True):
    """What a mirror consists of; ``home`` is the user's home directory."""

    manifest: Manifest
    roots: Roots
    scanner: Scanner
    watcher: FileWatcher
    home: str

    def is_secret(self, real: str) -> bool:
        """Whether a real path is never mirrored: our own keys, or where people keep theirs.

        But for the latter if a command names a directory in there: that is the developer's word.
        """
        if not policy.is_secret(real, self.home):
            return is_our_own(real)
        root = self.roots.holding(real)
        return root is None or not policy.is_secret(root.path, self.home)


class Symlinks:
    """Follows ways and takes in what is on them: entries by ``apply``, directories by
    ``require``."""

    def __init__(
        self,
        place: Place,
        apply: Callable[[dict[str, Entry | None]], None],
        require: Callable[[str], None],
    ) -> None:
        self._place = place
        self._apply = apply
        self._require = require
        #: Components on the way to roots, links and what they lead to, files asked for by name.
        self.pins = Pins()
        # Links and files asked for, as spelled -> (device, inode) that they led to.
        self._outward: dict[str, tuple[int, int] | None] = {}
        # Of these the links that are in no root, or stand in the place of one: no event tells.
        self._alone: set[str] = set()
        self._asked: set[str] = set()
        self._alike = AlikeLinks()
        self._loose = LooseFiles(place.watcher)

    def ask(self, path: str) -> None:
        """A compile asked for this file by name."""
        self._asked.add(path)
        self._follow_each([path])

    def consider(self, link: str, entry: SymlinkEntry, *, fresh: bool) -> None:
        """A link is in the manifest; ``fresh``: it was not, or led elsewhere."""
        known = link in self._outward or self._alike.has(link)
        if (fresh or not known) and self._leaves(link, entry):
            self._follow_each([link])

    def heed(self, changed: Iterable[str]) -> None:
        """Events told of these paths. A directory on a way may be another one by now, of which
        nobody has heard anything yet."""
        files = self._loose.heed(changed)
        if files:
            self._read_again(files)
            # Another way may lead to an inode by now that was given out anew.
            self._outward = dict.fromkeys(self._outward, _ANOTHER)

    def part(self, batch: Mapping[str, Entry | None]) -> None:
        """Look at each link by itself that leads to what is no file any more."""
        gone = (p for p, e in batch.items() if not isinstance(e, FileEntry | WithheldEntry))
        self._part(self._alike.leading_to(gone))

    def prune(self) -> None:
        """Forget links that are not in the manifest any more."""
        get = self._place.manifest.get
        released = []
        for link in self._alike.links():
            if not isinstance(get(link), SymlinkEntry):
                self._alike.remove(link)
                released += self.pins.release(link)
        self.release(released)

    def forget_below(self, directory: str) -> None:
        """A directory that is gone is no root any more: forget the files in it that were asked
        for by name."""
        gone = [path for path in self._asked if inside(path, directory)]
        self._asked.difference_update(gone)
        for path in gone:
            self._outward.pop(path, None)
            self.release(self.pins.release(path))

    def release(self, paths: Iterable[str]) -> None:
        """These paths are not pinned any more: what no root holds leaves the manifest, unless
        there is something below it that stays."""
        roots, manifest = self._place.roots, self._place.manifest
        batch: dict[str, Entry | None] = {}
        for path in sorted(paths, reverse=True):
            is_watched = roots.holding(posixpath.dirname(path)) is not None
            self._loose.remove(path, is_watched_anyway=is_watched)
            is_ours = roots.holding(path) is None and manifest.get(path) is not None
            if is_ours and all(child in batch for child in manifest.children(path)):
                batch[path] = None
        if batch:
            self._apply(batch)

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
        """Whether a link leads out of the root that holds it, where the root's events say less."""
        root = self._place.roots.holding(link)
        target = posixpath.join(posixpath.dirname(link), os.fsdecode(entry.target))
        target = posixpath.normpath(target)
        real = self._place.manifest.resolve(link)
        if root is None or real is None:
            return True
        return not (inside(target, root.path) and inside(real, root.path))

    def look(self) -> None:
        """Notice ancestors that moved, targets that came or went, and unwatched directories."""
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
        self.release(released)
        # One that led nowhere and is gone must not lead to what comes into being there; and one
        # that leads to the same by another way must not lead elsewhere once its old one does.
        now = {path: self._place.scanner.entry(path) for path in unseen}
        self._apply({path: entry for path, entry in now.items() if entry != get(path)})
        self._follow_each(moved)
        unwatched = list(filter(self._is_reached, self._loose.unwatched()))
        if unwatched:
            self._read_again(unwatched)
            self.recheck_pinned()

    def _is_reached(self, file: str) -> bool:
        """Whether the way to a file is in the manifest. One that went, and leads nowhere now, may
        be there again by chance."""
        directory = posixpath.dirname(file)
        return directory == "/" or self._place.manifest.get(directory) is not None

    def follow_all(self) -> None:
        """Follow every way as if for the first time."""
        self._part(self._alike.links())
        self._follow_each(list(self._outward))

    def recheck_pinned(self) -> None:
        """Read again what stands on the ways."""
        held = [path for path in self.pins.paths if self._place.manifest.get(path) is not None]
        self._apply({path: self._place.scanner.entry(path) for path in held})

    def watch_again(self, roots: Collection[str]) -> None:
        """The watches below these were given up: watch the directories of single files there."""
        self._read_again(self._loose.watch_again(roots))

    def _follow_each(self, paths: Iterable[str]) -> None:
        ended = [path for path in paths if self._follow(path)]
        if ended:
            self.recheck_pinned()

    def _follow(self, path: str) -> bool:
        """Take in where a link or a file's name leads, and every step of the way.

        True: it led somewhere and does not any more, so that other ways may have ended as well.
        """
        if self._alike.has(path):
            self._part([path])
        before = self._outward.get(path)
        # Recorded before it is read: a switch during that then shows at the next job.
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
        self._apply(dict(way.entries))
        if file:
            if takes_file:
                self._follow_file(file)
            self._join(path, file)
        elif way.real is not None:
            self._follow_directory(path, way.real)
        self.release(released)
        return way.real is None and before is not None

    def _join(self, path: str, file: str) -> None:
        """Look at a link together with others, if events tell what becomes of the file."""
        entry = self._place.manifest.get(path)
        apart = path in self._asked or path in self._alone  # looked at in more ways than one
        if apart or not isinstance(entry, SymlinkEntry):
            return
        if self._loose.is_watched(file) and self._alike.add(path, entry, file):
            # Gone already where its new target was met on its own way, and followed there.
            self._outward.pop(path, None)

    def _follow_directory(self, link: str, real: str) -> None:
        """A link's directory is mirrored, unless of directories beside the link only names are."""
        root = self._place.roots.holding(link)
        if root is not None and root.kind is Kind.SHALLOW:
            return
        is_wide = policy.is_broad(real, self._place.home)
        if not (is_wide or policy.is_pseudo_fs(real) or self._place.is_secret(real)):
            self._require(real)

    def _follow_file(self, real: str) -> None:
        root = self._place.roots.holding(real)
        if root is None or root.path == real:
            self._loose.add(real)
        self._apply({real: self._place.scanner.entry(real)})
