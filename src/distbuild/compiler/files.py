"""Finds the configuration files and shared libraries that a compiler reads. Used to compute a
compiler's identity.

gcc reads ``specs`` files and clang ``.cfg`` files that no command line names; the dynamic linker,
which is queried, chooses the libraries. Knows no job.
"""

import os
import re
import shlex
import struct
import subprocess
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from distbuild.system.paths import WINDOWS

#: A dynamic linker that does not respond in this time is broken.
ASK_TIMEOUT_S = 30.0
#: The directories in which clang looks for configuration files besides its own (``clang -v``).
_CONFIGURED = re.compile(r"^(System|User) configuration file directory: (.+)$", re.MULTILINE)
#: The gcc installations from which clang takes headers, the newest of a directory; and the
#: directories of distributions' other installations, which precede them.
_GCC_INSTALLATION = re.compile(r"^Found candidate GCC installation: (.+)$", re.MULTILINE)
_GCC_ELSEWHERE = ("/opt/rh", "/etc/env.d/gcc")
#: Debian's names of the machine for -m32 and -mx32.
_OTHER_WIDTHS = ("i386-linux-gnu", "x86_64-linux-gnux32")
#: Debian's libraries for -m32: clang 19 looks whether they are there.
_MULTIARCH = ("/lib/i386-linux-gnu", "/usr/lib/i386-linux-gnu")
#: The includes of a configuration file. Also matches some that are quoted or in comments: an
#: additional file in the identity does no harm.
_INCLUDED = re.compile(rb"""(?:^|[\s"'])@([^\s"'#\0]+)""", re.MULTILINE)
_MAX_INCLUDED = 100
_MAX_CONFIG_BYTES = 1 << 20

_SEARCHED = re.compile(r"^(install|programs|libraries): =?(.*)$", re.MULTILINE)
#: The directory of gcc's parts that is compiled into it; only the specs of its machine are read
#: there (gcc.cc, set_up_specs: standard_exec_prefix). No option of gcc prints it.
_COMPILED_IN = re.compile(rb"\0(/[^\0\n]{0,300}/gcc[^/\0\n]{0,20}/)\0")

_LOADED = re.compile(r"^\s*(?:\S+ => )?(/.*) \(0x[0-9a-f]+\)$", re.MULTILINE)
#: Directories in a program's own RPATH or RUNPATH, or in LD_LIBRARY_PATH; those of the system
#: follow the linker's cache.
_SEARCHED_FIRST = re.compile(r"search path=(.*?)\s*\((?:RPATH|RUNPATH|LD_LIBRARY_PATH)\b.*$", re.M)
#: The dynamic linker's variables that are passed on from a compile's environment. Not LD_AUDIT:
#: even with ``--list``, the linker runs the code of such a library.
LINKER_VARIABLES = ("LD_LIBRARY_PATH", "LD_PRELOAD")
#: Files that decide which libraries are loaded.
_LINKER = ("/etc/ld.so.cache", "/etc/ld.so.preload")
#: Libraries that compilers' programs are linked with and that do not influence their output:
#: terminals, command line editing, XML for manifests of Windows and its dependencies, allocators,
#: and those that simulate other owners of files. They are updated often.
_WITHOUT_EFFECT = re.compile(
    r"lib(?:bsd|edit|eatmydata|fakeroot\S*|ffi|icu\w+|jemalloc|lzma|md|mimalloc|ncursesw?|readline"
    r"|tcmalloc\w*|tinfow?|xml2)(?:-[\w.]+)?\.so[\w.]*"
)
#: Subdirectories of library directories, for processors with more features than the baseline.
_VARIANTS = ("glibc-hwcaps", "tls", "x86_64")
_ELF, _PT_INTERP = b"\x7fELF", 3
_MAX_TABLE_BYTES = 1 << 16


class Found(msgspec.Struct, frozen=True):
    """The files that a compiler reads. ``contents``: (a name that is the same on all machines,
    path) of files whose bytes count. ``places``: paths, existing or not, whose change shows that
    the compiler may read other files from now on."""

    contents: tuple[tuple[str, str], ...]
    places: tuple[str, ...]
    #: The options that its configuration adds to every command, or to some.
    options: tuple[str, ...] = ()


def gcc_configuration(
    real: str, machine: str, search_dirs: str, on_path: Iterable[str] = ()
) -> Found:
    """The specs files of the gcc at ``real``. ``search_dirs``: its ``-print-search-dirs`` output.
    ``on_path``: directories of PATH with programs that it may call.

    A superset of the directories that gcc searches, in its order.
    """
    listed = {kind: text.split(os.pathsep) for kind, text in _SEARCHED.findall(search_dirs)}
    installed = list(filter(None, listed.get("install", [])))
    programs = [*installed, *listed.get("programs", [])]
    above = [os.path.join(directory, "..") for directory in installed]
    own = [os.path.join(directory, machine) for directory in _compiled_in(real)]
    tried = [*programs, *above, *listed.get("libraries", []), *own]
    specs = [os.path.join(directory, "specs") for directory in _each_once(tried)]
    contents = tuple(("specs", path) for path in specs if _is_readable(path))
    # gcc 15 looks for its assembler in such directories first.
    beside = [os.path.join(place, name) for place in on_path for name in (machine, *_OTHER_WIDTHS)]
    # In a directory of programs an assembler may appear that precedes the present one.
    return Found(contents, (*_each_once(programs), *specs, *_each_once(beside)))


def clang_configuration(driver: str, banner: str) -> Found:
    """The configuration files of the clang that is called by this path. ``banner``: its ``-v``
    output.

    The target, and so the command, decides which of a directory's files are read: all count.
    """
    # With -no-canonical-prefixes, clang looks beside the path that it is called by, also for its
    # own headers.
    called = {"": os.path.realpath(driver), "Called": driver}
    directories = {role: os.path.dirname(path) for role, path in called.items()}
    directories.update(_CONFIGURED.findall(banner))
    contents: list[tuple[str, str]] = []
    places = [*dict.fromkeys(gcc_places(banner)), *_GCC_ELSEWHERE, *_MULTIARCH]
    places.append(os.path.join(os.path.dirname(driver), os.pardir, "lib", "clang"))
    # clang 21 looks for a gcc beside itself.
    above = os.path.join(os.path.dirname(called[""]), os.pardir, "lib")
    places += [os.path.join(above, name) for name in ("gcc", "gcc-cross")]
    for role, directory in directories.items():
        if directory in places:
            continue
        places.append(directory)
        for name in _configuration_names(directory):
            path = os.path.join(directory, name)
            if _is_readable(path):
                contents.append((f"{role} {name}", path))
            for included in _included(path):
                places.append(included)
                if _is_readable(included):
                    contents.append((f"{role} {name} @", included))
    options = (word for _, path in contents for word in _options(path))
    return Found(tuple(contents), tuple(places), tuple(dict.fromkeys(options)))


def libraries(programs: Iterable[str], env: Mapping[str, str]) -> Found:
    """The shared libraries of programs and their dynamic linkers, by real paths.

    ``env``: the dynamic linker's own variables, such as LD_LIBRARY_PATH.
    """
    found: set[str] = set()
    searched: set[str] = set()
    for program in programs:
        said = _ask_linker(program, env)
        found.update(map(os.path.realpath, _LOADED.findall(said)))
        for text in _SEARCHED_FIRST.findall(said):
            searched.update(map(_nearest, text.split(os.pathsep)))
    named = sorted((os.path.basename(path), path) for path in found)
    return Found(tuple(named), (*_LINKER, *sorted(searched)) if named else ())


def linker_environment(values: Iterable[str | None], cwd: str) -> tuple[tuple[str, str], ...]:
    """``LINKER_VARIABLES`` with these values, absolute with regard to ``cwd``, without directories
    that have no library."""
    library_path, preload = values
    directories = (os.path.join(cwd, entry) for entry in re.split("[:;]", library_path or ""))
    words = filter(None, re.split("[: ]", preload or ""))
    kept = (
        ":".join(filter(_may_have_libraries, directories)) if library_path else "",
        # A name without a slash is searched for, as the program's own libraries are.
        ":".join(os.path.join(cwd, word) if "/" in word else word for word in words),
    )
    return tuple((n, value) for n, value in zip(LINKER_VARIABLES, kept, strict=True) if value)


def _may_have_libraries(directory: str) -> bool:
    if "$" in directory:  # $ORIGIN and the like: only the linker expands them
        return True
    try:
        names = os.listdir(directory)
    except OSError:
        return False
    return any(".so" in name or name in _VARIANTS for name in names)


def has_effect(library: str) -> bool:
    """Whether a compiler's output may depend on a library of this name."""
    return _WITHOUT_EFFECT.fullmatch(library) is None


def gcc_places(banner: str) -> Iterator[str]:
    """Directories in which clang would find further installations of gcc, and their assemblers."""
    for installation in _GCC_INSTALLATION.findall(banner):
        machine_dir = os.path.dirname(installation)
        every = os.path.dirname(machine_dir)
        yield from (machine_dir, every, os.path.join(os.path.dirname(every), "gcc-cross"))
        yield os.path.join(installation, "../../../..", os.path.basename(machine_dir), "bin")


def _is_readable(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.R_OK)


def _each_once(directories: Iterable[str]) -> list[str]:
    """The directories without duplicates, each in its first spelling."""
    first: dict[str, str] = {}
    for directory in directories:
        if directory:
            first.setdefault(os.path.realpath(directory), directory)
    return list(first.values())


def _compiled_in(driver: str) -> list[str]:
    try:
        with open(driver, "rb") as file:
            return sorted(set(map(os.fsdecode, _COMPILED_IN.findall(file.read()))))
    except OSError:
        return []


def _configuration_names(directory: str) -> list[str]:
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    return sorted(name for name in names if name.endswith(".cfg"))


def _included(path: str) -> list[str]:
    """The files that a configuration file includes, those that these include, and so on."""
    found: list[str] = []
    pending = [path]
    while pending and len(found) < _MAX_INCLUDED:
        here = pending.pop()
        for name in _INCLUDED.findall(_text(here)):
            directory = os.path.dirname(here)
            expanded = os.fsdecode(name).replace("<CFGDIR>", directory)
            there = os.path.join(directory, expanded)
            if there not in found:
                found.append(there)
                pending.append(there)
    return found


def _options(path: str) -> list[str]:
    text = os.fsdecode(_text(path)).replace("<CFGDIR>", os.path.dirname(path))
    try:
        words = shlex.split(text, comments=True)
    except ValueError:
        return [text]  # matches no known option
    return [word for word in words if not word.startswith("@")]


def _text(path: str) -> bytes:
    if not _is_readable(path):  # a pipe would block
        return b""
    try:
        with open(path, "rb") as file:
            return file.read(_MAX_CONFIG_BYTES)
    except OSError:
        return b""


def _nearest(directory: str) -> str:
    """A directory, or its nearest existing parent, in which it would appear."""
    while not os.path.isdir(directory) and os.path.dirname(directory) != directory:
        directory = os.path.dirname(directory)
    return directory or "/"


def _ask_linker(program: str, env: Mapping[str, str]) -> str:
    """The dynamic linker's output about the libraries of a program and the directories that it
    searches; "" if it cannot be run."""
    linker = None if WINDOWS else _linker(program)
    if linker is None:
        return ""
    try:
        done = subprocess.run(
            [linker, "--list", program],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={"LC_ALL": "C", "LD_DEBUG": "libs", **env},
            cwd="/",
            timeout=ASK_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return f"{os.fsdecode(done.stdout)}\n{linker} (0x0)\n"


def _linker(program: str) -> str | None:
    """The dynamic linker in a program's ELF header (PT_INTERP); None: a script, or static."""
    try:
        with open(program, "rb") as file:
            head = file.read(64)
            if len(head) < 64 or head[:4] != _ELF:
                return None
            wide, order = head[4] == 2, "<" if head[5] == 1 else ">"
            start = struct.unpack_from(order + ("Q" if wide else "I"), head, 32 if wide else 28)[0]
            size, count = struct.unpack_from(order + "HH", head, 54 if wide else 42)
            file.seek(start)
            for entry in _entries(file.read(min(size * count, _MAX_TABLE_BYTES)), size):
                kind = struct.unpack_from(order + "I", entry)[0]
                if kind == _PT_INTERP:
                    where = ("Q", 8, 32) if wide else ("I", 4, 16)
                    offset = struct.unpack_from(order + where[0], entry, where[1])[0]
                    length = struct.unpack_from(order + where[0], entry, where[2])[0]
                    file.seek(offset)
                    return os.fsdecode(file.read(min(length, 4096)).rstrip(b"\0"))
    except (OSError, ValueError, struct.error):
        pass
    return None


def _entries(table: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(table), size or 1):
        yield table[start : start + size]
