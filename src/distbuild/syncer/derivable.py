"""Decides which files may be mirrored because a worker reports that it lacked them.

A worker's report may be a lie: the machine may have been stolen. So it has a file mirrored only if
the dev box itself can derive that file: it lies where the command searches, or is named by the
command or by a text that is mirrored anyway. Reads such texts; mirrors nothing.
"""

import os
import posixpath
from collections.abc import Iterable, Iterator

from distbuild.command.model import HERE
from distbuild.farm.executor import Task
from distbuild.mirror import policy
from distbuild.mirror.includes import names_in_any_directive, names_in_definition
from distbuild.mirror.live import Mirroring
from distbuild.mirror.roots import inside
from distbuild.protocol.messages import FileEntry
from distbuild.system import disk

#: The number of texts in a worker's list of inputs that are searched for a file's name.
MAX_TEXTS = 2000
#: Directories whose world-readable files are open to every user of this machine.
_SYSTEM = ("/usr", "/lib", "/lib64")


class Derivable:
    """The check for one result of ``task``. ``texts``: real paths that its compiler read, as the
    worker reports them."""

    def __init__(self, task: Task, mirroring: Mirroring, texts: Iterable[str]) -> None:
        self._task = task
        self._mirroring = mirroring
        self._texts = texts
        self._searched = tuple(dict.fromkeys(map(disk.realpath, task.search_dirs)))

    def allows(self, path: str) -> bool:
        """Whether a file, by its absolute path as spelled, may be mirrored for this task."""
        if not _is_path(path):
            return False
        real = disk.realpath(path)
        if policy.is_pseudo_fs(real) or self._mirroring.is_secret(real):
            return False
        if self.is_searched(real) or self._is_compilers(real):
            return True
        return self._is_reached(path, real) or self._is_named(path, real)

    def is_searched(self, real: str) -> bool:
        """Whether a real path lies where the command searches, and is not secret.

        Of a directory like the home or ``/tmp``, only the files directly in it count.
        """
        is_below = any(self._is_below(real, directory) for directory in self._searched)
        return is_below and not self._mirroring.is_secret(real)

    def _is_below(self, real: str, directory: str) -> bool:
        if not inside(real, directory):
            return False
        if not policy.is_broad(directory, self._mirroring.home):
            return True
        return posixpath.dirname(real) == directory or any(inside(directory, s) for s in _SYSTEM)

    def _is_compilers(self, real: str) -> bool:
        """Whether clang reads a file by itself: the sanitizers' ignore lists lie in ``share``
        beside its own headers (``clang -print-resource-dir``)."""
        if not self._task.command.family.is_clang:
            return False
        tops = {posixpath.dirname(disk.realpath(own)) for own in self._task.builtin_dirs}
        directory, _, _ = real.rpartition("/share/")
        return directory in tops and posixpath.dirname(real) == f"{directory}/share"

    def _is_reached(self, path: str, real: str) -> bool:
        """Whether a file is reached by a symlink that lies where the command searches."""
        spelled = posixpath.normpath(path)
        if disk.realpath(spelled) != real:
            return False  # a ".." after a symlink
        is_below = any(
            inside(spelled, d) and not policy.is_broad(d, self._mirroring.home)
            for d in (*self._searched, *self._task.search_dirs)
        )
        return is_below and self._mirroring.manifest.resolve(spelled) is not None

    def _is_named(self, path: str, real: str) -> bool:
        """Whether a text, or the command, names this file."""
        bases = {posixpath.basename(path), posixpath.basename(real)}
        for directory, names in self._names():
            for name in names:
                if HERE.base(name) not in bases:
                    continue
                places = (directory, *self._task.search_dirs)
                if any(disk.realpath(HERE.absolute(p, name)) == real for p in places):
                    return True
        return False

    def _names(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Possible file names in the command and in each text, with the directory of each."""
        command = self._task.command
        for argument in command.arguments:
            if argument.meaning == "-D" and argument.value is not None:
                yield command.cwd, names_in_definition(argument.value)
        yield command.cwd, command.input_files
        own = [os.fsdecode(file.path) for file in self._task.files]
        known = own + [path for path in self._texts if self._is_held(path)]
        for path in dict.fromkeys(known[: MAX_TEXTS + len(own)]):
            try:
                with disk.open_to_read(path) as file:
                    names = names_in_any_directive(file.read())
            except OSError:
                continue
            yield posixpath.dirname(path), names

    def _is_held(self, path: str) -> bool:
        return isinstance(self._mirroring.manifest.get(path), FileEntry)


def _is_path(path: str) -> bool:
    if not path.startswith("/") or "\0" in path:
        return False
    try:
        return len(os.fsencode(path)) <= policy.MAX_PATH_BYTES
    except UnicodeError:
        return False
