"""Expands a cl command line: splits text into words, reads response files, adds CL and _CL_.

All sizes are bounded. Knows no option. The rules are CommandLineToArgvW's as Microsoft documents
them ("Parsing C command-line arguments"), which LLVM follows; ``@file`` and CL are described in
"CL Command Files" and "CL Environment Variables".
"""

import codecs
from collections.abc import Callable, Mapping, Sequence

from distbuild.command.model import Local, LocalReason, PathStyle
from distbuild.command.process_paths import is_of_process
from distbuild.command.response import MAX_BYTES, MAX_DEPTH

ReadFile = Callable[[str], bytes | None]

#: Variables whose words precede, and follow, the command's own arguments.
BEFORE, AFTER = "CL", "_CL_"
VARIABLES = (BEFORE, AFTER)

_SPACE = " \t\r\n\0"
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


class _TooLongError(Exception):
    """Internal: a response file is too long or deep, no text, or in /proc; carries its argument."""


def split_windows(text: str) -> list[str]:
    """Splits a text into words.

    2n backslashes before a quote yield n backslashes, and the quote groups; 2n+1 yield n and a
    literal quote. Two quotes inside a quotation yield one. Other backslashes are literal.
    """
    words: list[str] = []
    at, end = 0, len(text)
    while at < end:
        if text[at] in _SPACE:
            at += 1
            continue
        word, at = _word(text, at)
        words.append(word)
    return words


def with_environment(argv: Sequence[str], env: Mapping[str, str]) -> list[str]:
    """``argv`` with the words of CL after the compiler and those of _CL_ at the end.

    The first ``#`` of each word means ``=``, which a batch file cannot write there.
    """
    before, after = (
        [word.replace("#", "=", 1) for word in split_windows(env.get(name, ""))]
        for name in VARIABLES
    )
    return [*argv[:1], *before, *argv[1:], *after]


def expand(
    words: Sequence[str], cwd: str, read_file: ReadFile, style: PathStyle, *, nested: bool
) -> list[str] | Local:
    """``words`` with every readable @file replaced by its words.

    ``nested``: response files may name others. An unreadable file stays a literal argument.
    """
    try:
        budget = [MAX_BYTES]
        return _expanded(words, cwd, (read_file, style, nested, budget), 0)
    except _TooLongError as refused:
        return Local(LocalReason.RESPONSE_FILE, str(refused))


def decoded(data: bytes) -> str:
    """The text of a response file. Raises ValueError if no encoding fits.

    Tried in order: byte order mark, UTF-16 without one, UTF-8, code page 1252.
    """
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding)
    if b"\0" in data:
        return data.decode(
            "utf-16-le" if data[1::2].count(0) >= data[::2].count(0) else "utf-16-be"
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("cp1252")


def _expanded(
    words: Sequence[str],
    cwd: str,
    how: tuple[ReadFile, PathStyle, bool, list[int]],
    depth: int,
) -> list[str]:
    read_file, style, nested, budget = how
    found: list[str] = []
    for word in words:
        may_be = word.startswith("@") and len(word) > 1 and (nested or depth == 0)
        path = style.absolute(cwd, word[1:]) if may_be else ""
        if path and is_of_process(path):
            raise _TooLongError(word)
        data = read_file(path) if path else None
        if data is None:
            found.append(word)
            continue
        budget[0] -= len(data)
        if depth == MAX_DEPTH or budget[0] < 0:
            raise _TooLongError(word)
        try:
            inner = split_windows(decoded(data))
        except ValueError:
            raise _TooLongError(word) from None
        found += _expanded(inner, cwd, how, depth + 1)
    return found


def _word(text: str, at: int) -> tuple[str, int]:
    """The word that begins at index ``at``, and the index of its end."""
    word: list[str] = []
    quoted = False
    while at < len(text) and (quoted or text[at] not in _SPACE):
        if text[at] == "\\":
            start = at
            while at < len(text) and text[at] == "\\":
                at += 1
            count = at - start
            if text[at : at + 1] == '"':
                word.append("\\" * (count // 2))
                if count % 2:
                    word.append('"')
                    at += 1
            else:
                word.append("\\" * count)
        elif text[at] == '"':
            at += 1
            if quoted and text[at : at + 1] == '"':
                word.append('"')
                at += 1
            else:
                quoted = not quoted
        else:
            word.append(text[at])
            at += 1
    return "".join(word), at
