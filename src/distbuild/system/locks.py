"""Files that one process at a time holds. The lock ends with the process, however that ends."""

import sys
from pathlib import Path
from typing import IO

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


def hold(path: Path) -> IO[bytes]:
    """Hold ``path``, which is made, until the file is closed; on POSIX, forked processes hold it
    too. Raises OSError when another process holds it."""
    lock = open(path, "ab")  # noqa: SIM115 - open as long as it is held
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
