"""Syncer side: finds and identifies the dev box's compilers and probes their search directories.

Runs the compilers. Caches results by file state, so that an upgrade is noticed at the next job.
"""

import contextlib
import itertools
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from distbuild.command import native
from distbuild.command import probe as toolchain
from distbuild.command.model import CompileCommand, Family
from distbuild.compiler.files import gcc_places
from distbuild.compiler.find import find_with_status
from distbuild.compiler.identity import (
    Around,
    Identifier,
    Identity,
    State,
    are_as_identified,
    around,
    query,
    state_of,
)
from distbuild.mirror.digest_cache import StatKey, stat_key
from distbuild.protocol.errors import InfrastructureError
from distbuild.system.paths import WINDOWS, to_system

#: A compiler's parts are checked for changes after this time (seconds); its driver for each job.
LOOK_S = 1.0
#: More pairs of a compiler and its environment than any machine has.
_MAX_KEPT = 200
_NAMES_DIRECTORY = re.compile("sysroot|-resource-dir|-gcc-toolchain|-iprefix")


class Search(msgspec.Struct, frozen=True):
    """The compiler's own search directories, in its order and as it spells them, and the header
    that it includes by itself (None: none)."""

    dirs: tuple[str, ...]
    implicit_include: str | None
    #: Directories that it would search if they existed.
    absent: tuple[str, ...] = ()
    #: Directories in which clang looks for installations of gcc, with their states.
    places: tuple[tuple[str, State], ...] = ()

    def has_changed(self) -> bool:
        """Whether it may search other directories from now on."""
        # access(2) first: for a missing directory, stat(2) would cost Python an exception.
        appeared = any(os.access(d, os.F_OK) and os.path.isdir(d) for d in self.absent)
        return appeared or any(state_of(place) != before for place, before in self.places)


class Driver(msgspec.Struct, frozen=True):
    """A compiler driver on the dev box's disk, its file state, and the parts of the environment
    that decide which other files it reads."""

    path: str
    key: StatKey
    around: Around = Around()


def find(name: str, cwd: str, env: Mapping[str, str]) -> Driver | None:
    """The driver that the shell would run for ``name``, with its present state; None: none."""
    directory = to_system(cwd)
    try:
        found = find_with_status(name, directory, env.get("PATH", os.defpath))
        if found is None:
            return None
        path, status = found
        return Driver(path, stat_key(status), around(env, directory, time.monotonic()))
    except OSError:
        return None


class Compilers:
    """A thread-safe cache of identities and search directories. It is invalidated when a part of
    the compiler has changed: programs and libraries may be replaced without the driver."""

    def __init__(self, identifier: Identifier, clock: Callable[[], float] = time.monotonic) -> None:
        self._identifier = identifier
        self._clock = clock
        self._lock = threading.Lock()
        # When a driver's parts were checked last.
        self._looked: dict[Driver, float] = {}
        self._identities: dict[Driver, Identity] = {}
        self._processors: dict[tuple[Driver, tuple[str, ...]], tuple[str, ...] | None] = {}
        self._search: dict[tuple[Driver, tuple[str, ...], str], Search] = {}

    def identity(self, driver: Driver) -> Identity:
        """Identify a driver. Raises InfrastructureError if it does not answer like a compiler."""
        with self._lock:
            known = self._identities.get(driver)
            if known is not None and self._has_changed(driver, known):
                self._forget(driver)
                known = None
            if known is None:
                if len(self._identities) >= _MAX_KEPT:
                    self._forget(next(iter(self._identities)))
                known = self._identifier.identify(driver.path, driver.around)
                self._identities[driver] = known
                self._looked[driver] = self._clock()
            return known

    def look_for(self, names: Iterable[str], path: str) -> None:
        """Identify the compilers that a shell with this PATH runs for ``names``; ``seen`` returns
        them from then on. Does nothing on Windows, where these names are no supported compilers."""
        for name in () if WINDOWS else names:
            driver = find(name, "/", {"PATH": path})
            with contextlib.suppress(InfrastructureError):
                if driver is not None:
                    self.identity(driver)

    def seen(self) -> list[tuple[str, Identity]]:
        """The unchanged compilers that were identified so far, each once, with its path."""
        with self._lock:
            known = list(self._identities.items())
        found = {(d.path, i.digest): i for d, i in known if state_of(d.path) == d.key}
        return [(path, identity) for (path, _), identity in found.items()]

    def _has_changed(self, driver: Driver, known: Identity) -> bool:
        now = self._clock()
        if now - self._looked[driver] < LOOK_S:
            return False
        self._looked[driver] = now
        return not are_as_identified([known])

    def _forget(self, driver: Driver) -> None:
        del self._identities[driver]
        self._processors = {k: v for k, v in self._processors.items() if k[0] != driver}
        self._search = {k: v for k, v in self._search.items() if k[0] != driver}

    def search(self, driver: Driver, command: CompileCommand) -> Search:
        """The directories that the compiler searches by default for a command like this."""
        if command.family is Family.CL:
            return Search((), None)
        probe = tuple(toolchain.search_probe(command))
        where = command.cwd if _names_relative_directory(probe) else "/"
        key = (driver, probe, where)
        with self._lock:
            known = self._search.get(key)
            if known is None or known.has_changed():
                known = self._search[key] = self._search_of(driver, probe, where)
            return known

    def processor(self, driver: Driver, command: CompileCommand) -> tuple[str, ...] | None:
        """The processor that ``-march=native`` finds for a command like this; see ``native``."""
        probe = native.probe(command)
        key = (driver, probe)
        with self._lock:
            if key not in self._processors:
                specs = _ask(driver, ("-dumpspecs",)).stdout
                said = _ask(driver, probe).stderr
                self._processors[key] = native.parse_probe(said, specs, command.family)
            return self._processors[key]

    @staticmethod
    def _search_of(driver: Driver, probe: tuple[str, ...], cwd: str) -> Search:
        words = (*probe, "-E", "-v", "-")
        done = _ask(driver, words, cwd)
        places: tuple[tuple[str, State], ...] = ()
        if _NAMES_DIRECTORY.search("\0".join(probe)):  # for others the identity has the places
            named = (os.path.join(cwd, place) for place in gcc_places(done.stderr))
            places = tuple((place, state_of(place)) for place in dict.fromkeys(named))
        if places:
            done = _ask(driver, words, cwd)  # an installation that came before the states were read
        # A relative -resource-dir gives relative directories.
        dirs, absent = (
            tuple(os.path.join(cwd, path) for path in parse(done.stderr))
            for parse in (toolchain.parse_search_dirs, toolchain.parse_absent_dirs)
        )
        return Search(
            dirs,
            toolchain.parse_implicit_include(done.stdout),
            absent,
            places,
        )


def _names_relative_directory(probe: Sequence[str]) -> bool:
    """Whether the working directory may matter to a probe with these arguments."""
    return any(
        _NAMES_DIRECTORY.search(word) and not (word.partition("=")[2] or following).startswith("/")
        for word, following in itertools.zip_longest(probe, probe[1:], fillvalue="")
    )


def _ask(driver: Driver, words: Iterable[str], cwd: str = "/") -> subprocess.CompletedProcess[str]:
    return query(driver.path, words, cwd=cwd, home=driver.around.home)
