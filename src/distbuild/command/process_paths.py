"""Detects paths that depend on the process that opens them, and paths no dependency file can list.

Such a command stays local: syncer and worker would open other files. Pure, so it follows no
symlinks to such paths.
"""

import posixpath
import re

from distbuild.command.model import CompileCommand, Local, LocalReason

#: proc(5), and Linux's names for a process's open files and terminal.
_OF_PROCESS = re.compile(r"//?(?:proc|dev/(?:fd|std(?:in|out|err)|tty))(?:/|\Z)")


def is_of_process(path: str) -> bool:
    """Whether an absolute path, perhaps with ``..``, depends on the process that opens it."""
    return _OF_PROCESS.match(posixpath.normpath(path)) is not None


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
