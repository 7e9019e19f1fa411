"""Expands @file arguments the way the GNU drivers do (libiberty, expandargv).

Duty: words in, words out, with bounds. Unaware of what any word means.
"""

from collections.abc import Callable, Iterator, Sequence

from distbuild.command.model import Local, LocalReason
from distbuild.command.process_paths import is_of_process

#: A response file inside a response file inside ...; a real build nests two or three.
MAX_DEPTH = 16
#: Bytes of all response files of one command; the kernel's own limit for argv is 2 MiB.
MAX_BYTES = 4 << 20

ReadFile = Callable[[str], bytes | None]

_SPACE = " \t\n\v\f\r"


class _RefusedError(Exception):
    """Internal: a bound was passed; carries the word that did it."""


def expand(argv: Sequence[str], cwd: str, read_file: ReadFile) -> list[str] | Local:
    """``argv`` with every readable @file replaced by its words, nested ones too.

    A file that cannot be read stays a literal word, as with the drivers.
    """
    budget = [MAX_BYTES]
    try:
        return list(_words(argv, cwd, read_file, budget, 0))
    except _RefusedError as refused:
        return Local(LocalReason.RESPONSE_FILE, str(refused))


def split_gnu(text: str) -> list[str]:
    """Words of a response file: quotes group, a backslash takes the next character literally."""
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
    """One character at or inside a quotation; returns the quote that is open afterwards."""
    if not quote:
        return character
    if character == quote:
        return ""
    word.append(character)
    return quote


def _words(
    words: Sequence[str], cwd: str, read_file: ReadFile, budget: list[int], depth: int
) -> Iterator[str]:
    for word in words:
        path = _absolute(cwd, word[1:]) if _names_file(word) else ""
        if path and is_of_process(path):
            raise _RefusedError(word)  # a pipe, perhaps, and that of another process
        data = read_file(path) if path else None
        if data is None:
            yield word
            continue
        budget[0] -= len(data)
        if depth == MAX_DEPTH or budget[0] < 0 or b"\0" in data:
            raise _RefusedError(word)
        inner = split_gnu(data.decode("utf-8", "surrogateescape"))
        yield from _words(inner, cwd, read_file, budget, depth + 1)


def _names_file(word: str) -> bool:
    return len(word) > 1 and word.startswith("@")


def _absolute(cwd: str, path: str) -> str:
    return path if path.startswith("/") else f"{cwd.rstrip('/')}/{path}"
