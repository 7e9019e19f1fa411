"""What kind of file system a directory lies on: statfs(2), which Python does not offer."""

import ctypes
import functools
import os
import sys

from distbuild.system.paths import WINDOWS, to_system
from distbuild.system.windows import calls

#: Changes by other machines give no event: NFS, SMB, CIFS, SMB2, 9p, FUSE, Ceph, AFS.
_REMOTE = frozenset(
    {0x6969, 0x517B, 0xFF534D42, 0xFE534D42, 0x01021997, 0x65735546, 0x00C36400, 0x5346414F}
)
#: What the kernel makes up: proc, sysfs, cgroup (1, 2), devpts, debugfs, tracefs, securityfs, bpf.
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
    """Whether the directory holds no files that anybody wrote."""
    return _magic(directory) in _KERNEL


def _magic(directory: str) -> int:
    """The type field of statfs(2), its first word; 0 where that cannot be asked."""
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
