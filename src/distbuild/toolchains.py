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
from dataclasses import dataclass

from distbuild.command.model import Family
from distbuild.digests import FileDigests
from distbuild.drivers import SKIP
from distbuild.protocol.errors import InfrastructureError

#: A compiler that does not answer what it is in this time is none.
ASK_TIMEOUT_S = 30.0

_PROGRAMS = ("cc1", "cc1plus", "as", "objcopy")
_DIRECTORY = re.compile(r'^ (/.*?)$|^ignoring \w+ directory "(.*)"$', re.MULTILINE)
_LDD = re.compile(r"^\s*(?:\S+ => )?(/\S+) \(0x", re.MULTILINE)
_LLVM = re.compile(r"/(?:libLLVM|libclang-cpp)[^/]*$")
_NUMBER = re.compile(r"\d+(\.\d+)*")
_CLANG_VERSION = re.compile(r"\bclang version (\S+)")


@dataclass(frozen=True, slots=True)
class Identity:
    """A compiler. ``digest`` (hex) has to agree between dev box and worker; ``version`` is for
    people; ``c_dirs`` and ``cxx_dirs`` are the built-in search directories that exist here, in
    order and as the compiler spells them; ``real_path`` is the driver behind all symlinks."""

    digest: str
    family: Family
    version: str
    real_path: str
    c_dirs: tuple[str, ...]
    cxx_dirs: tuple[str, ...]
    #: Programs and libraries that have to be there when it runs, behind all symlinks.
    needs: tuple[str, ...] = ()


class Identifier:
    """Identifies drivers; remembers file digests in ``digests``."""

    def __init__(self, digests: FileDigests) -> None:
        self._digests = digests

    def identify(self, driver: str) -> Identity:
        """The compiler at this path; raises InfrastructureError if it is none that we know."""
        banner = _ask(driver, "--version")
        clang = _CLANG_VERSION.search(banner)
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
        facts.extend(self._digests.of(file).hex() for file in files)
        digest = hashlib.sha256("\0".join([family, *facts]).encode("utf-8", "surrogateescape"))
        c_dirs, cxx_dirs = (tuple(d for d in dirs if os.path.isdir(d)) for dirs in searched)
        needs = tuple(sorted({*files, *(lib for file in files for lib in _libraries(file))}))
        return Identity(digest.hexdigest(), family, version, real, c_dirs, cxx_dirs, needs)


def _ask(driver: str, *options: str, stdin: str | None = None) -> str:
    environment = {"LC_ALL": "C", "PATH": os.environ.get("PATH", os.defpath), SKIP: driver}
    try:
        done = subprocess.run(
            [driver, *options],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd="/",
            timeout=ASK_TIMEOUT_S,
            encoding="utf-8",
            errors="surrogateescape",
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise InfrastructureError(f"{driver} does not run: {error}") from error
    return done.stdout


def _search_dirs(driver: str, language: str) -> list[str]:
    """All directories that the driver tries, whether they exist here or not, in its order."""
    text = _ask(driver, "-E", "-v", "-x", language, "-", stdin="")
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
