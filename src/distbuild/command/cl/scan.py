"""Splits a cl command line into options, sources and obstacles to its distribution.

Reads the argv once, by the option table. Knows no file system (a callback reads
response files) and no combinations of options, on which ``cl.parse`` decides.
"""

import functools
from collections.abc import Iterator, Sequence

import msgspec

from distbuild.command import passthrough
from distbuild.command.cl.rows import tables
from distbuild.command.cl.words import split_file
from distbuild.command.model import Argument, Family, Local, LocalReason, PathStyle, Role
from distbuild.command.options import Option, OptionTable, ScannedOptions, ValueForm
from distbuild.command.response import ReadFile, expand
from distbuild.command.tables import gcc

#: Options whose value is a source file, and the language that each gives it.
TYPED = {"-Tc": "c", "-Tp": "c++"}
#: Options of clang's driver that are modelled as /clang: values, their value in the same word.
_DEPENDENCY_WORDS = ("-MD", "-MMD", "-MP", "-MF", "-MT", "-MQ")

_tables = functools.cache(tables)


class ClScan(ScannedOptions, kw_only=True):
    """Result of ``scan``; ``last`` has clang's own options as ``-clang:-MF``."""

    style: PathStyle
    #: (source, language given by -Tc or -Tp or None, index in ``arguments``).
    sources: list[tuple[str, str | None, int]] = msgspec.field(default_factory=list)


def scan(
    argv: Sequence[str], cwd: str, read_file: ReadFile, family: Family, style: PathStyle
) -> ClScan | Local:
    """Splits a command into its parts, without deciding whether it can be distributed."""
    words = expand(argv[1:], cwd, read_file, split_file, style, nested=family is Family.CLANG_CL)
    if isinstance(words, Local):
        return words
    found = ClScan(family, style=style)
    rest = iter(words)
    for word in rest:
        if not _take(found, word, rest):
            break
    return found


def _take(scan: ClScan, word: str, rest: Iterator[str]) -> bool:
    """Adds one argument and its value; False if no option of cl can follow (/link, no value)."""
    only_sources = "--" in scan.last
    option = None if only_sources else _option(word, scan.family)
    if option is None:
        if word.startswith("-") and not only_sources:
            reason = LocalReason.STDIN if word == "-" else LocalReason.UNSUPPORTED_OPTION
            scan.obstacles.append(Local(reason, word))
        else:
            _add_source(scan, Argument("", word, role=Role.SOURCE), word, None)
        return True
    argument = option.read(word, rest)
    if argument is None:
        scan.obstacles.append(Local(LocalReason.UNSUPPORTED_OPTION, word))
        return False
    _record(scan, option, argument)
    return option.verdict is not LocalReason.LINK


def _option(word: str, family: Family) -> Option | None:
    """The row for ``word``; None for a source or an unknown option."""
    slash, dash = _tables(family)
    table: OptionTable = slash if word.startswith("/") else dash
    if len(word) < 2 or word[0] not in "/-":
        return None
    return table.find("-" + word[1:])


def _record(scan: ClScan, option: Option, argument: Argument) -> None:
    if language := TYPED.get(option.meaning):
        _add_source(
            scan,
            msgspec.structs.replace(argument, role=Role.SOURCE),
            argument.value or "",
            language,
        )
        return
    scan.record(option, argument)
    if option.meaning == "-clang:":
        _hand_on(scan, argument)
    elif obstacle := passthrough.obstacle(argument, scan.arguments[-2:-1]):
        scan.obstacles.append(obstacle)


def _hand_on(scan: ClScan, argument: Argument) -> None:
    """Handles ``/clang:WORD``; accepted if WORD is a clang option without a second word."""
    word = argument.value or ""
    for name in _DEPENDENCY_WORDS:
        if word == name or (word.startswith(name) and name in ("-MF", "-MT", "-MQ")):
            scan.last[f"-clang:{name}"] = word[len(name) :]
            return
    option = gcc.option_table(Family.CLANG).find(word) if word.startswith("-") else None
    plain = option is not None and option.shape not in (ValueForm.SEPARATE, ValueForm.EITHER)
    if option is None or not plain or option.role not in (Role.NONE, Role.PREFIX_MAP):
        scan.obstacles.append(Local(LocalReason.UNSUPPORTED_OPTION, argument.tokens()[0]))
    elif isinstance(option.verdict, LocalReason):
        scan.obstacles.append(Local(option.verdict, argument.tokens()[0]))
    elif option.meaning in ("-c", "-E", "-S"):
        scan.obstacles.append(Local(LocalReason.UNSUPPORTED_OPTION, argument.tokens()[0]))
    else:
        scan.last[f"-clang:{option.meaning}"] = None


def _add_source(scan: ClScan, argument: Argument, name: str, language: str | None) -> None:
    scan.sources.append((name, language, len(scan.arguments)))
    scan.arguments.append(argument)


def output_name(value: str | None, source: str, extension: str, style: PathStyle) -> str:
    """The file that an option such as /Fo with this value writes for ``source``.

    No value means the source's name in the current directory; a value that ends as a directory
    name does means that directory. A value without an extension gets ``extension``.
    """
    base = style.base(source)
    if not value:
        return _with_extension(base, extension, style)
    name = value + base if style.is_directory_name(value) else value
    if _extension(value, style):
        return name
    return _with_extension(name, extension, style)


def _extension(path: str, style: PathStyle) -> str:
    """As LLVM's ``sys::path::extension``: the name from its last dot on, even a leading one."""
    name = style.base(path)
    dot = name.rfind(".")
    return "" if dot < 0 or name in (".", "..") else name[dot:]


def _with_extension(path: str, extension: str, style: PathStyle) -> str:
    old = _extension(path, style)
    return f"{path[: len(path) - len(old)]}.{extension}"
