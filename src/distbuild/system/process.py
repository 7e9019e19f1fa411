"""Identifies this process's view of the file system, and locks a file between processes.

In a container or a chroot, the paths of a wrapper's command may lead to other files than the
syncer's: both compare their views.
"""

import os
import sys
from pathlib import Path
from typing import IO

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


def views_of_files() -> list[bytes]:
    """Names of this process's mount at "/": two processes with a name in common see the same files.
    Empty if the system has none (not Linux).

    The launcher sends one of these names (``describe_place`` in src/launcher/request.h).
    """
    names = []
    try:
        root = os.stat("/")
        names.append(f"{os.readlink('/proc/self/ns/mnt')} {root.st_dev}:{root.st_ino}")
        device = f"{os.major(root.st_dev)}:{os.minor(root.st_dev)}"
        names.append(f"mount:{_mount_of_root()} {device}:{root.st_ino}")
    except (AttributeError, OSError, ValueError):
        pass  # not Linux
    return [name.encode() for name in names]


def _mount_of_root() -> int:
    """The number of the mount at "/" (``mnt_id`` in proc(5)); each mount namespace has its own."""
    root = os.open("/", os.O_PATH)
    try:
        with open(f"/proc/self/fdinfo/{root}") as facts:
            return next(int(line.split(":")[1]) for line in facts if line.startswith("mnt_id:"))
    except StopIteration:
        raise ValueError("no mnt_id") from None
    finally:
        os.close(root)


def hold(path: Path) -> IO[bytes]:
    """Create and lock the file ``path`` until it is closed; on POSIX, forked processes keep the
    lock too. Raises OSError if another process has locked it."""
    lock = open(path, "ab")  # noqa: SIM115 - open as long as it is locked
    try:
        if sys.platform == "win32":
            lock.seek(0)
            msvcrt.locking(lock.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise
    return lock
