"""Worker side: finds the compilers on PATH and looks them up by identity. Runs no job."""

import functools
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Collection, Hashable, Iterator
from pathlib import Path

import msgspec

from distbuild.command.driver import family_of
from distbuild.compiler import files as compiler_files
from distbuild.compiler import find as compiler_find
from distbuild.compiler import identity as compiler_identity
from distbuild.compiler.find import is_wrapper as only_passes_on
from distbuild.compiler.identity import Identifier, Identity, are_as_identified, found_by_path
from distbuild.mirror.digest_cache import rules_of
from distbuild.protocol.errors import InfrastructureError
from distbuild.protocol.messages import Toolchain
from distbuild.system.state_file import DamagedFile, read_checked, write_checked

#: Shortest time between two checks of PATH.
REFRESH_S = 10.0

_NAME = re.compile(
    r"(?:[\w.+]+-)*(?:gcc|g\+\+|cc|c\+\+|clang|clang\+\+|clang-cl)(?:-\d+(?:\.\d+)*)?(?:\.exe)?\Z"
    r"|cl(?:\.exe)?\Z"
)
_WRAPPER_DIR = re.compile(r"/(?:ccache|distcc|icecc|icecream|sccache)(?:/|\Z)")

_log = logging.getLogger(__name__)


class InstalledDriver(msgspec.Struct, frozen=True):
    """A compiler installed on this machine, under one of its names."""

    path: str
    identity: Identity

    @property
    def name(self) -> str:
        """The name it was found by, as in ``x86_64-linux-gnu-gcc-12``."""
        return os.path.basename(self.path)


class _Found(msgspec.Struct, frozen=True):
    """The drivers on ``search_path``, whose directories have these ``times``. ``rules``: a digest
    of the code that found them."""

    rules: bytes
    search_path: str
    times: list[int]
    drivers: dict[str, InstalledDriver]


class InstalledCompilers:
    """The drivers on ``search_path``. Scans it again when one of its directories or a part of a
    compiler has changed. Thread-safe. ``memory``: the file in which they are kept between runs,
    since a scan runs each compiler some ten times."""

    def __init__(
        self,
        identifier: Identifier,
        search_path: str,
        clock: Callable[[], float] = time.monotonic,
        memory: Path | None = None,
    ) -> None:
        self._identifier = identifier
        self._memory = memory
        self._search_path = search_path
        self._directories = [d for d in search_path.split(os.pathsep) if os.path.isabs(d)]
        self._clock = clock
        self._lock = threading.Lock()
        self._checked = -REFRESH_S
        found = _recall(memory, search_path)
        self._times, self._drivers = found.times, found.drivers
        self._advertised = _toolchains(self._drivers.values())

    def advertised(self) -> list[Toolchain]:
        """Every (identity, name) that a job may request."""
        self._current()
        return self._advertised

    def find(self, identity: str, name: str) -> InstalledDriver | None:
        """The driver with this identity; of several, the one called ``name``."""
        fitting = [d for d in self._current().values() if identity in d.identity.digests()]
        return next((d for d in fitting if d.name == name), fitting[0] if fitting else None)

    def is_same(self, driver: InstalledDriver) -> bool:
        """Whether a compiler still has its identity; if not, the next call checks all again."""
        if _are_as_found([driver]):
            return True
        with self._lock:
            self._checked = -REFRESH_S
        return False

    def _current(self) -> dict[str, InstalledDriver]:
        with self._lock:
            now = self._clock()
            if now - self._checked >= REFRESH_S:
                self._checked = now
                times = [_mtime(directory) for directory in self._directories]
                if times != self._times or not _are_as_found(self._drivers.values()):
                    self._times = times
                    self._drivers = self._look()
                    self._remember()
                    self._advertised = _toolchains(self._drivers.values())
            return self._drivers

    def _remember(self) -> None:
        if self._memory is None:
            return
        found = _Found(_rules(), self._search_path, self._times, self._drivers)
        try:
            write_checked(self._memory, msgspec.msgpack.encode(found))
        except OSError as error:
            _log.warning("%s: %s; at the next start all compilers are queried", self._memory, error)

    def _look(self) -> dict[str, InstalledDriver]:
        drivers: dict[str, InstalledDriver] = {}
        known: dict[Hashable, Identity] = {}
        for path in self._candidates():
            name = os.path.basename(path)
            if name in drivers:
                continue
            around = found_by_path(search_path_for(path, self._search_path))
            key = (os.path.realpath(path), "++" in name, family_of(name), around)
            try:
                identity = known.get(key) or self._identifier.identify(path, around)
            except InfrastructureError as error:
                _log.debug("not a compiler: %s", error)
                continue
            known[key] = identity
            drivers[name] = InstalledDriver(path, identity)
        return drivers

    def _candidates(self) -> Iterator[str]:
        for directory in self._directories:
            try:
                names = sorted(os.listdir(directory))
            except OSError:
                continue
            for name in names:
                path = os.path.join(directory, name)
                if _NAME.match(name) and is_program(path) and not is_wrapper(path):
                    yield path


@functools.cache
def _rules() -> bytes:
    return rules_of(compiler_identity, compiler_files, compiler_find, sys.modules[__name__])


def _recall(memory: Path | None, search_path: str) -> _Found:
    """What an earlier run found on this PATH; else nothing."""
    if memory is not None:
        try:
            found = msgspec.msgpack.decode(read_checked(memory), type=_Found)
            if (found.rules, found.search_path) == (_rules(), search_path):
                return found
        except FileNotFoundError:
            pass
        except (OSError, DamagedFile, msgspec.DecodeError) as error:
            _log.warning("%s: not readable (%s); all compilers are queried", memory, error)
    return _Found(b"", search_path, [], {})


def _are_as_found(drivers: Collection[InstalledDriver]) -> bool:
    """Whether these names still lead to the same compilers, and those are unchanged."""
    # As update-alternatives sets links in a directory that is not on PATH.
    lead = all(os.path.realpath(driver.path) == driver.identity.real_path for driver in drivers)
    return lead and are_as_identified(driver.identity for driver in drivers)


def _toolchains(drivers: Collection[InstalledDriver]) -> list[Toolchain]:
    """Each compiler under each of its names; for Objective-C, which is rare, under one name."""
    offered = [Toolchain(d.identity.digest, d.name, d.identity.version) for d in drivers]
    more = {d.identity.objective_c: d for d in drivers if d.identity.objective_c}
    offered += (Toolchain(digest, d.name, d.identity.version) for digest, d in more.items())
    return offered


def search_path_for(driver: str, search_path: str) -> str:
    """The PATH for a compiler: its own directory first, so that its name finds it."""
    return f"{os.path.dirname(driver)}{os.pathsep}{search_path}"


def is_program(path: str) -> bool:
    """Whether a file can be executed."""
    return os.path.isfile(path) and os.access(path, os.X_OK)


def is_wrapper(path: str) -> bool:
    """Whether a file named like a compiler only passes commands on to one."""
    if only_passes_on(path):
        return True
    real = os.path.realpath(path)
    return any(_WRAPPER_DIR.search(os.path.dirname(p)) for p in (path, real))


def _mtime(directory: str) -> int:
    try:
        return os.stat(directory).st_mtime_ns
    except OSError:
        return 0
