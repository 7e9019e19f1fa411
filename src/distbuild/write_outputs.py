"""Puts what a worker's compiler wrote where the local one would have written it.

Whole or not at all: every file is written before the first gets its name. But for an old file that
has to stay the same one: that is written into, as the compiler would, and a failure has the command
compiled locally, which writes it again. Used by the syncer for wrappers of its own machine, and by
the wrapper for itself.
"""

import contextlib
import errno
import itertools
import os
import stat
import sys
from collections.abc import Collection, Iterable, Sequence

import msgspec

from distbuild.protocol.codec import unpack_parts
from distbuild.protocol.errors import InfrastructureError, ProtocolError
from distbuild.protocol.messages import OutputFile
from distbuild.protocol.names import one_line
from distbuild.system import disk
from distbuild.system.paths import WINDOWS, to_system
from distbuild.system.windows.names import fold

_numbers = itertools.count()


def _read_umask() -> int:
    # There is no call that only reads it; done once, when there is one thread.
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


#: Where it lets the build's bits through, no fchmod(2) is needed, and no event of it comes.
_OUR_UMASK = _read_umask()
#: File systems, and systems, on which a file cannot be without a name.
_NO_TMPFILE = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.ENOSYS, errno.EINVAL})
_TMPFILE = getattr(os, "O_TMPFILE", 0)
#: Bytes as they are, and not for the programs that are started meanwhile.
_PLAIN = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOINHERIT", 0)
_CLOSED = -1
#: What new files belong to without more ado.
_OUR_GROUPS = (-1, os.getegid() if sys.platform != "win32" else -1)
_DETOURS = frozenset((b"", b".", b".."))
#: What compilers ask for. A program is made by a linker, whatever a worker's disk says of modes.
_FULL = 0o666
#: How often another one that writes the same file may come between.
_TRIES = 20


class Rights(msgspec.Struct, frozen=True):
    """The build's umask, and the group of its new files where that is not ours; -1: ours."""

    umask: int
    group: int = -1


def write_outputs(
    outputs: Sequence[OutputFile],
    removed: Iterable[bytes],
    rights: Rights,
    rewritten: Collection[bytes] = (),
) -> None:
    """Write and remove files; raises InfrastructureError and leaves nothing half.

    Mode bits and group are those that open(2) would have given the compiler. Where there is an
    old file, one of ``rewritten`` keeps its mode, its owner and its other names.
    """
    prepared = PreparedOutputs(outputs, removed, rights, rewritten)
    try:
        prepared.put_in_place()
    finally:
        prepared.close()


class PreparedOutputs:
    """Outputs that are on their disks and have no names yet, or those of temporary files.

    They are put in place here, or by the launcher, to which ``descriptors`` and ``listing`` go
    (src/launcher/outputs.h). Raises InfrastructureError. See ``write_outputs``.
    """

    def __init__(
        self,
        outputs: Sequence[OutputFile],
        removed: Iterable[bytes],
        rights: Rights,
        rewritten: Collection[bytes] = (),
    ) -> None:
        self._written: list[_Written] = []
        self._removed = list(removed)
        try:
            for file in outputs:
                self._written.append(_Written(file, rights, into_old=file.path in rewritten))
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise _not_written(error) from error
            raise

    def put_in_place(self) -> None:
        """Give them their names, and remove what is to be removed."""
        try:
            for one in self._written:
                one.put_in_place()
        except OSError as error:
            raise _not_written(error) from error
        _remove(self._removed)

    def descriptors(self) -> list[int]:
        """Of the files, in the order of ``listing``. They are open until ``close``."""
        return [one.descriptor for one in self._written]

    def has_temporary(self) -> bool:
        """Whether ``close`` would remove one that the launcher has not put in place yet."""
        return any(one.is_temporary for one in self._written)

    def listing(self) -> bytes:
        """For the launcher, a record for each file and each path that is to be removed: a letter,
        then the temporary file's name and the path, each with a NUL behind it."""
        removed = [b"r\0%b\0" % path for path in self._removed]
        return b"".join([*(one.record() for one in self._written), *removed])

    def close(self) -> None:
        """Let go of them; nothing is left of those that are not in their places."""
        for one in self._written:
            one.close()


def _not_written(error: OSError) -> InfrastructureError:
    return InfrastructureError(f"cannot write the result: {error.strerror}")


def is_same_directory(real: str, named: str) -> bool:
    """Whether ``real`` is what this machine calls the directory that a command calls ``named``.

    It must be the real name, links followed: another way there may be turned elsewhere between
    this look and the writing, by whoever owns a directory on it.
    """
    if real == named:
        return True
    try:
        found = disk.realpath(named)
    except (OSError, ValueError):
        return False
    return real == found or (WINDOWS and fold(real) == fold(found))


class _Written:
    """An output on its disk that has no name yet, or that of a temporary file."""

    def __init__(self, file: OutputFile, rights: Rights, *, into_old: bool) -> None:
        if not _is_plain(file.path):
            raise InfrastructureError(f"{one_line(os.fsdecode(file.path))}: no path of an output")
        self._file = file
        self._path = file.path
        self._temporary = b""
        directory = file.path.rpartition(b"/")[0] or b"/"
        # As open(2) gives them to the compiler, which makes no programs.
        self._mode = _FULL & ~rights.umask
        self._into_old = into_old
        masked = rights.umask != _OUR_UMASK and not _has_default_acl(directory)
        self._handle = self._open(directory, self._mode if masked else _FULL)
        try:
            self._write(self._handle)
            if masked and self._mode & _OUR_UMASK and sys.platform != "win32":
                os.fchmod(self._handle, self._mode)
            if rights.group not in _OUR_GROUPS and not _gives_its_group(directory):
                os.fchown(self._handle, -1, rights.group)
        except (OSError, InfrastructureError):
            self.close()
            raise

    def _write(self, handle: int) -> None:
        """Unpacked again each time: a large one does not stay in memory."""
        try:
            for part in unpack_parts(self._file.blob):
                _write_fully(handle, part)
        except ProtocolError as error:
            name = one_line(os.fsdecode(self._path))
            raise InfrastructureError(f"{name}: damaged on the way: {error}") from error

    def _open(self, directory: bytes, mode: int) -> int:
        # What has no name makes no events, of which the mirror's watches would tell six, and
        # nothing of it is left whatever happens.
        if _TMPFILE:
            try:
                return os.open(directory, _TMPFILE | os.O_RDWR | _PLAIN, mode)
            except OSError as error:
                if error.errno not in _NO_TMPFILE:
                    raise
        self._temporary = _temporary_name(directory)
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | _PLAIN
        return os.open(to_system(self._temporary), flags, mode)

    @property
    def descriptor(self) -> int:
        """Of the file, until it is let go of."""
        return self._handle

    @property
    def is_temporary(self) -> bool:
        """Whether it has a temporary name."""
        return bool(self._temporary)

    def record(self) -> bytes:
        """See PreparedOutputs.listing. ``o``: into the old file, if that shows."""
        kind = b"o" if self._into_old else b"f"
        return b"%b%b\0%b\0" % (kind, self._temporary, self._path)

    def put_in_place(self) -> None:
        """Give it its name, in place of what has that name."""
        if self._temporary:
            self._let_go()  # Windows renames no open file
            if self._is_in_old():
                return
            os.replace(to_system(self._temporary), to_system(self._path))
            self._temporary = b""
            return
        for _ in range(_TRIES):
            with contextlib.suppress(FileExistsError):
                self._link(self._path)
                return
            if self._is_in_old():
                return
            # Not renamed over it: ext4 would write the new one to the disk at once, which costs
            # more than all the rest. Compilers remove the old one as well. Another compile that
            # writes the same file may come between.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)
        self._link(self._path)

    def _is_in_old(self) -> bool:
        """Write into the old file, if that shows: if one in its place would differ from it."""
        if not self._into_old or sys.platform == "win32":
            return False
        try:
            old = os.lstat(self._path)
        except FileNotFoundError:
            return False
        as_new = (self._mode, 1, os.geteuid())
        facts = (stat.S_IMODE(old.st_mode), old.st_nlink, old.st_uid)
        if facts == as_new or not stat.S_ISREG(old.st_mode):
            return False
        handle = os.open(self._path, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | _PLAIN)
        try:
            self._write(handle)
        finally:
            os.close(handle)
        return True

    def _link(self, path: bytes) -> None:
        # With a descriptor, though the path needs none: only so does Python call linkat(2).
        name = f"/proc/self/fd/{self._handle}"
        os.link(name, path, src_dir_fd=self._handle, follow_symlinks=True)

    def close(self) -> None:
        """Let go of it; nothing is left of one that is not in its place."""
        self._let_go()
        if self._temporary:
            _remove([self._temporary])

    def _let_go(self) -> None:
        handle, self._handle = self._handle, _CLOSED
        if handle != _CLOSED:
            os.close(handle)


def _is_plain(path: bytes) -> bool:
    """Whether a path is absolute, and leads to a file without a detour."""
    parts = path.split(b"/")
    return parts[0] == b"" and b"\0" not in path and not _DETOURS.intersection(parts[1:])


def _has_default_acl(directory: bytes) -> bool:
    """Whether new files there get their rights from the directory, and no umask counts."""
    if sys.platform != "linux":
        return False
    try:
        return bool(os.getxattr(directory, "system.posix_acl_default"))
    except OSError:
        return False


def _gives_its_group(directory: bytes) -> bool:
    """Whether new files there get the directory's group, whoever makes them."""
    return bool(os.stat(directory).st_mode & stat.S_ISGID)


def _write_fully(handle: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(handle, left) :]


def _temporary_name(directory: bytes) -> bytes:
    return b"%s/.dist_build.%d.%d" % (directory, os.getpid(), next(_numbers))


def _remove(paths: Iterable[bytes]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            os.unlink(to_system(path))
