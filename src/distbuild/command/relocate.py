"""Worker side: rewrites a gcc or clang command to run in a tree that mirrors the dev box's "/".

Yields the argv, cwd and environment that give the same bytes there (gcc 12, clang 14). Knows no
files of the tree and starts no process: the caller sets PWD to ``cwd``.
"""

import posixpath
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from distbuild.command import driver
from distbuild.command.model import (
    Argument,
    CompileCommand,
    Dependencies,
    Family,
    Role,
)
from distbuild.command.passthrough import dependency_request

_REPLACED = frozenset(("-MD", "-MMD", "-MF"))
_RECORDING = frozenset(
    f"-{kind}record-{what}" for kind in "fg" for what in ("command-line", "gcc-switches")
)
_SEARCH_VARIABLES = frozenset(
    ("CPATH", "CPLUS_INCLUDE_PATH", "C_INCLUDE_PATH", "OBJC_INCLUDE_PATH", "OBJCPLUS_INCLUDE_PATH")
)


class Relocated(msgspec.Struct, frozen=True):
    """The argv and cwd to run, and the two files that the caller reads from the output directory.

    ``dependency_path`` is always written. If the command asks for no dependency file, it lists the
    inputs, system headers included, for the caller, and is no output of the command.
    """

    argv: list[str]
    cwd: str
    dependency_path: str
    output_path: str


def relocate(
    command: CompileCommand,
    tree: str,
    out_dir: str,
    builtin_dirs: Sequence[str],
    implicit_include: str | None = None,
) -> Relocated:
    """``command`` for a worker that mirrors the dev box's "/" at ``tree`` (absolute, canonical).

    ``builtin_dirs`` and ``implicit_include`` come from ``probe.search_probe`` on the dev box.
    ``tree`` contains no "=". Raises ValueError if the command needs the original paths.
    """
    if command.needs_original_paths:
        raise ValueError("this command needs the original paths")
    name = posixpath.basename(command.output)
    output = posixpath.join(out_dir, name)
    # Not the output's name with a suffix: that name may already have the maximum length.
    dependency = posixpath.join(out_dir, "d" if name != "d" else "dd")
    # Not -ffile-prefix-map: gcc applies it after every -fmacro-prefix-map, so it would override
    # the user's own. Of each of these two kinds the last match wins: the user's.
    argv = [command.compiler, f"-fdebug-prefix-map={tree}=", f"-fmacro-prefix-map={tree}="]
    argv += _builtin(tree, builtin_dirs, implicit_include)
    argv += _dependency_options(command, dependency)
    if not any(argument.meaning == "-o" for argument in command.arguments):
        argv += ["-o", output]
    for argument in _kept(command):
        argv += _rooted(argument, tree, output).tokens()
    return Relocated(argv, root(command.cwd, tree), dependency, output)


def observed(command: CompileCommand, dependency_path: str) -> list[str]:
    """The command's own argv, extended to list its inputs, for a sandbox with the original paths.

    A command with a dependency file keeps its own; ``dependency_path`` is then unused. A language
    without includes gets none, because clang would warn about -MD there.
    """
    argv = command.argv()
    if command.dependencies is None and command.language not in driver.INCLUDES_NOTHING:
        argv[1:1] = ["-MD", "-MF", dependency_path, "-MQ", command.output or "none"]
    return argv


def records_itself(command: CompileCommand) -> bool:
    """Whether an option makes the compiler write its command line into the object."""
    return any(argument.option in _RECORDING for argument in command.arguments)


def relocate_env(env: Mapping[str, str], tree: str) -> dict[str, str]:
    """``env`` with the absolute directories of the include variables moved below ``tree``.

    An empty element of such a list means the current directory and is kept.
    """
    return {
        name: ":".join(root(path, tree) for path in value.split(":"))
        if name in _SEARCH_VARIABLES
        else value
        for name, value in env.items()
    }


def root(path: str, tree: str) -> str:
    """``path`` below ``tree`` if it is absolute; a relative path depends on the cwd only."""
    return tree + path if path.startswith("/") else path


def dependency_target(command: CompileCommand) -> str:
    """The target of the driver's dependency rule without -MT or -MQ, unquoted.

    Measured: the -o as spelled; without one, and for gcc's -Wp,-MD, the source's stem and ".o".
    """
    explicit = any(argument.meaning == "-o" for argument in command.arguments)
    wrapped = any(dependency_request(argument) for argument in command.arguments)
    if explicit and not (wrapped and command.family is Family.GCC):
        return command.output
    return driver.stem(command.source) + ".o"


def _builtin(tree: str, dirs: Sequence[str], implicit: str | None) -> Iterator[str]:
    """The compiler's own search path, as options.

    -idirafter, not -isystem: C_INCLUDE_PATH comes after every -isystem and before the built-in
    directories. Both are system directories, and the user's own -idirafter come later.
    """
    yield "-nostdinc"
    for directory in dirs:
        yield "-idirafter"
        yield root(directory, tree)
    if implicit is not None:
        # gcc's own <stdc-predef.h>, which -nostdinc disables. By name: a path would not be found
        # in a system directory, and -MMD would list it. If another file of that name would be
        # found first, the caller does not relocate.
        yield "-include"
        yield posixpath.basename(implicit)


def _dependency_options(command: CompileCommand, path: str) -> Iterator[str]:
    wanted = command.dependencies or Dependencies(system=True, path="")
    yield "-MD" if wanted.system else "-MMD"
    yield "-MF"
    yield path
    if not any(argument.option in ("-MT", "-MQ") for argument in command.arguments):
        yield "-MQ"
        yield dependency_target(command)


def _kept(command: CompileCommand) -> Iterator[Argument]:
    for argument in command.arguments:
        if argument.meaning not in _REPLACED and dependency_request(argument) is None:
            yield argument


def _rooted(argument: Argument, tree: str, output: str) -> Argument:
    value = argument.value
    if value is None:
        return argument
    match argument.role:
        case Role.NONE:
            return argument
        case Role.OUTPUT_FILE:
            value = output
        case _:
            value = root(value, tree)
    return msgspec.structs.replace(argument, value=value)
