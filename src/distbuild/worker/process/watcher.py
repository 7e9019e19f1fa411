"""Waits for all compilers of a worker: on this system."""

import sys

if sys.platform == "win32":
    from distbuild.worker.process.windows_watcher import WindowsProcessWatcher as Watcher
else:
    from distbuild.worker.process.posix_watcher import PosixProcessWatcher as Watcher

__all__ = ["Watcher"]
