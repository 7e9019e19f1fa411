"""Finds include operands in source text that may name files outside the mirrored directories.

Used by the syncer to mirror such files before a compile. An operand such as ``"../x.h"`` or an
absolute path leaves the mirrored directories, and ``__has_include`` makes even an absent name
count. Pure: text in, names out.
"""

import functools
import re
from collections.abc import Callable, Iterator

import msgspec

from distbuild.system.paths import WINDOWS

#: A literal operand of ``__has_include`` and its relatives, or the first letter of a macro's name.
_ASKS = re.compile(
    rb"__has_(?:include(?:_next)?|embed)\s*\(\s*(?:\"([^\"\n]+)\"|<([^>\n]+)>|[A-Za-z_])"
)
#: Directives that define macros or test them, with the lines continued by a backslash.
_DIRECTIVE = re.compile(
    rb"^[ \t]*(?:#|%:|\?\?=)[ \t]*(?:define|if|elif)\b(?:[^\\\n]|\\.)*", re.MULTILINE | re.DOTALL
)
_ANY_DIRECTIVE = re.compile(
    rb"^[ \t]*(?:#|%:|\?\?=)[ \t]*(?:define|if|elif|include|import|embed|pragma)"
    rb"(?:[^\\\n]|\\.)*",
    re.MULTILINE | re.DOTALL,
)
#: A name in quotes or angle brackets, or a bare path that ``#`` may turn into a string.
_NAME = re.compile(rb"\"([^\"\n]+)\"|<([^>\n]+)>|([\w.+-]*/[\w./+-]+)")


class Asked(msgspec.Struct, frozen=True):
    """Operands of ``__has_include``: literal ``names``; ``is_computed``: also one from a macro."""

    names: tuple[str, ...] = ()
    is_computed: bool = False


NOTHING = Asked()


def asked(text: bytes) -> Asked:
    """The operands of ``__has_include``, ``__has_include_next`` and ``__has_embed`` in a text."""
    if b"__has_" not in text:
        return NOTHING
    found = [match[1] or match[2] for match in _ASKS.finditer(text)]
    if not found:
        return NOTHING
    return Asked(tuple(dict.fromkeys(_text(n) for n in found if n)), None in found)


def names_in_directives(text: bytes) -> tuple[str, ...]:
    """All possible file names in the directives that define or test macros."""
    lines = _DIRECTIVE.findall(text)
    return tuple(dict.fromkeys(name for line in lines for name in _names(line)))


def names_in_any_directive(text: bytes) -> tuple[str, ...]:
    """All possible file names in the directives that may name a file."""
    lines = _ANY_DIRECTIVE.findall(text)
    return tuple(dict.fromkeys(name for line in lines for name in _names(line)))


def names_in_definition(definition: str) -> tuple[str, ...]:
    """All possible file names in the value of a ``-D``."""
    return tuple(_names(definition.encode("utf-8", "surrogateescape")))


def _names(text: bytes) -> Iterator[str]:
    for match in _NAME.finditer(text):
        yield _text(match[1] or match[2] or match[3])


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


#: Whether raw strings and trigraphs exist depends on the language standard. A backslash before the
#: end of a line can split ``/*``, ``*/`` and ``//``; gcc allows white space after the backslash.
DOUBTFUL = re.compile(rb'R"|\?\?/|[/*]\\[ \t\r]*\n|\\[ \t\r]+\n')
#: A literal ends with its line at the latest; so does a single apostrophe in assembler text.
_TOKEN = re.compile(
    rb"""
    (?P<comment> /\*.*?(?:\*/|\Z) | //(?!\*)(?:\\.|[^\\\n])* )
    | "(?:\\.|[^"\\\n])*"?
    | '(?:\\.|[^'\\\n])*'?
    | [A-Za-z_]\w* | [0-9](?:'?[\w.])*  # u8'x' has a literal, 1'000 has none
    | //\*[^\n]*  # in C90 the beginning of a comment behind a division: left alone
    """,
    re.VERBOSE | re.DOTALL,
)


def without_comments(text: bytes) -> bytes:
    """``text`` with each comment replaced by a blank; unchanged if comments are ambiguous."""
    if DOUBTFUL.search(text):
        return text
    return _TOKEN.sub(lambda token: b" " if token["comment"] else token[0], text)


#: A literal operand, in assembler text or within a C string. gas ignores the case of directives.
_PLAINLY_READ = re.compile(rb"\.inc(bin|lude)[ \t]+\\?\"([^\"\\\n]+)\\?\"", re.IGNORECASE)
#: Followed by a parenthesis, ``.include`` is a C++ member function.
_MENTIONS = re.compile(rb"incbin|\.\s*include\b(?!\s*\()", re.IGNORECASE)
_DOT_INC = re.compile(rb"\.(?:inc|INC|Inc)")
#: Text before the letters of a directive or operator if they begin a word.
_BEFORE = re.compile(rb"(?:\A|\W|(?:\A|\W)__has_)\Z")
_DRIVE = re.compile("[A-Za-z]:")
_LONGEST_BEFORE = len(b" __has_")
#: ``#pragma GCC dependency`` compares the times of two files: any name counts.
_COMPARES = b"dependency"
#: Letters that each directive or operator contains, with a pattern of the text after them.
_OPERANDS = tuple(
    (stem, re.compile(rest + rb"[ \t]*\(?[ \t]*(?:\"([^\"\n]+)\"|<([^>\n]+)>)"))
    for stem, rest in (
        (b"include", rb"(?:_next)?"),
        (b"import", rb""),
        (b"embed", rb""),
        (_COMPARES, rb""),
    )
)


def odd_operands(
    text: bytes, unusual: Callable[[str], bool], *, windows: bool = WINDOWS
) -> tuple[str, ...]:
    """The operands in ``text`` that are absolute, contain ``..``, or are ``unusual``; of
    ``#pragma GCC dependency`` all.

    On ``windows`` a backslash counts as a slash. Operands are returned as spelled in the text.
    """
    found: dict[str, None] = {}
    for stem, rest in _OPERANDS:
        for begin, operand in _operands(text, stem, rest):
            every = stem == _COMPARES
            name = _text(operand) if every else _odd_name(operand, unusual, windows)
            if name and _BEFORE.search(text[max(0, begin - _LONGEST_BEFORE) : begin]):
                found[name] = None
    return tuple(found)


@functools.lru_cache(maxsize=4096)  # the same names are included all over a tree
def _odd_name(operand: bytes, unusual: Callable[[str], bool], windows: bool) -> str:
    """The decoded operand if ``is_odd``, else an empty string."""
    name = operand.decode("utf-8", "surrogateescape")
    return name if is_odd(name, unusual, windows=windows) else ""


def is_odd(name: str, unusual: Callable[[str], bool], *, windows: bool = WINDOWS) -> bool:
    """Whether a name is absolute, contains ``..``, or is ``unusual``."""
    plain = name.replace("\\", "/") if windows else name
    return _leaves(plain, windows=windows) or unusual(plain)


def _operands(text: bytes, stem: bytes, rest: "re.Pattern[bytes]") -> Iterator[tuple[int, bytes]]:
    """Each occurrence of ``stem`` before an operand: its offset, and the operand.

    Rejected: one pattern that begins with the stem; ``re`` examines every byte, ``find`` only
    every few.
    """
    begin = text.find(stem)
    while begin >= 0:
        end = begin + len(stem)
        match = rest.match(text, end)
        if match is not None:
            yield begin, match[1] or match[2]
            end = match.end()
        begin = text.find(stem, end)


def _leaves(operand: str, *, windows: bool) -> bool:
    """Whether an operand may name a file outside the directory in which it is looked up."""
    return (
        operand.startswith("/")
        or ".." in operand.split("/")
        or (windows and _DRIVE.match(operand) is not None)
    )


class AssemblerRead(msgspec.Struct, frozen=True):
    """A file named by a directive. ``as_text``: it is assembled too and may name further files."""

    name: str
    as_text: bool


def assembler_reads(text: bytes, *, of_c: bool) -> tuple[AssemblerRead, ...] | None:
    """The files that an assembler reads for this text; None if some may not be named literally.

    A heuristic: macros may expand to directives that the text does not contain. ``of_c``: the text
    has C comments, which do not count. Otherwise every mention counts.
    """
    if not _may_read_more(text):
        return ()
    text = without_comments(text) if of_c else text
    mentions = len(_MENTIONS.findall(text))
    found = [
        AssemblerRead(match[2].decode("utf-8", "surrogateescape"), match[1].lower() == b"lude")
        for match in _PLAINLY_READ.finditer(text)
    ]
    return tuple(dict.fromkeys(found)) if len(found) == mentions else None


def _may_read_more(text: bytes) -> bool:
    """A fast pre-check that excludes most texts."""
    return b"incbin" in text or b"INCBIN" in text or _DOT_INC.search(text) is not None
