"""Extracts source locations and missing includes from diagnostics of any format, width and colour.

Depends on no language of the messages. Knows no file system.
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec

_COLOURS = re.compile(rb"\x1b\[[0-9;]*[mK]|\x1b\]8;[^\x07\x1b]*(?:\x07|\x1b\\)")
_LOCATION = re.compile(
    rb"^(?P<path>.+?)(?:"
    rb":(?P<line>[0-9]{1,9})(?::[0-9]+)?(?::(?:\{[0-9:-]+\})+)?: "
    rb"|\((?P<msvc>[0-9]{1,9})(?:,[0-9]+)?\) ?: "
    rb"| \+(?P<vi>[0-9]{1,9})(?::[0-9]+)?: )"
)
#: Start of gcc's JSON and SARIF: one line each, from gcc 14 on several indented lines.
_MACHINE_READABLE = (b"[{", b'{"')
#: Nesting limit; no compiler's messages are deeper.
_MAX_DEPTH = 100
#: A compiler writes one document. Each attempt may parse the whole text.
_MAX_DOCUMENTS = 16

#: An assembler's messages in a failed compile. GNU as names its input, a temporary file or standard
#: input, in every language; clang names the statement, and is never translated.
_ASSEMBLER_SAYS = re.compile(
    rb"ssembler messages|\{standard input\}:|<inline asm>:|<instantiation>:"
    rb"|Could not find inc(?:bin|lude) file|^[^\n:]*\.s:",
    re.MULTILINE,
)

Place = tuple[str, int]


class _Document(NamedTuple):
    """A JSON part of diagnostics; ``value`` is None if it is malformed."""

    value: Any


def plain(stderr: bytes) -> bytes:
    """``stderr`` without colours and hyperlinks."""
    return _COLOURS.sub(b"", stderr)


def places(stderr: bytes) -> Iterator[Place]:
    """(path as spelled, line) of each location in plain diagnostics; the first line is 1."""
    for part in _parts(stderr):
        if isinstance(part, _Document):
            yield from _places_in(part.value)
        elif place := _place(part):
            yield place


def blamed(stderr: bytes, word: str) -> list[str]:
    """Files whose messages contain ``word``, even if wrapping moved it to a later line."""
    found: dict[str, None] = {}
    last: Place | None = None
    for part in _parts(plain(stderr)):
        if isinstance(part, _Document):
            messages = part.value if isinstance(part.value, list) else _results(part.value)
            for message in messages:
                if _mentions(message, word):
                    found.update((path, None) for path, _ in _places_in(message))
            continue
        last = _place(part) or last
        if last is not None and word.encode() in part:
            found[last[0]] = None
    return list(found)


def _parts(stderr: bytes) -> Iterator[bytes | _Document]:
    """The lines of ``stderr``, and the JSON documents among them."""
    start = end_of_document = documents = 0
    for line in stderr.splitlines(keepends=True):
        if start >= end_of_document:
            if line.startswith(_MACHINE_READABLE) and documents < _MAX_DOCUMENTS:
                documents += 1
                value, size = _parsed(stderr[start:])
                end_of_document = start + size
                yield _Document(value)
            else:
                yield line.rstrip(b"\r\n")
        start += len(line)


def _place(line: bytes) -> Place | None:
    match = _LOCATION.match(line)
    if match is None:
        return None
    number = match["line"] or match["msvc"] or match["vi"]
    return match["path"].decode("utf-8", "surrogateescape"), int(number)


def _parsed(text: bytes) -> tuple[Any, int]:
    """The leading JSON document and its size in bytes; (None, 0) if there is none."""
    decoded = text.decode("utf-8", "surrogateescape")
    try:
        value, end = json.JSONDecoder().raw_decode(decoded)
    except (ValueError, RecursionError):
        return None, 0
    return value, len(decoded[:end].encode("utf-8", "surrogateescape"))


def _results(log: Any) -> list[Any]:
    """The messages of a SARIF log."""
    runs = log.get("runs") if isinstance(log, dict) else None
    runs = runs if isinstance(runs, list) else []
    found = [run.get("results") for run in runs if isinstance(run, dict)]
    return [result for results in found if isinstance(results, list) for result in results]


def _mentions(message: Any, word: str) -> bool:
    try:
        return word in json.dumps(message)
    except RecursionError:
        return False


def _places_in(value: Any, depth: int = _MAX_DEPTH) -> Iterator[Place]:
    """Locations in a JSON value: gcc's ``file`` and ``line``, SARIF's ``physicalLocation``."""
    if depth == 0:
        return
    if isinstance(value, list):
        for item in value:
            yield from _places_in(item, depth - 1)
    if not isinstance(value, dict):
        return
    match value:
        case {"file": str(path), "line": int(line)}:
            yield path, line
        case {"artifactLocation": {"uri": str(path)}, "region": {"startLine": int(line)}}:
            yield path, line
        case _:
            pass
    for item in value.values():
        yield from _places_in(item, depth - 1)


def is_assemblers(stderr: bytes) -> bool:
    """Whether a failed compile's messages are an assembler's, which may have lacked a file."""
    return _ASSEMBLER_SAYS.search(stderr) is not None


_DIRECTIVE = re.compile(
    rb"\s*(?:#|%:|\?\?=)\s*(?:include_next|include|import)\b\s*"
    rb'(?:<(?P<angle>[^>\n]+)>|"(?P<quoted>[^"\n]+)"|\S)'
)
#: A -include that is not found: gcc's cc1 and clang name the command line and no file.
_GCC_OPTION = re.compile(rb"^(?:cc1[a-z]*|<command-line>)(?::[0-9]+)*: .+?: (?P<name>.+): [^:]+$")
_CLANG_OPTION = re.compile(rb"^<(?:built-in|command line)>:[0-9]+:[0-9]+: .*'(?P<name>[^']+)'")


class MissingInclude(msgspec.Struct, frozen=True):
    """One include that was not found.

    ``includer``: the file as the message names it, "" for the command line. ``name`` is None if a
    macro computes it. ``angle``: written as ``<name>``.
    """

    includer: str
    name: str | None
    angle: bool


def missing_includes(
    stderr: bytes, read_line: Callable[[str, int], bytes | None]
) -> list[MissingInclude]:
    """The includes that ``stderr`` reports as missing, each once.

    ``read_line(path, line)`` returns a source line (the first is 1) without newline, or None.
    """
    found: dict[MissingInclude, None] = {}
    text = plain(stderr)
    for line in text.splitlines():
        if option := _GCC_OPTION.match(line) or _CLANG_OPTION.match(line):
            found.setdefault(MissingInclude("", _text(option["name"]), angle=False))
    for path, number in places(text):
        if path.startswith("<"):
            continue  # the command line or built-in definitions
        directive = _DIRECTIVE.match(read_line(path, number) or b"")
        if directive:
            name = directive["angle"] or directive["quoted"]
            angle = directive["angle"] is not None
            found.setdefault(MissingInclude(path, _text(name) if name else None, angle))
    return list(found)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
