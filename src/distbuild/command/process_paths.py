"""Paths that nobody else can follow: those that lead each process somewhere else, where the syncer
would see its own, and those of which no compiler can tell.

Duty: strings. Links that lead to such a place are not seen here.
"""

import posixpath
import re

from distbuild.command.model import CompileCommand, Local, LocalReason

#: proc(5), and the names that Linux has for a process' own open files and terminal.
_OF_PROCESS = re.compile(r"//?(?:proc|dev/(?:fd|std(?:in|out|err)|tty))(?:/|\Z)")


def is_of_process(path: str) -> bool:
    """Whether an absolute path, perhaps with ``..`` in it, means this or that by who uses it."""
    return _OF_PROCESS.match(posixpath.normpath(path)) is not None


def special_input(command: CompileCommand) -> Local | None:
    """What the command reads, or where it is run, if only the compiler itself can find that.

    A name with a newline in it: no dependency file can tell of it.
    """
    named = (command.source, *command.input_files, *command.search_dirs)
    for path in (command.cwd, *map(command.absolute, named)):
        if "\n" in path or is_of_process(path):
            return Local(LocalReason.SPECIAL_INPUT, path)
    return None
