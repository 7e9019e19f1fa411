"""Which places of sources a compiler's diagnostics name, whatever their format, width and colour.

Unaware of what the messages mean, of their language, and of the file system.
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
#: How gcc's JSON and SARIF begin: a line each, from gcc 14 on many, indented.
_MACHINE_READABLE = (b"[{", b'{"')
#: No compiler's messages are nested deeper.
_MAX_DEPTH = 100
#: A compiler writes one document. Each that is tried may cost as much as all of the text.
_MAX_DOCUMENTS = 16

#: In a failed compile: GNU as names the text that it got, which is a temporary file or standard
#: input, whatever the language of its messages; clang names the statement, and is never translated.
_ASSEMBLER_SAYS = re.compile(
    rb"ssembler messages|\{standard input\}:|<inline asm>:|<instantiation>:"
    rb"|Could not find inc(?:bin|lude) file|^[^\n:]*\.s:",
    re.MULTILINE,
)

Place = tuple[str, int]


class _Document(NamedTuple):
    """A part of diagnostics that is JSON; None where it is broken."""

    value: Any


def plain(stderr: bytes) -> bytes:
    """Diagnostics without colours and links."""
    return _COLOURS.sub(b"", stderr)


def places(stderr: bytes) -> Iterator[Place]:
    """(path as spelled, line) of the places that plain diagnostics name; the first line is 1."""
    for part in _parts(stderr):
        if isinstance(part, _Document):
            yield from _places_in(part.value)
        elif place := _place(part):
            yield place


def blamed(stderr: bytes, word: str) -> list[str]:
    """The files in whose messages ``word`` stands, which a width may have moved to another line."""
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
    """Lines, and the documents among them."""
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
    """The document at the beginning, and its size in bytes; (None, 0) for what is none."""
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
    """gcc: ``file`` and ``line``; SARIF: ``physicalLocation``."""
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
    """Whether a failed compile's messages are an assembler's: it may have missed a file."""
    return _ASSEMBLER_SAYS.search(stderr) is not None


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
