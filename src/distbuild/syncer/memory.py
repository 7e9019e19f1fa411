"""Remembers over restarts which directories jobs named, so that the first scan takes them in."""

import json
import logging
import os
import time
from collections.abc import Iterable
from pathlib import Path

log = logging.getLogger(__name__)

#: A directory that no job named for this long (seconds) is not mirrored at the start any more.
FORGET_S = 14 * 24 * 3600


class RootMemory:
    """A file of directories and the time each was last named."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last: dict[str, float] = {}

    def load(self) -> list[str]:
        """Directories named lately; empty when nothing is remembered or readable."""
        try:
            data = json.loads(self._path.read_text(encoding="utf-8", errors="surrogateescape"))
            self._last = {str(k): float(v) for k, v in data.items()}
        except FileNotFoundError:
            return []
        except (OSError, ValueError, AttributeError, TypeError) as error:
            log.warning("%s: not readable (%s)", self._path, error)
            return []
        return [d for d, at in self._last.items() if time.time() - at < FORGET_S]

    def save(self, directories: Iterable[str]) -> None:
        """Remember these as named by now."""
        now = time.time()
        kept = {d: at for d, at in self._last.items() if now - at < FORGET_S}
        kept.update(dict.fromkeys(directories, now))
        if kept.keys() == self._last.keys():
            return
        self._last = kept
        temporary = self._path.with_suffix(".tmp")
        text = json.dumps(kept, ensure_ascii=False, indent=0)
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")
        os.replace(temporary, self._path)
