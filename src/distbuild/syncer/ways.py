"""The ways that no root's events speak of: links that leave their root, files asked for by name.

Along such a way nothing is watched but the last directory, so each is looked at for every job.
Called under the mirror's lock. Knows no jobs and no generations.
"""

import os
import posixpath
from collections.abc import Callable

import msgspec

from distbuild.mirror import policy
from distbuild.mirror.manifest import Manifest
from distbuild.mirror.roots import Kind, Roots, destination, inside, trace
from distbuild.mirror.scan import Scanner
from distbuild.mirror.watch import Watcher
from distbuild.protocol.messages import Entry, SymlinkEntry


class Place(msgspec.Struct, frozen=True):
    """What a mirror consists of; ``home`` is the user's home directory."""

    manifest: Manifest
    roots: Roots
    scanner: Scanner
    watcher: Watcher
    home: str


class Ways:
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
        self.pinned: set[str] = set()
        # Links and files asked for, as spelled -> (device, inode) that they led to.
        self._outward: dict[str, tuple[int, int] | None] = {}
        self._asked: set[str] = set()
        # Files outside every root, by real path -> whether their directory is watched.
        self._loose: dict[str, bool] = {}

    def ask(self, path: str) -> None:
        """A compile asked for this file by name."""
        self._asked.add(path)
        self._follow(path)

    def consider(self, link: str, entry: SymlinkEntry, *, fresh: bool) -> None:
        """A link is in the manifest; ``fresh``: it was not, or led elsewhere."""
        if (fresh or link not in self._outward) and self._leaves(link, entry):
            self._follow(link)

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
        for path, before in list(self._outward.items()):
            if path not in self._asked and not isinstance(get(path), SymlinkEntry):
                del self._outward[path]
            elif before != destination(path):
                self._follow(path)
        unwatched = [
            file for file, watched in self._loose.items() if not watched and self._is_reached(file)
        ]
        if unwatched:
            self._apply({file: self._place.scanner.entry(file) for file in unwatched})
            self.recheck_pinned()

    def _is_reached(self, file: str) -> bool:
        """Whether the way to a file is in the manifest. One that went, and leads nowhere now, may
        be there again by chance."""
        directory = posixpath.dirname(file)
        return directory == "/" or self._place.manifest.get(directory) is not None

    def follow_all(self) -> None:
        """Follow every way as if for the first time."""
        for path in list(self._outward):
            self._follow(path)

    def recheck_pinned(self) -> None:
        """Read again what stands on the ways."""
        held = [path for path in self.pinned if self._place.manifest.get(path) is not None]
        self._apply({path: self._place.scanner.entry(path) for path in held})

    def watch_again(self) -> None:
        """Watch the directories of single files, if they are not watched any more."""
        for file in list(self._loose):
            self._watch(file)

    def _watch(self, file: str) -> None:
        self._loose[file] = self._place.watcher.add(posixpath.dirname(file))

    def _follow(self, path: str) -> None:
        """Take in where a link or a file's name leads, and every step of the way."""
        before = self._outward.get(path)
        # Recorded before it is read: a switch during that then shows at the next job.
        self._outward[path] = destination(path)
        way = trace(path)
        self.pinned.update(way.entries)
        self._apply(dict(way.entries))
        if way.real is None:
            if before is not None:
                self.recheck_pinned()
        elif way.is_directory:
            self._follow_directory(path, way.real)
        else:
            self._follow_file(way.real)

    def _follow_directory(self, link: str, real: str) -> None:
        """A link's directory is mirrored, unless of directories beside the link only names are."""
        root = self._place.roots.holding(link)
        if root is not None and root.kind is Kind.SHALLOW:
            return
        if not policy.is_broad(real, self._place.home) and not policy.is_kernels(real):
            self._require(real)

    def _follow_file(self, real: str) -> None:
        if policy.is_kernels(real):
            return
        self.pinned.add(real)
        root = self._place.roots.holding(real)
        if root is None or root.path == real:
            # The watch may be on a directory that was moved away.
            self._place.watcher.forget_one(posixpath.dirname(real))
            self._watch(real)
        self._apply({real: self._place.scanner.entry(real)})
