"""Computes a compiler's identity: a digest that two machines share only if their compilers' outputs
are equal.

Queries the driver; hashes the programs that it runs, their libraries and their configuration. Used
by the syncer and the worker. Knows no job, no queue and no network.
"""

import contextlib
import functools
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping

import msgspec

from distbuild.command.driver import family_of
from distbuild.command.model import Family
from distbuild.compiler import files as compiler_files
from distbuild.compiler.files import Found
from distbuild.compiler.find import SKIP, is_script
from distbuild.mirror.digest_cache import DigestCache, StatKey, stat_key
from distbuild.protocol.errors import CompilerScript, InfrastructureError
from distbuild.system.paths import WINDOWS, from_system

#: A compiler that does not answer a query in this time counts as none.
ASK_TIMEOUT_S = 30.0
#: On Windows: a process without a console would otherwise show one for each program that it runs.
_NO_WINDOW = getattr(subprocess, "CREATE_NO_WINDOW", 0)

#: TTL of the results of searching PATH and the like (seconds).
AROUND_S = 1.0
#: No directory: a compiler on a worker has no home, and so no configuration from there.
NO_HOME = "/nonexistent"

#: The first line of a Microsoft compiler's output, in the language of its installation.
_MICROSOFT = re.compile(
    r"^.*Microsoft.*?(\d+\.\d+\.\d+(?:\.\d+)?)\D.*?(x64|x86|ARM64|ARM)\s*$", re.M
)
#: The programs and libraries in cl.exe's directory that determine its output.
_MICROSOFT_PARTS = re.compile(r"(?:cl\.exe|c1\w*\.dll|c2\.dll|mspdb\w*\.dll|tbbmalloc\.dll)", re.I)
_TARGET = re.compile(r"^Target: (\S+)", re.M)
#: Programs that gcc and clang find through PATH if they have none of their own.
BY_PATH = ("as", "objcopy")
_GCC_PROGRAMS = ("cc1", "cc1plus", *BY_PATH)
#: Missing on most machines; part of the identity only for commands of that language.
_OBJECTIVE_C = ("cc1obj", "cc1objplus")
_DIRECTORY = re.compile(r'^ (/.*?)$|^ignoring \w+ directory "(.*)"$', re.MULTILINE)
_CC1 = re.compile(r'^ "(/.+?)" -cc1 ', re.MULTILINE)
_NUMBER = re.compile(r"\d+(\.\d+)*")
_CLANG_VERSION = re.compile(r"\bclang version (\S+)")


#: A file's state; None: it does not exist.
State = StatKey | None


class Identity(msgspec.Struct, frozen=True):
    """A compiler. ``digest`` (hex) has to agree between dev box and worker; ``version`` is for
    people; ``c_dirs`` and ``cxx_dirs`` are the built-in search directories that exist here, in
    order and as the compiler spells them; ``real_path`` is the driver behind all symlinks."""

    digest: str
    family: Family
    version: str
    real_path: str
    c_dirs: tuple[str, ...]
    cxx_dirs: tuple[str, ...]
    #: Programs, libraries and configuration files that it needs at run time.
    needs: tuple[str, ...] = ()
    #: The state of each of ``needs`` and ``places`` before it was read.
    states: tuple[State, ...] = ()
    #: Paths, existing or not, whose change shows that the compiler may read other files from now
    #: on.
    places: tuple[str, ...] = ()
    #: Options that its configuration adds to every command, or to some.
    options: tuple[str, ...] = ()
    #: The digest for Objective-C, if separate programs compile it.
    objective_c: str = ""

    def digest_for(self, language: str) -> str:
        """The digest to compare for a source in this language."""
        is_own = language.startswith("objective-c") and self.objective_c
        return self.objective_c if is_own else self.digest

    def digests(self) -> tuple[str, ...]:
        """The digests for all languages."""
        return (self.digest, self.objective_c) if self.objective_c else (self.digest,)


class Around(msgspec.Struct, frozen=True):
    """The parts of an environment that decide which files a driver reads: the programs on PATH for
    the names in ``BY_PATH``, the variables of the dynamic linker, and HOME."""

    programs: tuple[tuple[str, str], ...] = ()
    linker: tuple[tuple[str, str], ...] = ()
    home: str = NO_HOME


def found_by_path(search_path: str) -> Around:
    """The environment of a worker's compiles, which have this PATH."""
    return Around(_by_path(search_path))


def around(env: Mapping[str, str], cwd: str, now: float) -> Around:
    """The same for an environment and a directory on the dev box. ``now``: in seconds; results have
    a TTL of AROUND_S."""
    if WINDOWS:
        return Around()
    variables = tuple(map(env.get, ("PATH", "HOME", *compiler_files.LINKER_VARIABLES)))
    is_tied = _names_relative(variables)
    return _around(variables, cwd if is_tied else "/", int(now / AROUND_S))


@functools.lru_cache(maxsize=100)
def _names_relative(variables: tuple[str | None, ...]) -> bool:
    """Whether one of the variables has a path that is relative to the compile's directory."""
    listed = (entry for text in variables if text for entry in re.split("[:;]", text))
    return not all(entry.startswith("/") for entry in listed)


@functools.lru_cache(maxsize=1000)
def _around(variables: tuple[str | None, ...], cwd: str, _: int) -> Around:
    path, home, *linker = variables
    path = os.defpath if path is None else path
    if home is None:
        home = os.path.expanduser("~")
    return Around(
        _by_path(os.pathsep.join(os.path.join(cwd, entry) for entry in path.split(os.pathsep))),
        compiler_files.linker_environment(linker, cwd),
        home if os.path.isdir(home) else NO_HOME,
    )


def _by_path(search_path: str) -> tuple[tuple[str, str], ...]:
    found = ((name, shutil.which(name, path=search_path)) for name in BY_PATH)
    return tuple((name, path) for name, path in found if path)


def are_as_identified(identities: Iterable[Identity]) -> bool:
    """Whether these compilers' files are unchanged, and no relevant one has appeared: an update may
    replace them without their drivers."""
    seen: dict[str, State] = {}
    for identity in identities:
        watched = (*identity.needs, *identity.places)
        for path, before in zip(watched, identity.states, strict=True):
            if path not in seen:
                seen[path] = state_of(path)
            if seen[path] != before:
                return False
    return True


def state_of(path: str) -> State:
    """The current state of a file."""
    try:
        return stat_key(os.stat(path))
    except OSError:
        return None


class _DriverFacts(msgspec.Struct, frozen=True):
    """A driver's answers to queries. ``files``: real paths of its programs. ``called``: the paths
    by which it calls them. ``objective_c``: more programs, for that language. ``searched``: the
    search directories for C and C++. ``find``: finds its present configuration."""

    family: Family
    version: str
    facts: list[str]
    files: list[str]
    searched: list[list[str]]
    called: tuple[str, ...] = ()
    objective_c: tuple[str, ...] = ()
    find: Callable[[], Found] = lambda: Found((), ())


class Identifier:
    """Identifies drivers; caches file digests in ``digests``."""

    def __init__(self, digests: DigestCache) -> None:
        self._digests = digests

    def identify(self, driver: str, around: Around | None = None) -> Identity:
        """The compiler at this path in an environment (None: with this process's PATH); raises
        InfrastructureError if it is of no known family, CompilerScript for a script."""
        if is_script(driver):
            raise CompilerScript(driver)
        if around is None:
            around = found_by_path(os.environ.get("PATH", os.defpath))
        named = family_of(os.path.basename(driver))
        banner = _ask(driver, "--version")
        clang = _CLANG_VERSION.search(banner)
        if named is not None and named.speaks_cl:
            asked = self._cl(driver, banner, clang[1] if clang else "", around.home)
        else:
            number = clang[1] if clang else _ask(driver, "-dumpfullversion").strip()
            if not _NUMBER.match(number):
                raise InfrastructureError(f"{driver} is neither gcc nor clang")
            machine = _ask(driver, "-dumpmachine").strip()
            options = [("-E", "-v", "-x", language, "-") for language in ("c", "c++")]
            searching = [_ask(driver, *words, home=around.home) for words in options]
            ask = self._clang if clang is not None else self._gcc
            asked = ask(driver, f"{number} {machine}", searching, around)
        return self._identity(os.path.realpath(driver), asked, around)

    def _gcc(self, driver: str, version: str, searching: list[str], around: Around) -> _DriverFacts:
        real, machine = os.path.realpath(driver), version.rpartition(" ")[2]
        called = _programs(driver, _GCC_PROGRAMS, around)
        places = _ask(driver, "-print-search-dirs")
        return _DriverFacts(
            Family.GCC,
            f"gcc {version}",
            [*_same_everywhere(machine, searching), _ask(driver, "-dumpspecs")],
            [real, *map(os.path.realpath, called)],
            list(map(_listed, searching)),
            called,
            tuple(map(os.path.realpath, _programs(driver, _OBJECTIVE_C, around))),
            lambda: compiler_files.gcc_configuration(
                real, machine, places, [os.path.dirname(path) for _, path in around.programs]
            ),
        )

    def _clang(
        self, driver: str, version: str, searching: list[str], around: Around
    ) -> _DriverFacts:
        machine = version.rpartition(" ")[2]
        plus = os.path.basename(driver).rstrip("0123456789.-").endswith("++")
        # The compiler itself, where the driver is another program that calls it.
        called = (*_CC1.findall(searching[0])[:1], *_programs(driver, BY_PATH, around))
        return _DriverFacts(
            Family.CLANG,
            f"clang {version}",
            [*_same_everywhere(machine, searching), "g++" if plus else "gcc"],
            list(dict.fromkeys(map(os.path.realpath, (driver, *called)))),
            list(map(_listed, searching)),
            called,
            find=lambda: compiler_files.clang_configuration(driver, searching[0]),
        )

    def _cl(self, driver: str, banner: str, clang: str, home: str) -> _DriverFacts:
        """A compiler named cl: clang-cl with this version of clang, or, for "", Microsoft's."""
        real = os.path.realpath(driver)
        if clang:
            target = _TARGET.search(banner)
            machine = target[1] if target else ""
            options = [("/E", "-v", language, "-") for language in ("/TC", "/TP")]
            searching = [_ask(driver, *words, home=home) for words in options]
            facts = _same_everywhere(machine, searching)
            return _DriverFacts(
                Family.CLANG_CL,
                f"clang-cl {clang} {machine}",
                facts,
                [real],
                list(map(_listed, searching)),
                find=lambda: compiler_files.clang_configuration(driver, searching[0]),
            )
        found = _MICROSOFT.search(banner) or _MICROSOFT.search(_ask(driver))
        if found is None:
            raise InfrastructureError(f"{driver} is neither Microsoft's cl nor clang-cl")
        version = f"cl {found[1]} {found[2]}"
        files = [real, *_microsoft_parts(os.path.dirname(real))]
        return _DriverFacts(Family.CL, version, [version], files, [[], []])

    def _identity(self, real: str, asked: _DriverFacts, around: Around) -> Identity:
        linker = dict(around.linker)
        found = _found(asked, linker)
        own = (*asked.files, *asked.called, *asked.objective_c)
        needs = tuple(sorted({*own, *(path for _, path in found.contents)}))
        states = tuple(map(state_of, (*needs, *found.places)))
        # A file that appeared before the state of its place was read is found now.
        if _found(asked, linker) != found:
            raise InfrastructureError(f"{real} is being changed")
        digests = [self._digest(file) for file in asked.files]
        read = [
            f"{name} {self._digest(path)}"
            for name, path in found.contents
            if compiler_files.has_effect(name)
        ]
        text = "\0".join([asked.family, *asked.facts, *digests, *read])
        more = "\0".join(self._digest(file) for file in asked.objective_c)
        # Only a cache: a disk that is full or read-only costs time, not correctness.
        with contextlib.suppress(OSError):
            self._digests.save()
        c_dirs, cxx_dirs = (tuple(d for d in dirs if os.path.isdir(d)) for dirs in asked.searched)
        return Identity(
            _sha256(text),
            asked.family,
            asked.version,
            real,
            c_dirs,
            cxx_dirs,
            needs,
            states,
            found.places,
            found.options,
            _sha256(f"{text}\0{more}") if more else "",
        )

    def _digest(self, file: str) -> str:
        try:
            return self._digests.of(from_system(file)).hex()
        except OSError as error:
            raise InfrastructureError(f"cannot read {file}: {error.strerror}") from error


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _found(asked: _DriverFacts, linker: Mapping[str, str]) -> Found:
    """The driver's configuration, libraries and search directories as they are now."""
    configuration = asked.find()
    libraries = compiler_files.libraries((*asked.files, *asked.objective_c), linker)
    # A directory that is created later is searched from then on.
    absent = {place for dirs in asked.searched for place in dirs if not os.path.isdir(place)}
    return Found(
        (*configuration.contents, *libraries.contents),
        (*configuration.places, *libraries.places, *sorted(absent)),
        configuration.options,
    )


def _same_everywhere(machine: str, searching: Iterable[str]) -> list[str]:
    """The machine and the normalised search directories, which are equal on equal machines."""
    # clang derives them from the path it is called by: /usr/bin/../lib, or that link's target.
    places = ({os.path.normpath(directory) for directory in _listed(text)} for text in searching)
    return [machine, *(repr(sorted(found)) for found in places)]


def _microsoft_parts(directory: str) -> list[str]:
    names = sorted(filter(_MICROSOFT_PARTS.fullmatch, os.listdir(directory)))
    return [os.path.join(directory, name) for name in names]


def query(
    driver: str,
    words: Iterable[str],
    *,
    cwd: str = "/",
    home: str = NO_HOME,
    stderr: int = subprocess.PIPE,
) -> subprocess.CompletedProcess[str]:
    """Run a driver with none of the variables that change its behaviour. Raises
    InfrastructureError if it does not run, or not end in ``ASK_TIMEOUT_S``."""
    kept = {n: os.environ[n] for n in ("SystemRoot", "TEMP", "TMP") if n in os.environ}
    path = os.environ.get("PATH", os.defpath)
    try:
        return subprocess.run(
            [driver, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env={"LC_ALL": "C", "PATH": path, SKIP: driver, **kept, "HOME": home},
            cwd=cwd,
            timeout=ASK_TIMEOUT_S,
            encoding="utf-8",
            errors="surrogateescape",
            creationflags=_NO_WINDOW,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise InfrastructureError(f"{driver} does not run: {error}") from error


def _ask(driver: str, *words: str, home: str = NO_HOME) -> str:
    """The driver's standard output and error, in the order in which they were written."""
    return query(driver, words, home=home, stderr=subprocess.STDOUT).stdout


def _listed(text: str) -> list[str]:
    begin = text.find("ignoring ")
    start = text.find("#include <...> search starts here:")
    end = text.find("End of search list.")
    if start < 0:
        return []
    if 0 <= begin < start:
        start = begin
    return [listed or tried for listed, tried in _DIRECTORY.findall(text[start:end])]


def _programs(driver: str, names: Iterable[str], around: Around) -> tuple[str, ...]:
    """The paths by which a driver calls its programs."""
    asked = ((name, _ask(driver, f"-print-prog-name={name}").strip()) for name in names)
    found = (_program(driver, name, answer, around) for name, answer in asked)
    return tuple(path for path in found if path and os.path.isfile(path))


def _program(driver: str, name: str, answer: str, around: Around) -> str | None:
    """The program that a driver's answer names, or the one on PATH."""
    directory, base = os.path.split(answer)
    # clang answers with the program that it found on the PATH of the query.
    if not directory or (
        base == name
        and directory in os.environ.get("PATH", os.defpath).split(os.pathsep)
        and directory != os.path.dirname(os.path.realpath(driver))
    ):
        return dict(around.programs).get(name)
    return answer
