"""Splits a cl command line into options, sources and obstacles to its distribution; and the text
of a command line or response file into words, with those of CL and _CL_.

Reads the argv once, by the option table. Knows no file system (a callback reads
response files) and no combinations of options, on which ``cl.parse`` decides. The rules for words
are CommandLineToArgvW's as Microsoft documents them ("Parsing C command-line arguments"), which
LLVM follows; ``@file`` and CL are described in "CL Command Files" and "CL Environment Variables".
"""

import codecs
import functools
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from distbuild.command import passthrough
from distbuild.command.cl.rows import tables
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


#: Variables whose words precede, and follow, the command's own arguments.
BEFORE, AFTER = "CL", "_CL_"
VARIABLES = (BEFORE, AFTER)

_SPACE = " \t\r\n\0"
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def split_windows(text: str) -> list[str]:
    """Splits a text into words.

    2n backslashes before a quote yield n backslashes, and the quote groups; 2n+1 yield n and a
    literal quote. Two quotes inside a quotation yield one. Other backslashes are literal.
    """
    words: list[str] = []
    at, end = 0, len(text)
    while at < end:
        if text[at] in _SPACE:
            at += 1
            continue
        word, at = _word(text, at)
        words.append(word)
    return words


def with_environment(argv: Sequence[str], env: Mapping[str, str]) -> list[str]:
    """``argv`` with the words of CL after the compiler and those of _CL_ at the end.

    The first ``#`` of each word means ``=``, which a batch file cannot write there.
    """
    before, after = (
        [word.replace("#", "=", 1) for word in split_windows(env.get(name, ""))]
        for name in VARIABLES
    )
    return [*argv[:1], *before, *argv[1:], *after]


def split_file(data: bytes) -> list[str]:
    """The words in a response file. Raises ValueError if no encoding fits."""
    return split_windows(decoded(data))


def decoded(data: bytes) -> str:
    """The text of a response file. Raises ValueError if no encoding fits.

    Tried in order: byte order mark, UTF-16 without one, UTF-8, code page 1252.
    """
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding)
    if b"\0" in data:
        return data.decode(
            "utf-16-le" if data[1::2].count(0) >= data[::2].count(0) else "utf-16-be"
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("cp1252")


def _word(text: str, at: int) -> tuple[str, int]:
    """The word that begins at index ``at``, and the index of its end."""
    word: list[str] = []
    quoted = False
    while at < len(text) and (quoted or text[at] not in _SPACE):
        if text[at] == "\\":
            start = at
            while at < len(text) and text[at] == "\\":
                at += 1
            count = at - start
            if text[at : at + 1] == '"':
                word.append("\\" * (count // 2))
                if count % 2:
                    word.append('"')
                    at += 1
            else:
                word.append("\\" * count)
        elif text[at] == '"':
            at += 1
            if quoted and text[at : at + 1] == '"':
                word.append('"')
                at += 1
            else:
                quoted = not quoted
        else:
            word.append(text[at])
            at += 1
    return "".join(word), at
