"""Parses a compiler's command line into a CompileCommand, or a Local with the LocalReason.

Reads the argv once, by the option table, and passes the result to ``decide``. Knows no file system
(a callback reads response files), no workers and no processes.
"""

from collections.abc import Callable, Sequence

import msgspec

from distbuild.command import driver, passthrough
from distbuild.command.cl import parse as cl
from distbuild.command.decide import Scan, decide
from distbuild.command.model import (
    HERE,
    Argument,
    CompileCommand,
    Family,
    Local,
    LocalReason,
    PathStyle,
    Role,
)
from distbuild.command.options import Option
from distbuild.command.response import expand
from distbuild.command.tables.gcc import option_table


def parse(
    argv: Sequence[str],
    cwd: str,
    read_file: Callable[[str], bytes | None],
    family: Family | None = None,
    style: PathStyle = HERE,
) -> CompileCommand | Local:
    """Parses ``argv`` (the compiler first) as run in ``cwd`` (absolute).

    ``read_file`` maps an absolute path to the content, or None; it is called for response files
    only. ``family`` overrides the one that the compiler's name implies; ``style`` is that of the
    system on which the command was issued.
    """
    speaks = family or driver.family_of(argv[0]) if argv else None
    if speaks is not None and speaks.speaks_cl:
        return cl.parse(argv, cwd, read_file, speaks, style)
    found = scan(argv, cwd, read_file, family)
    if isinstance(found, Local):
        return found
    return decide(found, argv[0], cwd)


def scan(
    argv: Sequence[str],
    cwd: str,
    read_file: Callable[[str], bytes | None],
    family: Family | None = None,
) -> Scan | Local:
    """Splits ``argv`` into its parts, without deciding whether it can be distributed."""
    if not argv:
        return Local(LocalReason.NOT_A_COMPILER)
    family = family or driver.family_of(argv[0])
    if family is None:
        return Local(_reason_of_other(argv[0]), argv[0])
    words = expand(argv[1:], cwd, read_file)
    if isinstance(words, Local):
        return words
    return _scan(words, family)


def _reason_of_other(program: str) -> LocalReason:
    """The reason for a program that is no driver of a known compiler."""
    if driver.is_scanner(program):
        return LocalReason.PREPROCESS_ONLY
    if driver.speaks_another_language(program):
        return LocalReason.OTHER_LANGUAGE
    return LocalReason.NOT_A_COMPILER


def render(command: CompileCommand) -> list[str]:
    """The argv that ``command`` was parsed from, response files expanded."""
    return command.argv()


def _scan(words: Sequence[str], family: Family) -> Scan:
    scan, table = Scan(family), option_table(family)
    rest = iter(words)
    language: str | None = None
    only_sources = False
    for word in rest:
        if only_sources or word == "-" or not word.startswith("-"):
            scan.sources.append((word, language))
            scan.arguments.append(Argument("", word, role=Role.SOURCE))
            continue
        option = table.find(word)
        if option is None:
            scan.obstacles.append(Local(LocalReason.UNSUPPORTED_OPTION, word))
            continue
        argument = option.read(word, rest)
        if argument is None:
            scan.obstacles.append(Local(LocalReason.UNSUPPORTED_OPTION, word))
            break
        _record(scan, option, argument)
        if option.meaning == "-x":
            language = None if argument.value == "none" else argument.value
        only_sources = option.meaning == "--"
    return scan


def _record(scan: Scan, option: Option, argument: Argument) -> None:
    if role := passthrough.frontend_file(argument, scan.arguments[-1:]):
        argument = msgspec.structs.replace(argument, role=role)
        if role is Role.UNLISTED_FILE:
            scan.tied_by = scan.tied_by or "-include-pch"
    scan.record(option, argument)
    if request := passthrough.dependency_request(argument):
        scan.last["-Wp," + request[0]] = request[1]
    elif obstacle := passthrough.obstacle(argument, scan.arguments[-2:-1]):
        for_assembler = passthrough.is_for_assembler_sources(argument)
        (scan.of_languages if for_assembler else scan.obstacles).append(obstacle)
