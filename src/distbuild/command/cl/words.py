"""Splits the text of a cl command line or response file into words, and adds those of CL and _CL_.

Knows no option. The rules are CommandLineToArgvW's as Microsoft documents
them ("Parsing C command-line arguments"), which LLVM follows; ``@file`` and CL are described in
"CL Command Files" and "CL Environment Variables".
"""

import codecs
from collections.abc import Mapping, Sequence

#: Variables whose words precede, and follow, the command's own arguments.
BEFORE, AFTER = "CL", "_CL_"
VARIABLES = (BEFORE, AFTER)

_SPACE = " \t\r\n\0"
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


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


def split_file(data: bytes) -> list[str]:
    """The words in a response file. Raises ValueError if no encoding fits."""
    return split_windows(decoded(data))


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
