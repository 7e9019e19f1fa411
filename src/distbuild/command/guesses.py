"""Options that no row knows: whether their value could be a file's name.

Duty: the names that such a word may hold. Unaware of the disk: the caller says what exists.
"""

import posixpath
import re
from collections.abc import Callable, Iterator

from distbuild.command.model import CompileCommand, Local, LocalReason

_SEPARATORS = re.compile("[=,:;]")
#: A name with a suffix, though nothing is there: an output, perhaps.
_SUFFIXED = re.compile(r"[^/]+\.[A-Za-z]\w*")


def unknown_file(command: CompileCommand, exists: Callable[[str], bool]) -> Local | None:
    """Why the command stays local: an unknown option of it may read or write a file.

    ``exists`` is asked for absolute paths.
    """
    for word in command.guessed:
        for name in names(word):
            path = command.absolute(name)
            new = _SUFFIXED.fullmatch(name) or ("/" in name and exists(posixpath.dirname(path)))
            if new or exists(path):
                return Local(LocalReason.NAMES_A_FILE, word)
    return None


def names(word: str) -> Iterator[str]:
    """What may be a name in an option's word: its value, and the parts of a list or a pair."""
    _, equals, value = word.partition("=")
    if not equals:
        value = word[word.find("/") :] if "/" in word else ""
    yield from dict.fromkeys(name for name in (value, *_SEPARATORS.split(value)) if name)
