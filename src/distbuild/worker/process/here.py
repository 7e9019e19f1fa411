"""Selects this system's implementation of starting, watching and cancelling compiler processes."""

import sys

from distbuild.worker.process.limits import MAX_OUTPUT_BYTES, REPORT, TIMEOUT_S, Completed

if sys.platform == "win32":
    from distbuild.system.windows.process import limit_descendants
    from distbuild.worker.process.windows import WindowsCancellation as Cancellation
    from distbuild.worker.process.windows import WindowsProcessWatcher as Watcher
    from distbuild.worker.process.windows import WindowsRunning as Running
    from distbuild.worker.process.windows import start
else:
    from distbuild.worker.process.posix import PosixCancellation as Cancellation
    from distbuild.worker.process.posix import PosixRunning as Running
    from distbuild.worker.process.posix import start
    from distbuild.worker.process.posix_watcher import PosixProcessWatcher as Watcher
    from distbuild.worker.process.spawn import limit_descendants

__all__ = [
    "MAX_OUTPUT_BYTES",
    "REPORT",
    "TIMEOUT_S",
    "Cancellation",
    "Completed",
    "Running",
    "Watcher",
    "limit_descendants",
    "start",
]
