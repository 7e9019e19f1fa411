"""Turns a scanned gcc or clang command line into a CompileCommand, or a Local with the LocalReason.

Decides the command's purpose, its outputs and whether it needs the original paths. Knows no option
syntax.
"""

import posixpath
import re
from collections.abc import Sequence
from typing import TypedDict

import msgspec

from distbuild.command import driver
from distbuild.command.model import (
    ASSEMBLER_LANGUAGES,
    MODULE_INTERFACE,
    Argument,
    CompileCommand,
    Dependencies,
    Family,
    Local,
    LocalReason,
    Role,
    names_header_language,
)
from distbuild.command.options import ScannedOptions
from distbuild.command.original_paths import is_device, is_of_process, special_input
from distbuild.command.passthrough import EMIT_PCH, assembler_dirs
from distbuild.command.search_paths import in_sysroot, search_dirs, unprefixed

#: Reasons that describe the purpose of the whole command; they outrank those of one option.
_MODES = frozenset(
    (LocalReason.INFORMATION, LocalReason.PREPROCESS_ONLY, LocalReason.DEPENDENCIES_ONLY)
)
_REQUESTS = ("-MD", "-MMD")
#: Options that name by-products or prefix their names, perhaps with another directory.
_DUMPS = ("-dumpbase", "-dumpdir")
_WRAPPED_REQUESTS = ("-Wp,-MD", "-Wp,-MMD")
_COMPILES = ("-c", "-S", "-fsyntax-only")
#: gcc's options for modules, of which CMake gives the first three to every C++20 source.
_OF_MODULES = ("-fmodules-ts", "-fmodule-mapper=", "-fdeps-format=", "-fmodules")
#: clang's languages of precompiled headers; not those of header units.
_OF_HEADERS = frozenset("c-header c++-header objective-c-header objective-c++-header".split())
#: A mapper that is a file, and not a program, socket, address or descriptor ("C++ Module Mapper"
#: in gcc's manual).
_MAPPER_FILE = re.compile(r"(?![=<|@])[^?:\n]+")


class Scan(ScannedOptions):
    """Result of ``parse.scan``; ``last`` includes "-Wp,-MD" and "-Wp,-MMD"."""

    #: (source, -x language in effect at its position or None: by suffix).
    sources: list[tuple[str, str | None]] = msgspec.field(default_factory=list)
    #: Obstacles that do not apply to assembler sources, which then need the original paths.
    of_languages: list[Local] = msgspec.field(default_factory=list)


def decide(scan: Scan, compiler: str, cwd: str) -> CompileCommand | Local:
    """The command in ``scan``, or the highest-ranking reason to compile it locally."""
    for local in scan.obstacles:
        if local.reason in _MODES:
            return local
    language = _language(scan, compiler)
    if isinstance(language, Local):
        return language
    assembles = language in ASSEMBLER_LANGUAGES
    first = next(iter(scan.obstacles if assembles else scan.obstacles + scan.of_languages), None)
    obstacle = first or _bad_output(scan) or _bad_mix(scan.last) or _uses_modules(scan.last)
    obstacle = obstacle or unprefixed(scan.arguments)
    if obstacle:
        return obstacle
    if sum(argument.meaning == "-o" for argument in scan.arguments) > 1:
        return Local(LocalReason.UNSUPPORTED_OPTION, "-o")  # its effect depends on an added -MD
    command = _command(scan, compiler, cwd, language)
    if isinstance(command, Local):
        return command
    return special_input(command) or _collision(command) or command


def _language(scan: Scan, compiler: str) -> str | Local:
    """The language of the single source, or the reason why this is no compile of one source."""
    if not scan.sources:
        return Local(LocalReason.NO_SOURCE)
    source, named = scan.sources[0]
    if any(name == "-" for name, _ in scan.sources):
        return Local(LocalReason.STDIN)
    compiles = any(option in scan.last for option in _COMPILES)
    if named is None:
        cxx = driver.compiles_cxx(compiler)
        language = driver.language_by_suffix(source, scan.family, cxx=cxx)
    else:
        language = driver.language_by_name(named, scan.family)
    header = isinstance(language, Local) and language.reason is LocalReason.PRECOMPILED_HEADER
    if not compiles and not header:
        # This one links nothing.
        precompiles = Local(LocalReason.MODULES, "--precompile")
        return precompiles if precompiles in scan.obstacles else Local(LocalReason.LINK)
    if len(scan.sources) > 1:
        return Local(LocalReason.SEVERAL_SOURCES, scan.sources[1][0])
    emits = any(a.meaning == "-Xclang" and a.value == EMIT_PCH for a in scan.arguments)
    if isinstance(language, Local) and named is not None and _makes_pch(scan, named):
        return named.rpartition("-")[0]
    return Local(LocalReason.UNSUPPORTED_OPTION, EMIT_PCH) if emits and not header else language


def _makes_pch(scan: Scan, named: str) -> bool:
    """Whether the command makes a precompiled header as any output. Two runs of gcc make different
    ones, so only clang's are made by workers."""
    if scan.family is not Family.CLANG or not scan.last.get("-o"):
        return False
    return named in _OF_HEADERS and scan.last.keys().isdisjoint(("-S", "-fsyntax-only"))


def _bad_output(scan: Scan) -> Local | None:
    asked = [(option, scan.last.get(option)) for option in _WRAPPED_REQUESTS]
    asked += [(a.option, a.value) for a in scan.arguments if a.role is Role.OUTPUT_FILE]
    for option, path in asked:
        if path is None:
            continue
        if path == "-":
            return Local(LocalReason.STDOUT, option)
        if is_device(path) or path.endswith("/"):
            return Local(LocalReason.OUTPUT_SPECIAL, path)
        if not path:
            return Local(LocalReason.UNSUPPORTED_OPTION, option)
    return None


def _collision(command: CompileCommand) -> Local | None:
    """An output with the path of the source or another output: which one remains is undefined."""
    named = (command.source, *command.output_files())
    ends = {name.rpartition("/")[2] for name in named}
    if len(ends) == len(named) and ends.isdisjoint(("", ".", "..")):
        return None
    found = {_plain(posixpath.join(command.cwd, command.source))}
    for name in named[1:]:
        path = _plain(posixpath.join(command.cwd, name))
        if path in found:
            return Local(LocalReason.OUTPUT_SPECIAL, name)
        found.add(path)
    return None


def _bad_mix(last: dict[str, str | None]) -> Local | None:
    """The first combination of options that the drivers treat differently, or reject."""
    requests = [option for option in (*_REQUESTS, *_WRAPPED_REQUESTS) if option in last]
    wrapped = [option for option in _WRAPPED_REQUESTS if option in last]
    if wrapped and (len(requests) > 1 or "-MF" in last):
        return Local(LocalReason.UNSUPPORTED_OPTION, wrapped[0])
    for option in ("-MF", "-MT", "-MQ", "-MP"):
        if option in last and not requests:
            return Local(LocalReason.UNSUPPORTED_OPTION, option)
    for option in _DUMPS:
        if option in last and "-o" not in last:
            return Local(LocalReason.UNSUPPORTED_OPTION, option)
    if "-c" in last and "-S" in last:
        return Local(LocalReason.UNSUPPORTED_OPTION, "-S")
    if requests and "-MF" not in last and not wrapped and last.keys().isdisjoint(("-c", "-S")):
        return Local(
            LocalReason.UNSUPPORTED_OPTION, requests[0]
        )  # gcc names the file as for a link
    return None


def _uses_modules(last: dict[str, str | None]) -> Local | None:
    """The option that makes gcc use modules other than by a mapper file, which the caller judges
    by its content. Without -MD, ``-fdeps-format=`` is an error."""
    used = next((option for option in _OF_MODULES if option in last), None)
    if used is None:
        return None
    asked = last.keys() & _REQUESTS or "-fdeps-format=" not in last
    if asked and is_mapper_file(last.get("-fmodule-mapper=") or ""):
        return None
    return Local(LocalReason.MODULES, used + (last[used] or ""))


def is_mapper_file(name: str) -> bool:
    """Whether a value of -fmodule-mapper= names a file."""
    return _MAPPER_FILE.fullmatch(name) is not None


def renamed(
    command: CompileCommand,
    arguments: tuple[Argument, ...],
    last: dict[str, str | None],
    source: str,
) -> CompileCommand | Local:
    """``command`` with another source and other outputs, equal to what ``decide`` returns for them.

    Requires ordinary names: a suffix of the same language, and no characters with a special
    meaning. ``last`` is a Scan's.
    """
    tied = command.needs_original_paths
    names = _names(arguments, last, source, command.cwd, tied=tied)
    if isinstance(names, Local):
        return names
    other = msgspec.structs.replace(command, arguments=arguments, source=source, **names)
    return _collision(other) or other


def with_output(command: CompileCommand, path: str) -> CompileCommand | Local:
    """``command``, which also writes a file that none of its arguments names."""
    directories = _directories(command.cwd, [path], with_cwd=False)
    if is_device(path) or "/" in directories or any(map(is_of_process, directories)):
        return Local(LocalReason.OUTPUT_SPECIAL, path)
    other = msgspec.structs.replace(
        command,
        by_products=(*command.by_products, path),
        output_dirs=tuple(sorted({*command.output_dirs, *directories})),
    )
    return _collision(other) or other


class _Names(TypedDict):
    """A command's outputs, as fields of a CompileCommand."""

    output: str
    dependencies: Dependencies | None
    output_dirs: tuple[str, ...]


def _names(
    arguments: Sequence[Argument], last: dict[str, str | None], source: str, cwd: str, *, tied: bool
) -> _Names | Local:
    explicit = last.get("-o")
    if driver.is_probe(posixpath.join(cwd, source)):
        return Local(LocalReason.PROBE, source)
    output = explicit or driver.default_output(source, assembly="-S" in last)
    if "-fsyntax-only" in last:
        output = ""
    dependencies = _dependencies(last, source)
    written = [a.value for a in arguments if a.role is Role.OUTPUT_FILE and a.value]
    written += [path for option in _DUMPS if (path := last.get(option))]
    written += [output] + ([dependencies.path] if dependencies else [])
    output_dirs = _directories(cwd, written, with_cwd=tied or explicit is None)
    if "/" in output_dirs:
        return Local(LocalReason.OUTPUT_SPECIAL, "/")  # no sandbox has a private root
    for directory in filter(is_of_process, output_dirs):
        return Local(LocalReason.OUTPUT_SPECIAL, directory)
    return {"output": output, "dependencies": dependencies, "output_dirs": output_dirs}


def _command(scan: Scan, compiler: str, cwd: str, language: str) -> CompileCommand | Local:
    source = scan.sources[0][0]
    for option in ("-S", "-fsyntax-only"):
        if option in scan.last and language in ASSEMBLER_LANGUAGES:
            return Local(LocalReason.UNSUPPORTED_OPTION, option)
    tied_by = (
        scan.tied_by
        or next((local.detail or str(local.reason) for local in scan.of_languages), "")
        or _tied_by(scan.arguments, scan.family, cwd, language)
        or (names_header_language(scan.arguments) and "the paths in a precompiled header")
    )
    names = _names(scan.arguments, scan.last, source, cwd, tied=bool(tied_by))
    if isinstance(names, Local):
        return names
    return CompileCommand(
        family=scan.family,
        compiler=compiler,
        arguments=tuple(scan.arguments),
        cwd=cwd,
        source=source,
        language=language,
        search_dirs=search_dirs(scan.arguments),
        input_files=scan.values(Role.INPUT_FILE, Role.UNLISTED_FILE),
        tied_by=tied_by or ("the directory /" if _plain(cwd) == "/" else ""),
        unlisted_files=scan.values(Role.UNLISTED_FILE),
        guessed=tuple(scan.guessed),
        **names,
    )


def _dependencies(last: dict[str, str | None], source: str) -> Dependencies | None:
    for option in _WRAPPED_REQUESTS:
        if path := last.get(option):
            return Dependencies(option == "-Wp,-MD", path)
    if not any(option in last for option in _REQUESTS):
        return None
    path = last.get("-MF") or driver.default_dependency_file(source, last.get("-o"))
    return Dependencies("-MMD" not in last, path)


def _tied_by(arguments: list[Argument], family: Family, cwd: str, language: str) -> str:
    """Why the relocated command is not known to produce the same bytes; "": it is."""
    if language in driver.INCLUDES_NOTHING or language == MODULE_INTERFACE:
        return f"the language {language}"
    if family is Family.CLANG and language == "assembler-with-cpp":
        return f"the language {language}"
    if _maps_twice(arguments):
        return "a path that is mapped twice"
    for argument in arguments:
        value = argument.value or ""
        match argument.role:
            case Role.PREFIX_MAP:
                # clang 14 applies its maps in the order of their keys, so the tree's always wins.
                is_tied = family is Family.CLANG or value.startswith("=") or "=" not in value
            case Role.NONE:
                is_tied = _names_absolute(argument)
            case _:
                is_tied = in_sysroot(value) or climbs_out(cwd, value) or _names_absolute(argument)
        if is_tied:
            return " ".join(argument.tokens())
    return ""


def _names_absolute(argument: Argument) -> bool:
    """Whether the assembler gets a search directory as an absolute path, which is not relocated."""
    return any(map(posixpath.isabs, assembler_dirs(argument)))


def _maps_twice(arguments: list[Argument]) -> bool:
    """True if a mapped path starts with a prefix that is itself mapped.

    gcc also passes its maps to the assembler, which then maps such a path a second time.
    """
    maps = [(a.value or "").partition("=") for a in arguments if a.role is Role.PREFIX_MAP]
    return any(new.startswith(old) for _, _, new in maps for old, _, _ in maps)


def climbs_out(cwd: str, path: str) -> bool:
    """True if the ".." of ``path`` go above "/": a mirrored tree has other parent directories."""
    depth = 0
    for part in posixpath.join(cwd, path).split("/"):
        if part not in ("", "."):
            depth += -1 if part == ".." else 1
        if depth < 0:
            return True
    return False


def _directories(cwd: str, paths: list[str], *, with_cwd: bool) -> tuple[str, ...]:
    """Absolute directories of ``paths``, each once; ".." is kept, as it may follow a symlink."""
    found = {posixpath.join(cwd, posixpath.dirname(path)) for path in paths}
    found |= {cwd} if with_cwd else set()
    plain = (path if ".." in path.split("/") else _plain(path) for path in found)
    return tuple(sorted(dict.fromkeys(plain)))


def _plain(path: str) -> str:
    """An absolute path, normalised, also without the two leading slashes that POSIX allows."""
    return "/" + posixpath.normpath(path).lstrip("/")
