"""Lists the search directories in a command and its environment, without the built-in ones."""

from collections.abc import Iterator, Mapping, Sequence

from distbuild.command.model import Argument, CompileCommand, Local, LocalReason, Role
from distbuild.command.passthrough import assembler_dirs
from distbuild.command.probe import CL_PATH_LISTS

#: Options for search directories that are appended to the value of a preceding -iprefix.
_PREFIXED = ("-iwithprefix", "-iwithprefixbefore")
_PATH_LISTS = ("CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "OBJC_INCLUDE_PATH")


def search_dirs(arguments: Sequence[Argument]) -> tuple[str, ...]:
    """Values of directory options, with "=dir" and "$SYSROOT/dir" below the command's own sysroot.

    The assembler's directories come last.
    """
    sysroots = [a.value or "" for a in arguments if a.meaning == "--sysroot"]
    sysroot = sysroots[-1] if sysroots else ""
    named = [a.value for a in arguments if a.role is Role.INPUT_DIR and a.value is not None]
    return (
        *(
            sysroot + path.removeprefix("=").removeprefix("$SYSROOT") if in_sysroot(path) else path
            for path in named
        ),
        *_prefixed(arguments),
        *(path for argument in arguments for path in assembler_dirs(argument)),
    )


def angle_dirs(command: CompileCommand, env: Mapping[str, str]) -> list[str]:
    """Directories of the command and its environment that ``#include <...>`` searches."""
    named = search_dirs([a for a in command.arguments if a.meaning != "-iquote"])
    return [*map(command.absolute, named), *listed_dirs(command, env)]


def quoted_dirs(command: CompileCommand) -> tuple[str, ...]:
    """Directories that only ``#include "..."`` searches, as spelled."""
    quoted = [a for a in command.arguments if (a.same_as or a.option) == "-iquote"]
    return search_dirs(quoted) if quoted else ()


def listed_dirs(command: CompileCommand, env: Mapping[str, str]) -> Iterator[str]:
    """Directories in environment variables; an empty element is the working directory (cpp(1))."""
    lists: tuple[str, ...] = _PATH_LISTS
    separator = ":"
    if command.family.speaks_cl:
        ignored = any(argument.meaning == "-X" for argument in command.arguments)
        lists, separator = () if ignored else CL_PATH_LISTS, ";"
    for name in lists:
        value = env.get(name)
        if value:
            yield from (command.absolute(part or ".") for part in value.split(separator))


def in_sysroot(path: str) -> bool:
    """Whether ``path`` is spelled relative to the command's sysroot."""
    return path.startswith(("=", "$SYSROOT"))


def unprefixed(arguments: Sequence[Argument]) -> Local | None:
    """A directory without a preceding -iprefix, whose default only the compiler knows."""
    involved = [a for a in arguments if a.meaning in ("-iprefix", *_PREFIXED)]
    if involved and involved[0].meaning != "-iprefix":
        return Local(LocalReason.UNSUPPORTED_OPTION, involved[0].option)
    return None


def _prefixed(arguments: Sequence[Argument]) -> tuple[str, ...]:
    """Every combination of prefix and directory; the options' order decides which apply."""
    prefixes = [a.value or "" for a in arguments if a.meaning == "-iprefix"]
    names = [a.value or "" for a in arguments if a.meaning in _PREFIXED]
    return tuple(prefix + name for prefix in prefixes for name in names)
