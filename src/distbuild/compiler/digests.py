"""SHA-256 of files, remembered on disk by (path, size, mtime, inode, ctime)."""

import contextlib
import hashlib
import os
import tempfile
import threading
from pathlib import Path

import msgspec

from distbuild.mirror.digest_cache import stat_key
from distbuild.protocol.errors import InfrastructureError

_Fact = tuple[int, int, int, int, bytes]


class FileDigests:
    """Digests of big files that seldom change, such as compilers. ``path`` is the memory's file;
    a damaged memory is an empty one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._known = _load(path)

    def of(self, file: str) -> bytes:
        """The SHA-256 of a file's bytes; raises InfrastructureError when it cannot be read."""
        try:
            facts = stat_key(os.stat(file))
            name = os.fsencode(file)
            with self._lock:
                known = self._known.get(name)
            if known is not None and known[:4] == facts:
                return known[4]
            with open(file, "rb") as opened:
                digest = hashlib.file_digest(opened, "sha256").digest()
        except OSError as error:
            raise InfrastructureError(f"cannot read {file}: {error.strerror}") from error
        with self._lock:
            self._known[name] = (*facts, digest)
            self._save()
        return digest

    def _save(self) -> None:
        # Only a memory: a disk that takes nothing costs time, not truth.
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self._path.parent)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(msgspec.msgpack.encode(self._known))
                os.replace(temporary, self._path)
            except OSError:
                os.unlink(temporary)


def _load(path: Path) -> dict[bytes, _Fact]:
    try:
        return msgspec.msgpack.decode(path.read_bytes(), type=dict[bytes, _Fact])
    except (OSError, msgspec.DecodeError):
        return {}
