"""Which compiler a driver is: a digest that agrees on two machines when their outputs would.

Asks the driver itself and hashes the programs behind it. Used by both the syncer and the worker.
Knows no job, no queue and no network.
"""

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterable

import msgspec

from distbuild.command.driver import family_of
from distbuild.command.model import Family
from distbuild.digests import FileDigests
from distbuild.drivers import SKIP
from distbuild.mirror.known import StatKey, stat_key
from distbuild.protocol.errors import InfrastructureError

#: A compiler that does not answer what it is in this time is none.
ASK_TIMEOUT_S = 30.0
#: On Windows: who has no console would else show one for each program that it asks.
NO_WINDOW = getattr(subprocess, "CREATE_NO_WINDOW", 0)

#: What a Microsoft compiler says before anything else, in the language of its installation.
_MICROSOFT = re.compile(
    r"^.*Microsoft.*?(\d+\.\d+\.\d+(?:\.\d+)?)\D.*?(x64|x86|ARM64|ARM)\s*$", re.M
)
#: The programs and libraries in cl.exe's directory that decide what it writes.
_MICROSOFT_PARTS = re.compile(r"(?:cl\.exe|c1\w*\.dll|c2\.dll|mspdb\w*\.dll|tbbmalloc\.dll)", re.I)
_TARGET = re.compile(r"^Target: (\S+)", re.M)
_PROGRAMS = ("cc1", "cc1plus", "as", "objcopy")
_DIRECTORY = re.compile(r'^ (/.*?)$|^ignoring \w+ directory "(.*)"$', re.MULTILINE)
_LDD = re.compile(r"^\s*(?:\S+ => )?(/\S+) \(0x", re.MULTILINE)
_LLVM = re.compile(r"/(?:libLLVM|libclang-cpp)[^/]*$")
_NUMBER = re.compile(r"\d+(\.\d+)*")
_CLANG_VERSION = re.compile(r"\bclang version (\S+)")


#: How a file is; None: it is not there.
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
    #: Programs and libraries that have to be there when it runs, behind all symlinks; and how each
    #: was before it was read.
    needs: tuple[str, ...] = ()
    states: tuple[State, ...] = ()


def are_as_identified(identities: Iterable[Identity]) -> bool:
    """Whether the programs and libraries of these compilers are what they were: they are replaced
    without their drivers at times."""
    seen: dict[str, State] = {}
    for identity in identities:
        for path, before in zip(identity.needs, identity.states, strict=True):
            if path not in seen:
                seen[path] = state_of(path)
            if seen[path] != before:
                return False
    return True


def state_of(path: str) -> State:
    """How a program or library is now."""
    try:
        return stat_key(os.stat(path))
    except OSError:
        return None


class Identifier:
    """Identifies drivers; remembers file digests in ``digests``."""

    def __init__(self, digests: FileDigests) -> None:
        self._digests = digests

    def identify(self, driver: str) -> Identity:
        """The compiler at this path; raises InfrastructureError if it is none that we know."""
        named = family_of(os.path.basename(driver))
        banner = _ask(driver, "--version")
        clang = _CLANG_VERSION.search(banner)
        if named is not None and named.speaks_cl:
            return self._cl(driver, banner, clang[1] if clang else "")
        number = clang[1] if clang else _ask(driver, "-dumpfullversion").strip()
        if not _NUMBER.match(number):
            raise InfrastructureError(f"{driver} is neither gcc nor clang")
        machine = _ask(driver, "-dumpmachine").strip()
        searched = [_search_dirs(driver, language) for language in ("c", "c++")]
        # clang spells them by the path it is called by: /usr/bin/../lib, or what that link means.
        places = [{os.path.normpath(directory) for directory in dirs} for dirs in searched]
        facts = [machine, *(repr(sorted(found)) for found in places)]
        real = os.path.realpath(driver)
        if clang is not None:
            family, version = Family.CLANG, f"clang {number} {machine}"
            plus = os.path.basename(driver).rstrip("0123456789.-").endswith("++")
            facts.append("g++" if plus else "gcc")
            files = [real, *(lib for lib in _libraries(real) if _LLVM.search(lib))]
        else:
            family, version = Family.GCC, f"gcc {number} {machine}"
            facts.append(_ask(driver, "-dumpspecs"))
            files = [real, *_programs(driver)]
        return self._identity(family, version, real, facts, files, searched)

    def _cl(self, driver: str, banner: str, clang: str) -> Identity:
        """A compiler that is called cl: clang-cl with this version of clang, or Microsoft's."""
        real = os.path.realpath(driver)
        if clang:
            target = _TARGET.search(banner)
            machine = target[1] if target else ""
            searched = [_cl_search_dirs(driver, language) for language in ("/TC", "/TP")]
            files = [real, *(lib for lib in _libraries(real) if _LLVM.search(lib))]
            facts = [machine, *(repr(sorted(map(os.path.normpath, d))) for d in searched)]
            version = f"clang-cl {clang} {machine}"
            return self._identity(Family.CLANG_CL, version, real, facts, files, searched)
        found = _MICROSOFT.search(banner) or _MICROSOFT.search(_ask(driver))
        if found is None:
            raise InfrastructureError(f"{driver} is neither Microsoft's cl nor clang-cl")
        version = f"cl {found[1]} {found[2]}"
        files = [real, *_microsoft_parts(os.path.dirname(real))]
        return self._identity(Family.CL, version, real, [version], files, [[], []])

    def _identity(
        self,
        family: Family,
        version: str,
        real: str,
        facts: list[str],
        files: list[str],
        searched: list[list[str]],
    ) -> Identity:
        needs = tuple(sorted({*files, *(lib for file in files for lib in _libraries(file))}))
        states = tuple(map(state_of, needs))
        digests = [self._digests.of(file).hex() for file in files]
        text = "\0".join([family, *facts, *digests])
        digest = hashlib.sha256(text.encode("utf-8", "surrogateescape"))
        c_dirs, cxx_dirs = (tuple(d for d in dirs if os.path.isdir(d)) for dirs in searched)
        return Identity(digest.hexdigest(), family, version, real, c_dirs, cxx_dirs, needs, states)


def _microsoft_parts(directory: str) -> list[str]:
    names = sorted(filter(_MICROSOFT_PARTS.fullmatch, os.listdir(directory)))
    return [os.path.join(directory, name) for name in names]


def asking_environment(driver: str) -> dict[str, str]:
    """The environment in which a driver tells what it is by itself."""
    kept = {n: os.environ[n] for n in ("SystemRoot", "TEMP", "TMP") if n in os.environ}
    return {"LC_ALL": "C", "PATH": os.environ.get("PATH", os.defpath), SKIP: driver, **kept}


def _ask(driver: str, *options: str, stdin: str | None = None) -> str:
    try:
        done = subprocess.run(
            [driver, *options],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=asking_environment(driver),
            cwd="/",
            timeout=ASK_TIMEOUT_S,
            encoding="utf-8",
            errors="surrogateescape",
            creationflags=NO_WINDOW,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise InfrastructureError(f"{driver} does not run: {error}") from error
    return done.stdout


def _search_dirs(driver: str, language: str) -> list[str]:
    """All directories that the driver tries, whether they exist here or not, in its order."""
    return _listed(_ask(driver, "-E", "-v", "-x", language, "-", stdin=""))


def _cl_search_dirs(driver: str, language: str) -> list[str]:
    return _listed(_ask(driver, "/E", "-v", language, "-", stdin=""))


def _listed(text: str) -> list[str]:
    begin = text.find("ignoring ")
    start = text.find("#include <...> search starts here:")
    end = text.find("End of search list.")
    if start < 0:
        return []
    if 0 <= begin < start:
        start = begin
    return [listed or tried for listed, tried in _DIRECTORY.findall(text[start:end])]


def _programs(driver: str) -> Iterable[str]:
    for name in _PROGRAMS:
        answer = _ask(driver, f"-print-prog-name={name}").strip()
        path = answer if os.path.isabs(answer) else shutil.which(answer)
        if path and os.path.isfile(path):
            yield os.path.realpath(path)


def _libraries(program: str) -> list[str]:
    """The shared libraries that a program is linked with, behind all symlinks."""
    if not shutil.which("ldd"):
        return []
    return sorted({os.path.realpath(path) for path in _LDD.findall(_ask("ldd", program))})
