"""What ``__has_include`` and its like ask for, where a name that is absent counts. Pure: text in,
names out."""

import re
from collections.abc import Iterator

import msgspec

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
