"""Scans the dev box's disk: makes manifest entries of single paths and of directory trees.

Uses cached digests by (path, size, mtime, inode, ctime), so that a second scan, also after a
restart, only calls stat. Knows nothing of workers, generations or watching.
"""

import errno
import hashlib
import logging
import os
import posixpath
import stat
from collections import Counter
from collections.abc import Callable, Iterable

import msgspec

from distbuild.mirror.digest_cache import (
    DigestCache,
    FileRead,
    Known,
    StatKey,
    is_racy,
    read_file,
    stat_key,
)
from distbuild.mirror.file_systems import is_kernel_made
from distbuild.mirror.manifest import DIRECTORY, WITHHELD
from distbuild.mirror.policy import (
    Handling,
    handling,
    is_binary,
    is_closed,
)
from distbuild.mirror.roots import link_entry
from distbuild.protocol.messages import DirectoryEntry, Entry, FileEntry, SymlinkEntry
from distbuild.protocol.names import HOME_MARKER
from distbuild.system import disk
from distbuild.system.paths import WINDOWS

log = logging.getLogger(__name__)

#: Later times (after the year 2262) are clamped to this one.
MAX_MTIME_NS = 2**63 - 1
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ESTALE})


class ScannedTree(msgspec.Struct):
    """The entries of a scanned directory tree, and whether the scan stopped at its limit."""

    entries: dict[str, Entry] = msgspec.field(default_factory=dict)
    truncated: bool = False


class Scanner:
    """Makes manifest entries of paths.

    ``wanted`` are paths mirrored regardless of name and size, because a compile named them.
    ``homes`` are the directories seen that belong to dist_build and are not mirrored inside.
    ``listed`` counts directories, ``hashed_bytes`` the bytes read: both are constant while nothing
    changes.
    """

    def __init__(self, cache: DigestCache, max_file_bytes: int) -> None:
        self._cache = cache
        self._max_file_bytes = max_file_bytes
        self.wanted: set[str] = set()
        self.homes: set[str] = set()
        #: The user's home directory: dot-files directly in it are mirrored by name only.
        self.home = ""
        #: Directories that this process may not read or search, though another user's compiler may.
        self.closed: set[str] = set()
        #: Mount points. If one is a file, its directory gets no event for a change of it.
        self.mounted: frozenset[str] = frozenset()
        self._kernel_made: dict[int, bool] = {}
        # Hard-linked files: a write through another name gives no event for this one. And inodes
        # with several names, one of which may have been read before the others were linked.
        self._linked: dict[str, StatKey] = {}
        self._doubled: set[int] = set()
        # Hard links under names that are never read (path -> inode); the inode's other names are
        # searched once.
        self._other_names: dict[str, int] = {}
        # Files that were read but are too young to be cached (see is_racy).
        self._young: dict[str, StatKey] = {}
        self.hashed_bytes = 0
        self.listed = 0
        #: Called with each file of a tree while the scan of the tree goes on.
        self.found: Callable[[str, FileEntry], None] | None = None
        #: Called with the digest and the content of each file that was hashed.
        self.hashed: Callable[[bytes, bytes], None] | None = None

    def entry(self, path: str) -> Entry | None:
        """The entry at a path; None if it is missing or not mirrored (a socket, an object file)."""
        try:
            status = disk.lstat(path)
            if WINDOWS and disk.as_on_disk(path) != path:
                return None  # it exists under another spelling
        except OSError as error:
            if error.errno not in _GONE:
                log.debug("%s: %s", path, error)
            return None
        return self._entry(path, status)

    def _entry(self, path: str, status: os.stat_result) -> Entry | None:
        regular = stat.S_ISREG(status.st_mode)
        if not regular and stat.S_ISDIR(status.st_mode) and not disk.is_link(status):
            return DIRECTORY
        asked_for = path in self.wanted
        how = Handling.MIRROR if asked_for else self._handling(path)
        if how is Handling.IGNORE and not (disk.is_link(status) and disk.isdir(path)):
            return None  # but a link to a directory is mirrored by any name, as a directory is
        if not regular:
            return _symlink(path, status) if disk.is_link(status) else None
        too_large = status.st_size > self._max_file_bytes and not asked_for
        # An empty file is as cheap by its content, and ``__has_embed`` tells it from others.
        if (how is Handling.WITHHOLD and status.st_size) or too_large:
            if status.st_nlink > 1 and self._other_names.get(path) != status.st_ino:
                self._other_names[path] = status.st_ino
                self._doubled.add(status.st_ino)
            return WITHHELD
        return self.file(path, status)

    def _handling(self, path: str) -> Handling:
        how = handling(posixpath.basename(path))
        if how is Handling.MIRROR and self.home and path.startswith(self.home + "/."):
            # Not the content of directories there: they are mirrored only if a command names them.
            return Handling.WITHHOLD if "/" not in path[len(self.home) + 1 :] else how
        return how

    def forget(self, paths: Iterable[str]) -> None:
        """Invalidate these files' digests, so that they are read again even if unchanged."""
        self._cache.forget(paths)

    def file(self, path: str, status: os.stat_result | None = None) -> Entry | None:
        """A regular file's entry with its digest; WITHHELD if the file is binary or unreadable;
        None if it is gone."""
        try:
            status = status or disk.stat(path)
            known = self._cache.get(path, stat_key(status)) or self._hash(path)
        except OSError as error:
            if error.errno in _GONE:
                return None
            log.debug("%s: %s", path, error)
            return WITHHELD
        if known.binary and path not in self.wanted:
            return WITHHELD
        if status.st_nlink > 1 or path in self.mounted:
            self._note_linked(path, status)
        elif status.st_nlink:
            self._linked.pop(path, None)
        executable = 0o111 if status.st_mode & 0o111 and not WINDOWS else 0
        size, mtime_ns = known.key[0], min(max(known.key[1], -MAX_MTIME_NS), MAX_MTIME_NS)
        return FileEntry(known.digest, size, 0o444 | executable, mtime_ns)

    def _hash(self, path: str) -> Known:
        read = read_file(path)
        self.hashed_bytes += len(read.data)
        digest = hashlib.sha256(read.data).digest()
        known = self.learn(path, read, digest)
        if self.hashed is not None:
            self.hashed(digest, read.data)
        return known

    def learn(self, path: str, read: FileRead, digest: bytes) -> Known:
        """The facts about a file that was read; cached unless it may change without notice."""
        data, status = read.data, read.status
        known = Known(stat_key(status), digest, is_binary(data[:8]))
        if len(data) != status.st_size:
            # It grew or shrank while it was read; an event follows.
            return msgspec.structs.replace(known, key=(len(data), *stat_key(status)[1:]))
        if WINDOWS:
            # A listing shows neither a file's number of names nor writes through another name: a
            # file with several names is read each time.
            if status.st_nlink > 1:
                self._note_linked(path, status)
                return known
            self._linked.pop(path, None)
        if is_racy(status, read.started_ns):
            self._young[path] = known.key
        else:
            self._cache.put(path, known)
            self._young.pop(path, None)
        return known

    def _note_linked(self, path: str, status: os.stat_result) -> None:
        known, now = self._linked.get(path), stat_key(status)
        if known is None or known[2] != now[2]:  # compares inodes
            self._doubled.add(status.st_ino)
        self._linked[path] = now

    def _find_first_names(self) -> None:
        """Note files read under their first name: a second name gives no event for the first."""
        for path, key in (*self._cache.states(), *self._young.items()):
            if key[2] in self._doubled:
                self._linked.setdefault(path, key)
        self._doubled.clear()

    def has_new_names(self) -> bool:
        """Whether hard-linked files were found since the last call of ``written_elsewhere``."""
        return bool(self._doubled)

    def written_elsewhere(self) -> list[str]:
        """Hard-linked files that changed since they were last read. Costs one stat each."""
        if self._doubled:
            self._find_first_names()
        changed = []
        for path, key in list(self._linked.items()):
            try:
                now = stat_key(disk.lstat(path))
            except OSError:
                del self._linked[path]
                continue
            if now != key:
                changed.append(path)
        return changed

    def twins(self) -> dict[str, int]:
        """Files with several of their names in the mirror: path -> inode."""
        linked = {path: key[2] for path, key in list(self._linked.items())}
        names = Counter(linked.values())
        return {path: inode for path, inode in linked.items() if names[inode] > 1}

    def tree(self, root: str, enter: Callable[[str], None], limit: int) -> ScannedTree:
        """The entries of ``root``, which must be a directory, and of everything below it.

        ``enter`` is called with each directory *before* it is listed, so that a watch set there
        reports every change that the listing misses. Stops after ``limit`` entries.
        """
        found = ScannedTree()
        found.entries[root] = DIRECTORY
        pending = [root]
        while pending:
            directory = pending.pop()
            if len(found.entries) > limit:
                found.truncated = True
                break
            enter(directory)
            for path, entry in self.children(directory).items():
                found.entries[path] = entry
                if isinstance(entry, DirectoryEntry) and self.enters(path):
                    pending.append(path)
                elif self.found is not None and isinstance(entry, FileEntry):
                    self.found(path, entry)
        return found

    def enters(self, directory: str) -> bool:
        """Whether the inside of a directory is mirrored."""
        return not is_closed(directory)

    def _is_kernel_made(self, directory: str) -> bool:
        device = disk.stat(directory).st_dev
        known = self._kernel_made.get(device)
        if known is None:
            known = self._kernel_made[device] = is_kernel_made(directory)
        return known

    def children(self, directory: str) -> dict[str, Entry]:
        """The entries directly in a directory, by path; empty if it is gone."""
        self.listed += 1
        was_closed = directory in self.closed
        self.closed.discard(directory)
        entries: dict[str, Entry] = {}
        prefix = directory.rstrip("/") + "/"
        try:
            if not WINDOWS and self._is_kernel_made(directory):
                return {}
            with disk.scandir(directory) as listing:
                for item in listing:
                    if item.name == HOME_MARKER:
                        self.homes.add(directory)
                        return {}
                    path = prefix + item.name
                    try:
                        entry = self._entry(path, item.stat(follow_symlinks=False))
                    except OSError:
                        # A single unreadable item, such as another user's mount, does not count.
                        if not disk.access(directory, os.X_OK):
                            self.closed.add(directory)
                        continue
                    if entry is not None:
                        entries[path] = entry
        except OSError as error:
            if isinstance(error, PermissionError):
                self.closed.add(directory)
            if error.errno not in _GONE and not was_closed:
                log.warning("%s: cannot be listed: %s", directory, error.strerror)
        self.homes.discard(directory)
        return entries


def _symlink(path: str, status: os.stat_result) -> SymlinkEntry | None:
    try:
        return link_entry(path, status)
    except OSError:
        return None
