"""A cache of file digests keyed by (path, size, mtime, inode, ctime), so that an unchanged file is
not read again. Knows nothing of directories.
"""

import hashlib
import inspect
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import msgspec

from distbuild.system import disk
from distbuild.system.state_file import DamagedFile, read_checked, write_checked

log = logging.getLogger(__name__)

K = TypeVar("K")
V = TypeVar("V")

#: A file this young may change again with the same time stamps (the kernel's clock for them ticks
#: every 4 ms at the least; ccache has the same rule). Its digest is not cached.
RACY_NS = 100_000_000
#: The same for a file whose times seem to be of whole seconds (ext4 with small inodes, HFS+) or of
#: every other one (FAT).
COARSE_RACY_NS = 2_100_000_000

#: Digests in a cache at most: some 400 bytes each.
MAX_KNOWN = 1_000_000

StatKey = tuple[int, int, int, int]


def stat_key(status: os.stat_result) -> StatKey:
    """The stat fields that must be equal for a file to count as unchanged."""
    return (status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns)


def put_bounded(cache: dict[K, V], key: K, value: V, most: int) -> None:
    """Add a value to a cache, whose older half is dropped first if it has ``most`` values."""
    if len(cache) >= most and key not in cache:
        for old in list(cache)[: most // 2]:
            del cache[old]
    cache[key] = value


def is_racy(status: os.stat_result, started_ns: int) -> bool:
    """Whether a file that was read from ``started_ns`` on may change again with the same times."""
    limit_ns = RACY_NS if status.st_ctime_ns % 10**9 else COARSE_RACY_NS
    return started_ns - max(status.st_ctime_ns, status.st_mtime_ns) <= limit_ns


class Known(msgspec.Struct, frozen=True, array_like=True):
    """A cached digest with the stat key of the file it belongs to."""

    key: StatKey
    digest: bytes
    binary: bool


class FileRead(msgspec.Struct, frozen=True):
    """A file's bytes, its status before they were read, and when the read began (Unix time)."""

    data: bytes
    status: os.stat_result
    started_ns: int


def read_file(path: str) -> FileRead:
    """Read a whole file. Raises OSError."""
    started_ns = time.time_ns()
    data, status = disk.read_whole(path)
    return FileRead(data, status, started_ns)


class _Saved(msgspec.Struct, frozen=True, array_like=True):
    """The content of a cache file. ``rules``: a digest of the code that classifies files."""

    rules: bytes
    known: dict[bytes, Known]


def rules_of(*modules: ModuleType) -> bytes:
    """A digest of the modules' sources: any change of them gives another value.

    Rejected: a version number raised by hand, which is easily forgotten.
    """
    digest = hashlib.sha256()
    for module in modules:
        digest.update(inspect.getsource(module).encode())
    return digest.digest()


class DigestCache:
    """Digests of files by path and stat key; thread-safe. ``path``: the file in which they are kept
    between runs. ``most``: if there are more of them, the older half is dropped.

    A cache file with other ``rules`` is ignored: its run may have classified the same files
    differently, and classifying them again requires reading them anyway.
    """

    def __init__(self, path: Path | None = None, rules: bytes = b"", most: int = MAX_KNOWN) -> None:
        self._path = path
        self._rules = rules
        self._most = most
        self._lock = threading.Lock()
        self._known: dict[bytes, Known] = {}
        #: Number of changes since the last save.
        self.unsaved = 0
        if path is not None and path.exists():
            self._load(path)

    def _load(self, path: Path) -> None:
        try:
            memory = msgspec.msgpack.decode(read_checked(path), type=_Saved)
        except (OSError, DamagedFile, msgspec.DecodeError) as error:
            log.warning("%s: not readable (%s); files are hashed again", path, error)
            return
        if memory.rules == self._rules:
            self._known = memory.known
        else:
            log.info("%s is of another version; files are hashed again", path)

    def of(self, path: str | bytes, status: os.stat_result | None = None) -> bytes:
        """The raw SHA-256 of a file's bytes, whose present status may be given. Raises OSError."""
        status = status or disk.stat(path)
        known = self.get(path, stat_key(status))
        if known is None:
            started_ns = time.time_ns()
            with disk.open_to_read(path) as file:
                digest = hashlib.file_digest(file, "sha256").digest()
            known = Known(stat_key(status), digest, binary=False)
            if not is_racy(status, started_ns):
                self.put(path, known)
        return known.digest

    def get(self, path: str | bytes, key: StatKey) -> Known | None:
        """The cached digest if the file still has this stat key."""
        known = self._known.get(os.fsencode(path))
        return known if known is not None and known.key == key else None

    def put(self, path: str | bytes, known: Known) -> None:
        name = os.fsencode(path)
        with self._lock:
            if self._known.get(name) == known:
                return
            put_bounded(self._known, name, known, self._most)
            self.unsaved += 1

    def states(self) -> Iterator[tuple[str, StatKey]]:
        """The cached paths, each with the stat key it was read with."""
        for name, known in self._items():
            yield os.fsdecode(name), known.key

    def _items(self) -> list[tuple[bytes, Known]]:
        with self._lock:
            return list(self._known.items())

    def forget(self, paths: Iterable[str]) -> None:
        """Invalidate these files: they are read again even if their stat keys are equal."""
        with self._lock:
            for path in paths:
                self._known.pop(os.fsencode(path), None)

    def save(self, keep: Callable[[str], bool] | None = None) -> None:
        """Write the digests of the paths that ``keep`` accepts (None: of all), if any digest
        changed since the last save. One thread at a time may call it. Raises OSError."""
        if self._path is None or not self.unsaved:
            return
        self.unsaved = 0
        kept = {p: k for p, k in self._items() if not keep or keep(os.fsdecode(p))}
        write_checked(self._path, msgspec.msgpack.encode(_Saved(self._rules, kept)))
