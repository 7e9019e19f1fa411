"""Runs one process group to its end, its timeout or its cancellation. Knows no compiler.

The process is watched through a pidfd, its output read as it comes and bounded; nothing polls.
"""

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from distbuild.protocol.errors import InfrastructureError

#: gcc prints at most some MB for the worst template error; more is a compiler gone wild.
MAX_OUTPUT_BYTES = 64 * 1024 * 1024
#: The longest translation units known (generated, -O3) take minutes.
TIMEOUT_S = 30 * 60.0
#: Stands for a descriptor's number; its NUL keeps it apart from every real argument.
REPORT = b"\0report"
_READ_BYTES = 65536

#: Limits of every process of a group: no core, 30 min of CPU, 4 GiB files, and the given address
#: space. Set by a shell, since they have to stand before the first child is forked; a limit that
#: is already lower stays.
_LIMITED = b"""ulimit -c 0 2>/dev/null
ulimit -t 1800 2>/dev/null
ulimit -f 8388608 2>/dev/null
ulimit -v %d 2>/dev/null
exec "$@"
"""
#: Large translation units take some GiB; ninja's own rule of thumb for heavy C++ is 2 per job.
MIN_ADDRESS_SPACE = 8 * 1024**3


@dataclass(frozen=True, slots=True)
class Completed:
    """How a process ended. ``status`` is as in subprocess: negative for a signal. ``stopped``
    names what ended it in place of its own end: ``cancelled``, ``timeout`` or ``output``."""

    status: int
    stdout: bytes
    stderr: bytes
    report: bytes = b""
    stopped: str = ""


class Cancellation:
    """A wish to end something, that can be waited for together with file descriptors."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def set(self) -> None:
        """Ask for the end; may be called from any thread, and more than once."""
        with contextlib.suppress(OSError):
            os.write(self._writer, b"x")

    def fileno(self) -> int:
        """A descriptor that is readable once the end is wished for."""
        return self._reader

    def close(self) -> None:
        """Free the descriptors; ``set`` must not be called any more."""
        os.close(self._reader)
        os.close(self._writer)


def run(
    argv: Sequence[bytes],
    cwd: bytes | str,
    env: Mapping[bytes, bytes],
    cancellation: Cancellation,
    timeout_s: float = TIMEOUT_S,
) -> Completed:
    """Run ``argv`` in a process group of its own; always ends with the whole group gone.

    The word ``REPORT`` in ``argv`` becomes the number of a descriptor whose content is returned
    as ``report``. Raises InfrastructureError when the program cannot be started.
    """
    report, report_writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    words = limited([str(report_writer).encode() if word == REPORT else word for word in argv])
    try:
        process = subprocess.Popen(
            words,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(report_writer,),
            start_new_session=True,
            umask=0o022,
        )
    except (OSError, ValueError) as error:
        os.close(report)
        raise InfrastructureError(f"cannot start {argv[0]!r}: {error}") from error
    finally:
        os.close(report_writer)
    try:
        with process:
            return _watch(process, report, cancellation, timeout_s)
    finally:
        os.close(report)


def limited(argv: Sequence[bytes]) -> list[bytes]:
    """``argv`` run under the limits."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    script = _LIMITED % (max(memory, MIN_ADDRESS_SPACE) // 1024)
    return [b"/bin/sh", b"-c", script, b"sh", *argv]


def _watch(
    process: subprocess.Popen[bytes], report: int, cancellation: Cancellation, timeout_s: float
) -> Completed:
    pipes = [pipe.fileno() for pipe in (process.stdout, process.stderr) if pipe is not None]
    pipes.append(report)
    read: dict[int, bytearray] = {pipe: bytearray() for pipe in pipes}
    pidfd = os.pidfd_open(process.pid)
    try:
        stopped = _pump(read, pidfd, cancellation, time.monotonic() + timeout_s)
    finally:
        # Before the leader is reaped, so that its number cannot be another group's yet.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        os.close(pidfd)
    status = process.wait()
    out, err, rep = (bytes(read[pipe]) for pipe in pipes)
    return Completed(status, out, err, rep, stopped)


def _pump(
    read: dict[int, bytearray], pidfd: int, cancellation: Cancellation, deadline: float
) -> str:
    """Read until the process has ended; "" or what stops it."""
    with selectors.DefaultSelector() as selector:
        for pipe in read:
            os.set_blocking(pipe, False)
            selector.register(pipe, selectors.EVENT_READ)
        selector.register(pidfd, selectors.EVENT_READ)
        selector.register(cancellation, selectors.EVENT_READ)
        while True:
            ready = {key.fd for key, _ in selector.select(max(0.0, deadline - time.monotonic()))}
            for pipe in ready & read.keys():
                if not _read_available(pipe, read[pipe]):
                    selector.unregister(pipe)
            if cancellation.fileno() in ready:
                return "cancelled"
            if sum(map(len, read.values())) > MAX_OUTPUT_BYTES:
                return "output"
            if pidfd in ready:
                for pipe in read:
                    _read_available(pipe, read[pipe])
                return ""
            if time.monotonic() >= deadline:
                return "timeout"


def _read_available(pipe: int, into: bytearray) -> bool:
    """Read what is there; False at the end of the pipe."""
    while len(into) <= MAX_OUTPUT_BYTES:
        try:
            chunk = os.read(pipe, _READ_BYTES)
        except BlockingIOError:
            return True
        if not chunk:
            return False
        into += chunk
    return True
