"""File system types by statfs(2), which Python does not offer, and changes of the mount table.

Used by the mirror to find directories without change events (network file systems) and
directories without real files (proc, sysfs).
"""

import contextlib
import ctypes
import functools
import os
import re
import select
import sys

from distbuild.system import disk
from distbuild.system.paths import WINDOWS, to_system
from distbuild.system.windows import calls

#: File systems without events for changes by other machines: NFS, SMB, CIFS, SMB2, 9p, FUSE,
#: Ceph, AFS (OpenAFS and the kernel's); those of virtual machines for files of their hosts
#: (VirtualBox, VMware, Parallels) and of clusters (Lustre, GPFS, OCFS2, GFS2, BeeGFS, PanFS, Coda,
#: OrangeFS, StorNext). Like those that ``tail -f`` of GNU coreutils polls (src/stat.c).
_REMOTE = frozenset(
    {0x6969, 0x517B, 0xFF534D42, 0xFE534D42, 0x01021997, 0x65735546, 0x00C36400, 0x5346414F}
    | {0x6B414653, 0x786F4256, 0xBACBACBC, 0x7C7C6673, 0x0BD00BD0, 0x47504653, 0x7461636F}
    | {0x01161970, 0x19830326, 0xAAD7AAEA, 0x73757245, 0x20030528, 0xBEEFDEAD}
)
#: Pseudo file systems: proc, sysfs, cgroup (1, 2), devpts, debugfs, tracefs, securityfs, bpf.
_KERNEL = frozenset(
    {0x9FA0, 0x62656572, 0x27E0EB, 0x63677270, 0x1CD1, 0x64626720, 0x74726163, 0x73636673}
    | {0xCAFE4A11}
)


def is_remote(directory: str) -> bool:
    """Whether other machines may change the directory without an event here."""
    if WINDOWS:
        return calls.is_remote(to_system(directory))
    return _magic(directory) in _REMOTE


def is_kernel_made(directory: str) -> bool:
    """Whether the directory is on a pseudo file system, whose files the kernel generates."""
    return _magic(directory) in _KERNEL


def _magic(directory: str) -> int:
    """The type field of statfs(2), the first one; 0 if the call is missing or fails."""
    library = _library()
    buffer = ctypes.create_string_buffer(256)
    if library is None or library.statfs(os.fsencode(directory), buffer) != 0:
        return 0
    return int.from_bytes(buffer.raw[:8], sys.byteorder) & 0xFFFFFFFF


@functools.cache
def _library() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(None, use_errno=True)
    except (OSError, TypeError):
        return None
    return library if hasattr(library, "statfs") else None


_TABLE = "/proc/self/mountinfo"
_OCTAL = re.compile(rb"\\([0-7]{3})")


class MountWatch:
    """The mount table of this process and its changes; empty where the table is not readable."""

    def __init__(self, table: str = _TABLE) -> None:
        self._poll = select.poll() if hasattr(select, "poll") else None
        self._fd = -1
        with contextlib.suppress(OSError):
            self._fd = os.open(table, os.O_RDONLY | disk.O_PRIVATE)
        if self._fd < 0:
            self._poll = None
        if self._poll is not None:
            self._poll.register(self._fd, select.POLLPRI | select.POLLERR)
        self._mounts = self._read()

    def close(self) -> None:
        """Close the table's descriptor."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._poll = None

    def points(self) -> frozenset[str]:
        """The mount points as of the last call of ``changed``."""
        return frozenset(point for _, point in self._mounts)

    def changed(self) -> list[str]:
        """Mount points that were added or removed since the last call, outermost first."""
        if self._poll is None or not self._poll.poll(0):
            return []
        before, self._mounts = self._mounts, self._read()
        return sorted({point for _, point in before ^ self._mounts})

    def _read(self) -> frozenset[tuple[bytes, str]]:
        if self._fd < 0:
            return frozenset()
        os.lseek(self._fd, 0, os.SEEK_SET)
        data = b""
        while chunk := os.read(self._fd, 1 << 20):
            data += chunk
        rows = (line.split(b" ", 5) for line in data.splitlines())
        return frozenset((row[0], _path(row[4])) for row in rows if len(row) > 5)


def _path(field: bytes) -> str:
    return os.fsdecode(_OCTAL.sub(lambda m: bytes([int(m[1], 8)]), field))
