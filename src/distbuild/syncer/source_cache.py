"""Remembers sources as they were packed: what is compiled again has often not changed.

A source is read for each job, so that none is ever stale; only what was made of the same text
before is not made again. Reads no disk itself.
"""

import threading

from distbuild.protocol.messages import Blob

#: Of remembered texts, plain and packed together.
MAX_BYTES = 64 * 1024 * 1024


class Sources:
    """Packed texts by path and language. Any thread may ask.

    Only for texts that are no more than themselves: with nothing in them for which other files
    have to be looked at when they are compiled.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._lock = threading.Lock()
        # The one asked for last is the last.
        self._known: dict[tuple[str, str], tuple[bytes, Blob]] = {}
        self._left = max_bytes

    def find(self, path: str, language: str, data: bytes) -> Blob | None:
        """The packed text, if ``data`` is what was remembered under this path and language."""
        key = (path, language)
        with self._lock:
            known = self._known.get(key)
            if known is None or known[0] != data:
                return None
            self._known[key] = self._known.pop(key)
            return known[1]

    def remember(self, path: str, language: str, data: bytes, blob: Blob) -> None:
        """Keep a packed text, at the price of those that nobody asked for the longest."""
        key = (path, language)
        with self._lock:
            self._drop(key)
            self._known[key] = (data, blob)
            self._left -= _size(data, blob)
            while self._left < 0:
                self._drop(next(iter(self._known)))

    def _drop(self, key: tuple[str, str]) -> None:
        known = self._known.pop(key, None)
        if known is not None:
            self._left += _size(*known)


def _size(data: bytes, blob: Blob) -> int:
    return len(data) + len(blob.data)
