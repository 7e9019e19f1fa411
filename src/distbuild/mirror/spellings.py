"""Which spelling a path has where several mean one file. Pure; knows no entry's meaning.

What stands in a manifest or a tree stands there under the disk's own spelling.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

T = TypeVar("T")
#: What all spellings of one path have in common, such as ``windows_names.fold``.
Fold = Callable[[str], str]


class Spellings:
    """The spellings of paths that are there, one for each path."""

    def __init__(self, fold: Fold) -> None:
        self._fold = fold
        self._known: dict[str, str] = {}

    def get(self, path: str) -> str:
        """The spelling of what is there under any; ``path`` itself if nothing is."""
        return self._known.get(self._fold(path), path)

    def add(self, path: str) -> None:
        """``path`` is there, and no other spelling of it."""
        self._known[self._fold(path)] = path

    def discard(self, path: str) -> None:
        """``path`` is there no more; another spelling of it may have come before."""
        folded = self._fold(path)
        if self._known.get(folded) == path:
            del self._known[folded]

    def respelled(self, batch: Mapping[str, T | None]) -> dict[str, T | None]:
        """A batch of new states in which no path stands under two spellings.

        What there is comes in the disk's spelling, and makes another one go. What is gone (None)
        says nothing of the file that is known under another spelling.
        """
        states: dict[str, T | None] = {}
        present: dict[str, str] = {}
        for path, state in batch.items():
            if state is not None:
                present.setdefault(self._fold(path), path)
        for path, state in batch.items():
            folded = self._fold(path)
            known, now = self._known.get(folded), present.get(folded)
            if now is None and known in (None, path):
                states[path] = None
            elif path == now:
                states[path] = state
            if known not in (None, now) and now is not None:
                states[str(known)] = None
        return states
