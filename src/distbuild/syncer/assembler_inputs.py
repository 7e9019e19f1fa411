"""Files that an assembler reads by name (``.incbin``, ``.include``): in no dependency list.

Those that a source names by plain strings travel with the job, as the source does: that saves a
round. It is no proof, since macros may make directives and names: what was really read the worker
lists, and ``obstacle`` and ``lacking`` say what becomes of that. Knows no queue.
"""

import os
import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import msgspec

from distbuild.command.diagnostics import is_assemblers
from distbuild.command.model import ASSEMBLER_LANGUAGES, CompileCommand, Local, LocalReason
from distbuild.command.passthrough import assembler_dirs
from distbuild.mirror.digest_cache import FileRead, read_file
from distbuild.mirror.includes import AssemblerRead, assembler_reads
from distbuild.protocol.messages import Entry, FileEntry, InputFile, WithheldEntry
from distbuild.system import disk

#: More than this is not sent beside a source; a mirrored file may be larger.
MAX_BYTES = 8 * 1024 * 1024
#: Of files; a file that includes itself ends here too.
MAX_FILES = 64
#: A worker that lists more is not worth the look-ups.
MAX_LISTED = 4096

#: Options whose directories gcc and clang hand on to the assembler.
_SEARCHED = frozenset(("-I", "--include-directory", "--include-directory="))


class AssemblerFiles(msgspec.Struct, frozen=True):
    """Files by absolute path; ``is_tied``: one is named by it, so that only the original paths lead
    there."""

    files: Mapping[str, FileRead] = {}
    is_tied: bool = False


def assembler_files(text: bytes, command: CompileCommand) -> AssemblerFiles:
    """What a source with this text plainly makes the assembler read, files included by such files
    too, as far as these exist."""
    found: dict[str, FileRead] = {}
    texts = [text]
    of_c = command.language != "assembler"
    places = tuple(_places(command))
    is_tied = False
    while texts:
        reads = assembler_reads(texts.pop(), of_c=of_c) or ()
        of_c = False  # what is included next is read by the assembler alone
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
    """Whether a compile that listed its inputs failed in an assembler: its preprocessor has then
    done its part."""
    return command.language in ASSEMBLER_LANGUAGES or is_assemblers(stderr)


class Assembled(msgspec.Struct, frozen=True):
    """What is wrong with the files that an assembler has read; all empty: nothing.

    ``obstacle``: only the local compiler can do it. ``withheld``: files to mirror before it is
    compiled again. ``stale``: files that were others on the worker.
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
    """Hold what an assembler has read against the manifest.

    A worker's word has nothing mirrored but what is withheld below a directory in which the
    assembler looks, or the source's: names that a macro makes cannot be derived here.
    """
    if len(listed) > MAX_LISTED:
        return Assembled(Local(LocalReason.ASSEMBLER_INPUT, command.source))
    withheld, stale = [], []
    around = tuple(_around(command))
    places = tuple(map(disk.realpath, _places(command)))
    for item in listed:
        path = os.fsdecode(item.path)
        entry = own_files.get(path) or lookup(path)
        if isinstance(entry, WithheldEntry) and path.startswith(around):
            withheld.append(path)
        elif not isinstance(entry, FileEntry):
            return Assembled(Local(LocalReason.ASSEMBLER_INPUT, path))
        elif entry.digest != item.digest:
            stale.append(path)
        if first := _comes_first(path, places, lookup):
            return Assembled(Local(LocalReason.ASSEMBLER_INPUT, first))
    return Assembled(None, tuple(withheld), tuple(stale))


def _comes_first(
    path: str, places: Sequence[str], lookup: Callable[[str], Entry | None]
) -> str | None:
    """A file that is not mirrored, not even by name, and that the assembler may have found here
    before the one at ``path``; compilers differ in the order of the places."""
    for number, place in enumerate(places):
        prefix = place.rstrip("/") + "/"
        if path.startswith(prefix):
            for before in (*places[:number], *places[number + 1 :]):
                other = posixpath.join(before, path[len(prefix) :])
                if lookup(other) is None and disk.lexists(other):
                    return other
    return None


def _around(command: CompileCommand) -> Iterator[str]:
    """The real directories, with a slash, below which a worker's word has a file mirrored."""
    for place in (*_places(command), posixpath.dirname(command.absolute(command.source))):
        yield disk.realpath(place).rstrip("/") + "/"


def _places(command: CompileCommand) -> Iterator[str]:
    """Where GNU as looks, in its order ("incbin" in its manual): here, then the -I directories."""
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
