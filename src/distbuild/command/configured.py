"""Whether a compiler whose configuration adds options to each command can be distributed.

A command is understood by its own words alone: options that would change what it reads besides
headers, what it writes or where must not come from elsewhere. Pure.
"""

import functools

from distbuild.command import native
from distbuild.command.model import Family, Local, LocalReason
from distbuild.command.parse import parse

_DIRECTORY, _SOURCE, _OUTPUT = "/x", "x.c", "x.o"
#: So much of the options is told.
_MAX_SAID = 200
#: What distributions write there and older clangs do not know: which gcc's headers are taken, which
#: is asked of the compiler, and what is linked.
_CHOOSES_LIBRARIES = ("--gcc-triple=", "--gcc-install-dir=", "--unwindlib=")


@functools.lru_cache(maxsize=100)
def configured_obstacle(options: tuple[str, ...], family: Family) -> Local | None:
    """Why no command of a compiler with these options in its configuration is distributed."""
    if not options:
        return None
    # The language of clang-cl has other words for a compile; its configuration has the same role.
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
