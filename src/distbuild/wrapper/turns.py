"""Turns of local compiles while there is no syncer that gives them.

Of a build with more jobs at a time than this machine has cores, all would else run here at once
when the syncer ends.
"""

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from distbuild.system.locks import hold

#: Set for what runs in a turn: what that calls runs within it.
IN_TURN = "DIST_BUILD_IN_TURN"
#: Nobody waits longer (seconds): a turn may have been inherited by what never ends.
PATIENCE_S = 60.0
_LOOK_S = 0.05
_FIRST_FREE = 3  # not the place of a standard stream that the build has closed

if sys.platform == "win32":

    def take_turn(directory: Path, env: Mapping[str, str]) -> dict[str, str]:
        """There are none: this process becomes nothing that could hold one."""
        del directory
        return dict(env)

else:
    import fcntl

    def take_turn(directory: Path, env: Mapping[str, str]) -> dict[str, str]:
        """Wait until fewer local compiles run than there are cores; the environment for this one.

        The turn is an open file, which the compiler that this process becomes inherits. Without a
        place for such files there are no turns.
        """
        if IN_TURN in env:
            return dict(env)
        deadline = time.monotonic() + PATIENCE_S
        try:
            directory.mkdir(mode=0o700, exist_ok=True)
            while not _is_taken(directory) and time.monotonic() < deadline:
                time.sleep(_LOOK_S)
        except OSError:
            return dict(env)
        return {**env, IN_TURN: "1"}

    def _is_taken(directory: Path) -> bool:
        """Take one of the turns, if one is free. Raises OSError where there can be none."""
        for number in range(len(os.sched_getaffinity(0))):
            try:
                lock = hold(directory / str(number))
            except BlockingIOError:
                continue
            with lock:
                kept = fcntl.fcntl(lock, fcntl.F_DUPFD, _FIRST_FREE)
            os.set_inheritable(kept, True)
            return True
        return False
