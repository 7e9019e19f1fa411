"""Says once a build why it is compiled locally: a build starts the wrapper for every file.

A build is the foreground job of a terminal, or, without one, a session. Who said the last line of a
reason is written down in the home; src/launcher/once.h has the same rules. Knows no reason.
"""

import contextlib
import os
import re
import sys
import time
from pathlib import Path

#: A session may last for days: after so many seconds without such a line it is said again.
QUIET_S = 600
#: Files for each reason, which builds share by their number.
SHARES = 16
ADVICE = "; run dist_build.exe doctor (said once a build)"
_NAME = re.compile(r"[a-z_]{1,40}")

if sys.platform == "win32":

    def _build() -> tuple[int, int]:
        return 0, 0

    def _lock(handle: int) -> None:
        """Two lines at the same moment do no harm."""

else:
    import fcntl

    def _build() -> tuple[int, int]:
        """The session and the job in the foreground of its terminal; 0: there is none."""
        job = 0
        with contextlib.suppress(OSError):
            terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
            try:
                job = os.tcgetpgrp(terminal)
            finally:
                os.close(terminal)
        return os.getsid(0), job

    def _lock(handle: int) -> None:
        """Raises BlockingIOError."""
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_first(directory: Path, reason: str, *, unknown: bool) -> bool:
    """Whether this build has not named this reason yet.

    ``unknown`` is the answer where that cannot be told, as without a place for ``directory``.
    """
    if not _NAME.fullmatch(reason):
        return unknown
    session, job = _build()
    build = b"%d.%d" % (session, job)
    path = directory / f"{reason}.{session % SHARES}"
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        with open(path, "a+b", buffering=0) as file:
            _lock(file.fileno())
            age = abs(time.time() - os.fstat(file.fileno()).st_mtime)
            file.seek(0)
            said = file.read(len(build) + 1)
            file.truncate(0)
            file.write(build)
            return age > QUIET_S or said != build
    except BlockingIOError:
        return False  # another one is just saying it
    except OSError:
        return unknown
