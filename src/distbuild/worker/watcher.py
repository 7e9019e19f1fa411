"""Waits for all compilers of a worker: on this system."""

import sys

if sys.platform == "win32":
    from distbuild.worker.windows_watcher import Watcher
else:
    from distbuild.worker.posix_watcher import Watcher

__all__ = ["Watcher"]
