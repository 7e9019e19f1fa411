"""Reads the dev box's disk: what a path is, and what a directory tree holds.

Keeps digests by (path, size, mtime, inode, ctime), so that a second scan, also after a restart,
only calls stat. Knows nothing of workers, generations or watching.
"""

import errno
import functools
import hashlib
import logging
import os
import stat
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from distbuild.mirror.file_system import is_kernel_made
from distbuild.mirror.manifest import DIRECTORY, WITHHELD
from distbuild.mirror.policy import (
    CLOSED_DIRECTORIES,
    Handling,
    handling,
    is_binary,
    is_unusual,
)
from distbuild.mirror.text import assembler_reads_more, odd_operands
from distbuild.protocol.messages import DirectoryEntry, Entry, FileEntry, SymlinkEntry
from distbuild.protocol.names import HOME_MARKER

log = logging.getLogger(__name__)

#: A file changed this recently may change again without its times showing it (the kernel's clock
#: for time stamps ticks every 4 ms at the least; ccache has the same rule): hash it again then.
RACY_NS = 100_000_000
#: Times beyond this (the year 2262) are told as this one.
MAX_MTIME_NS = 2**63 - 1
#: The same names are included all over a tree.
_is_unusual = functools.lru_cache(maxsize=4096)(is_unusual)
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ESTALE})

StatKey = tuple[int, int, int, int]


def stat_key(status: os.stat_result) -> StatKey:
    """What has to be equal for a file to count as unchanged."""
    return (status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns)


class Known(msgspec.Struct, frozen=True, array_like=True):
    """A remembered digest and the state of the file that it belongs to."""

    key: StatKey
    digest: bytes
    reads_more: bool
    binary: bool
    odd_includes: bool


class DigestCache:
    """Digests of files by path and state, kept in a file between runs."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[bytes, Known] = {}
        self._dirty = False
        if path is not None and path.exists():
            try:
                self._known = msgspec.msgpack.decode(path.read_bytes(), type=dict[bytes, Known])
            except (OSError, msgspec.DecodeError, msgspec.ValidationError) as error:
                log.warning("%s: not readable (%s); files are hashed again", path, error)

    def get(self, path: str, key: StatKey) -> Known | None:
        """The remembered digest if the file is still in that state."""
        known = self._known.get(os.fsencode(path))
        return known if known is not None and known.key == key else None

    def put(self, path: str, known: Known) -> None:
        """Remember a digest."""
        self._known[os.fsencode(path)] = known
        self._dirty = True

    def forget(self, paths: Iterable[str]) -> None:
        """Have these files read again, however unchanged they look."""
        for path in paths:
            self._known.pop(os.fsencode(path), None)

    def save(self, keep: Callable[[str], bool]) -> None:
        """Write the digests of the paths that ``keep`` wants, if any changed since last time."""
        if self._path is None or not self._dirty:
            return
        self._dirty = False
        kept = {p: k for p, k in list(self._known.items()) if keep(os.fsdecode(p))}
        temporary = self._path.with_suffix(".tmp")
        temporary.write_bytes(msgspec.msgpack.encode(kept))
        temporary.replace(self._path)


@dataclass(slots=True)
class Tree:
    """A scanned directory tree: its entries, and whether the scan stopped at its limit."""

    entries: dict[str, Entry] = field(default_factory=dict)
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
        self._kernel_made: dict[int, bool] = {}
        # Files with another name, under which they can be written without an event for this one.
        self._linked: dict[str, StatKey] = {}
        self.hashed_bytes = 0
        self.listed = 0
        #: Is told of each file of a tree before all of the tree is known.
        self.found: Callable[[str, FileEntry], None] | None = None
        #: Is told what was hashed, with its digest.
        self.hashed: Callable[[bytes, bytes], None] | None = None

    def entry(self, path: str) -> Entry | None:
        """What the path is; None: not there, or nothing that is mirrored (a socket, an object)."""
        try:
            status = os.lstat(path)
        except OSError as error:
            if error.errno not in _GONE:
                log.debug("%s: %s", path, error)
            return None
        return self._entry(path, status)

    def _entry(self, path: str, status: os.stat_result) -> Entry | None:
        if stat.S_ISDIR(status.st_mode):
            return DIRECTORY
        asked_for = path in self.wanted
        how = Handling.MIRROR if asked_for else handling(os.path.basename(path))
        if how is Handling.IGNORE:
            return None
        if stat.S_ISLNK(status.st_mode):
            return _symlink(path)
        if not stat.S_ISREG(status.st_mode):
            return None
        too_large = status.st_size > self._max_file_bytes and not asked_for
        if how is Handling.WITHHOLD or too_large:
            return WITHHELD
        return self.file(path, status)

    def forget(self, paths: Iterable[str]) -> None:
        """Have these files read again, however unchanged they look."""
        self._cache.forget(paths)

    def file(self, path: str, status: os.stat_result | None = None) -> Entry | None:
        """A regular file as an entry with its digest; None when it is gone."""
        try:
            status = status or os.stat(path)
            known = self._cache.get(path, stat_key(status)) or self._hash(path)
        except OSError as error:
            if error.errno in _GONE:
                return None
            log.debug("%s: %s", path, error)
            return WITHHELD
        if known.binary and path not in self.wanted:
            return WITHHELD
        if status.st_nlink > 1:
            self._linked[path] = stat_key(status)
        else:
            self._linked.pop(path, None)
        executable = 0o111 if status.st_mode & 0o111 else 0
        size, mtime_ns = known.key[0], min(max(known.key[1], -MAX_MTIME_NS), MAX_MTIME_NS)
        return FileEntry(
            known.digest,
            size,
            0o444 | executable,
            mtime_ns,
            known.reads_more,
            known.odd_includes,
        )

    def _hash(self, path: str) -> Known:
        started = time.time_ns()
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            data = file.read()
        self.hashed_bytes += len(data)
        known = Known(
            stat_key(status),
            hashlib.sha256(data).digest(),
            assembler_reads_more(data),
            is_binary(data[:8]),
            bool(odd_operands(data, _is_unusual)),
        )
        if self.hashed is not None:
            self.hashed(known.digest, data)
        if len(data) != status.st_size:
            # It grew or shrank while it was read; its event is on the way.
            return msgspec.structs.replace(known, key=(len(data), *stat_key(status)[1:]))
        if started - max(status.st_ctime_ns, status.st_mtime_ns) > RACY_NS:
            self._cache.put(path, known)
        return known

    def written_elsewhere(self) -> list[str]:
        """Files with several names that are not as they were when last read. One stat each."""
        changed = []
        for path, key in list(self._linked.items()):
            try:
                now = stat_key(os.stat(path, follow_symlinks=False))
            except OSError:
                del self._linked[path]
                continue
            if now != key:
                changed.append(path)
        return changed

    def tree(self, root: str, enter: Callable[[str], None], limit: int) -> Tree:
        """Everything below ``root`` and ``root`` itself, which must be a directory.

        ``enter`` is called with each directory *before* it is listed, so that a watch set there
        misses nothing that the listing does not show. Stops after ``limit`` entries.
        """
        found = Tree()
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
        return os.path.basename(directory) not in CLOSED_DIRECTORIES

    def _is_kernel_made(self, directory: str) -> bool:
        device = os.stat(directory).st_dev
        known = self._kernel_made.get(device)
        if known is None:
            known = self._kernel_made[device] = is_kernel_made(directory)
        return known

    def children(self, directory: str) -> dict[str, Entry]:
        """What is directly in a directory, by path; empty when it is not there any more."""
        self.listed += 1
        entries: dict[str, Entry] = {}
        prefix = directory.rstrip("/") + "/"
        try:
            if self._is_kernel_made(directory):
                return {}
            with os.scandir(directory) as listing:
                for item in listing:
                    if item.name == HOME_MARKER:
                        self.homes.add(directory)
                        return {}
                    path = prefix + item.name
                    try:
                        entry = self._entry(path, item.stat(follow_symlinks=False))
                    except OSError:
                        continue
                    if entry is not None:
                        entries[path] = entry
        except OSError as error:
            if error.errno not in _GONE:
                log.warning("%s: cannot be listed: %s", directory, error.strerror)
        self.homes.discard(directory)
        return entries


def _symlink(path: str) -> SymlinkEntry | None:
    try:
        return SymlinkEntry(os.fsencode(os.readlink(path)))
    except OSError:
        return None
