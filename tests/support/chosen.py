"""Which compilers the tests run: DIST_BUILD_COMPILERS="gcc-15 clang-21" puts these first on PATH as
gcc, g++, clang, clang++ and so on.

Without the variable the tests run what is installed under the plain names.
"""

import os
import shutil
import tempfile
from pathlib import Path

VARIABLE = "DIST_BUILD_COMPILERS"
#: The programs of a version, by the family that is asked for.
PROGRAMS = {
    "gcc": ("gcc", "g++", "gcov"),
    "clang": ("clang", "clang++", "clang-cl", "clang-scan-deps"),
}


def choose(words: str) -> Path | None:
    """Put a directory with links to these compilers first on PATH; None: none are asked for."""
    if not words.split():
        return None
    directory = Path(tempfile.mkdtemp(prefix="dist_build-compilers-"))
    for word in words.split():
        family, _, version = word.rpartition("-")
        for name in PROGRAMS[family]:
            found = shutil.which(f"{name}-{version}")
            if found is None and name in (family, f"{family.replace('gcc', 'g')}++"):
                raise SystemExit(f"{VARIABLE}={words}: {name}-{version} is not installed")
            if found is not None:
                (directory / name).symlink_to(found)
    os.environ["PATH"] = f"{directory}{os.pathsep}{os.environ['PATH']}"
    return directory
