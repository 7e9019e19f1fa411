"""Runs one process group to its end, its timeout or its cancellation. Knows no compiler.

The process is watched through a pidfd, its output read as it comes and bounded; nothing polls.
"""

import contextlib
import dataclasses
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from distbuild.protocol.errors import InfrastructureError
from distbuild.worker import spawn

#: gcc prints at most some MB for the worst template error; more is a compiler gone wild.
MAX_OUTPUT_BYTES = 64 * 1024 * 1024
#: The longest translation units known (generated, -O3) take minutes.
TIMEOUT_S = 30 * 60.0
#: Stands for a descriptor's number; its NUL keeps it apart from every real argument.
REPORT = b"\0report"
_READ_BYTES = 65536


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
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._wished = False

    def set(self) -> None:
        """Ask for the end; may be called from any thread, and more than once."""
        self._wished = True
        with contextlib.suppress(OSError):
            os.eventfd_write(self._event, 1)

    def is_set(self) -> bool:
        """Whether the end is wished for."""
        return self._wished

    def fileno(self) -> int:
        """A descriptor that is readable once the end is wished for."""
        return self._event

    def close(self) -> None:
        """Free the descriptor; ``set`` must not be called any more."""
        os.close(self._event)


def run(
    argv: Sequence[bytes],
    cwd: bytes | str,
    env: Mapping[bytes, bytes],
    cancellation: Cancellation,
    timeout_s: float = TIMEOUT_S,
) -> Completed:
    """Run ``argv`` in a process group of its own; see ``start`` and ``Running.watch``."""
    return start(argv, cwd, env).watch(cancellation, timeout_s)


def start(argv: Sequence[bytes], cwd: bytes | str, env: Mapping[bytes, bytes]) -> "Running":
    """Start ``argv`` in a process group of its own, which has to be watched to its end.

    The word ``REPORT`` in ``argv`` becomes the number of a descriptor whose content is returned
    as ``report``. Raises InfrastructureError when the program cannot be started.
    """
    with contextlib.ExitStack() as stack:
        pipes = [_pipe(stack) for _ in range(3 if REPORT in argv else 2)]
        report = pipes[2].writer if len(pipes) > 2 else None
        words = [str(report).encode() if word == REPORT else word for word in argv]
        outputs = (pipes[0].writer, pipes[1].writer)
        try:
            process = spawn.start(words, cwd, env, outputs, report)
        except (OSError, ValueError) as error:
            raise InfrastructureError(f"cannot start {argv[0]!r}: {error}") from error
        finally:
            for pipe in pipes:
                os.close(pipe.writer)
        return Running(process, [pipe.reader for pipe in pipes], stack.pop_all())


class Running:
    """A process that was started. ``readers``: its output, its errors and perhaps its report."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        readers: Sequence[int],
        stack: contextlib.ExitStack,
    ) -> None:
        self._process = process
        self._readers = readers
        self._stack = stack

    def watch(self, cancellation: Cancellation, timeout_s: float = TIMEOUT_S) -> Completed:
        """Wait for its end, its timeout or its cancellation; the whole group is gone then."""
        with self._stack, self._process:
            completed = _watch(self._process, self._readers[:2], cancellation, timeout_s)
            if len(self._readers) == 2:
                return completed
            # Of a few lines, which no pipe is too small for: nobody has to wait for them.
            _read_available(self._readers[2], said := bytearray())
            return dataclasses.replace(completed, report=bytes(said))


@dataclass(frozen=True, slots=True)
class _Pipe:
    reader: int
    writer: int


def _pipe(stack: contextlib.ExitStack) -> _Pipe:
    """A pipe whose reading end is closed at the end."""
    pipe = _Pipe(*os.pipe2(os.O_CLOEXEC))
    stack.callback(os.close, pipe.reader)
    return pipe


def _watch(
    process: subprocess.Popen[bytes],
    pipes: Sequence[int],
    cancellation: Cancellation,
    timeout_s: float,
) -> Completed:
    read = {pipe: bytearray() for pipe in pipes}
    pidfd = os.pidfd_open(process.pid)
    try:
        stopped = _pump(read, pidfd, cancellation, time.monotonic() + timeout_s)
    finally:
        # Before the leader is reaped, so that its number cannot be another group's yet.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        os.close(pidfd)
    status = process.wait()
    out, err = (bytes(read[pipe]) for pipe in pipes)
    return Completed(status, out, err, stopped=stopped)


def _pump(
    read: Mapping[int, bytearray], pidfd: int, cancellation: Cancellation, deadline: float
) -> str:
    """Read until the process has ended; "" or what stops it."""
    poll = select.poll()
    for fd in (*read, pidfd, cancellation.fileno()):
        poll.register(fd, select.POLLIN)
    while True:
        left_ms = max(0.0, deadline - time.monotonic()) * 1000
        ready = {fd for fd, _ in poll.poll(left_ms)}
        for pipe in ready & read.keys():
            if not _read_once(pipe, read[pipe]):
                poll.unregister(pipe)
        if cancellation.fileno() in ready:
            return "cancelled"
        if sum(map(len, read.values())) > MAX_OUTPUT_BYTES:
            return "output"
        if pidfd in ready:
            for pipe, into in read.items():
                _read_available(pipe, into)
            return ""
        if time.monotonic() >= deadline:
            return "timeout"


def _read_available(pipe: int, into: bytearray) -> None:
    """Read what the pipe still holds."""
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    while len(into) <= MAX_OUTPUT_BYTES and poll.poll(0):
        if not _read_once(pipe, into):
            return


def _read_once(pipe: int, into: bytearray) -> bool:
    """Read from a pipe that is ready, which then does not block; False at its end."""
    chunk = os.read(pipe, _READ_BYTES)
    into += chunk
    return bool(chunk)
