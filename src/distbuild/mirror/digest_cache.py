"""What is known of files without reading them: digests by (path, size, mtime, inode, ctime).

Knows nothing of directories.
"""

import hashlib
import inspect
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType

import msgspec

from distbuild.system import disk

log = logging.getLogger(__name__)

#: A file changed this recently may change again without its times showing it (the kernel's clock
#: for time stamps ticks every 4 ms at the least; ccache has the same rule): hash it again then.
RACY_NS = 100_000_000

StatKey = tuple[int, int, int, int]


def stat_key(status: os.stat_result) -> StatKey:
    """What has to be equal for a file to count as unchanged."""
    return (status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns)


class Known(msgspec.Struct, frozen=True, array_like=True):
    """A remembered digest and the state of the file that it belongs to."""

    key: StatKey
    digest: bytes
    binary: bool


class FileRead(msgspec.Struct, frozen=True):
    """A file's bytes, its state before they were read, and when that was (Unix time)."""

    data: bytes
    status: os.stat_result
    started_ns: int


def read_file(path: str) -> FileRead:
    """Read a whole file. Raises OSError."""
    started_ns = time.time_ns()
    data, status = disk.read_whole(path)
    return FileRead(data, status, started_ns)


class _Saved(msgspec.Struct, frozen=True, array_like=True):
    """What is in a cache's file. ``rules``: those by which it is said what the texts ask for."""

    rules: bytes
    known: dict[bytes, Known]


def rules_of(*modules: ModuleType) -> bytes:
    """A digest of the modules' sources: with any change of them, other rules.

    Rejected: a number to be raised by hand, which is forgotten.
    """
    digest = hashlib.sha256()
    for module in modules:
        digest.update(inspect.getsource(module).encode())
    return digest.digest()


class DigestCache:
    """Digests of files by path and state, kept in a file between runs.

    What a run with other ``rules`` has left is not taken: its reading of the same texts may have
    been another, and to look at them once more is to read them anyway.
    """

    def __init__(self, path: Path | None, rules: bytes = b"") -> None:
        self._path = path
        self._rules = rules
        self._known: dict[bytes, Known] = {}
        #: How many have changed since they were last written down.
        self.unsaved = 0
        if path is not None and path.exists():
            self._load(path)

    def _load(self, path: Path) -> None:
        try:
            memory = msgspec.msgpack.decode(path.read_bytes(), type=_Saved)
        except (OSError, msgspec.DecodeError, msgspec.ValidationError) as error:
            log.warning("%s: not readable (%s); files are hashed again", path, error)
            return
        if memory.rules == self._rules:
            self._known = memory.known
        else:
            log.info("%s is of another version; files are hashed again", path)

    def get(self, path: str, key: StatKey) -> Known | None:
        """The remembered digest if the file is still in that state."""
        known = self._known.get(os.fsencode(path))
        return known if known is not None and known.key == key else None

    def put(self, path: str, known: Known) -> None:
        """Remember a digest."""
        name = os.fsencode(path)
        if self._known.get(name) != known:
            self._known[name] = known
            self.unsaved += 1

    def states(self) -> Iterator[tuple[str, StatKey]]:
        """The paths of what is remembered, each with the state in which it was read."""
        for name, known in list(self._known.items()):
            yield os.fsdecode(name), known.key

    def forget(self, paths: Iterable[str]) -> None:
        """Have these files read again, however unchanged they look."""
        for path in paths:
            self._known.pop(os.fsencode(path), None)

    def save(self, keep: Callable[[str], bool]) -> None:
        """Write the digests of the paths that ``keep`` wants, if any changed since last time."""
        if self._path is None or not self.unsaved:
            return
        self.unsaved = 0
        kept = {p: k for p, k in list(self._known.items()) if keep(os.fsdecode(p))}
        temporary = self._path.with_suffix(".tmp")
        temporary.write_bytes(msgspec.msgpack.encode(_Saved(self._rules, kept)))
        temporary.replace(self._path)
