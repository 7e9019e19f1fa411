"""Finds the files of gcc's modules on the dev box: a command's mapper, the compiled modules that
others import, and places of header units. Mirrors nothing.
"""

import stat
import threading
from collections.abc import Callable, Iterable, Mapping

import msgspec

from distbuild.command.model import CompileCommand, Local, LocalReason
from distbuild.command.named_modules import SUFFIX, below, recorded_imports, with_modules
from distbuild.mirror.digest_cache import FileRead, read_file
from distbuild.mirror.roots import trace
from distbuild.protocol.messages import Entry, FileEntry, WithheldEntry
from distbuild.syncer.understand import output_obstacle
from distbuild.system import disk

#: A larger mapper is not read: one of CMake's has a line for each module that a source imports.
MAX_MAPPER_BYTES = 256 * 1024
#: A larger compiled module is not searched for those that it imports.
MAX_SEARCHED_BYTES = 256 * 1024 * 1024
#: Compiled modules whose imports are remembered.
MAX_KNOWN = 10_000


def with_mapper(
    command: CompileCommand, source: bytes
) -> tuple[CompileCommand, Mapping[str, FileRead]] | Local:
    """The command with the modules that its mapper maps, and the mapper by its path; empty: it has
    none. Local: only the local compiler can use it, or report what is wrong with it."""
    if not command.module_mapper:
        return command, {}
    path = command.absolute(command.module_mapper)
    unusable = Local(LocalReason.MODULES, command.module_mapper)
    try:
        status = disk.lstat(path)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_MAPPER_BYTES:
            return unusable
        read = read_file(path)
    except OSError:
        return unusable
    found = with_modules(command, read.data, lambda: source)
    if isinstance(found, Local):
        return found
    obstacle = output_obstacle(found) if found.module_root else None
    return obstacle or (found, {path: read})


def header_units(command: CompileCommand, searched: Iterable[str]) -> str:
    """A place where gcc may find header units, which it takes instead of headers; "": none.

    Below the modules' root it looks for that of ``/usr/include/x.h`` at ``usr/include/x.h.gcm``,
    and for that of a header with a relative name below ``,``.
    """
    if not command.module_mapper:
        return ""
    root = command.module_root or "."
    tops = {",", *(next(filter(None, directory.split("/")), "") for directory in searched)}
    places = (command.absolute(below(root, top)) for top in sorted(tops))
    return next(filter(disk.lexists, places), "")


class _Imports(msgspec.Struct, frozen=True):
    """What a compiled module imports, and the state of its file in which it was read."""

    state: tuple[int, int, int]
    paths: tuple[str, ...]


class CompiledModules:
    """Finds the compiled modules that are imported only by other ones. Thread-safe.

    No mapper of CMake's names them; gcc opens them by the paths that the others record. What those
    record is no permission, since a worker may have written it: only compiled modules whose names
    are mirrored already are returned.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, _Imports] = {}

    def imported(self, command: CompileCommand, lookup: Callable[[str], Entry | None]) -> list[str]:
        """The real paths of those that the command's own ones import. ``lookup``: in the
        manifest."""
        if not command.module_root:
            return []
        found: dict[str, None] = {}
        left = [path for path in command.input_files if path.endswith(SUFFIX)]
        while left:
            for name in self._imports_of(command.absolute(left.pop())):
                path = command.absolute(below(command.module_root, name))
                real = trace(path).real
                if real is None or real in found or not real.endswith(SUFFIX):
                    continue
                if isinstance(lookup(real), FileEntry | WithheldEntry):
                    found[real] = None
                    left.append(real)
        return list(found)

    def _imports_of(self, path: str) -> tuple[str, ...]:
        try:
            status = disk.stat(path)
            if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_SEARCHED_BYTES:
                return ()
            state = (status.st_ino, status.st_size, status.st_mtime_ns)
            known = self._known.get(path)
            if known is None or known.state != state:
                with disk.open_to_read(path) as file:
                    known = _Imports(state, tuple(recorded_imports(file.read())))
                self._remember(path, known)
        except OSError:
            return ()
        return known.paths

    def _remember(self, path: str, imports: _Imports) -> None:
        with self._lock:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[path] = imports
