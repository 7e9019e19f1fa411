"""Which files of a tree a compiler on Windows would not find, because they lie too deep there.

It would go on to the next search directory without a word, and might find another file. Pure.
"""

import os
from collections.abc import Iterable

from distbuild.mirror.manifest import Fold

#: What a program opens that does not ask for more: MAX_PATH without the NUL.
MAX_CHARACTERS = 259
#: A tree that is made anew gets a number behind its root.
_SPARE = 8


class LongPaths:
    """Files whose path below a root of ``root_length`` characters is too long."""

    def __init__(self, root_length: int, fold: Fold) -> None:
        self._longest = MAX_CHARACTERS - _SPARE - root_length
        self._fold = fold
        self._paths: set[str] = set()

    def note(self, path: bytes, *, is_file: bool) -> None:
        """What is at a path of the tree now."""
        name = self._fold(os.fsdecode(path))
        if is_file and len(name) > self._longest:
            self._paths.add(name)
        else:
            self._paths.discard(name)

    def below(self, directories: Iterable[str]) -> str:
        """One that is below one of these directories, whatever their spelling; "" for none."""
        if not self._paths:
            return ""
        tops = tuple(self._fold(directory).rstrip("/") + "/" for directory in directories)
        return next((path for path in sorted(self._paths) if path.startswith(tops)), "")
