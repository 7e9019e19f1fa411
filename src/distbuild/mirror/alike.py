"""Links that lead to files of one directory: looking whether that is the same does for them all.

A directory of links to files elsewhere may have thousands, and each job looks at all ways. Events
tell what becomes of the files, as long as the directory stands.
"""

import os
import posixpath
from collections.abc import Iterable

from distbuild.mirror.roots import destination
from distbuild.protocol.messages import SymlinkEntry
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
