"""Interprets response files, which are part of a command line.

Expands @file arguments as the GNU drivers do (libiberty, expandargv), or with other rules for the
words in a file, within size bounds. Knows no option and no file system: a callback reads the files.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from distbuild.command.model import Local, LocalReason, PathStyle
from distbuild.command.original_paths import is_of_process

#: Nesting depth of response files; a real build nests two or three.
MAX_DEPTH = 16
#: Bytes of all response files of one command; the kernel's limit for argv is 2 MiB.
MAX_BYTES = 4 << 20

ReadFile = Callable[[str], bytes | None]

_SPACE = " \t\n\v\f\r"


class _RefusedError(Exception):
    """Internal: a response file is not expanded; carries its argument."""


def expand(
    words: Sequence[str],
    cwd: str,
    read_file: ReadFile,
    split: Callable[[bytes], list[str]] | None = None,
    style: PathStyle = PathStyle.POSIX,
    *,
    nested: bool = True,
) -> list[str] | Local:
    """``words`` with every readable @file replaced by its words.

    ``split`` returns the words in a file's content; ValueError: it is no text; None: as the GNU
    drivers. ``nested``: response files may name others. An unreadable file stays a literal
    argument, as in the drivers.
    """
    expansion = _Expansion(cwd, read_file, split or _split_file, style, nested)
    try:
        return list(expansion.words(words, 0))
    except _RefusedError as refused:
        return Local(LocalReason.RESPONSE_FILE, str(refused))


@dataclass
class _Expansion:
    cwd: str
    read_file: ReadFile
    split: Callable[[bytes], list[str]]
    style: PathStyle
    nested: bool
    #: Bytes that may still be read.
    budget: int = MAX_BYTES

    def words(self, words: Sequence[str], depth: int) -> Iterator[str]:
        """``words``, in a response file at this depth, expanded. Raises _RefusedError."""
        for word in words:
            is_file = len(word) > 1 and word.startswith("@") and (self.nested or depth == 0)
            path = self.style.absolute(self.cwd, word[1:]) if is_file else ""
            if path and is_of_process(path):
                raise _RefusedError(word)  # perhaps a pipe, and of another process
            data = self.read_file(path) if path else None
            if data is None:
                yield word
                continue
            self.budget -= len(data)
            if depth == MAX_DEPTH or self.budget < 0:
                raise _RefusedError(word)
            try:
                inner = self.split(data)
            except ValueError:
                raise _RefusedError(word) from None
            yield from self.words(inner, depth + 1)


def _split_file(data: bytes) -> list[str]:
    if b"\0" in data:
        raise ValueError
    return split_gnu(data.decode("utf-8", "surrogateescape"))


def split_gnu(text: str) -> list[str]:
    """Words of a response file: quotes group, a backslash makes the next character literal."""
    words: list[str] = []
    word: list[str] | None = None
    quote = ""
    characters = iter(text)
    for character in characters:
        if not quote and character in _SPACE:
            if word is not None:
                words.append("".join(word))
            word = None
            continue
        word = [] if word is None else word
        if character == "\\":
            word.append(next(characters, ""))
        elif quote or character in "'\"":
            quote = _quoted(character, quote, word)
        else:
            word.append(character)
    if word is not None:
        words.append("".join(word))
    return words


def _quoted(character: str, quote: str, word: list[str]) -> str:
    """Handles one character at or inside a quotation; returns the quote that is then open."""
    if not quote:
        return character
    if character == quote:
        return ""
    word.append(character)
    return quote
