"""How a command line spells paths: by which rules a name of it becomes a place in the mirror.

Duty: strings. The rules of Windows are the same wherever this runs; ``HERE`` is this system's.
"""

import enum
import ntpath
import os
import posixpath

from distbuild.system.windows.paths import from_windows


class PathStyle(enum.Enum):
    """Of a system, and so of all compilers on it."""

    POSIX = "posix"
    WINDOWS = "windows"

    def absolute(self, cwd: str, name: str) -> str:
        """Where ``name`` is for a process in ``cwd``, as a path below "/" (``windows_paths``)."""
        if self is PathStyle.WINDOWS:
            return from_windows(name, cwd)
        return posixpath.join(cwd, name)

    def base(self, name: str) -> str:
        """The last part of a path."""
        return ntpath.basename(name) if self is PathStyle.WINDOWS else posixpath.basename(name)

    def is_directory_name(self, name: str) -> bool:
        """Whether a name ends as only that of a directory does."""
        return name.endswith(("/", "\\") if self is PathStyle.WINDOWS else "/")


HERE = PathStyle.WINDOWS if os.name == "nt" else PathStyle.POSIX
