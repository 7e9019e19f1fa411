"""Another view of the file system for a process: files replaced, or added where there are none."""

import os
from pathlib import Path

#: Everything as it is; the words below come behind it.
HERE = ("bwrap", "--dev-bind", "/", "/")


def replaced(path: Path, content: Path) -> list[str]:
    """Words for bubblewrap that show ``content`` at ``path``, which exists."""
    return ["--ro-bind", str(content), os.path.realpath(path)]


def added(path: Path, content: Path) -> list[str]:
    """Words for bubblewrap that show ``content`` at ``path``, which does not exist.

    Nothing is made on this machine's disk: the nearest directory that is there is made again in
    memory, with all that it holds.
    """
    top = next(parent for parent in path.parents if parent.is_dir()).resolve()
    words = ["--tmpfs", str(top)]
    for entry in sorted(top.iterdir()):
        if entry.is_symlink():
            words += ["--symlink", os.readlink(entry), str(entry)]
        else:
            words += ["--ro-bind", str(entry), str(entry)]
    there = top / path.relative_to(next(p for p in path.parents if p.is_dir()))
    return [*words, "--ro-bind", str(content), str(there)]
