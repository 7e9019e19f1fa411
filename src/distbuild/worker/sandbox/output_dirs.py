"""Makes private directories for a compiler to write in, and reads its outputs. Knows no mounts.

In the sandbox each takes the place of a directory of the mirrored tree. It begins with links to
that directory's entries; or, where the kernel has overlays, as an empty layer over them, which
takes the same time for a directory of any size. Files that are new or changed after the compile are
outputs.
"""

import contextlib
import os
import stat
import sys
from collections.abc import Callable, Collection, Iterator

import msgspec

from distbuild.protocol.errors import InfrastructureError
from distbuild.protocol.messages import MAX_BLOB_BYTES
from distbuild.system import disk
from distbuild.worker.sandbox.base import Written

#: The device number of the entry in a layer that hides the one below (overlayfs).
_WHITEOUT = os.makedev(0, 0) if sys.platform != "win32" else 0


class _Facts(msgspec.Struct, frozen=True):
    """The attributes by which an untouched file is recognised."""

    inode: int
    size: int
    mtime_ns: int
    kind: int


class PrivateDirectory:
    """A directory ``real`` of this machine, to be shown as the dev box's ``path``."""

    def __init__(self, path: bytes, real: bytes) -> None:
        self.path = path
        self.real = real
        #: Names of its subdirectories, over which the tree's have to be mounted.
        self.directories: list[bytes] = []
        # State before the compile: attributes of a copy; of a hard link its inode, which no other
        # file can get while the tree has it too. Hard links are never written through.
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
        """Reproduce the entries of ``original``, except ``absent``.

        Files in ``copied``, or with a by-product's name, may be outputs of an earlier compile,
        which this one overwrites: they become writable copies. The others become hard links.
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
        """Every new or changed file; raises InfrastructureError unless it is a regular file."""
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
                # Not the entry's inode: the tree's file may have been replaced since the listing.
                self._before[entry.name] = disk.lstat(mine).st_ino
                return
        except FileNotFoundError:
            return  # just removed; the job will be reported as disturbed
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


class LayeredDirectory:
    """The directories at and below the dev box's ``path``, with a layer in ``real`` over them."""

    def __init__(self, path: bytes, real: bytes) -> None:
        self.path = path
        self.real = real
        self._layer = real + b"/up"
        self._before: dict[bytes, _Facts] = {}
        for directory in (real, self._layer, real + b"/work"):
            with contextlib.suppress(FileExistsError):  # left empty by an earlier job
                disk.mkdir(directory)

    def fill(
        self,
        path: bytes,
        original: bytes,
        absent: Collection[bytes],
        copied: Collection[bytes],
        is_by_product: Callable[[bytes], bool],
    ) -> None:
        """Prepare ``path``, this directory or one below it, as ``PrivateDirectory.fill`` does: hide
        the entries in ``absent``, and make writable copies of the other outputs."""
        layer = self._layer + path[len(self.path) :]
        os.makedirs(layer, exist_ok=True)
        outputs = {*copied, *filter(is_by_product, os.listdir(original))}.difference(absent)
        for name in absent:
            if os.path.lexists(original + b"/" + name) and not disk.isdir(original + b"/" + name):
                os.mknod(layer + b"/" + name, stat.S_IFCHR, _WHITEOUT)
        for name in outputs:
            mine, entry = layer + b"/" + name, original + b"/" + name
            with contextlib.suppress(FileNotFoundError):  # just removed
                if stat.S_ISREG(disk.lstat(entry).st_mode):
                    disk.copy2(entry, mine)
                    disk.chmod(mine, 0o644)
                    self._before[mine] = _facts(disk.lstat(mine))

    def written(self) -> Iterator[Written]:
        """Every new or changed file; raises InfrastructureError unless it is a regular file."""
        yield from self._written(self._layer, self.path)

    def _written(self, layer: bytes, path: bytes) -> Iterator[Written]:
        with os.scandir(layer) as found:
            for entry in sorted(found, key=lambda entry: entry.name):
                here = path + b"/" + entry.name
                if entry.is_dir(follow_symlinks=False):
                    yield from self._written(entry.path, here)
                    continue
                facts = entry.stat(follow_symlinks=False)
                if _is_whiteout(facts) or self._before.get(entry.path) == _facts(facts):
                    continue
                yield _read(entry.path, here, facts)


def _is_whiteout(status: os.stat_result) -> bool:
    """Whether it stands for a removed entry of the directory below."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == _WHITEOUT


def remove(directory: bytes) -> None:
    """Remove a job's directory as far as possible."""
    if empty(directory, keep=False):
        with contextlib.suppress(OSError):
            disk.rmdir(directory)
    else:
        # The compiler removed its own permissions from a directory.
        disk.remove_tree(directory)


def empty(directory: bytes, *, keep: bool) -> bool:
    """Remove the contents of an unused directory; False if not all could be removed.

    ``keep``: its direct subdirectories stay, empty.
    """
    try:
        with disk.scandir(directory) as found:
            entries = list(found)
        for entry in entries:
            path = directory + b"/" + entry.name
            if not entry.is_dir(follow_symlinks=False):
                disk.unlink(path)
            elif _is_removed(path, keep=keep):
                continue
            elif not empty(path, keep=False):
                return False
            elif not keep:
                disk.rmdir(path)
    except OSError:
        return False
    return True


def _is_removed(directory: bytes, *, keep: bool) -> bool:
    """Remove a directory if it is empty and not to be kept: that of an overlay cannot be read."""
    if not keep:
        with contextlib.suppress(OSError):
            disk.rmdir(directory)
            return True
    return False


def _read(real: bytes, path: bytes, facts: os.stat_result) -> Written:
    if not stat.S_ISREG(facts.st_mode) or facts.st_size > MAX_BLOB_BYTES:
        raise InfrastructureError(f"the compiler left {os.fsdecode(path)!r}, which is no output")
    with disk.open_to_read(real) as file:
        return Written(path, stat.S_IMODE(facts.st_mode), file.read())


def _facts(status: os.stat_result) -> _Facts:
    return _Facts(status.st_ino, status.st_size, status.st_mtime_ns, stat.S_IFMT(status.st_mode))
