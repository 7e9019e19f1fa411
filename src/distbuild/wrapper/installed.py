"""``dist_build`` of an installed package: compiles the launcher at its first use, and becomes it.

The launcher takes the place of the two scripts ``dist_build`` and ``dist_build.exe``, so that later
compiles start no Python. Where no C compiler works, they stay, and are the Python client.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

from distbuild.wrapper.main import client

NAMES = ("dist_build", "dist_build.exe")
#: After a failure it is tried again once this time (seconds) has passed.
RETRY_S = 86400.0
_COMPILE_S = 60.0
#: Without arguments the launcher runs the client, which is not beside it then: 1.
_WITHOUT_CLIENT = 1


def main() -> int:
    """Run the launcher, or the client in its place; returns the exit code."""
    if sys.platform != "win32" and os.environ.get("DIST_BUILD_NO_LAUNCHER") != "1":
        own = Path(sys.argv[0]).resolve()
        with contextlib.suppress(OSError):
            if install_launcher(own.parent, _sources()):
                os.execv(own, sys.argv)
    return client()


def _sources() -> Path:
    return Path(sysconfig.get_path("data")) / "share" / "dist_build" / "launcher"


def install_launcher(directory: Path, sources: Path) -> bool:
    """Put the launcher in the place of the scripts in ``directory``; False: it cannot be compiled,
    or there are no such scripts. Raises OSError."""
    names = [name for name in NAMES if (directory / name).is_file()]
    failed = directory / ".dist_build_no_launcher"
    if not names or not os.access(directory, os.W_OK) or _is_new(failed):
        return False
    with tempfile.TemporaryDirectory(dir=directory, prefix=".launcher-") as work:
        made = _compiled(sources, Path(work))
        if made is None:
            failed.touch()
            return False
        for name in names:
            copy = Path(work) / f"{name}.new"
            shutil.copy(made, copy)
            os.replace(copy, directory / name)
    return True


def _is_new(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return time.time() - path.stat().st_mtime < RETRY_S
    return False


def _compiled(sources: Path, work: Path) -> Path | None:
    """The launcher, by the first compiler whose program runs here; None: there is none."""
    made = work / "dist_build"  # it goes by its own name
    # These compilers may be links to this program.
    environment = {**os.environ, "DIST_BUILD_NO_LAUNCHER": "1"}
    # generate_dist_build_executable.sh says why in this order.
    for compiler in filter(None, map(shutil.which, ("musl-gcc", "cc", "gcc", "clang"))):
        for linking in (["-static"], []):
            words = [compiler, "-std=c11", "-O2", *linking, str(sources / "dist_build.c")]
            if (
                _run([*words, "-o", str(made)], environment) == 0
                and _run([str(made)], environment) == _WITHOUT_CLIENT
            ):
                return made
    return None


def _run(words: list[str], environment: dict[str, str]) -> int:
    """The exit code of a command that prints nothing."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(
            words, env=environment, capture_output=True, check=False, timeout=_COMPILE_S
        )
        return done.returncode
    return -1
