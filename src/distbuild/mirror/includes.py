"""Include operands whose answer a mirror of directories may not hold. Pure: text in, names out.

A compiler that looks for ``"../x.h"`` leaves the directories that are mirrored, and so does one
that looks for an absolute path; ``__has_include`` makes even a name that is absent count.
"""

import functools
import re
from collections.abc import Callable, Iterator

import msgspec

from distbuild.system.paths import WINDOWS

#: An operand that stands there, or the beginning of a macro.
_ASKS = re.compile(
    rb"__has_(?:include(?:_next)?|embed)\s*\(\s*(?:\"([^\"\n]+)\"|<([^>\n]+)>|[A-Za-z_])"
)
#: Lines that give macros their values, or use them in a question; with those that go on after a
#: backslash.
_DIRECTIVE = re.compile(
    rb"^[ \t]*(?:#|%:|\?\?=)[ \t]*(?:define|if|elif)\b(?:[^\\\n]|\\.)*", re.MULTILINE | re.DOTALL
)
_ANY_DIRECTIVE = re.compile(
    rb"^[ \t]*(?:#|%:|\?\?=)[ \t]*(?:define|if|elif|include|import|embed|pragma)"
    rb"(?:[^\\\n]|\\.)*",
    re.MULTILINE | re.DOTALL,
)
#: A name in quotes or brackets, or one that ``#`` makes a string of.
_NAME = re.compile(rb"\"([^\"\n]+)\"|<([^>\n]+)>|([\w.+-]*/[\w./+-]+)")


class Asked(msgspec.Struct, frozen=True):
    """``names``: operands as they stand there. ``is_computed``: a macro gives another one."""

    names: tuple[str, ...] = ()
    is_computed: bool = False


NOTHING = Asked()


def asked(text: bytes) -> Asked:
    """What a text asks for."""
    if b"__has_" not in text:
        return NOTHING
    found = [match[1] or match[2] for match in _ASKS.finditer(text)]
    if not found:
        return NOTHING
    return Asked(tuple(dict.fromkeys(_text(n) for n in found if n)), None in found)


def names_in_directives(text: bytes) -> tuple[str, ...]:
    """All that might be a file's name in what defines macros or asks for them."""
    lines = _DIRECTIVE.findall(text)
    return tuple(dict.fromkeys(name for line in lines for name in _names(line)))


def names_in_any_directive(text: bytes) -> tuple[str, ...]:
    """The same in all directives that may name a file."""
    lines = _ANY_DIRECTIVE.findall(text)
    return tuple(dict.fromkeys(name for line in lines for name in _names(line)))


def names_in_definition(definition: str) -> tuple[str, ...]:
    """The same for the value of a ``-D``."""
    return tuple(_names(definition.encode("utf-8", "surrogateescape")))


def _names(text: bytes) -> Iterator[str]:
    for match in _NAME.finditer(text):
        yield _text(match[1] or match[2] or match[3])


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


#: Raw strings and trigraphs are a matter of the standard in force; a backslash before the end of
#: a line can be inside of ``/*``, ``*/`` and ``//``, and gcc takes it with white space between.
_DOUBTFUL = re.compile(rb'R"|\?\?/|[/*]\\[ \t\r]*\n|\\[ \t\r]+\n')
#: A literal ends with its line at the latest, as an apostrophe in assembler text does.
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
    """``text`` with a blank for each comment; all of it where comments cannot be told for sure."""
    if _DOUBTFUL.search(text):
        return text
    return _TOKEN.sub(lambda token: b" " if token["comment"] else token[0], text)


#: The operand in assembler text, or within a string of C. gas takes directives in any case.
_PLAINLY_READ = re.compile(rb"\.inc(bin|lude)[ \t]+\\?\"([^\"\\\n]+)\\?\"", re.IGNORECASE)
#: Before a parenthesis it is a member function of C++.
_MENTIONS = re.compile(rb"incbin|\.\s*include\b(?!\s*\()", re.IGNORECASE)
_DOT_INC = re.compile(rb"\.(?:inc|INC|Inc)")
#: What makes the letters of a directive or operator a word: nothing else before them.
_BEFORE = re.compile(rb"(?:\A|\W|(?:\A|\W)__has_)\Z")
_DRIVE = re.compile("[A-Za-z]:")
_LONGEST_BEFORE = len(b" __has_")
#: Letters that stand in each directive or operator, and what comes after them.
_OPERANDS = tuple(
    (stem, re.compile(rest + rb"[ \t]*\(?[ \t]*(?:\"([^\"\n]+)\"|<([^>\n]+)>)"))
    for stem, rest in ((b"include", rb"(?:_next)?"), (b"import", rb""), (b"embed", rb""))
)


def odd_operands(
    text: bytes, unusual: Callable[[str], bool], *, windows: bool = WINDOWS
) -> tuple[str, ...]:
    """The operands in ``text`` that are absolute, that climb, or whose name is ``unusual``.

    On ``windows`` a backslash is a slash; operands are given back as they stand there.
    """
    found: dict[str, None] = {}
    for stem, rest in _OPERANDS:
        for begin, operand in _operands(text, stem, rest):
            name = _odd_name(operand, unusual, windows)
            if name and _BEFORE.search(text[max(0, begin - _LONGEST_BEFORE) : begin]):
                found[name] = None
    return tuple(found) if found and (windows or _may_be_odd(text)) else ()


@functools.lru_cache(maxsize=4096)  # the same names are included all over a tree
def _odd_name(operand: bytes, unusual: Callable[[str], bool], windows: bool) -> str:
    """The operand, if it is odd; else empty."""
    name = operand.decode("utf-8", "surrogateescape")
    return name if is_odd(name, unusual, windows=windows) else ""


def is_odd(name: str, unusual: Callable[[str], bool], *, windows: bool = WINDOWS) -> bool:
    """Whether a name is absolute, climbs, or is ``unusual``."""
    plain = name.replace("\\", "/") if windows else name
    return _leaves(plain, windows=windows) or unusual(plain)


def _operands(text: bytes, stem: bytes, rest: "re.Pattern[bytes]") -> Iterator[tuple[int, bytes]]:
    """Where ``stem`` stands before an operand, and the operand.

    Rejected: one pattern that begins with the letters; ``re`` looks at every byte for them, and
    ``find`` at every few.
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
    """Whether what an operand names is not below the directory in which it is looked for."""
    return (
        operand.startswith("/")
        or ".." in operand.split("/")
        or (windows and _DRIVE.match(operand) is not None)
    )


def _may_be_odd(text: bytes) -> bool:
    return b"../" in text or b'"/' in text or b"</" in text or b"__has_" in text


class AssemblerRead(msgspec.Struct, frozen=True):
    """A file that a directive names; ``as_text``: it is assembled too, and may name more."""

    name: str
    as_text: bool


def assembler_reads(text: bytes, *, of_c: bool) -> tuple[AssemblerRead, ...] | None:
    """The files that an assembler reads for this text; None if that may be more than it says
    plainly.

    No proof: macros may make directives that do not stand in the text. ``of_c``: comments are those
    of C, and do not count. Else every mention counts.
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
    """The quick look: most texts have nothing of the kind."""
    return b"incbin" in text or b"INCBIN" in text or _DOT_INC.search(text) is not None
