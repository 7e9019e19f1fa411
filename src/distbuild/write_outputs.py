"""Writes the outputs of a worker's compiler to the paths where the local compiler would write them.

All or nothing: every file is written before the first gets its name. The exception is an old file
that has to keep its identity: it is overwritten in place, as the compiler would do, and after a
failure the command is compiled locally, which writes it again. Used by the syncer for wrappers of
its own machine, and by the wrapper for itself.
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
    # No call only reads the umask; done once, while there is one thread.
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


#: If it allows the build's mode bits, no fchmod(2) is needed, which would cause an inotify event.
OUR_UMASK = _read_umask()
#: Errors of file systems and kernels that support no unnamed files.
_NO_TMPFILE = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.ENOSYS, errno.EINVAL})
_TMPFILE = getattr(os, "O_TMPFILE", 0)
#: Bytes without newline conversion; not inherited by programs that are started meanwhile.
_PLAIN = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOINHERIT", 0)
_CLOSED = -1
#: Groups that need no fchown(2): new files belong to them anyway.
_OUR_GROUPS = (-1, os.getegid() if sys.platform != "win32" else -1)
_DETOURS = frozenset((b"", b".", b".."))
#: The mode that compilers request. Only linkers make programs, so a worker's modes do not count.
_FULL = 0o666
#: How often another process that writes the same file may get in between.
_TRIES = 20


class Rights(msgspec.Struct, frozen=True):
    """The build's umask, and the group of its new files; -1: the group of this process."""

    umask: int
    group: int = -1


def write_outputs(
    outputs: Sequence[OutputFile],
    removed: Iterable[bytes],
    rights: Rights,
    rewritten: Collection[bytes] = (),
) -> None:
    """Write and remove files; raises InfrastructureError and leaves no partial file.

    Mode bits and group are those that open(2) would have given the compiler. An existing file in
    ``rewritten`` keeps its mode, its owner and its other names.
    """
    prepared = PreparedOutputs(outputs, removed, rights, rewritten)
    try:
        prepared.put_in_place()
    finally:
        prepared.close()


class PreparedOutputs:
    """Outputs that are on their disks as unnamed or temporary files.

    They are put in place here, or by the launcher, which receives ``descriptors`` and ``listing``
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
        """Give the files their names, and remove the paths to be removed."""
        try:
            for one in self._written:
                one.put_in_place()
        except OSError as error:
            raise _not_written(error) from error
        _remove(self._removed)

    def descriptors(self) -> list[int]:
        """The files' descriptors, in the order of ``listing``. They are open until ``close``."""
        return [one.descriptor for one in self._written]

    def has_temporary(self) -> bool:
        """Whether ``close`` would remove a file that the launcher has not put in place yet."""
        return bool([one for one in self._written if one.temporary])

    def listing(self) -> bytes:
        """For the launcher, a record for each file and each path to be removed: a letter, then the
        temporary file's name and the path, each followed by a NUL."""
        removed = [b"r\0%b\0" % path for path in self._removed]
        return b"".join([*[one.record() for one in self._written], *removed])

    def close(self) -> None:
        """Close the files and delete those that were not put in place."""
        for one in self._written:
            one.close()


def _not_written(error: OSError) -> InfrastructureError:
    return InfrastructureError(f"cannot write the result: {error.strerror}")


def is_same_directory(real: str, named: str) -> bool:
    """Whether ``real`` is the real path of the directory that a command names ``named``.

    It must be the real path, all links followed: on another path, the owner of a directory could
    redirect it between this check and the write.
    """
    if real == named:
        return True
    try:
        found = disk.realpath(named)
    except (OSError, ValueError):
        return False
    return real == found or (WINDOWS and fold(real) == fold(found))


class _Written:
    """An output on its disk, as an unnamed or a temporary file."""

    def __init__(self, file: OutputFile, rights: Rights, *, into_old: bool) -> None:
        if not _is_plain(file.path):
            raise InfrastructureError(f"{one_line(os.fsdecode(file.path))}: no path of an output")
        self._file = file
        self._path = file.path
        #: The temporary file's path; empty: it is unnamed, or in place.
        self.temporary = b""
        directory = file.path.rpartition(b"/")[0] or b"/"
        # As open(2) sets it for the compiler, which makes no programs.
        self._mode = _FULL & ~rights.umask
        self._into_old = into_old
        masked = rights.umask != OUR_UMASK and not _has_default_acl(directory)
        #: Valid until ``close``.
        self.descriptor = self._open(directory, self._mode if masked else _FULL)
        try:
            self._write(self.descriptor)
            if masked and self._mode & OUR_UMASK and sys.platform != "win32":
                os.fchmod(self.descriptor, self._mode)
            if rights.group not in _OUR_GROUPS and not _gives_its_group(directory):
                os.fchown(self.descriptor, -1, rights.group)
        except (OSError, InfrastructureError):
            self.close()
            raise

    def _write(self, handle: int) -> None:
        """Unpack the blob into a file; again on each call, so that a large one stays in no memory.
        Raises InfrastructureError and OSError."""
        try:
            for part in unpack_parts(self._file.blob):
                _write_fully(handle, part)
        except ProtocolError as error:
            name = one_line(os.fsdecode(self._path))
            raise InfrastructureError(f"{name}: damaged on the way: {error}") from error

    def _open(self, directory: bytes, mode: int) -> int:
        # An unnamed file causes none of the six events that the mirror's watches would report, and
        # is never left behind.
        if _TMPFILE:
            try:
                return os.open(directory, _TMPFILE | os.O_RDWR | _PLAIN, mode)
            except OSError as error:
                if error.errno not in _NO_TMPFILE:
                    raise
        self.temporary = _temporary_name(directory)
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | _PLAIN
        return os.open(to_system(self.temporary), flags, mode)

    def record(self) -> bytes:
        """See PreparedOutputs.listing. ``o``: overwrite the old file if a new one would differ."""
        kind = b"o" if self._into_old else b"f"
        return b"%b%b\0%b\0" % (kind, self.temporary, self._path)

    def put_in_place(self) -> None:
        """Give the file its name, and replace the file that has it."""
        if self.temporary:
            self._let_go()  # Windows renames no open file
            if self._is_in_old():
                return
            os.replace(to_system(self.temporary), to_system(self._path))
            self.temporary = b""
            return
        for _ in range(_TRIES):
            with contextlib.suppress(FileExistsError):
                self._link(self._path)
                return
            if self._is_in_old():
                return
            # No rename over the old file: ext4 would write the new one to the disk at once, which
            # costs more than all the rest. Compilers remove the old one as well. Another compile
            # that writes the same file may get in between.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)
        self._link(self._path)

    def _is_in_old(self) -> bool:
        """Whether the old file, from which a new one would differ in mode, links or owner, was
        overwritten."""
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
        # The path needs no descriptor, but only with one does Python call linkat(2).
        name = f"/proc/self/fd/{self.descriptor}"
        os.link(name, path, src_dir_fd=self.descriptor, follow_symlinks=True)

    def close(self) -> None:
        """Close the file and delete it if it was not put in place."""
        self._let_go()
        if self.temporary:
            _remove([self.temporary])

    def _let_go(self) -> None:
        handle, self.descriptor = self.descriptor, _CLOSED
        if handle != _CLOSED:
            os.close(handle)


def _is_plain(path: bytes) -> bool:
    """Whether a path is absolute, and has no NUL and no empty, ``.`` or ``..`` part."""
    parts = path.split(b"/")
    return parts[0] == b"" and b"\0" not in path and not _DETOURS.intersection(parts[1:])


def _has_default_acl(directory: bytes) -> bool:
    """Whether new files in ``directory`` get their mode from its default ACL, not the umask."""
    if sys.platform != "linux":
        return False
    try:
        return bool(os.getxattr(directory, "system.posix_acl_default"))
    except OSError:
        return False


def _gives_its_group(directory: bytes) -> bool:
    """Whether new files in ``directory`` inherit its group (setgid bit)."""
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
