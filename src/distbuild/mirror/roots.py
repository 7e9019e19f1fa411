"""Which directories are mirrored, and how a spelled path leads to a real one.

Reads the disk only through ``lstat``/``readlink`` of path components. Knows no manifest.
"""

import enum
import os
import posixpath
import stat
from collections.abc import Hashable, Iterable, Iterator, Set

import msgspec

from distbuild.mirror.manifest import DIRECTORY, MAX_SYMLINKS, components
from distbuild.mirror.policy import is_closed
from distbuild.protocol.messages import Entry, SymlinkEntry
from distbuild.protocol.names import HOME_MARKER
from distbuild.system import disk
from distbuild.system.paths import WINDOWS

#: The identity of what is there but is no directory. Its inode may have been one's until now.
NO_DIRECTORY = (-1, -1)


class Kind(enum.Enum):
    """How much of a root is mirrored."""

    DEEP = "deep"
    SHALLOW = "shallow"  # its own files and the names of its directories
    DEFERRED = "deferred"  # watched; mirrored once a job names it or something in it changes


class Root(msgspec.Struct):
    """A mirrored directory by its real path. ``polled``: no events there, listed for each job.

    ``listed`` is the device and inode of the directory that was listed and is watched; another
    one may stand at the path by now, of which no event tells.
    """

    path: str
    kind: Kind
    polled: bool = False
    #: Taken in because of a single file in it; a command that names it may have all of it.
    for_a_file: bool = False
    listed: tuple[int, int] | None = None


class Trace(msgspec.Struct):
    """The way of a path through the file system: every component passed, and where it ends.

    ``real`` is None when a component is missing. ``entries`` has the directories and symlinks
    that must be in a tree for the same path to lead to the same place there, also those that a
    later ``..`` leaves again.
    """

    entries: dict[str, Entry] = msgspec.field(default_factory=dict)
    real: str | None = None
    is_directory: bool = False


def trace(path: str) -> Trace:
    """Walk an absolute path as the kernel would (path_resolution(7))."""
    result = Trace()
    pending = components(path)
    here, followed, is_directory = "", 0, True
    while pending:
        part = pending.pop()
        if part == ".":
            continue
        if part == "..":
            here = here.rpartition("/")[0]
            continue
        step = f"{here}/{part}"
        try:
            status = disk.lstat(step)
            step = disk.as_on_disk(step)
            if disk.is_link(status):
                followed += 1
                if followed > MAX_SYMLINKS:
                    return result
                entry = link_entry(step, status)
                target = os.fsdecode(entry.target)
                result.entries[step] = entry
                pending.extend(components(target))
                if target.startswith("/"):
                    here = ""
                continue
        except OSError:
            return result
        is_directory = stat.S_ISDIR(status.st_mode)
        if is_directory:
            result.entries[step] = DIRECTORY
        elif pending:
            return result
        here = step
    result.real = here or "/"
    result.is_directory = is_directory
    return result


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
    """The link at ``path``, whose own status is ``status``. Raises OSError."""
    to_directory = disk.links_to_directory(status)
    return SymlinkEntry(os.fsencode(disk.readlink(path)), to_directory=to_directory)


def identity(path: str) -> tuple[int, int] | None:
    """Device and inode of the directory that a path leads to now; None: nothing is there."""
    try:
        status = disk.stat(path)
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISDIR(status.st_mode) else NO_DIRECTORY


def standing(path: str) -> tuple[int, int] | None:
    """Device and inode of the directory at a path itself; None: there is none, or a link to one."""
    try:
        status = disk.lstat(path)
    except OSError:
        return None
    is_directory = stat.S_ISDIR(status.st_mode) and not disk.is_link(status)
    return (status.st_dev, status.st_ino) if is_directory else None


def destination(path: str) -> tuple[int, int] | None:
    """Device and inode of whatever a path leads to now; None: it leads nowhere."""
    try:
        status = disk.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


#: What a home of a syncer or worker holds that is its own; a clone of this project may be one too.
_OWN_NAMES = frozenset(("certs", "state", "logs", "sandbox", "store", "config.json"))


def is_our_own(path: str) -> bool:
    """Whether a real path is one of the files that a syncer or worker keeps in its home."""
    above, name = posixpath.split(path)
    while name:
        if name in _OWN_NAMES and disk.lexists(posixpath.join(above, HOME_MARKER)):
            return True
        above, name = posixpath.split(above)
    return False


def is_everybodys(path: str) -> bool:
    """Whether a file is one's own, or one that all users may read; as root only the latter."""
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
    """The set of mirrored directories, by real path."""

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
        """The root by which ``path`` is mirrored, or None: the deep one if there is one.

        A shallow root holds only what is directly in it; no root holds what is inside a closed
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
        """Whether a root holds the files that are directly in a directory."""
        return self.holding(posixpath.join(directory, ".")) is not None

    def shallow(self) -> list[str]:
        """Paths of the roots of which only the top is mirrored."""
        return [root.path for root in self if root.kind is Kind.SHALLOW]

    def wide(self) -> list[str]:
        """Of these only those that commands name, and that are too wide to mirror as a whole."""
        return [r.path for r in self if r.kind is Kind.SHALLOW and not r.for_a_file]

    def nested(self, path: str) -> list[str]:
        """Paths of the roots strictly below ``path``."""
        return [r for r in self._roots if r != path and inside(r, path)]
