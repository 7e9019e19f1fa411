"""Finds the compiler that a name means, behind the wrappers that may stand in front of it."""

import os
import shutil

#: Links to these stand in front of a compiler; the search goes on behind them.
WRAPPERS = frozenset({"ccache", "distcc", "icecc", "sccache", "dist_build.exe", "dist_build"})


def find_driver(name: str, cwd: str, path: str) -> str | None:
    """The file that a shell in ``cwd`` with this PATH runs for ``name``, wrappers passed over."""
    candidates = [os.path.join(cwd, name)] if "/" in name else _on_path(name, cwd, path)
    for candidate in candidates:
        wrapped = os.path.basename(os.path.realpath(candidate)) in WRAPPERS
        if not wrapped and os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return candidate
    return None


def _on_path(name: str, cwd: str, path: str) -> list[str]:
    found = (shutil.which(name, path=os.path.join(cwd, d)) for d in path.split(os.pathsep))
    return [candidate for candidate in found if candidate is not None]
