"""The directories that jobs and the configuration need mirrored, as spelled, kept between runs.

Detects which of them were replaced since they were added to the mirror; the caller adds them again.
"""

import logging
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from distbuild.mirror.manifest import Manifest
from distbuild.mirror.roots import NO_DIRECTORY, identity, inside, standing, trace
from distbuild.protocol.messages import Entry, SymlinkEntry
from distbuild.system import disk
from distbuild.system.state_file import DamagedFile, read_checked, write_checked


class SearchDirs:
    """Directories with their (device, inode) when they were last added, None for absent ones.

    ``named`` ones come from a job or the configuration, not from the memory of an earlier run.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._seen: dict[str, tuple[int, int] | None] = {}
        # The absent ones, the newest last: a set that keeps its order.
        self._absent: dict[str, None] = {}
        # Spelled -> real path, for those spelled through a symlink: the directory may be moved and
        # the symlink retargeted to it, which leaves its identity the same.
        self._real: dict[str, str] = {}
        # The components of each absent one that is spelled through a symlink or with ``..``. They
        # may change while it stays absent, and their old target may then appear.
        self._nowhere: dict[str, dict[str, Entry]] = {}
        # For which state of the manifest's names each was found to lead to its directory there.
        self._led: dict[str, int] = {}
        self._named: set[str] = set()
        #: Those that this process may not reach, so that their existence is unknown.
        self.closed: set[str] = set()
        #: Those that exist but are no directories.
        self.files: set[str] = set()

    def moved(
        self, directories: Iterable[str], *, named: bool
    ) -> Iterator[tuple[str, tuple[int, int] | None]]:
        """Those that must be added (again), with their present identity. Costs one ``stat`` each,
        one more behind a symlink, and a few for a path through a symlink that leads nowhere. A path
        is resolved in the manifest again after its names have changed."""
        if named:
            directories = list(directories)
            self._named.update(directories)
        for spelled in directories:
            now = identity(spelled)
            real = self._real.get(spelled)
            has_moved = real is not None and now is not None and standing(real) != now
            if has_moved or self._seen.get(spelled, ()) != now:
                yield spelled, now
            elif (way := self._nowhere.get(spelled)) is not None and trace(spelled).entries != way:
                yield spelled, now  # the components of an absent one have changed
            elif now not in (None, NO_DIRECTORY) and self._is_lost(spelled):
                yield spelled, now

    def _is_lost(self, spelled: str) -> bool:
        """Whether a path leads elsewhere in the manifest, or nowhere: its directory is the same,
        but a part of the path was away or was another link for a while."""
        changed = self._manifest.index.changed
        if self._led.get(spelled) == changed:
            return False
        is_lost = self._manifest.resolve(spelled) != self._real.get(spelled, spelled)
        if changed <= self._manifest.applied:
            self._led[spelled] = changed
        return is_lost

    def note(self, spelled: str, now: tuple[int, int] | None) -> None:
        """Record a directory, about to be added, with its identity ``now``."""
        self._seen[spelled] = now
        self._absent.pop(spelled, None)
        if now is None:
            self._absent[spelled] = None
        self.closed.discard(spelled)
        self.files.discard(spelled)
        if now == NO_DIRECTORY:
            self.files.add(spelled)
        if now is None and not _may_go(spelled):
            self.closed.add(spelled)
        self._nowhere.pop(spelled, None)
        if now is None:
            way = trace(spelled).entries
            if "/../" in spelled or any(isinstance(e, SymlinkEntry) for e in way.values()):
                self._nowhere[spelled] = way
        self._real.pop(spelled, None)
        if (real := disk.realpath(spelled)) != spelled:
            self._real[spelled] = real

    def is_closed(self, spelled: str) -> bool:
        """Whether it is unknown which files a compiler finds there."""
        return spelled in self.closed or (spelled in self.files and _is_header_map(spelled))

    def forget_below(self, top: str) -> list[str]:
        """Forget the directories whose real paths are below ``top``, so that ``moved`` gives them
        again; returns them."""
        real = {spelled: disk.realpath(spelled) for spelled in self._seen}
        below = [s for s, r in real.items() if r != top and inside(r, top)]
        for spelled in below:
            del self._seen[spelled]
            self._absent.pop(spelled, None)
        return below

    def forget_gone(self, top: str) -> list[str]:
        """Forget directories at or below ``top``, which is gone; returns them as spelled."""
        gone = [s for s in self._seen if inside(self._real.get(s, s), top)]
        self._forget(gone)
        return gone

    def forget_absent(self, most: int) -> list[str]:
        """Forget absent directories beyond ``most``, the oldest first; returns them as spelled."""
        if len(self._absent) <= most:
            return []
        gone = list(self._absent)[: len(self._absent) - most]
        self._forget(gone)
        return gone

    def _forget(self, gone: Iterable[str]) -> None:
        for spelled in gone:
            del self._seen[spelled]
            self._absent.pop(spelled, None)
            self._real.pop(spelled, None)
            self._led.pop(spelled, None)
            self._nowhere.pop(spelled, None)
            self._named.discard(spelled)
            self.closed.discard(spelled)
            self.files.discard(spelled)

    def named(self) -> list[str]:
        """Those that exist and were named by a job or the configuration."""
        standing = [spelled for spelled, now in list(self._seen.items()) if now is not None]
        return [spelled for spelled in standing if spelled in self._named]


def _is_header_map(path: str) -> bool:
    """Whether a file is a header map of clang, whose headers may be in any directory."""
    if not disk.isfile(path):  # opening a named pipe would block
        return False
    try:
        with disk.open_to_read(path) as file:
            return file.read(4) in (b"hmap", b"pamh")
    except OSError:
        return False


def _may_go(path: str) -> bool:
    """Whether this process may find out if a path exists."""
    try:
        disk.stat(path)
    except PermissionError:
        return False
    except OSError:
        return True
    return True


log = logging.getLogger(__name__)

#: TTL (seconds): a directory that no job named for this long is not mirrored at the start.
FORGET_S = 14 * 24 * 3600
#: The times on disk are updated when one is older than this (seconds).
REFRESH_S = 24 * 3600


class _Remembered(msgspec.Struct):
    directories: dict[bytes, float] = {}
    files: list[bytes] = []


class RootMemory:
    """A file that keeps, between runs, the directories with the time each was last named, and the
    files that compiles named."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last = _Remembered()

    def load(self) -> list[str]:
        """The directories named within ``FORGET_S``; empty if the file is missing or unreadable."""
        try:
            self._last = msgspec.msgpack.decode(read_checked(self._path), type=_Remembered)
        except FileNotFoundError:
            return []
        except (OSError, DamagedFile, msgspec.DecodeError) as error:
            log.warning("%s: not readable (%s)", self._path, error)
        return [os.fsdecode(d) for d in self._fresh(time.time())]

    @property
    def files(self) -> list[str]:
        """The files that compiles named."""
        return [os.fsdecode(file) for file in self._last.files]

    def save(self, directories: Iterable[str], files: Iterable[str]) -> None:
        """Record ``directories`` as named now, and ``files``. Raises OSError."""
        now = time.time()
        last = self._last.directories
        named = dict.fromkeys(map(os.fsencode, directories), now)
        kept = self._fresh(now) | named
        wanted = [os.fsencode(file) for file in files]
        recent = all(now - last.get(d, 0.0) < REFRESH_S for d in named)
        if recent and kept.keys() == last.keys() and wanted == self._last.files:
            return
        self._last = _Remembered(kept, wanted)
        write_checked(self._path, msgspec.msgpack.encode(self._last))

    def _fresh(self, now: float) -> dict[bytes, float]:
        return {d: at for d, at in self._last.directories.items() if now - at < FORGET_S}
