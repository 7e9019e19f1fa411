"""Finds in the diagnostics of a failed compile which includes were not found.

Duty: independent of the language of the messages: a location counts when its source line is an
include directive. Unaware of the file system: source lines come through a function.
"""

import re
from collections.abc import Callable

import msgspec

from distbuild.command.diagnostics import places, plain

_DIRECTIVE = re.compile(
    rb"\s*(?:#|%:|\?\?=)\s*(?:include_next|include|import)\b\s*"
    rb'(?:<(?P<angle>[^>\n]+)>|"(?P<quoted>[^"\n]+)"|\S)'
)
#: A -include that is not found: gcc's cc1 and clang's name for the command line have no file.
_GCC_OPTION = re.compile(rb"^(?:cc1[a-z]*|<command-line>)(?::[0-9]+)*: .+?: (?P<name>.+): [^:]+$")
_CLANG_OPTION = re.compile(rb"^<(?:built-in|command line)>:[0-9]+:[0-9]+: .*'(?P<name>[^']+)'")


class MissingInclude(msgspec.Struct, frozen=True):
    """One include that failed.

    ``includer``: the file as the message names it, "" for the command line. ``name`` is None when
    a macro computes it. ``angle``: ``<name>``.
    """

    includer: str
    name: str | None
    angle: bool


def missing_includes(
    stderr: bytes, read_line: Callable[[str, int], bytes | None]
) -> list[MissingInclude]:
    """The includes that ``stderr`` complains of, each once.

    ``read_line(path, line)`` gives a source line (the first is 1) without newline, or None.
    """
    found: dict[MissingInclude, None] = {}
    text = plain(stderr)
    for line in text.splitlines():
        if option := _GCC_OPTION.match(line) or _CLANG_OPTION.match(line):
            found.setdefault(MissingInclude("", _text(option["name"]), angle=False))
    for path, number in places(text):
        if path.startswith("<"):
            continue  # the command line, or what is built in
        directive = _DIRECTIVE.match(read_line(path, number) or b"")
        if directive:
            name = directive["angle"] or directive["quoted"]
            angle = directive["angle"] is not None
            found.setdefault(MissingInclude(path, _text(name) if name else None, angle))
    return list(found)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
