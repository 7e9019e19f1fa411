"""The set of mirrored directories (roots), and the resolution of spelled paths to real ones.

Reads the disk only by the status and link target of single paths. Knows no manifest.
"""

import enum
import os
import posixpath
import stat
from collections.abc import Hashable, Iterable, Iterator, Set

import msgspec

from distbuild.mirror.manifest import DIRECTORY, WITHHELD
from distbuild.mirror.policy import is_closed
from distbuild.protocol.messages import DirectoryEntry, Entry, SymlinkEntry
from distbuild.protocol.names import HOME_MARKER
from distbuild.system import disk
from distbuild.system.paths import WINDOWS, follow_links

#: The identity of anything that exists but is no directory. Its own inode number is not used: it
#: may have been a directory's before.
NO_DIRECTORY = (-1, -1)


class Kind(enum.Enum):
    """How much of a root is mirrored."""

    DEEP = "deep"
    SHALLOW = "shallow"  # the files directly in it and the names of its directories
    DEFERRED = "deferred"  # watched; mirrored once a job names it or something in it changes


class Root(msgspec.Struct):
    """A mirrored directory by its real path. ``polled``: without events, listed for each job.

    ``listed`` is the device and inode of the directory that was listed and is watched. Another
    directory may have replaced it at the path without an event.
    """

    path: str
    kind: Kind
    polled: bool = False
    #: Added because of a single file in it; mirrored as a whole once a command names it.
    for_a_file: bool = False
    listed: tuple[int, int] | None = None


class Trace(msgspec.Struct):
    """A path's resolution: the real path that it leads to, and the components passed.

    ``real`` is None if a component is missing. ``entries`` has the directories and symlinks that
    a tree must contain for the path to lead to the same place there, including those that a
    later ``..`` leaves again.
    """

    entries: dict[str, Entry] = msgspec.field(default_factory=dict)
    real: str | None = None
    is_directory: bool = False


def trace(path: str) -> Trace:
    """Resolve an absolute path on the disk; what may not be examined counts as missing."""
    entries: dict[str, Entry] = {}

    def look(step: str) -> Entry | None:
        try:
            status = disk.lstat(step)
            if _is_directory(status):
                entries[step] = DIRECTORY
                return DIRECTORY
            if disk.is_link(status):
                entries[step] = link_entry(step, status)
                return entries[step]
        except OSError:
            return None
        return WITHHELD

    spell = disk.as_on_disk if WINDOWS else None
    real = follow_links(path, look, SymlinkEntry, DirectoryEntry, spell=spell)
    return Trace(entries, real, is_directory=real == "/" or real in entries)


class Pins:
    """Reference counts of paths outside the roots: each holder pins the components on its way."""

    def __init__(self) -> None:
        #: Another one after each change of ``paths``.
        self.version = 0
        self._counts: dict[str, int] = {}
        self._held: dict[Hashable, frozenset[str]] = {}

    @property
    def paths(self) -> Set[str]:
        """A live view of the pinned paths."""
        return self._counts.keys()

    def hold(self, holder: Hashable, paths: Iterable[str]) -> list[str]:
        """Replace what ``holder`` pins; returns the paths that nothing pins any more."""
        now = frozenset(paths)
        before = self._held.pop(holder, frozenset())
        if now:
            self._held[holder] = now
        self.version += now != before
        for path in now - before:
            self._counts[path] = self._counts.get(path, 0) + 1
        return [path for path in before - now if self._drop(path)]

    def release(self, holder: Hashable) -> list[str]:
        """Pin nothing for ``holder``; returns the paths that nothing pins any more."""
        return self.hold(holder, ())

    def _drop(self, path: str) -> bool:
        count = self._counts.pop(path) - 1
        if count:
            self._counts[path] = count
        return not count


def link_entry(path: str, status: os.stat_result) -> SymlinkEntry:
    """The entry of the symlink at ``path``, whose own status is ``status``. Raises OSError."""
    to_directory = disk.links_to_directory(status)
    return SymlinkEntry(os.fsencode(disk.readlink(path)), to_directory=to_directory)


def identity(path: str) -> tuple[int, int] | None:
    """Device and inode of the directory that a path leads to, ``NO_DIRECTORY`` for anything else;
    None if there is nothing or it cannot be examined."""
    try:
        status = disk.stat(path)
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISDIR(status.st_mode) else NO_DIRECTORY


def standing(path: str) -> tuple[int, int] | None:
    """Device and inode of the directory at a path itself; None if there is none or a symlink."""
    try:
        status = disk.lstat(path)
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if _is_directory(status) else None


def _is_directory(status: os.stat_result) -> bool:
    """Whether a status of ``lstat`` is that of a directory and not of a link to one."""
    return stat.S_ISDIR(status.st_mode) and not (WINDOWS and disk.is_link(status))


def destination(path: str) -> tuple[int, int] | None:
    """Device and inode of the file or directory that a path leads to; None: it leads nowhere."""
    try:
        status = disk.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


#: Names that a syncer or worker creates in its home directory, which may also be a clone of this
#: project.
_OWN_NAMES = frozenset(("certs", "state", "logs", "sandbox", "store", "config.json"))


def is_our_own(path: str) -> bool:
    """Whether a real path is, or is below, one that a syncer or worker keeps in its home."""
    above, name = posixpath.split(path)
    while name:
        if name in _OWN_NAMES and disk.lexists(posixpath.join(above, HOME_MARKER)):
            return True
        above, name = posixpath.split(above)
    return False


def is_everybodys(path: str) -> bool:
    """Whether all users may read a file or this process's user owns it; for root only the first."""
    if WINDOWS:
        return True
    try:
        status = disk.stat(path)
    except OSError:
        return False
    user = os.geteuid()
    return bool(status.st_mode & stat.S_IROTH) or (user != 0 and status.st_uid == user)


def inside(path: str, directory: str) -> bool:
    """Whether ``path`` is ``directory`` or lies below it."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


class Roots:
    """The mirrored directories, by real path."""

    def __init__(self) -> None:
        self._roots: dict[str, Root] = {}

    def __iter__(self) -> Iterator[Root]:
        return iter(list(self._roots.values()))

    def __len__(self) -> int:
        return len(self._roots)

    def get(self, path: str) -> Root | None:
        """The root at exactly this path."""
        return self._roots.get(path)

    def add(self, root: Root) -> None:
        """Add a root, or replace the one at the same path."""
        self._roots[root.path] = root

    def discard(self, path: str) -> None:
        """Forget the root at a path, if there is one."""
        self._roots.pop(path, None)

    def holding(self, path: str) -> Root | None:
        """The root by which ``path`` is mirrored, if possible a deep one; None if there is none.

        A shallow root holds only the paths directly in it. No root holds the inside of a closed
        directory (``.git`` and the like) below it.
        """
        best: Root | None = None
        parent = posixpath.dirname(path)
        directory = path
        while True:
            root = self._roots.get(directory)
            if root is not None:
                if root.kind is Kind.DEEP:
                    return root
                if root.kind is Kind.DEFERRED or directory in (path, parent):
                    best = best or root
            closed = directory != path and is_closed(directory)
            above = posixpath.dirname(directory)
            if closed or above == directory:
                return best
            directory = above

    def holds_files_of(self, directory: str) -> bool:
        """Whether a root holds the files directly in a directory."""
        return self.holding(posixpath.join(directory, ".")) is not None

    def holds_all_of(self, directory: str) -> bool:
        """Whether a root holds all files below a directory."""
        root = self.holding(posixpath.join(directory, "."))
        return root is not None and root.kind is Kind.DEEP

    def shallow(self) -> list[str]:
        """Paths of the roots of which only the top is mirrored."""
        return [root.path for root in self if root.kind is Kind.SHALLOW]

    def wide(self) -> list[str]:
        """Paths of the shallow roots that commands name and that are too large to mirror whole."""
        return [r.path for r in self if r.kind is Kind.SHALLOW and not r.for_a_file]

    def nested(self, path: str) -> list[str]:
        """Paths of the roots strictly below ``path``."""
        return [r for r in self._roots if r != path and inside(r, path)]
