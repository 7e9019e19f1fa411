"""Builds the probe of a compiler's search path, parses its output, and filters its environment.

Pure: the caller runs the probe, with LC_ALL=C and without the include variables.
"""

import functools
import posixpath
import re
from collections.abc import Iterator, Mapping

from distbuild.command.cl.scan import VARIABLES
from distbuild.command.model import CompileCommand, Family, Local, LocalReason

#: Options that move, add or remove built-in search directories, or the implicit include.
_PROBED = frozenset(
    "--gcc-toolchain= --sysroot --target= -X -ansi -ffreestanding -fhosted -fno-hosted -iprefix"
    " -isysroot -m16 -m32 -m64 -mx32 -no-canonical-prefixes -nobuiltininc -nostdinc -nostdinc++"
    " -nostdlibinc -resource-dir -resource-dir= -stdlib= -target".split()
)
_PROBED_PREFIXES = ("-mabi=", "-march=", "-mcpu=", "-mfloat-abi=", "-mfpu=", "-mthumb", "-marm")

_ABSENT = re.compile(r'^ignoring nonexistent directory "(.*)"$', re.MULTILINE)
_BEGIN = re.compile(r"^#include <\.\.\.>.*:$")
_IMPLICIT = re.compile(r'^# \d+ "(/[^"]*)" 1 3', re.MULTILINE)

#: Variables passed to a worker's compiler, besides LC_* and certain values of TERMINFO and PWD.
ALLOWED_ENV = frozenset(
    "CLICOLOR_FORCE COLORTERM COLUMNS CPATH CPLUS_INCLUDE_PATH C_INCLUDE_PATH EXTERNAL_INCLUDE"
    " GCC_COLORS GCC_EXTRA_DIAGNOSTIC_OUTPUT GCC_URLS INCLUDE LANG LANGUAGE NO_COLOR"
    " OBJCPLUS_INCLUDE_PATH OBJC_INCLUDE_PATH SOURCE_DATE_EPOCH TERM TERM_URLS TZ".split()
)
ALLOWED_ENV_PREFIXES = ("LC_",)

#: Prefixes of a TERMINFO that holds the entry itself and no local directory (ncurses(3), 6.1).
_INLINE = ("b64:", "hex:")
#: Locations of the dev box's programs, libraries, configuration and terminal descriptions. The
#: files that they name stay on the dev box.
_LOCATES = tuple("HOME LD_LIBRARY_PATH LD_PRELOAD PATH TERMINFO TERMINFO_DIRS".split())

#: Bazel's PWD: the current directory of any process, so all machines record the same path.
_CWD_OF_PROCESS = "/proc/self/cwd"
_PROC = "/proc/"

_RUNS_OTHER_CODE = tuple(
    "CCC_ADD_ARGS CCC_OVERRIDE_OPTIONS CLANG_CONFIG_FILE_SYSTEM_DIR CLANG_CONFIG_FILE_USER_DIR"
    " COMPILER_PATH GCC_COMPARE_DEBUG GCC_EXEC_PREFIX GCONV_PATH LD_AUDIT".split()
)
_WRITES_OR_MOVES = tuple(
    "CC_LOG_DIAGNOSTICS CC_PRINT_HEADERS CC_PRINT_INTERNAL_STAT CC_PRINT_OPTIONS"
    " CC_PRINT_PROC_STAT CLANG_NO_DEFAULT_CONFIG DEPENDENCIES_OUTPUT EXPERIMENTAL_SARIF_SOCKET"
    " GCC_DIAGNOSTICS_LOG LLVM_OVERRIDE_PRODUCER LOCPATH SDKROOT SUNPRO_DEPENDENCIES".split()
)
#: Minimum release of Apple's systems for the code, and what is recorded for Apple's tools.
_CHOOSES_SYSTEM = tuple(
    "DRIVERKIT_DEPLOYMENT_TARGET IPHONEOS_DEPLOYMENT_TARGET MACOSX_DEPLOYMENT_TARGET"
    " RC_DEBUG_OPTIONS RC_DEBUG_PREFIX_MAP TVOS_DEPLOYMENT_TARGET WATCHOS_DEPLOYMENT_TARGET"
    " XROS_DEPLOYMENT_TARGET".split()
)
_NOT_MODELLED = (*_WRITES_OR_MOVES, *_CHOOSES_SYSTEM)
_OBSTACLES = frozenset((*_RUNS_OTHER_CODE, *_NOT_MODELLED))
#: Where a clang for Windows finds headers (clang's MSVC.cpp), with either command-line syntax.
_FINDS_VISUAL_STUDIO = ("VCINSTALLDIR", "VCToolsInstallDir")
_FOR_WINDOWS = ("EXTERNAL_INCLUDE", "INCLUDE", *_FINDS_VISUAL_STUDIO)
_ASSEMBLER_APART = ("-no-integrated-as", "-fno-integrated-as")
_NAMES_TARGET = re.compile(".+-clang")
_WINDOWS_TARGET = re.compile("windows|msvc|win32", re.IGNORECASE)


def search_probe(command: CompileCommand) -> tuple[str, ...]:
    """Arguments that decide the built-in search directories of ``command``.

    Run as ``COMPILER *probe -E -v -`` with empty input: ``parse_search_dirs`` reads its stderr,
    ``parse_implicit_include`` its stdout. Equal probes of a compiler have equal output.
    """
    if command.family.speaks_cl:
        return ("/TC" if command.language == "c" else "/TP", *_probed_words(command))
    return ("-x", _probe_language(command.language), *_probed_words(command))


def parse_search_dirs(stderr: str) -> tuple[str, ...]:
    """The directories of ``#include <...>``, in order, as the compiler spells them.

    The heading contains ``#include <...>`` in every language; the list ends at the first line
    that is not indented.
    """
    lines = iter(stderr.splitlines())
    if not any(_BEGIN.match(line) for line in lines):
        return ()
    found = []
    for line in lines:
        if not line.startswith(" "):
            break
        found.append(line.strip().removesuffix(" (framework directory)"))
    return tuple(found)


def parse_absent_dirs(stderr: str) -> tuple[str, ...]:
    """The nonexistent directories that the compiler would search."""
    return tuple(_ABSENT.findall(stderr))


def parse_implicit_include(stdout: str) -> str | None:
    """The header that the compiler includes implicitly (glibc's stdc-predef.h), or None."""
    match = _IMPLICIT.search(stdout)
    return match[1] if match else None


#: Directory lists that only the cl family reads, always separated by semicolons.
CL_PATH_LISTS = ("INCLUDE", "EXTERNAL_INCLUDE")


def environment_for(family: Family, env: Mapping[str, str]) -> dict[str, str]:
    """The variables of ``env`` that are passed to a compiler of this family."""
    return dict(_environment_for(family, tuple(env.items())))


@functools.lru_cache(maxsize=100)
def _environment_for(family: Family, env: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """Cached: all commands of a build have the same environment."""
    allowed = allowed_environment(dict(env))
    if family.speaks_cl:
        return allowed
    return {name: value for name, value in allowed.items() if name not in CL_PATH_LISTS}


def allowed_environment(env: Mapping[str, str]) -> dict[str, str]:
    """The variables of ``env`` that are passed to a worker's compiler."""
    return {
        name: value
        for name, value in env.items()
        if name in ALLOWED_ENV
        or name.startswith(ALLOWED_ENV_PREFIXES)
        or (name == "TERMINFO" and value.startswith(_INLINE))
        or (name == "PWD" and value == _CWD_OF_PROCESS)
    }


#: "0": the object cache is not used.
CACHE_SWITCH = "DIST_BUILD_CACHE"
#: The history takes the jobs with the same value for one build.
BUILD_NAME = "DIST_BUILD_BUILD"


def telling_environment(env: Mapping[str, str]) -> dict[str, str]:
    """The part of ``env`` that decides how and where a command is compiled.

    These are passed to the compiler, prevent distribution, switch off the object cache, name the
    build, or locate the driver, its parts and the terminal's description.
    """
    names = {CACHE_SWITCH, BUILD_NAME, *_LOCATES, *_OBSTACLES, *_FINDS_VISUAL_STUDIO, *VARIABLES}
    more = {name: value for name, value in env.items() if name in names}
    if is_odd_pwd(env.get("PWD", "")):
        more["PWD"] = env["PWD"]
    return {**more, **allowed_environment(env)}


def is_odd_pwd(path: str) -> bool:
    """Whether a PWD is in /proc, whose paths depend on the process and are in no mirror."""
    return path.startswith(_PROC)


def environment_obstacle(env: Mapping[str, str]) -> Local | None:
    """Why a compile with this environment stays local: a variable with an unmodelled effect."""
    pwd = env.get("PWD", "")
    if is_odd_pwd(pwd) and pwd != _CWD_OF_PROCESS:
        return Local(LocalReason.UNSUPPORTED_OPTION, "PWD")
    if _OBSTACLES.isdisjoint(env):
        return None
    for name in _RUNS_OTHER_CODE:
        if name in env:
            return Local(LocalReason.RUNS_OTHER_CODE, name)
    name = next(name for name in _NOT_MODELLED if name in env)
    return Local(LocalReason.UNSUPPORTED_OPTION, name)


def target_obstacle(command: CompileCommand, name: str, env: Mapping[str, str]) -> Local | None:
    """Why a compile for Windows by clang stays local: variables choose its headers.

    ``name``: the compiler's name in the command, which may begin with a target.
    """
    found = next((variable for variable in _FOR_WINDOWS if env.get(variable)), None)
    if found is None or command.family is not Family.CLANG:
        return None
    asked = (a.value or "" for a in command.arguments if a.meaning == "-target")
    if any(_WINDOWS_TARGET.search(word) for word in (posixpath.basename(name), *asked)):
        return Local(LocalReason.UNSUPPORTED_OPTION, found)
    return None


def assembler_obstacle(command: CompileCommand, name: str) -> Local | None:
    """Why a clang compile with another target's external assembler stays local.

    clang's identity covers only the host's assembler. ``name``: the compiler's in the command.
    """
    if command.family is not Family.CLANG:
        return None
    options = [a.option for a in command.arguments]
    found = next((option for option in _ASSEMBLER_APART if option in options), None)
    targeted = any(a.meaning == "-target" for a in command.arguments)
    if found and (targeted or _NAMES_TARGET.match(posixpath.basename(name))):
        return Local(LocalReason.UNSUPPORTED_OPTION, f"{found} for another machine")
    return None


def _probe_language(language: str) -> str:
    """The language whose search path applies; preprocessed text has that of its own language."""
    return language.removesuffix("-module").removesuffix("-cpp-output").replace("cpp-output", "c")


def _probed_words(command: CompileCommand) -> Iterator[str]:
    for argument in command.arguments:
        option = argument.option
        if (argument.same_as or option) in _PROBED or option.startswith(_PROBED_PREFIXES):
            yield from argument.tokens()
