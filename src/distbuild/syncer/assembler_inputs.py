"""Syncer side: finds and checks the files that an assembler reads (``.incbin``, ``.include``), and
those that a compiler opens for the modules that it reads.

No dependency file lists them. Those that a source names by plain strings are sent with the job,
like the source, which saves a round. That proves nothing, since macros may make directives and
names: the worker lists what was really read, and ``examine`` checks that list. Knows no queue.
"""

import os
import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import msgspec

from distbuild.command.diagnostics import is_assemblers
from distbuild.command.driver import is_cxx_source
from distbuild.command.model import ASSEMBLER_LANGUAGES, CompileCommand, Local, LocalReason
from distbuild.command.passthrough import assembler_dirs
from distbuild.mirror.digest_cache import FileRead, read_file
from distbuild.mirror.includes import AssemblerRead, assembler_reads
from distbuild.protocol.messages import Entry, FileEntry, InputFile, WithheldEntry
from distbuild.system import disk

#: The largest file that is sent with a source; a mirrored file may be larger.
MAX_BYTES = 8 * 1024 * 1024
#: The number of files sent with a source.
MAX_FILES = 64
#: A worker's list that is longer is not looked up.
MAX_LISTED = 4096

#: Options whose directories gcc and clang pass to the assembler.
_SEARCHED = frozenset(("-I", "--include-directory", "--include-directory="))


class AssemblerFiles(msgspec.Struct, frozen=True):
    """Files by absolute path; ``is_tied``: the source names one by its absolute path, so that the
    job needs the original paths."""

    files: Mapping[str, FileRead] = {}
    is_tied: bool = False


def assembler_files(text: bytes, command: CompileCommand) -> AssemblerFiles:
    """The existing files that a source with this text names by plain strings for the assembler,
    and those that these files include."""
    found: dict[str, FileRead] = {}
    texts = [text]
    of_c = command.language != "assembler"
    places = tuple(_places(command))
    is_tied = False
    while texts:
        reads = assembler_reads(texts.pop(), of_c=of_c) or ()
        of_c = False  # included files are read by the assembler alone
        for read in reads:
            path = _first(read, places)
            if path is None or path in found or len(found) >= MAX_FILES:
                continue
            content = _content(path)
            if content is None:
                continue
            found[path] = content
            is_tied |= posixpath.isabs(read.name)
            if read.as_text:
                texts.append(content.data)
    return AssemblerFiles(found, is_tied)


def is_of_assembler(command: CompileCommand, stderr: bytes) -> bool:
    """Whether a compile that listed its inputs failed in the assembler, after preprocessing."""
    return command.language in ASSEMBLER_LANGUAGES or is_assemblers(stderr)


class Assembled(msgspec.Struct, frozen=True):
    """The problems with the files that an assembler has read; all empty: none.

    ``obstacle``: only the local compiler can do it. ``withheld``: files to mirror before it is
    compiled again. ``stale``: files whose content on the worker differs.
    """

    obstacle: Local | None = None
    withheld: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()


def examine(
    listed: Sequence[InputFile],
    command: CompileCommand,
    lookup: Callable[[str], Entry | None],
    own_files: Mapping[str, FileEntry],
) -> Assembled:
    """Compare what an assembler has read with the manifest.

    A worker's list has a file mirrored only if that is withheld and lies below a directory that
    the assembler searches or the source's: names that a macro makes cannot be derived here. Of a
    compiled module, which the worker may have made, it may also have the source mirrored: a C++
    source in a directory that is mirrored, as workers get it anyway.
    """
    reason = LocalReason.MODULES if command.uses_modules else LocalReason.ASSEMBLER_INPUT
    if len(listed) > MAX_LISTED:
        return Assembled(Local(reason, command.source))
    withheld, stale = [], []
    around = tuple(_around(command))
    places = tuple(map(disk.realpath, _places(command)))
    for item in listed:
        path = os.fsdecode(item.path)
        entry = own_files.get(path) or lookup(path)
        is_derivable = path.startswith(around) or (command.uses_modules and is_cxx_source(path))
        if isinstance(entry, WithheldEntry) and is_derivable:
            withheld.append(path)
        elif not isinstance(entry, FileEntry):
            return Assembled(Local(reason, path))
        elif entry.digest != item.digest:
            stale.append(path)
        if first := _comes_first(path, places, lookup):
            return Assembled(Local(reason, first))
    return Assembled(None, tuple(withheld), tuple(stale))


def _comes_first(
    path: str, places: Sequence[str], lookup: Callable[[str], Entry | None]
) -> str | None:
    """A file that is in no manifest and that the assembler might have found on the dev box before
    the one at ``path``; in any other directory, since compilers differ in the search order."""
    for number, place in enumerate(places):
        prefix = place.rstrip("/") + "/"
        if path.startswith(prefix):
            for before in (*places[:number], *places[number + 1 :]):
                other = posixpath.join(before, path[len(prefix) :])
                if lookup(other) is None and disk.lexists(other):
                    return other
    return None


def _around(command: CompileCommand) -> Iterator[str]:
    """The real directories, with a slash, below which a worker's list has files mirrored."""
    for place in (*_places(command), posixpath.dirname(command.absolute(command.source))):
        yield disk.realpath(place).rstrip("/") + "/"


def _places(command: CompileCommand) -> Iterator[str]:
    """Directories that GNU as searches, in its order ("incbin" in its manual): the working
    directory, then those of -I."""
    yield command.cwd
    for argument in command.arguments:
        if argument.option in _SEARCHED and argument.value is not None:
            yield posixpath.join(command.cwd, argument.value)
    for argument in command.arguments:
        for directory in assembler_dirs(argument):
            yield posixpath.join(command.cwd, directory)


def _first(read: AssemblerRead, places: Iterable[str]) -> str | None:
    paths = (posixpath.join(place, read.name) for place in places)
    return next((path for path in paths if disk.lexists(path)), None)


def _content(path: str) -> FileRead | None:
    try:
        if not disk.isfile(path) or disk.stat(path).st_size > MAX_BYTES:
            return None
        return read_file(path)
    except OSError:
        return None
