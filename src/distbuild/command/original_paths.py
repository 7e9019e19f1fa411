"""Decides which commands need the original paths (a terminal, a line table, by compiler version),
and which only the local compiler can follow: syncer and worker would open other files. Pure.
"""

import posixpath
import re
from collections.abc import Mapping

import msgspec

from distbuild.command.model import CompileCommand, Family, Local, LocalReason

_DECIDES = "-fmessage-length="
#: Text that atoi(3) converts to a number above zero.
_POSITIVE = re.compile(r"[ \t\n\v\f\r]*\+?0*[1-9]")
_CLANG = re.compile(r"clang ([0-9]+)")
#: This clang takes the width from COLUMNS only. Measured; older ones may query the terminal.
_ASKS_NO_TERMINAL = 14
#: From this clang on, only TERM itself matters.
_ASKS_NO_TERMINFO = 19


def on_terminal(command: CompileCommand, env: Mapping[str, str], version: str) -> CompileCommand:
    """``command`` with a terminal as its standard error; it may then need the original paths.

    clang wraps its messages there, and the path before them counts. gcc only cuts source lines.
    ``version``: that of ``compiler.identity.Identity``.
    """
    if command.family is not Family.CLANG or not _wraps(command, env, version):
        return command
    return msgspec.structs.replace(command, tied_by="messages wrapped for a terminal")


def _wraps(command: CompileCommand, env: Mapping[str, str], version: str) -> bool:
    if any(argument.option.startswith(_DECIDES) for argument in command.arguments):
        return False  # decided by the option's row
    if _POSITIVE.match(env.get("COLUMNS", "")):
        return True
    return _is_before(_ASKS_NO_TERMINAL, version)


def asks_terminfo(command: CompileCommand, version: str) -> bool:
    """Whether colours depend on the machine's terminfo entry for the terminal."""
    return command.family is Family.CLANG and _is_before(_ASKS_NO_TERMINFO, version)


def _is_before(major: int, version: str) -> bool:
    found = _CLANG.match(version)
    return found is None or int(found[1]) < major


_GCC = re.compile(r"gcc ([0-9]+)")
#: From this gcc on, the assembler gets the source as file 0 of DWARF 5, under its mapped name.
_HAS_FILE_0 = 11
_OLD_FORMATS = ("-gdwarf-2", "-gdwarf-3", "-gdwarf-4")


def with_line_table(command: CompileCommand, version: str) -> CompileCommand:
    """``command``, with original paths required if its line table would record the source's path.

    ``version``: that of ``compiler.identity.Identity``. Measured with gcc 12. A relative source is
    unaffected, and assembler text has only one name.
    """
    if command.family is not Family.GCC or not command.source.startswith("/"):
        return command
    if command.language == "assembler-with-cpp" or not _is_written(command, version):
        return command
    return msgspec.structs.replace(command, tied_by="the line table of an absolute source")


def _is_written(command: CompileCommand, version: str) -> bool:
    options = [a.meaning + (a.value or "") for a in command.arguments]
    asked = [option for option in options if option.startswith("-g")]
    found = _GCC.match(version)
    if found is None or int(found[1]) < _HAS_FILE_0:
        return bool(asked)
    formats = [option for option in asked if option.startswith("-gdwarf-")]
    return bool(formats) and formats[-1] in _OLD_FORMATS


#: proc(5), and Linux's names for a process's open files and terminal.
_OF_PROCESS = re.compile(r"//?(?:proc|dev/(?:fd|std(?:in|out|err)|tty))(?:/|\Z)")
_DEVICE = re.compile(r"//?dev/(?!shm/)")


def is_of_process(path: str) -> bool:
    """Whether an absolute path, perhaps with ``..``, depends on the process that opens it."""
    return _OF_PROCESS.match(posixpath.normpath(path)) is not None


def is_device(path: str) -> bool:
    """Whether an absolute path leads into /dev, but for the directory of shared memory there."""
    return _DEVICE.match(posixpath.normpath(path)) is not None


def special_input(command: CompileCommand) -> Local | None:
    """The first path that the command reads or runs in that only the local compiler can follow.

    This includes names with a newline, which no dependency file can list.
    """
    mapper = command.module_mapper
    named = (command.source, *command.input_files, *command.search_dirs, *filter(None, [mapper]))
    for path in (command.cwd, *map(command.absolute, named)):
        if "\n" in path or is_of_process(path):
            return Local(LocalReason.SPECIAL_INPUT, path)
    return None
