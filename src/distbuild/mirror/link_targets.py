"""Watches files outside the mirrored directories that symlinks in them lead to, by directory.

Used by ``symlinks`` under the mirror's lock. Knows no manifest.
"""

import os
import posixpath
from collections.abc import Collection, Iterable

import msgspec

from distbuild.mirror.roots import destination, inside, standing
from distbuild.mirror.watching import FileWatcher
from distbuild.protocol.messages import SymlinkEntry
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
    """Watches the directories of single files in no root, by real path."""

    def __init__(self, watcher: FileWatcher) -> None:
        self._watcher = watcher
        self._directories: dict[str, _Directory] = {}

    def add(self, file: str) -> None:
        """Watch the file's directory that is now at its path."""
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
