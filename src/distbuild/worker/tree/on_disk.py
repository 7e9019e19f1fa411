"""Writes a worker tree's entries to disk below one root, each by a single rename or link.

Knows no manifest and no lock. Callers have checked every path (paths.check_path) and that no
component above it is a symlink.
"""

import contextlib
import errno
import hashlib
import itertools
import os
import posixpath
import stat
from collections.abc import Iterable

from distbuild.protocol.messages import (
    Digest,
    DirectoryEntry,
    Entry,
    FileEntry,
    SymlinkEntry,
)
from distbuild.system import disk
from distbuild.system.paths import WINDOWS, to_system
from distbuild.worker.tree.paths import parents, rerooted_target
from distbuild.worker.tree.store import Store

#: Content of a placeholder. The syncer searches the messages of a failed compile for it.
WITHHELD_TEXT = b"#error dist_build_withheld\n"


#: Waits (seconds) while a compiler has a header open that has to change; after them the whole tree
#: is recreated beside the old one. Most have it open for a moment, or allow that it is renamed.
_PAUSES = (0.1,) * 30


class DiskTree:
    """The directory ``root`` and the blobs that are linked below it. OSErrors pass through."""

    def __init__(self, root: bytes, store: Store) -> None:
        self.root = root
        self._store = store
        # Beside the root, under names that no client's tree can have: client ids have no "~".
        self._base = root
        self._placeholder = root + b"~placeholder"
        self._staged = root + b"~staged"
        self._aside = root + b"~aside"
        self._numbers = itertools.count(1)
        # A blob's inode may be at one path of a tree only: clang takes two names of one inode for
        # one file, and would print the first name for both.
        self._linked: dict[Digest, bytes] = {}
        self._digest_at: dict[bytes, Digest] = {}
        # The status of each file when it was put, to detect a later change.
        self._facts: dict[bytes, tuple[int, ...]] = {}
        self.clear()

    def real(self, path: bytes) -> bytes:
        """The path on this machine of a mirrored path."""
        return self.root + path

    def clear(self) -> None:
        """Start again with an empty directory; with a new one if this cannot be emptied."""
        disk.remove_tree(self.root)
        disk.remove_tree(self._aside)
        disk.discard(self._placeholder)
        disk.discard(self._staged)
        while True:
            try:
                disk.makedirs(self.root)
                break
            except FileExistsError:
                if not WINDOWS:
                    raise
                # A compiler still has files open in it. No client's id has a "~".
                self.root = b"%s~%d" % (self._base, next(self._numbers))
        self._linked.clear()
        self._digest_at.clear()
        self._facts.clear()

    def put(self, path: bytes, entry: Entry) -> None:
        """Make ``path`` a file, symlink or placeholder; replaces anything but a directory."""
        real = self.real(path)
        self.forget(path)
        if not (isinstance(entry, FileEntry) and self._link_new(path, real, entry)):
            self._replace(path, real, entry)
        if isinstance(entry, FileEntry):
            self._facts[path] = _facts(disk.lstat(real))

    def _link_new(self, path: bytes, real: bytes, entry: FileEntry) -> bool:
        """Link the blob directly to an absent name; False if that cannot be done."""
        if entry.digest in self._linked:
            return False
        try:
            linked = self._store.link(entry, real)
        except (FileExistsError, FileNotFoundError):
            return False
        if linked:
            self._note_link(path, entry.digest)
        return linked

    def _replace(self, path: bytes, real: bytes, entry: Entry) -> None:
        disk.discard(self._staged)
        is_link = self._stage(path, entry)
        try:
            disk.rename(self._staged, real)
        except FileNotFoundError:
            disk.makedirs(posixpath.dirname(real), exist_ok=True)
            disk.rename(self._staged, real)
        except PermissionError:
            if not WINDOWS:
                raise
            self._set_aside(real)
            disk.rename(self._staged, real)
        if is_link:
            # rename(2) between two links of one inode does nothing and leaves both.
            disk.discard(self._staged)

    def _stage(self, path: bytes, entry: Entry) -> bool:
        """Make the entry at the staged name; whether it is a link to another file's inode."""
        if isinstance(entry, FileEntry):
            return self._stage_file(path, entry)
        if isinstance(entry, SymlinkEntry):
            self._stage_link(path, entry)
            return False
        self._stage_placeholder()
        return True

    def is_intact(self, path: bytes, digest: Digest) -> bool:
        """Whether the file at ``path`` is as it was put, by its type, size, times and inode.

        Linking or unlinking the blob elsewhere changes its ctime: then its bytes are hashed.
        """
        put = self._facts.get(path)
        try:
            now = _facts(disk.lstat(self.real(path)))
            if now == put:
                return True
            if put is None or now[:-1] != put[:-1]:
                return False
            with disk.open_to_read(self.real(path)) as file:
                if hashlib.file_digest(file, "sha256").digest() != digest:
                    return False
        except OSError:
            return False
        if self._facts.get(path) == put:
            self._facts[path] = now
        return True

    def is_in_place(self, path: bytes, entry: Entry) -> bool:
        """Whether ``path`` is of the entry's kind and, for a file, the one that was put there. Its
        bytes are not read: see ``is_intact``."""
        try:
            status = disk.lstat(self.real(path))
        except OSError:
            return False
        if isinstance(entry, FileEntry):
            put = self._facts.get(path)
            return put is None or _facts(status)[:-1] == put[:-1]
        if isinstance(entry, DirectoryEntry):
            return stat.S_ISDIR(status.st_mode) and not disk.is_link(status)
        if isinstance(entry, SymlinkEntry) and not WINDOWS:
            return stat.S_ISLNK(status.st_mode)
        return not stat.S_ISDIR(status.st_mode) or disk.is_link(status)

    def put_directory(self, path: bytes) -> None:
        """Make ``path`` a directory if it is not one yet."""
        disk.makedirs(self.real(path), exist_ok=True)

    def remove(self, path: bytes) -> None:
        """Remove the file, link or whole directory at ``path``, if any."""
        real = self.real(path)
        try:
            self._remove_file(real)
        except (FileNotFoundError, NotADirectoryError):
            self.forget(path)
            return
        except OSError as error:
            if error.errno not in (errno.EISDIR, errno.EPERM):
                raise
            disk.rmtree(real)
        self.forget(path)

    def forget(self, path: bytes) -> None:
        """Drop what is recorded of the file at ``path``; its blob may be linked elsewhere."""
        self._facts.pop(path, None)
        digest = self._digest_at.pop(path, None)
        if digest is not None:
            del self._linked[digest]

    def prune(self, path: bytes, wanted: Iterable[bytes]) -> None:
        """Remove the directories above ``path`` that are empty and not in ``wanted``."""
        for parent in parents(path):
            if parent in wanted:
                return
            try:
                disk.rmdir(self.real(parent))
            except FileNotFoundError:
                continue
            except OSError:
                return

    def is_directory(self, path: bytes) -> bool:
        """Whether a directory, not a link to one, is at ``path``."""
        try:
            status = disk.lstat(self.real(path))
        except OSError:
            return False
        return stat.S_ISDIR(status.st_mode) and not disk.is_link(status)

    def is_absent(self, path: bytes) -> bool:
        """Whether ``path`` does not exist, not even as a dangling link."""
        try:
            disk.lstat(self.real(path))
        except (FileNotFoundError, NotADirectoryError):
            return True
        return False

    def _remove_file(self, real: bytes) -> None:
        """Raises IsADirectoryError for a directory, or PermissionError on some systems."""
        if not WINDOWS:
            disk.unlink(real)
            return
        status = disk.lstat(real)
        if stat.S_ISDIR(status.st_mode) and not disk.is_link(status):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), real)
        # An unlinked name stays until every handle of the file is closed.
        self._set_aside(real)

    def _set_aside(self, real: bytes) -> None:
        """Free the name of a file that a compiler may have open (Windows)."""
        disk.makedirs(self._aside, exist_ok=True)
        aside = b"%s/%d" % (self._aside, next(self._numbers))
        disk.patiently(lambda: disk.rename(real, aside), pauses=_PAUSES)
        with contextlib.suppress(PermissionError):
            disk.unlink(aside)

    def _stage_link(self, path: bytes, entry: SymlinkEntry) -> None:
        target = rerooted_target(path, entry.target)
        if not WINDOWS:
            os.symlink(target, self._staged)
            return
        directory = posixpath.dirname(self.real(path))
        target = posixpath.normpath(posixpath.join(directory, target))
        if not disk.make_link(target, self._staged, to_directory=entry.to_directory):
            self._stage_placeholder()  # the compile that reads it then runs on the dev box

    def _stage_file(self, path: bytes, entry: FileEntry) -> bool:
        may_link = entry.digest not in self._linked
        is_link = self._store.place(entry, self._staged, may_link=may_link)
        if is_link:
            self._note_link(path, entry.digest)
        return is_link

    def _note_link(self, path: bytes, digest: Digest) -> None:
        self._linked[digest] = path
        self._digest_at[path] = digest

    def _stage_placeholder(self) -> None:
        try:
            disk.link(self._placeholder, self._staged)
            return
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno != errno.EMLINK:
                raise
            disk.unlink(self._placeholder)
        with open(to_system(self._placeholder), "wb") as file:
            file.write(WITHHELD_TEXT)
        if not WINDOWS:
            os.chmod(self._placeholder, 0o444)
        disk.link(self._placeholder, self._staged)


def _facts(status: os.stat_result) -> tuple[int, ...]:
    return (
        stat.S_IFMT(status.st_mode),
        status.st_size,
        status.st_ino,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )
