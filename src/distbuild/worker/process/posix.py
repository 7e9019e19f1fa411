"""Starts a compiler's process group, reads its output, and kills what is left of it. POSIX.

The output is bounded, and read as it arrives. ``posix_watcher`` waits for it. Knows no compiler.
"""

import contextlib
import errno
import fcntl
import os
import resource
import select
import signal
import struct
import subprocess
import sys
import termios
import tty
from collections.abc import Callable, Mapping, Sequence

import msgspec

from distbuild.protocol.errors import InfrastructureError, UnseenInputs
from distbuild.protocol.messages import Terminal, Window
from distbuild.worker.process import spawn
from distbuild.worker.process.limits import MAX_OUTPUT_BYTES, REPORT, Completed, Usage
from distbuild.worker.sandbox.landlock import Reach
from distbuild.worker.sandbox.opens import Opens

_CONTROL_CHARACTERS = 6
#: The unit of ``ru_maxrss`` (bytes), getrusage(2).
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024


class Ends(msgspec.Struct, frozen=True):
    """A pipe's or terminal's descriptors: the compiler writes to ``writer``, the worker reads from
    ``reader``."""

    reader: int
    writer: int


def open_terminal(window: Window) -> Ends:
    """A terminal of this size; raises InfrastructureError where none can be made.

    It is no session's controlling terminal, so that it sends no signals.
    """
    try:
        ends = Ends(*os.openpty())
    except OSError as error:  # /proc/sys/kernel/pty/max, or a machine without /dev/pts
        raise InfrastructureError(f"no pseudo-terminal: {error.strerror}") from error
    try:
        _set_up(ends.writer, window)
    except (OSError, termios.error) as error:
        os.close(ends.reader)
        os.close(ends.writer)
        raise InfrastructureError(f"a pseudo-terminal does not work: {error}") from error
    return ends


def _set_up(terminal: int, window: Window) -> None:
    tty.setraw(terminal, termios.TCSANOW)
    attributes = termios.tcgetattr(terminal)
    # A read returns end of file at once: there is never any input.
    attributes[_CONTROL_CHARACTERS][termios.VMIN] = 0
    attributes[_CONTROL_CHARACTERS][termios.VTIME] = 0
    termios.tcsetattr(terminal, termios.TCSANOW, attributes)
    size = struct.pack("HHHH", window.rows, window.columns, 0, 0)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, size)


_READ_BYTES = 65536


class PosixCancellation:
    """A request to end a process, which can be polled together with file descriptors."""

    def __init__(self) -> None:
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._wished = False

    def set(self) -> None:
        """Request the end; thread-safe and idempotent."""
        self._wished = True
        with contextlib.suppress(OSError):
            os.eventfd_write(self._event, 1)

    def is_set(self) -> bool:
        """Whether the end has been requested."""
        return self._wished

    def fileno(self) -> int:
        """A descriptor that is readable once the end has been requested."""
        return self._event

    def close(self) -> None:
        """Free the descriptor; ``set`` must not be called afterwards."""
        os.close(self._event)


def start(
    argv: Sequence[bytes],
    cwd: bytes | str,
    env: Mapping[bytes, bytes],
    terminal: Terminal | None = None,
    reach: Reach | None = None,
    opens: Opens | None = None,
) -> "PosixRunning":
    """Start ``argv`` in a process group of its own; the caller has to ``finish`` it.

    ``terminal``: the terminals to give it as standard error and input. The argument ``REPORT`` is
    replaced by the number of a descriptor, whose content is returned as ``report``. ``reach``: see
    ``spawn.start``. ``opens``: records which files are opened. Raises InfrastructureError when the
    program cannot be started.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.ExitStack() as writers:
            streams = _streams(terminal, stack, writers)
            reports = [pipe(stack, writers)] if REPORT in argv else []
            report = reports[0].writer if reports else None
            words = [str(report).encode() if word == REPORT else word for word in argv]
            try:
                process = _seen(
                    words[0],
                    lambda: spawn.start(words, cwd, env, streams.given, report, reach),
                    opens,
                )
            except (OSError, ValueError) as error:
                raise InfrastructureError(f"cannot start {argv[0]!r}: {error}") from error
        readers = [*streams.readers, *(one.reader for one in reports)]
        try:
            pidfd = os.pidfd_open(process.pid)
        except OSError as error:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise InfrastructureError(f"cannot watch {argv[0]!r}: {error}") from error
        return PosixRunning(process, pidfd, readers, stack.pop_all())


def _seen(
    program: bytes, start: Callable[[], "subprocess.Popen[bytes]"], opens: Opens | None
) -> "subprocess.Popen[bytes]":
    """Call ``start``, which starts ``program``; ``opens`` records the files that this opens."""
    if opens is None:
        return start()
    if spawn.gains_rights(program) or not spawn.can_seal():
        # A setuid program would gain no rights under the filter; an unsealed start would open a
        # file in the child while this process waits for it.
        raise UnseenInputs("opened files are not seen with this bubblewrap or kernel")
    return opens.start(start)


class PosixRunning:
    """A started process; ``finish`` has to be called, once.

    ``readers``: descriptors of its output, its errors and perhaps its report.
    """

    #: If this process fails, another one may follow in the same slot.
    is_tentative = False
    #: Known after ``finish``.
    used = Usage()

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        pidfd: int,
        readers: Sequence[int],
        stack: contextlib.ExitStack,
    ) -> None:
        self._process = process
        self._read = {reader: bytearray() for reader in readers[:2]}
        self._report = readers[2] if len(readers) > 2 else None
        self._stack = stack
        self._pidfd = pidfd

    def descriptors(self) -> list[int]:
        """The descriptors that become readable when ``take`` has something to do."""
        return [*self._read, self._pidfd]

    def take(self, descriptor: int) -> tuple[bool, str | None]:
        """Handle a readable descriptor. Returns whether to go on polling it, and the process's end:
        None: not yet, "": by itself, else the reason to stop it."""
        if descriptor == self._pidfd:
            return False, ""
        goes_on = _read_once(descriptor, self._read[descriptor])
        too_much = sum(map(len, self._read.values())) > MAX_OUTPUT_BYTES
        return goes_on, "output" if too_much else None

    def has_failed(self) -> bool:
        """Whether it has ended by itself, with a failure; neither blocks nor reaps it."""
        how = os.WEXITED | os.WNOHANG | os.WNOWAIT
        ended = os.waitid(os.P_PID, self._process.pid, how)
        return ended is not None and ended.si_status != 0

    def finish(self, stopped: str) -> Completed:
        """Kill the rest of the group; returns its result. ``stopped`` "": it ended by itself."""
        with self._stack, self._process:
            if not stopped:
                for reader, into in self._read.items():
                    _read_available(reader, into)
            # Before the leader is reaped, so that no other group can have its number yet.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            os.close(self._pidfd)
            status = self._reap()
            report = bytearray()
            if self._report is not None:
                # A few lines, which fit into the pipe: all of them are there by now.
                _read_available(self._report, report)
        out, err = map(bytes, self._read.values())
        return Completed(status, out, err, bytes(report), stopped)

    def _reap(self) -> int:
        """Wait for the leader, with what it and its children used; returns its status."""
        _, status, used = os.wait4(self._process.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        # Linux counts this process's own memory too, from before the child's exec.
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        memory = used.ru_maxrss if used.ru_maxrss > own else 0
        self.used = Usage(int(1e6 * (used.ru_utime + used.ru_stime)), memory * _RSS_UNIT)
        return self._process.returncode


class _Streams(msgspec.Struct, frozen=True):
    """A program's standard streams, and the descriptors to read its output and errors from."""

    given: tuple[int, int, int]
    readers: tuple[int, int]


def _streams(
    terminal: Terminal | None, stack: contextlib.ExitStack, writers: contextlib.ExitStack
) -> _Streams:
    """Pipes, or terminals; ``stack`` closes their reading, ``writers`` their writing ends."""
    output = pipe(stack, writers)
    if terminal is None:
        errors = pipe(stack, writers)
        return _Streams(
            (subprocess.DEVNULL, output.writer, errors.writer), (output.reader, errors.reader)
        )
    errors = _closed(open_terminal(terminal.stderr), stack, writers)
    input_ = subprocess.DEVNULL
    if terminal.stdin == terminal.stderr:
        input_ = errors.writer  # as good as one of its own
    elif terminal.stdin is not None:
        input_ = _closed(open_terminal(terminal.stdin), stack, writers).writer
    return _Streams((input_, output.writer, errors.writer), (output.reader, errors.reader))


def pipe(stack: contextlib.ExitStack, writers: contextlib.ExitStack) -> Ends:
    """A new pipe; its reading end is closed with ``stack``, its writing end with ``writers``."""
    return _closed(Ends(*os.pipe2(os.O_CLOEXEC)), stack, writers)


def _closed(ends: Ends, stack: contextlib.ExitStack, writers: contextlib.ExitStack) -> Ends:
    """Register both descriptors to be closed by these stacks."""
    stack.callback(os.close, ends.reader)
    writers.callback(os.close, ends.writer)
    return ends


def _read_available(reader: int, into: bytearray) -> None:
    """Read what is left in a pipe, without blocking."""
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    while len(into) <= MAX_OUTPUT_BYTES and poll.poll(0):
        if not _read_once(reader, into):
            return


def _read_once(reader: int, into: bytearray) -> bool:
    """Read once from a readable pipe or terminal, without blocking; False at its end."""
    try:
        chunk = os.read(reader, _READ_BYTES)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return False  # a terminal that no process has open any more
    into += chunk
    return bool(chunk)
