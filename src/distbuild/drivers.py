"""Finds the compiler that a name means, behind the wrappers that may stand in front of it."""

import os
import shutil

#: Links to these stand in front of a compiler; the search goes on behind them.
WRAPPERS = frozenset({"ccache", "distcc", "icecc", "sccache", "dist_build.exe", "dist_build"})


def find_driver(name: str, cwd: str, path: str) -> str | None:
    """The file that a shell in ``cwd`` with this PATH runs for ``name``, wrappers passed over."""
    candidates = _on_path(os.path.basename(name), cwd, path)
    if "/" in name:
        named = os.path.join(cwd, name)
        # Behind a wrapper that is named by its path, the search goes on as the wrapper's does.
        candidates = [named, *candidates] if _is_wrapper(named) else [named]
    for candidate in candidates:
        if (
            not _is_wrapper(candidate)
            and os.path.isfile(candidate)
            and os.access(candidate, os.X_OK)
        ):
            return candidate
    return None


def _is_wrapper(candidate: str) -> bool:
    return os.path.basename(os.path.realpath(candidate)) in WRAPPERS


def _on_path(name: str, cwd: str, path: str) -> list[str]:
    found = (shutil.which(name, path=os.path.join(cwd, d)) for d in path.split(os.pathsep))
    return [candidate for candidate in found if candidate is not None]
