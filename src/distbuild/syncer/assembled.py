"""Files that an assembler reads by name (``.incbin``, ``.include``): in no dependency list.

They travel with the job as its source does. What is not named by a plain string stays unknown:
then only the local compiler can answer.
"""

import posixpath
from collections.abc import Iterator

from distbuild import disk
from distbuild.command.model import CompileCommand, Local, LocalReason
from distbuild.mirror.known import FileRead, read_file
from distbuild.mirror.text import AssemblerRead, assembler_reads

#: More than this is not worth the way: assembling it takes milliseconds.
MAX_BYTES = 8 * 1024 * 1024
#: Of files; a file that includes itself ends here too.
MAX_FILES = 64

#: Options whose directories gcc and clang hand on to the assembler.
_SEARCHED = frozenset(("-I", "--include-directory", "--include-directory="))


def assembler_files(text: bytes, command: CompileCommand) -> dict[str, FileRead] | Local:
    """What a source with this text makes the assembler read, by absolute path, files included by
    such files too; Local when that cannot be known."""
    found: dict[str, FileRead] = {}
    texts = [(command.source, text)]
    of_c = command.language != "assembler"
    places = tuple(_places(command))
    while texts:
        name, text = texts.pop()
        reads = assembler_reads(text, of_c=of_c)
        of_c = False  # what is included next is read by the assembler alone
        if reads is None:
            return Local(LocalReason.ASSEMBLER_INPUT, name)
        for read in reads:
            path = _first(read, places)
            if path is None:
                return Local(LocalReason.ASSEMBLER_INPUT, f"{name}: no {read.name}")
            if path in found:
                continue
            content = _content(path)
            if content is None or len(found) >= MAX_FILES:
                return Local(LocalReason.ASSEMBLER_INPUT, path)
            found[path] = content
            if read.as_text:
                texts.append((path, content.data))
    return found


def _places(command: CompileCommand) -> Iterator[str]:
    """Where GNU as looks, in its order ("incbin" in its manual): here, then the -I directories."""
    yield command.cwd
    for argument in command.arguments:
        if argument.option in _SEARCHED and argument.value is not None:
            yield posixpath.join(command.cwd, argument.value)


def _first(read: AssemblerRead, places: tuple[str, ...]) -> str | None:
    paths = (posixpath.join(place, read.name) for place in places)
    return next((path for path in paths if disk.lexists(path)), None)


def _content(path: str) -> FileRead | None:
    try:
        if not disk.isfile(path) or disk.stat(path).st_size > MAX_BYTES:
            return None
        return read_file(path)
    except OSError:
        return None
