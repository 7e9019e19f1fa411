"""Starts a program under resource limits, in a session of its own, without inherited descriptors.

Uses no shell and does not close descriptors one by one: a worker with hundreds of slots has as many
open, and starts as many compilers. Knows no compiler and waits for no process. POSIX.
"""

import contextlib
import ctypes
import functools
import os
import resource
import signal
import stat
import subprocess
import threading
from collections.abc import Mapping, Sequence

from distbuild.worker.sandbox.landlock import Reach, within

#: Large translation units take some GiB; ninja's own rule of thumb for heavy C++ is 2 per job.
MIN_ADDRESS_SPACE = 8 * 1024**3
MAX_CPU_S = 30 * 60
MAX_FILE_BYTES = 4 * 1024**3
_ULIMIT_FILE_UNIT = 512

#: Sets the same limits, for a program whose limits its starter may not set; lower ones stay.
_LIMITED = b"""ulimit -c 0 2>/dev/null
ulimit -t %d 2>/dev/null
ulimit -f %d 2>/dev/null
ulimit -v %d 2>/dev/null
exec "$@"
"""
#: close_range(2); the number is the same on all architectures but alpha.
_CLOSE_RANGE = 436
_CLOSE_RANGE_CLOEXEC = 4
_FIRST, _LAST = 3, 0xFFFFFFFF

#: Which descriptors can be inherited is a state of the whole process, so starts are serialised.
_starting = threading.Lock()


def limit_descendants() -> None:
    """Forbid all children core files and gigantic files, from their first moment.

    To be called once, at the start of a process. The other limits would affect this process itself.
    """
    for kind, value in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, MAX_FILE_BYTES)):
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (_lowered(kind, value)[0], hard))


def start(
    argv: Sequence[bytes],
    cwd: bytes | str,
    env: Mapping[bytes, bytes],
    streams: tuple[int, int, int],
    passed: int | None = None,
    reach: Reach | None = None,
) -> subprocess.Popen[bytes]:
    """Start ``argv`` with these descriptors as its standard input, output and error.

    The input may be ``subprocess.DEVNULL``. ``passed``: a further descriptor to inherit, under the
    same number. ``reach``: the files that it may open; None: not restricted here. Raises OSError
    or ValueError when the program cannot be started.
    """

    def launch(words: Sequence[bytes]) -> subprocess.Popen[bytes]:
        if reach is None:
            return _spawn(words, cwd, env, streams, passed)
        # Landlock restricts the starting thread until its end: hence a thread for each start.
        return within(reach, lambda: _spawn(words, cwd, env, streams, passed))

    if gains_rights(argv[0]):
        return launch(limited(argv))
    process = launch(argv)
    try:
        confine(process.pid)
    except OSError:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    return process


def can_seal() -> bool:
    """Whether no descriptor needs to be opened or closed between fork and exec."""
    with _starting:
        return _seal()


def gains_rights(program: bytes) -> bool:
    """Whether a program runs with another user's or group's rights than its starter's, who may then
    not set its limits: a bubblewrap that is setuid root."""
    return os.geteuid() != 0 and bool(os.stat(program).st_mode & (stat.S_ISUID | stat.S_ISGID))


def confine(pid: int) -> None:
    """Set the limits of a process that has just started; its children will inherit them."""
    for kind, value in _limits():
        wanted = _lowered(kind, value)
        try:
            resource.prlimit(pid, kind, wanted)
        except PermissionError:
            hard = resource.prlimit(pid, kind)[1]
            if not 0 <= hard < wanted[1]:  # else the program itself has lowered it meanwhile
                raise


def limited(argv: Sequence[bytes]) -> list[bytes]:
    """``argv`` behind a shell that sets the limits."""
    address_space, cpu, file = limits()
    script = _LIMITED % (cpu, file // _ULIMIT_FILE_UNIT, address_space // 1024)
    return [b"/bin/sh", b"-c", script, b"sh", *argv]


def limits() -> tuple[int, int, int]:
    """The most address space (bytes), CPU time (seconds) and file size (bytes) of a compiler."""
    values = dict(_limits())
    kinds = (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE)
    address_space, cpu, file = (values[kind] for kind in kinds)
    return address_space, cpu, file


def _limits() -> tuple[tuple[int, int], ...]:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return (
        (resource.RLIMIT_AS, max(memory, MIN_ADDRESS_SPACE)),
        (resource.RLIMIT_CPU, MAX_CPU_S),
        (resource.RLIMIT_FSIZE, MAX_FILE_BYTES),
        (resource.RLIMIT_CORE, 0),
    )


def _lowered(kind: int, value: int) -> tuple[int, int]:
    """The soft and hard limit: ``value``, or this process's limit where that is lower."""
    soft, hard = resource.getrlimit(kind)
    infinite = resource.RLIM_INFINITY
    return (
        value if soft == infinite else min(soft, value),
        value if hard == infinite else min(hard, value),
    )


def _spawn(
    argv: Sequence[bytes],
    cwd: bytes | str,
    env: Mapping[bytes, bytes],
    streams: tuple[int, int, int],
    passed: int | None,
) -> subprocess.Popen[bytes]:
    with _starting:
        sealed = _seal()
        if sealed and passed is not None:
            os.set_inheritable(passed, True)
        return subprocess.Popen(
            argv,
            cwd=cwd,
            env=env,
            stdin=streams[0],
            stdout=streams[1],
            stderr=streams[2],
            close_fds=not sealed,
            pass_fds=() if sealed or passed is None else (passed,),
            start_new_session=True,
            umask=0o022,
        )


def _seal() -> bool:
    """Mark all descriptors but the standard ones close-on-exec; False where the kernel cannot."""
    flags = ctypes.c_uint(_CLOSE_RANGE_CLOEXEC)
    first, last = ctypes.c_uint(_FIRST), ctypes.c_uint(_LAST)
    return bool(_libc().syscall(ctypes.c_long(_CLOSE_RANGE), first, last, flags) == 0)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)
