"""Remembers over restarts which directories jobs named, so that the first scan takes them in."""

import logging
import os
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

log = logging.getLogger(__name__)

#: A directory that no job named for this long (seconds) is not mirrored at the start any more.
FORGET_S = 14 * 24 * 3600
#: The time is written down again when the one on disk is older than this (seconds).
REFRESH_S = 24 * 3600


class _Remembered(msgspec.Struct):
    directories: dict[bytes, float] = {}
    files: list[bytes] = []


class RootMemory:
    """Directories, with the time each was last named, and files that were asked for by name."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last = _Remembered()

    def load(self) -> list[str]:
        """Directories named lately; empty when nothing is remembered or readable."""
        try:
            self._last = msgspec.msgpack.decode(self._path.read_bytes(), type=_Remembered)
        except FileNotFoundError:
            return []
        except (OSError, msgspec.DecodeError) as error:
            log.warning("%s: not readable (%s)", self._path, error)
        return [os.fsdecode(d) for d in self._fresh(time.time())]

    @property
    def files(self) -> list[str]:
        """The files that were asked for by name."""
        return [os.fsdecode(file) for file in self._last.files]

    def save(self, directories: Iterable[str], files: Iterable[str]) -> None:
        """Remember these as named by now."""
        now = time.time()
        last = self._last.directories
        named = dict.fromkeys(map(os.fsencode, directories), now)
        kept = self._fresh(now) | named
        wanted = [os.fsencode(file) for file in files]
        recent = all(now - last.get(d, 0.0) < REFRESH_S for d in named)
        if recent and kept.keys() == last.keys() and wanted == self._last.files:
            return
        self._last = _Remembered(kept, wanted)
        temporary = self._path.with_suffix(".tmp")
        temporary.write_bytes(msgspec.msgpack.encode(self._last))
        temporary.replace(self._path)

    def _fresh(self, now: float) -> dict[bytes, float]:
        return {d: at for d, at in self._last.directories.items() if now - at < FORGET_S}
