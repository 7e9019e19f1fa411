"""Compiles ``enter``, the program that runs a compiler in a namespace that is kept; and writes its
command lines.

Its source is beside this file, in C: a job's namespace costs five times as much if bubblewrap makes
it from nothing (decision 065). The program is compiled when a worker first needs it.
"""

import contextlib
import hashlib
import os
import platform
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from distbuild.compiler.find import find_driver
from distbuild.worker.process.limits import REPORT

#: The namespaces that jobs share, by their names in /proc/PID/ns, in the order in which ``enter``
#: expects them.
NAMESPACES = ("user", "cgroup", "net", "uts", "mnt")
SOURCE = Path(__file__).with_name("enter.c")
#: The exit code of ``enter`` for what it cannot do; it is tried without arguments.
_FAILED = 125
_COMPILE_S = 60.0
#: Of all jobs in the same namespace together, each of which has about six. The kernel counts them
#: apart from the user's other processes, and does not limit root.
MAX_PROCESSES = 8192


def program(directories: Sequence[Path], search_path: str) -> Path | None:
    """The compiled program in one of the directories, compiled into the first one that can be
    written if there is none; None where no C compiler works."""
    name = f"enter-{_version()}"
    for directory in directories:
        if _runs(directory / name):
            return directory / name
    for directory in directories:
        with contextlib.suppress(OSError):
            return _compiled(directory / name, search_path)
    return None


def bind(source: bytes, path: bytes) -> list[bytes]:
    """Show ``source``, a path in the namespace, at ``path``, with the mounts below it."""
    return [b"bind", source, path]


def overlay(directory: bytes, layers: bytes) -> list[bytes]:
    """Show a directory as it is, with what is written there kept in ``up`` of ``layers``, which has
    an empty directory ``work`` besides; its path has no special characters."""
    return [b"overlay", directory, layers]


def move(path: bytes, to: bytes) -> list[bytes]:
    """Show at ``to`` what is mounted at ``path``, and nothing there."""
    return [b"move", path, to]


def link(target: bytes, path: bytes) -> list[bytes]:
    """Make a symlink."""
    return [b"link", target, path]


def one(operation: bytes, path: bytes) -> list[bytes]:
    """``proc`` or ``tmpfs``: mount one. ``directory`` or ``file``: make an empty one. ``detach``:
    show no longer what is mounted there. ``chdir``: the command's working directory."""
    return [operation, path]


def arguments(
    program_path: bytes,
    descriptors: Sequence[int],
    limits: Sequence[int],
    operations: Sequence[bytes],
    command: Sequence[bytes],
) -> list[bytes]:
    """The command line that runs ``command`` in namespaces, of which this process has descriptors.

    ``limits``: of address space (bytes), CPU time (seconds) and file size (bytes).
    """
    limits = (*limits, MAX_PROCESSES)
    # By path, so that this process does not let other children inherit them.
    own = b"/proc/%d/fd/" % os.getpid()
    words = [program_path, REPORT, *(own + b"%d" % number for number in descriptors)]
    return [*words, *(b"%d" % limit for limit in limits), *operations, b"--", *command]


def _version() -> str:
    """The name of what is compiled from this source for this machine."""
    text = SOURCE.read_bytes() + platform.machine().encode()
    return hashlib.sha256(text).hexdigest()[:16]


def _runs(path: Path) -> bool:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run([path], capture_output=True, check=False, timeout=_COMPILE_S)
        return done.returncode == _FAILED
    return False


def _compiled(path: Path, search_path: str) -> Path | None:
    """Compile to ``path`` with the first compiler whose program runs here. Raises OSError where
    ``path`` cannot be written."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".enter-") as work:
        made = Path(work) / "enter"
        # With musl it starts fastest; generate_dist_build_executable.sh says why.
        for name in ("musl-gcc", "cc", "gcc", "clang"):
            compiler = find_driver(name, "/", search_path)
            for linking in (["-static"], []) if compiler else ():
                words = [str(compiler), "-std=c11", "-O2", *linking, str(SOURCE), "-o", str(made)]
                with contextlib.suppress(OSError, subprocess.SubprocessError):
                    subprocess.run(words, capture_output=True, check=True, timeout=_COMPILE_S)
                    if _runs(made):
                        os.replace(made, path)
                        return path
    return None
