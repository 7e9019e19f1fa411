"""Reads the dev box's disk: what a path is, and what a directory tree holds.

Keeps digests by (path, size, mtime, inode, ctime), so that a second scan, also after a restart,
only calls stat. Knows nothing of workers, generations or watching.
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
    RACY_NS,
    DigestCache,
    FileRead,
    Known,
    StatKey,
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

#: Times beyond this (the year 2262) are told as this one.
MAX_MTIME_NS = 2**63 - 1
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ESTALE})


class ScannedTree(msgspec.Struct):
    """A scanned directory tree: its entries, and whether the scan stopped at its limit."""

    entries: dict[str, Entry] = msgspec.field(default_factory=dict)
    truncated: bool = False


class Scanner:
    """Turns paths into entries.

    ``wanted`` are paths that are mirrored whatever their name and size: a compile asked for them.
    ``homes`` are the directories seen that are ours, and not mirrored inside.
    ``listed`` counts directories, ``hashed_bytes`` what was read: both stand still while nothing
    changes.
    """

    def __init__(self, cache: DigestCache, max_file_bytes: int) -> None:
        self._cache = cache
        self._max_file_bytes = max_file_bytes
        self.wanted: set[str] = set()
        self.homes: set[str] = set()
        #: The user's: of its own files that begin with a dot only the names are mirrored.
        self.home = ""
        #: Directories of which we may not see what is in them; a compiler of somebody else may.
        self.closed: set[str] = set()
        #: Mount points. One may be a file, and then no event of its directory tells of a change.
        self.mounted: frozenset[str] = frozenset()
        self._kernel_made: dict[int, bool] = {}
        # Files with another name, under which they can be written without an event for this one;
        # and inodes with a second name of which the first may be one that was read before.
        self._linked: dict[str, StatKey] = {}
        self._doubled: set[int] = set()
        # Those by which what has them is not read, with their inodes: each is looked for once.
        self._other_names: dict[str, int] = {}
        # What was read, and is too young to be remembered.
        self._young: dict[str, StatKey] = {}
        self.hashed_bytes = 0
        self.listed = 0
        #: Is told of each file of a tree before all of the tree is known.
        self.found: Callable[[str, FileEntry], None] | None = None
        #: Is told what was hashed, with its digest.
        self.hashed: Callable[[bytes, bytes], None] | None = None

    def entry(self, path: str) -> Entry | None:
        """What the path is; None: not there, or nothing that is mirrored (a socket, an object)."""
        try:
            status = disk.lstat(path)
            if WINDOWS and disk.as_on_disk(path) != path:
                return None  # there, but under another spelling
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
        if how is Handling.IGNORE:
            return None
        if not regular:
            return _symlink(path, status) if disk.is_link(status) else None
        too_large = status.st_size > self._max_file_bytes and not asked_for
        if how is Handling.WITHHOLD or too_large:
            if status.st_nlink > 1 and self._other_names.get(path) != status.st_ino:
                self._other_names[path] = status.st_ino
                self._doubled.add(status.st_ino)
            return WITHHELD
        return self.file(path, status)

    def _handling(self, path: str) -> Handling:
        how = handling(posixpath.basename(path))
        if how is Handling.MIRROR and self.home and path.startswith(self.home + "/."):
            # What a directory there holds is another matter: a command names it, or it is no root.
            return Handling.WITHHOLD if "/" not in path[len(self.home) + 1 :] else how
        return how

    def forget(self, paths: Iterable[str]) -> None:
        """Have these files read again, however unchanged they look."""
        self._cache.forget(paths)

    def file(self, path: str, status: os.stat_result | None = None) -> Entry | None:
        """A regular file as an entry with its digest; None when it is gone."""
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
        """What is known of a file that was read; remembered, unless it may change unseen."""
        data, status = read.data, read.status
        known = Known(stat_key(status), digest, is_binary(data[:8]))
        if len(data) != status.st_size:
            # It grew or shrank while it was read; its event is on the way.
            return msgspec.structs.replace(known, key=(len(data), *stat_key(status)[1:]))
        if WINDOWS:
            # A listing does not tell how many names a file has, nor what was written through
            # another one: such a file is read each time.
            if status.st_nlink > 1:
                self._note_linked(path, status)
                return known
            self._linked.pop(path, None)
        if read.started_ns - max(status.st_ctime_ns, status.st_mtime_ns) > RACY_NS:
            self._cache.put(path, known)
            self._young.pop(path, None)
        else:
            self._young[path] = known.key
        return known

    def _note_linked(self, path: str, status: os.stat_result) -> None:
        known, now = self._linked.get(path), stat_key(status)
        if known is None or known[2] != now[2]:  # by its inode
            self._doubled.add(status.st_ino)
        self._linked[path] = now

    def _find_first_names(self) -> None:
        """Of a file that gets a second name no event tells under its first."""
        for path, key in (*self._cache.states(), *self._young.items()):
            if key[2] in self._doubled:
                self._linked.setdefault(path, key)
        self._doubled.clear()

    def has_new_names(self) -> bool:
        """Whether files with several names were met that ``written_elsewhere`` has not told of."""
        return bool(self._doubled)

    def written_elsewhere(self) -> list[str]:
        """Files with several names that are not as they were when last read. One stat each."""
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
        """Files that have another of their names in the mirror too, with their inodes."""
        linked = {path: key[2] for path, key in list(self._linked.items())}
        names = Counter(linked.values())
        return {path: inode for path, inode in linked.items() if names[inode] > 1}

    def tree(self, root: str, enter: Callable[[str], None], limit: int) -> ScannedTree:
        """Everything below ``root`` and ``root`` itself, which must be a directory.

        ``enter`` is called with each directory *before* it is listed, so that a watch set there
        misses nothing that the listing does not show. Stops after ``limit`` entries.
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
        """What is directly in a directory, by path; empty when it is not there any more."""
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
                        # Not of what is somebody else's mount alone.
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
