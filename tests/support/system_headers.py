"""Where this machine's own headers really are."""

import os
from pathlib import Path


def linked_directories(top: Path | str) -> list[str]:
    """Directories of the system that links below ``top`` lead to.

    Debian 13 has the kernel's headers in /usr/lib/linux, and in /usr/include a link to each.
    """
    if not str(top).startswith("/usr/"):
        return []
    found = set()
    for directory, folders, files in os.walk(top):
        for name in folders + files:
            path = os.path.join(directory, name)
            if os.path.islink(path):
                target = os.path.realpath(path)
                found.add(target if os.path.isdir(target) else os.path.dirname(target))
    inside = os.path.realpath(top) + "/"
    return sorted(t for t in found if t.startswith("/usr/lib/") and not f"{t}/".startswith(inside))
