"""Which directories a command names for the compiler to search. Unaware of the built-in ones."""

from collections.abc import Sequence

from distbuild.command.model import Argument, Local, LocalReason, Role

#: Search directories whose names begin with the value of an -iprefix before them.
_PREFIXED = ("-iwithprefix", "-iwithprefixbefore")


def search_dirs(arguments: Sequence[Argument]) -> tuple[str, ...]:
    """Values of directory options; "=dir" and "$SYSROOT/dir" below the command's own sysroot."""
    sysroots = [a.value or "" for a in arguments if a.meaning == "--sysroot"]
    sysroot = sysroots[-1] if sysroots else ""
    named = [a.value for a in arguments if a.role is Role.INPUT_DIR and a.value is not None]
    return (
        *(
            sysroot + path.removeprefix("=").removeprefix("$SYSROOT") if in_sysroot(path) else path
            for path in named
        ),
        *_prefixed(arguments),
    )


def in_sysroot(path: str) -> bool:
    """Whether a directory is one below the command's sysroot."""
    return path.startswith(("=", "$SYSROOT"))


def unprefixed(arguments: Sequence[Argument]) -> Local | None:
    """A directory of which only the compiler knows how its name begins."""
    involved = [a for a in arguments if a.meaning in ("-iprefix", *_PREFIXED)]
    if involved and involved[0].meaning != "-iprefix":
        return Local(LocalReason.UNSUPPORTED_OPTION, involved[0].option)
    return None


def _prefixed(arguments: Sequence[Argument]) -> tuple[str, ...]:
    """Each name that a prefix and a directory may make; the order decides which of them count."""
    prefixes = [a.value or "" for a in arguments if a.meaning == "-iprefix"]
    names = [a.value or "" for a in arguments if a.meaning in _PREFIXED]
    return tuple(prefix + name for prefix in prefixes for name in names)
