"""A process group from its start to its end, whatever ends it. Knows no compiler. POSIX.

Its output is read as it comes, and bounded. ``watcher`` waits for it.
"""

import contextlib
import errno
import fcntl
import os
import select
import signal
import struct
import subprocess
import termios
import tty
from collections.abc import Callable, Mapping, Sequence

import msgspec

from distbuild.protocol.errors import InfrastructureError, UnseenInputs
from distbuild.protocol.messages import Terminal, Window
from distbuild.worker.process import spawn
from distbuild.worker.process.limits import MAX_OUTPUT_BYTES, REPORT, Completed
from distbuild.worker.sandbox.landlock import Reach
from distbuild.worker.sandbox.opens import Opens

_CONTROL_CHARACTERS = 6


class Ends(msgspec.Struct, frozen=True):
    """Descriptors: what the compiler writes to ``writer`` comes out of ``reader``."""

    reader: int
    writer: int


def open_terminal(window: Window) -> Ends:
    """A terminal of this size; raises InfrastructureError where there is none to be had.

    It is nobody's controlling terminal, so that no signal comes from it.
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
    # Who reads from it finds its end at once: nobody will ever type there.
    attributes[_CONTROL_CHARACTERS][termios.VMIN] = 0
    attributes[_CONTROL_CHARACTERS][termios.VTIME] = 0
    termios.tcsetattr(terminal, termios.TCSANOW, attributes)
    size = struct.pack("HHHH", window.rows, window.columns, 0, 0)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, size)


_READ_BYTES = 65536


class PosixCancellation:
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


def start(
    argv: Sequence[bytes],
    cwd: bytes | str,
    env: Mapping[bytes, bytes],
    terminal: Terminal | None = None,
    reach: Reach | None = None,
    opens: Opens | None = None,
) -> "PosixRunning":
    """Start ``argv`` in a process group of its own, which has to be brought to its end.

    Its errors, and its input, go to a terminal like ``terminal``. The word ``REPORT`` in ``argv``
    becomes the number of a descriptor whose content is returned as ``report``. ``reach``: see
    ``spawn.start``. ``opens``: sees which files are opened. Raises InfrastructureError when the
    program cannot be started.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.ExitStack() as writers:
            streams = _streams(terminal, stack, writers)
            reports = [_pipe(stack, writers)] if REPORT in argv else []
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
        readers = [*streams.readers, *(pipe.reader for pipe in reports)]
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
    """What ``start`` returns, which starts ``program``; ``opens`` sees what that opens."""
    if opens is None:
        return start()
    if spawn.gains_rights(program) or not spawn.can_seal():
        # It would get no more rights then, or open a file while this process waits for it.
        raise UnseenInputs("opened files are not seen with this bubblewrap or kernel")
    return opens.start(start)


class PosixRunning:
    """A process that was started; ``finish`` has to be called, once.

    ``readers``: its output, its errors and perhaps its report.
    """

    #: Another one may follow it, in the same slot, if this one fails.
    is_tentative = False

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
        """What becomes readable when ``take`` has something to do."""
        return [*self._read, self._pidfd]

    def take(self, descriptor: int) -> tuple[bool, str | None]:
        """A descriptor is readable: whether it will be again, and how the process has ended:
        None: not yet, "": by itself, else what has to stop it."""
        if descriptor == self._pidfd:
            return False, ""
        goes_on = _read_once(descriptor, self._read[descriptor])
        too_much = sum(map(len, self._read.values())) > MAX_OUTPUT_BYTES
        return goes_on, "output" if too_much else None

    def has_failed(self) -> bool:
        """Whether it has ended by itself and not well; it is not waited for."""
        how = os.WEXITED | os.WNOHANG | os.WNOWAIT
        ended = os.waitid(os.P_PID, self._process.pid, how)
        return ended is not None and ended.si_status != 0

    def finish(self, stopped: str) -> Completed:
        """Kill what is left of the group, and say how it ended: by itself if ``stopped`` is ""."""
        with self._stack, self._process:
            if not stopped:
                for pipe, into in self._read.items():
                    _read_available(pipe, into)
            # Before the leader is reaped, so that its number cannot be another group's yet.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            os.close(self._pidfd)
            status = self._process.wait()
            report = bytearray()
            if self._report is not None:
                # Of a few lines, which no pipe is too small for: nobody has to wait for them.
                _read_available(self._report, report)
        out, err = map(bytes, self._read.values())
        return Completed(status, out, err, bytes(report), stopped)


class _Streams(msgspec.Struct, frozen=True):
    """What a program gets as its standard streams, and where its output and errors come out."""

    given: tuple[int, int, int]
    readers: tuple[int, int]


def _streams(
    terminal: Terminal | None, stack: contextlib.ExitStack, writers: contextlib.ExitStack
) -> _Streams:
    """Pipes, or terminals; their two ends are closed at the ends of ``stack`` and ``writers``."""
    output = _pipe(stack, writers)
    if terminal is None:
        errors = _pipe(stack, writers)
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


def _pipe(stack: contextlib.ExitStack, writers: contextlib.ExitStack) -> Ends:
    return _closed(Ends(*os.pipe2(os.O_CLOEXEC)), stack, writers)


def _closed(ends: Ends, stack: contextlib.ExitStack, writers: contextlib.ExitStack) -> Ends:
    """Have them closed at the ends of these."""
    stack.callback(os.close, ends.reader)
    writers.callback(os.close, ends.writer)
    return ends


def _read_available(pipe: int, into: bytearray) -> None:
    """Read what the pipe still holds."""
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    while len(into) <= MAX_OUTPUT_BYTES and poll.poll(0):
        if not _read_once(pipe, into):
            return


def _read_once(pipe: int, into: bytearray) -> bool:
    """Read from a pipe or terminal that is ready, so that it does not block; False at its end."""
    try:
        chunk = os.read(pipe, _READ_BYTES)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return False  # a terminal that nobody has open any more
    into += chunk
    return bool(chunk)
