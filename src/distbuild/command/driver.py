"""Derives family, language and default outputs from file names, as gcc's and clang's drivers do.

Contains the conventions that both drivers share, as functions of strings. Knows no option tables.
"""

import functools
import ntpath
import posixpath
import re

from distbuild.command.model import MODULE_INTERFACE, Family, Local, LocalReason

_DRIVER = re.compile(
    r"(?:.*-)?(?P<name>gcc|g\+\+|cc|c\+\+|clang|clang\+\+)(?:-[0-9]+(?:\.[0-9]+)*)?(?:-(?:posix|win32))?"
)
_CL_DRIVER = re.compile(r"(?:clang-)?cl(?:-[0-9]+(?:\.[0-9]+)*)?(?:\.exe)?", re.IGNORECASE)

#: Suffix -> language; GCC 12 manual, "Options Controlling the Kind of Output".
_LANGUAGES = {
    ".C": "c++",
    ".CPP": "c++",
    ".M": "objective-c++",
    ".S": "assembler-with-cpp",
    ".c": "c",
    ".c++": "c++",
    ".cc": "c++",
    ".cp": "c++",
    ".cpp": "c++",
    ".cxx": "c++",
    ".i": "cpp-output",
    ".ii": "c++-cpp-output",
    ".m": "objective-c",
    ".mi": "objective-c-cpp-output",
    ".mii": "objective-c++-cpp-output",
    ".mm": "objective-c++",
    ".s": "assembler",
    ".sx": "assembler-with-cpp",
}
_HEADERS = frozenset((".H", ".h", ".h++", ".hh", ".hp", ".hpp", ".HPP", ".hxx", ".tcc"))
#: Sources of module interfaces for clang; gcc knows them only by -x.
_MODULE_INTERFACES = frozenset((".c++m", ".ccm", ".cppm", ".cxxm", ".ixx"))
#: Languages that g++ and clang++ choose where gcc and clang choose C.
_AS_CXX = {"c": "c++", "cpp-output": "c++-cpp-output"}

#: Languages of preprocessed text, whose line markers contain the original paths.
PREPROCESSED = frozenset(language for language in _LANGUAGES.values() if "cpp-output" in language)
#: Languages without a preprocessor: -MD writes no file, and the source includes nothing.
INCLUDES_NOTHING = PREPROCESSED | {"assembler"}
#: Drivers for languages other than C, C++ and Objective-C.
_OTHER_LANGUAGES = re.compile(
    r"(?:.*-)?(?:gfortran|f77|f95|flang|gdc|gccgo|gm2|gnat[a-z]*|gccrs|gcobol|nvcc|ldc2|dmd)"
    r"(?:-[0-9]+(?:\.[0-9]+)*)?"
)

#: Clang's scanner for modules, which preprocesses; its arguments are a compile command.
_SCANNER = re.compile(r"clang-scan-deps(?:-[0-9]+(?:\.[0-9]+)*)?(?:\.exe)?")

#: Sources of autoconf and SCons; directories of CMake, Meson, SCons, Waf and Qt's configure.
_PROBES = ("conftest.", "conftest_")
_PROBE_DIRECTORIES = frozenset(
    ("CMakeTmp", "CMakeScratch", "meson-private", ".sconf_temp", ".conf_check", "config.tests")
)
_TRY_COMPILE = "TryCompile-"


@functools.lru_cache(maxsize=1000)
def family_of(program: str) -> Family | None:
    """The family of a driver by its file name (``x86_64-linux-gnu-g++-12``); None for no driver."""
    name = ntpath.basename(program)
    match = _DRIVER.fullmatch(name)
    if match is None:
        if _CL_DRIVER.fullmatch(name) is None:
            return None
        # Which compiler a program called cl is, running it decides later.
        return Family.CLANG_CL if name.lower().startswith("clang") else Family.CL
    return Family.CLANG if match["name"].startswith("clang") else Family.GCC


def speaks_another_language(program: str) -> bool:
    """True for the driver of a Fortran, D, Go or Ada compiler, by its file name."""
    return _OTHER_LANGUAGES.fullmatch(posixpath.basename(program)) is not None


def is_cxx_source(path: str) -> bool:
    """Whether clang takes a file for C++, or for the interface of a C++ module."""
    suffix = posixpath.splitext("_" + posixpath.basename(path))[1]
    return suffix in _MODULE_INTERFACES or _LANGUAGES.get(suffix) == "c++"


def is_scanner(program: str) -> bool:
    """True for the program that only lists the modules that a source provides and imports."""
    return _SCANNER.fullmatch(ntpath.basename(program)) is not None


def compiles_cxx(program: str) -> bool:
    """True for the drivers that treat .c as C++."""
    match = _DRIVER.fullmatch(posixpath.basename(program))
    return match is not None and match["name"].endswith("++")


def language_by_suffix(source: str, family: Family, *, cxx: bool) -> str | Local:
    """The language a driver chooses for ``source`` when no -x is in effect."""
    suffix = posixpath.splitext("_" + posixpath.basename(source))[1]
    if suffix in _HEADERS:
        return Local(LocalReason.PRECOMPILED_HEADER, source)
    if suffix in _MODULE_INTERFACES:
        return _module_interface(family, source)
    language = _LANGUAGES.get(suffix)
    if language is None:
        return Local(LocalReason.UNKNOWN_LANGUAGE, source)
    return _AS_CXX.get(language, language) if cxx else language


def language_by_name(name: str, family: Family) -> str | Local:
    """The language that ``-x name`` stands for."""
    if name.endswith("-header"):
        return Local(LocalReason.PRECOMPILED_HEADER, name)
    if name == MODULE_INTERFACE:
        return _module_interface(family, name)
    if name.endswith("-module"):
        return Local(LocalReason.MODULES, name)
    if name in _LANGUAGES.values():
        return name
    return Local(LocalReason.UNKNOWN_LANGUAGE, name)


def _module_interface(family: Family, name: str) -> str | Local:
    return MODULE_INTERFACE if family is Family.CLANG else Local(LocalReason.MODULES, name)


def is_probe(source: str) -> bool:
    """Whether a build system tests the compiler with this file.

    Distribution does not speed these up: they are short, run one by one, and many fail on purpose.
    """
    *directories, name = source.split("/")
    if name.startswith(_PROBES) or not _PROBE_DIRECTORIES.isdisjoint(directories):
        return True
    if _TRY_COMPILE not in source:
        return False
    return any(directory.startswith(_TRY_COMPILE) for directory in directories)


def default_output(source: str, *, assembly: bool) -> str:
    """The file in the current directory that -c or -S writes when there is no -o."""
    return stem(source) + (".s" if assembly else ".o")


def default_dependency_file(source: str, explicit_output: str | None) -> str:
    """The file that -MD writes when there is no -MF: beside the -o, else in the current directory.

    Measured with gcc 12 and clang 14: the last suffix is cut, even ``.o``; ``-o foo`` gives foo.d.
    """
    if explicit_output is None:
        return stem(source) + ".d"
    return posixpath.join(posixpath.dirname(explicit_output), stem(explicit_output) + ".d")


def stem(path: str) -> str:
    """The file name without its last suffix; a name that is all suffix has an empty stem."""
    name = posixpath.basename(path)
    return name.rpartition(".")[0] if "." in name else name
