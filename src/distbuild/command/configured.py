"""Syncer side: checks whether a compiler's configuration file prevents distribution.

A command is modelled from its own arguments alone. Options from the configuration must therefore
not change which files besides headers it reads, nor what it writes or where. Pure.
"""

import functools

from distbuild.command import native
from distbuild.command.model import Family, Local, LocalReason
from distbuild.command.parse import parse

_DIRECTORY, _SOURCE, _OUTPUT = "/x", "x.c", "x.o"
#: Characters of the options that a message quotes.
_MAX_SAID = 200
#: Options that distributions configure and older clangs do not know. They choose gcc's headers,
#: which the search probe reports anyway, and the linked libraries.
_CHOOSES_LIBRARIES = ("--gcc-triple=", "--gcc-install-dir=", "--unwindlib=")


@functools.lru_cache(maxsize=100)
def configured_obstacle(options: tuple[str, ...], family: Family) -> Local | None:
    """Why no command of a compiler with these configured options is distributed; None if it is."""
    if not options:
        return None
    # Parsed as clang's for clang-cl too: it spells a compile differently, but is configured alike.
    added = (word for word in options if not word.startswith(_CHOOSES_LIBRARIES))
    words = ["clang", *added, "-c", _SOURCE, "-o", _OUTPUT]
    command = parse(words, _DIRECTORY, lambda _: None, Family.CLANG)
    if isinstance(command, Local):
        return Local(command.reason, f"{command.detail[:_MAX_SAID]}, from its configuration")
    changes = (
        command.needs_original_paths
        or command.dependencies is not None
        or (command.source, command.output) != (_SOURCE, _OUTPUT)
        or len(command.output_files()) != 1
        or native.is_wanted(command)
    )
    if changes or family is not Family.CLANG:
        said = " ".join(options)[:_MAX_SAID]
        return Local(LocalReason.UNSUPPORTED_OPTION, f"{said}, from its configuration")
    return None
