"""Puts running jobs' own sources and working directories into a tree, beside the manifest's files.

Shares the tree's lock. Each path has a reference count: when its last job has ended, the file is
removed or the manifest's entry restored. A job that needs other bytes there waits for that.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence

import msgspec

from distbuild.mirror.manifest import resolve
from distbuild.protocol.errors import ProtocolError
from distbuild.protocol.messages import DirectoryEntry, Entry, FileEntry, JobFile, SymlinkEntry
from distbuild.system import disk
from distbuild.worker.tree.on_disk import DiskTree
from distbuild.worker.tree.paths import check_entry, check_path, parents
from distbuild.worker.tree.store import Store, translated


class _Held(msgspec.Struct):
    entry: FileEntry
    jobs: int


class JobFiles:
    """Files and directories that are in a tree only while jobs need them."""

    def __init__(
        self,
        lock: threading.Lock,
        ground: DiskTree,
        store: Store,
        lookup: Callable[[str], Entry | None],
        is_entry: Callable[[bytes], bool],
    ) -> None:
        self._freed = threading.Condition(lock)
        self._ground = ground
        self._store = store
        self._lookup = lookup
        self._is_entry = is_entry
        self._files: dict[bytes, _Held] = {}
        self._directories: dict[bytes, int] = {}

    def holds(self, path: bytes) -> bool:
        """Whether a running job's file is at ``path``. The caller holds the lock."""
        return path in self._files

    def paths(self) -> set[bytes]:
        """The paths of running jobs' own files and directories."""
        with self._freed:
            return {*self._files, *self._directories}

    def entry_at(self, path: bytes) -> FileEntry | None:
        """The entry of a running job's file at ``path``."""
        held = self._files.get(path)
        return held.entry if held else None

    @contextlib.contextmanager
    def holding(self, files: Sequence[JobFile], directories: Sequence[bytes]) -> Iterator[None]:
        """Keep these files and directories in the tree during the context.

        Raises ProtocolError for a path outside the tree or a bad blob, and InfrastructureError for
        a bad disk.
        """
        for file in files:
            check_entry(file.path, file.entry)
            if file.blob.digest != file.entry.digest:
                raise ProtocolError(f"{os.fsdecode(file.path)!r} comes with another file's content")
            self._store.put(file.blob)
        with contextlib.ExitStack() as stack:
            for directory in sorted({check_path(path) for path in directories}):
                self._take_directory(directory)
                stack.callback(self._give_directory, directory)
            # Sorted, so that all jobs take files in the same order and no two deadlock.
            for path, entry in sorted((check_path(f.path), f.entry) for f in files):
                real = self._take_file(path, entry)
                stack.callback(self._give_file, real)
            yield

    def _take_directory(self, path: bytes) -> None:
        with self._freed, translated():
            self._directories[path] = self._directories.get(path, 0) + 1
            real = resolve(os.fsdecode(path), self._lookup)
            if real is None:
                self._check_parents(path)
                self._ground.put_directory(path)

    def _give_directory(self, path: bytes) -> None:
        with self._freed:
            self._directories[path] -= 1
            if self._directories[path] == 0:
                del self._directories[path]
                self._tidy(path)

    def _take_file(self, path: bytes, entry: FileEntry) -> bytes:
        with self._freed, translated():
            parent, _, name = path.rpartition(b"/")
            real_parent = resolve(os.fsdecode(parent), self._lookup)
            real = path if real_parent is None else _join(real_parent, name)
            self._check_parents(real)
            self._freed.wait_for(lambda: self._may_take(real, entry))
            held = self._files.get(real)
            if held is not None:
                held.jobs += 1
                return real
            usual = self._lookup(os.fsdecode(real))
            if usual != entry or not self._ground.is_in_place(real, entry):
                if self._ground.is_directory(real):
                    raise ProtocolError(f"{os.fsdecode(real)!r} is a directory")
                self._ground.put(real, entry)
            self._files[real] = _Held(entry, 1)
            return real

    def _may_take(self, path: bytes, entry: FileEntry) -> bool:
        held = self._files.get(path)
        return held is None or held.entry == entry

    def _give_file(self, path: bytes) -> None:
        with self._freed, translated():
            held = self._files[path]
            held.jobs -= 1
            if held.jobs:
                return
            del self._files[path]
            self._freed.notify_all()
            usual = self._lookup(os.fsdecode(path))
            if usual == held.entry or isinstance(usual, DirectoryEntry):
                return
            if usual is None:
                self._ground.remove(path)
                self._tidy(path)
            else:
                self._ground.put(path, usual)

    def _tidy(self, path: bytes) -> None:
        """Remove ``path`` and the directories above it that are empty and that nothing needs."""
        for directory in [path, *parents(path)]:
            if self._is_needed(directory):
                return
            try:
                disk.rmdir(self._ground.real(directory))
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError:
                return

    def _is_needed(self, directory: bytes) -> bool:
        return directory in self._directories or self._is_entry(directory)

    def _check_parents(self, path: bytes) -> None:
        for parent in parents(path):
            entry = self._lookup(os.fsdecode(parent))
            if entry is not None and not isinstance(entry, DirectoryEntry):
                kind = "symlink" if isinstance(entry, SymlinkEntry) else "file"
                raise ProtocolError(f"{os.fsdecode(path)!r} is below a {kind}")


def _join(parent: str, name: bytes) -> bytes:
    return check_path(os.fsencode(parent.rstrip("/")) + b"/" + name)
