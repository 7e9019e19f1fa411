"""Interprets files that are part of a command line: response files, and mappers of modules.

Expands @file arguments as the GNU drivers do (libiberty, expandargv), within size bounds. Knows no
option and no file system: a callback reads the files.
"""

from collections.abc import Callable, Iterator, Sequence

from distbuild.command.model import Local, LocalReason
from distbuild.command.process_paths import is_of_process

#: Nesting depth of response files; a real build nests two or three.
MAX_DEPTH = 16
#: Bytes of all response files of one command; the kernel's limit for argv is 2 MiB.
MAX_BYTES = 4 << 20

ReadFile = Callable[[str], bytes | None]

#: The lines of a mapper's file without effect.
_INERT = frozenset((b"", b"$root ."))
_SPACE = " \t\n\v\f\r"


class _RefusedError(Exception):
    """Internal: a response file is not expanded; carries its argument."""


def expand(argv: Sequence[str], cwd: str, read_file: ReadFile) -> list[str] | Local:
    """``argv`` with every readable @file, also a nested one, replaced by its words.

    An unreadable file stays a literal argument, as in the drivers.
    """
    budget = [MAX_BYTES]
    try:
        return list(_words(argv, cwd, read_file, budget, 0))
    except _RefusedError as refused:
        return Local(LocalReason.RESPONSE_FILE, str(refused))


def is_inert_mapper(text: bytes) -> bool:
    """Whether a gcc module mapper's file maps no module, and keeps the compiled ones in the current
    directory, as CMake writes it for a source without modules."""
    return _INERT.issuperset(text.split(b"\n"))


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


def _words(
    words: Sequence[str], cwd: str, read_file: ReadFile, budget: list[int], depth: int
) -> Iterator[str]:
    for word in words:
        path = _absolute(cwd, word[1:]) if _names_file(word) else ""
        if path and is_of_process(path):
            raise _RefusedError(word)  # perhaps a pipe, and of another process
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
