"""A directory for a compiler to write in, in place of one of the tree's. Knows no mounts.

It begins with the names that the tree's directory has; what is new or changed in it afterwards
is an output.
"""

import contextlib
import os
import stat
from collections.abc import Callable, Collection, Iterator

import msgspec

from distbuild.protocol.errors import InfrastructureError
from distbuild.protocol.messages import MAX_BLOB_BYTES
from distbuild.system import disk
from distbuild.worker.sandbox.base import Written


class _Facts(msgspec.Struct, frozen=True):
    """By these a file is recognised as untouched."""

    inode: int
    size: int
    mtime_ns: int
    kind: int


class PrivateDirectory:
    """``real`` on this machine stands for the dev box's ``path``."""

    def __init__(self, path: bytes, real: bytes) -> None:
        self.path = path
        self.real = real
        #: Names of the directories in it, over which the tree's own have to be mounted.
        self.directories: list[bytes] = []
        # What was there before the compiler: how a copy was, and of a link its inode, which no
        # other file can get while the tree has it too. Nobody writes through a link.
        self._before: dict[bytes, _Facts | int] = {}
        with contextlib.suppress(FileExistsError):  # left empty by an earlier job
            disk.mkdir(real)

    def fill(
        self,
        original: bytes,
        absent: Collection[bytes],
        copied: Collection[bytes],
        is_by_product: Callable[[bytes], bool],
    ) -> None:
        """Take over the names in ``original``, except ``absent``.

        Files that are ``copied``, or have the name of a by-product, may be outputs of an earlier
        compile, which this one overwrites: they are copies that can be written to, the others
        links.
        """
        with os.scandir(original) as found:
            for entry in found:
                if entry.is_dir(follow_symlinks=False):
                    disk.mkdir(self._at(entry.name))
                    self.directories.append(entry.name)
                elif entry.name not in absent:
                    writable = entry.name in copied or is_by_product(entry.name)
                    self._take(entry, writable=writable)

    def written(self) -> Iterator[Written]:
        """Every file that is new or changed; raises InfrastructureError for what is no file."""
        yield from self._written(self.real, self.path)

    def _take(self, entry: "os.DirEntry[bytes]", *, writable: bool) -> None:
        mine = self._at(entry.name)
        try:
            if entry.is_symlink():
                os.symlink(disk.readlink(entry.path), mine)
            elif writable:
                disk.copy2(entry.path, mine)
                disk.chmod(mine, 0o644)
            else:
                disk.link(entry.path, mine)
                # Not the entry's: the tree may have got another file there since it was listed.
                self._before[entry.name] = disk.lstat(mine).st_ino
                return
        except FileNotFoundError:
            return  # just removed; the job will learn that it was disturbed
        except OSError:
            disk.copy2(entry.path, mine)  # too many links
        self._before[entry.name] = _facts(disk.lstat(mine))

    def _written(self, real: bytes, path: bytes) -> Iterator[Written]:
        top = real == self.real
        with os.scandir(real) as found:
            for entry in sorted(found, key=lambda entry: entry.name):
                here = path.rstrip(b"/") + b"/" + entry.name
                if entry.is_dir(follow_symlinks=False):
                    if not (top and entry.name in self.directories):
                        yield from self._written(entry.path, here)
                    continue
                before = self._before.get(entry.name) if top else None
                if before == entry.inode():
                    continue
                facts = entry.stat(follow_symlinks=False)
                if before in (facts.st_ino, _facts(facts)):
                    continue
                yield _read(entry.path, here, facts)

    def _at(self, name: bytes) -> bytes:
        return self.real + b"/" + name


def remove(directory: bytes) -> None:
    """Remove a job's directory as far as that can be done."""
    if empty(directory, keep=False):
        with contextlib.suppress(OSError):
            disk.rmdir(directory)
    else:
        # One that the compiler took its own rights from.
        disk.remove_tree(directory)


def empty(directory: bytes, *, keep: bool) -> bool:
    """Remove what is in a directory that nobody uses; False if not all could be removed.

    ``keep``: the directories directly in it stay, empty.
    """
    try:
        with disk.scandir(directory) as found:
            entries = list(found)
        for entry in entries:
            path = directory + b"/" + entry.name
            if not entry.is_dir(follow_symlinks=False):
                disk.unlink(path)
            elif not empty(path, keep=False):
                return False
            elif not keep:
                disk.rmdir(path)
    except OSError:
        return False
    return True


def _read(real: bytes, path: bytes, facts: os.stat_result) -> Written:
    if not stat.S_ISREG(facts.st_mode) or facts.st_size > MAX_BLOB_BYTES:
        raise InfrastructureError(f"the compiler left {os.fsdecode(path)!r}, which is no output")
    with disk.open_to_read(real) as file:
        return Written(path, stat.S_IMODE(facts.st_mode), file.read())


def _facts(status: os.stat_result) -> _Facts:
    return _Facts(status.st_ino, status.st_size, status.st_mtime_ns, stat.S_IFMT(status.st_mode))
