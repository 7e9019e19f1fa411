"""Supplies blobs from the worker's own files: equal bytes at an equal path need not be sent."""

import os
import stat

from distbuild.mirror.digest_cache import DigestCache
from distbuild.protocol.messages import FileEntry
from distbuild.system import disk
from distbuild.system.paths import WINDOWS
from distbuild.worker.tree.store import Store

#: Digests of own files that are cached at most (some 400 bytes each).
_MAX_DIGESTS = 100_000


class OwnFiles:
    """Supplies blobs from world-readable files; with ``enabled`` False it supplies none."""

    def __init__(self, store: Store, *, enabled: bool = True) -> None:
        self._store = store
        self._enabled = enabled
        self._digests = DigestCache(most=_MAX_DIGESTS)

    def supply(self, path: bytes, entry: FileEntry) -> bool:
        """Whether the file at ``path`` has the entry's bytes; it is then copied into the store."""
        if not self._enabled:
            return False
        try:
            found = disk.stat(path)
            if not stat.S_ISREG(found.st_mode) or found.st_size != entry.size:
                return False
            # A peer must not read, through this worker, files that its other users may not.
            if not _is_world_readable(path, found):
                return False
            digest = self._digests.of(path, found)
        except OSError:
            return False
        return digest == entry.digest and self._store.add_file(path, entry)


def _is_world_readable(path: bytes, status: os.stat_result) -> bool:
    """On Windows, which has no mode bits: whether it was installed for all users."""
    if WINDOWS:
        return path.startswith((b"/C/Program Files/", b"/C/Program Files (x86)/"))
    return bool(status.st_mode & stat.S_IROTH)
