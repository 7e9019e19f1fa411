"""Files outside every root: what is watched for them is the directory that each is in.

Called under the mirror's lock.
"""

import posixpath
from collections.abc import Collection, Iterable

import msgspec

from distbuild.mirror.inotify import FileWatcher
from distbuild.mirror.roots import inside, standing


class _Directory(msgspec.Struct):
    """``watched`` is the device and inode of the directory with the watch; None: it has none."""

    watched: tuple[int, int] | None = None
    files: set[str] = msgspec.field(default_factory=set)


class LooseFiles:
    """By real path; a file stays in here for good."""

    def __init__(self, watcher: FileWatcher) -> None:
        self._watcher = watcher
        self._directories: dict[str, _Directory] = {}

    def add(self, file: str) -> None:
        """Have the directory watched that stands there now."""
        path = posixpath.dirname(file)
        directory = self._directories.setdefault(path, _Directory())
        directory.files.add(file)
        self._watch(path, directory)

    def is_watched(self, file: str) -> bool:
        """Whether events tell of every change of a file."""
        directory = self._directories.get(posixpath.dirname(file))
        return directory is not None and directory.watched is not None and file in directory.files

    def watch_again(self, roots: Collection[str]) -> set[str]:
        """Watch the directories below these, of which the watches were given up; their files."""
        return self._renew(
            path for path in self._directories if any(inside(path, root) for root in roots)
        )

    def heed(self, changed: Iterable[str]) -> set[str]:
        """The files of those directories of which an event told: a watch goes with its directory,
        and a new one at the path may have the device and inode of the old."""
        return self._renew(path for path in changed if path in self._directories)

    def _renew(self, paths: Iterable[str]) -> set[str]:
        files: set[str] = set()
        for path in paths:
            directory = self._directories[path]
            directory.watched = None
            self._watch(path, directory)
            files.update(directory.files)
        return files

    def unwatched(self) -> list[str]:
        """Files of which no event tells."""
        alone = (d for d in self._directories.values() if d.watched is None)
        return [file for directory in alone for file in directory.files]

    def _watch(self, path: str, directory: _Directory) -> None:
        # Looked at first: if another one comes in its place meanwhile, that shows the next time.
        now = standing(path)
        if directory.watched is None or directory.watched != now:
            # The watch may be on a directory that was moved away.
            self._watcher.forget_one(path)
        directory.watched = now if self._watcher.add(path) else None
