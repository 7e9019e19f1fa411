"""Parses a cl or clang-cl command line into a CompileCommand, or a Local with the LocalReason.

Decides purpose, language and outputs from the result of ``scan``. Knows no option syntax.
"""

import posixpath
from collections.abc import Sequence

from distbuild.command import driver
from distbuild.command.cl.scan import ClScan, output_name, scan
from distbuild.command.model import (
    HERE,
    CompileCommand,
    Dependencies,
    Family,
    Local,
    LocalReason,
    PathStyle,
    Role,
)
from distbuild.command.original_paths import is_device, is_of_process, special_input
from distbuild.command.response import ReadFile

#: Reasons that describe the purpose of the whole command; they outrank those of one option.
_MODES = frozenset(
    (LocalReason.INFORMATION, LocalReason.PREPROCESS_ONLY, LocalReason.DEPENDENCIES_ONLY)
)
_COMPILED = frozenset(("c", "c++"))
_SAID = {"-TC": "c", "-TP": "c++"}
#: Names that denote devices on Windows, in any directory and with any suffix.
_NOWHERE = frozenset(("nul", "con", "prn", "aux", "stdout"))


def parse(
    argv: Sequence[str],
    cwd: str,
    read_file: ReadFile,
    family: Family,
    style: PathStyle = HERE,
) -> CompileCommand | Local:
    """As ``distbuild.command.parse.parse``; ``argv`` already includes the words of CL and _CL_."""
    found = scan(argv, cwd, read_file, family, style)
    if isinstance(found, Local):
        return found
    for local in found.obstacles:
        if local.reason in _MODES:
            return local
    language = _language(found)
    if isinstance(language, Local):
        unknown = language.reason is LocalReason.UNKNOWN_LANGUAGE
        return (_obstacle(found) if unknown else None) or language
    obstacle = _obstacle(found)
    return obstacle or _command(found, argv[0], cwd, language)


def split(
    argv: Sequence[str], cwd: str, read_file: ReadFile, family: Family, style: PathStyle = HERE
) -> list[list[str]]:
    """Splits a command with several sources into one argv per source, in order; [] if it cannot."""
    found = scan(argv, cwd, read_file, family, style)
    if isinstance(found, Local):
        return []
    places = [place for _, _, place in found.sources]
    named = found.last.get("-Fo")
    if (named and not style.is_directory_name(named)) or any(
        word.startswith("-clang:-MF") for word in found.last
    ):
        return []  # one output for all sources
    return [
        [
            argv[0],
            *(
                token
                for at, argument in enumerate(found.arguments)
                if at == place or at not in places
                for token in argument.tokens()
            ),
        ]
        for place in places
    ]


def _language(scan: ClScan) -> str | Local:
    """The language of the single source, or the reason why this is no compile of one source."""
    if obstacle := _no_single_compile(scan):
        return obstacle
    source, typed, _ = scan.sources[0]
    said = [argument.meaning for argument in scan.arguments if argument.meaning in _SAID]
    if typed is not None or said:
        return typed or _SAID[said[-1]]
    name = source.lower() if scan.style is PathStyle.WINDOWS else source
    language = driver.language_by_suffix(name, Family.CL, cxx=False)
    if isinstance(language, str) and language not in _COMPILED:
        return Local(LocalReason.UNKNOWN_LANGUAGE, source)
    return language


def _no_single_compile(scan: ClScan) -> Local | None:
    if any(local.reason is LocalReason.STDIN for local in scan.obstacles):
        return Local(LocalReason.STDIN)
    if not scan.sources:
        return Local(LocalReason.NO_SOURCE)
    if "-c" not in scan.last:
        return Local(LocalReason.LINK)
    if len(scan.sources) > 1:
        # An apparent source may be the value of an unknown option.
        return _obstacle(scan) or Local(LocalReason.SEVERAL_SOURCES, scan.sources[1][0])
    return None


def _obstacle(scan: ClScan) -> Local | None:
    """The first reason, other than purpose and language, to compile locally."""
    for local in scan.obstacles:
        # /Y- disables precompiled headers, at any position.
        if local.reason is not LocalReason.PRECOMPILED_HEADER or "-Y-" not in scan.last:
            return local
    if sum(argument.meaning == "-Fo" for argument in scan.arguments) > 1:
        return Local(LocalReason.UNSUPPORTED_OPTION, "/Fo")
    if scan.family is Family.CL and scan.last.get("-sourceDependencies") == "-":
        return Local(LocalReason.STDOUT, "/sourceDependencies")
    return _bad_dependencies(scan)


def _bad_dependencies(scan: ClScan) -> Local | None:
    """The first of clang's own dependency options whose use is not modelled."""
    asked = any(f"-clang:{name}" in scan.last for name in ("-MD", "-MMD"))
    file = scan.last.get("-clang:-MF")
    if asked != bool(file):
        return Local(LocalReason.UNSUPPORTED_OPTION, "/clang:-MF")
    if file in ("-", "/dev/null"):
        return Local(LocalReason.STDOUT if file == "-" else LocalReason.OUTPUT_SPECIAL, "-MF")
    for name in ("-clang:-MT", "-clang:-MQ"):
        if name in scan.last and not (asked and scan.last[name]):
            return Local(LocalReason.UNSUPPORTED_OPTION, name)
    return None


def _command(scan: ClScan, compiler: str, cwd: str, language: str) -> CompileCommand | Local:
    source = scan.sources[0][0]
    if driver.is_probe(scan.style.absolute(cwd, source)):
        return Local(LocalReason.PROBE, source)
    output = output_name(scan.last.get("-Fo"), source, "obj", scan.style)
    dependencies = None
    if file := scan.last.get("-clang:-MF"):
        dependencies = Dependencies("-clang:-MMD" not in scan.last, file)
    written = [output, *((file,) if file else ()), *_listings(scan, source)]
    places = [scan.style.absolute(cwd, name) for name in written]
    if obstacle := _bad_output(scan, cwd, places):
        return obstacle
    directories = {posixpath.normpath(posixpath.dirname(place)) for place in places}
    if scan.tied_by:
        directories.add(cwd)
    command = CompileCommand(
        family=scan.family,
        compiler=compiler,
        arguments=tuple(scan.arguments),
        cwd=cwd,
        source=source,
        language=language,
        output=output,
        search_dirs=scan.values(Role.INPUT_DIR),
        input_files=scan.values(Role.INPUT_FILE, Role.UNLISTED_FILE),
        dependencies=dependencies,
        output_dirs=tuple(sorted(directories)),
        # clang-cl records its cc1 arguments, paths included, in the object. It therefore runs
        # unchanged, and not at all where the paths would differ.
        tied_by=scan.tied_by or ("clang-cl" if scan.style is PathStyle.POSIX else ""),
        by_products=tuple(_listings(scan, source)),
        unlisted_files=scan.values(Role.UNLISTED_FILE),
        guessed=tuple(scan.guessed),
        style=scan.style,
    )
    return special_input(command) or command


def _listings(scan: ClScan, source: str) -> list[str]:
    """Further output files that the options name or imply."""
    found = []
    if "-FA" in scan.last or "-Fa" in scan.last:
        found.append(output_name(scan.last.get("-Fa"), source, "asm", scan.style))
    if (json := scan.last.get("-sourceDependencies")) and scan.family is Family.CL:
        found.append(json)
    return found


def _bad_output(scan: ClScan, cwd: str, places: list[str]) -> Local | None:
    """An output that is special, in the root, or the same file as the source or another output."""
    taken = {posixpath.normpath(scan.style.absolute(cwd, scan.sources[0][0]))}
    for place in map(posixpath.normpath, places):
        stem = posixpath.basename(place).partition(".")[0]
        is_nowhere = scan.style is PathStyle.WINDOWS and stem.lower() in _NOWHERE
        if is_nowhere or place in taken or is_device(place) or is_of_process(place):
            return Local(LocalReason.OUTPUT_SPECIAL, place)
        if posixpath.dirname(place) == "/":
            return Local(LocalReason.OUTPUT_SPECIAL, "/")  # no sandbox has a private root
        taken.add(place)
    return None
