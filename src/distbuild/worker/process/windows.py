"""A process with all that it starts, from its start to its end. Knows no compiler. Windows.

Its output is read as it comes, and bounded, by a thread for each pipe, since nothing there waits
for pipes and processes together.
"""

import sys

assert sys.platform == "win32"  # for the type checker, too

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, TYPE_CHECKING

from distbuild.one_shot import OneShot
from distbuild.protocol.errors import InfrastructureError, UnseenInputs
from distbuild.protocol.messages import Terminal
from distbuild.system.windows import process as windows_process
from distbuild.system.windows.process import JobObject
from distbuild.worker.process.limits import MAX_OUTPUT_BYTES, REPORT, TIMEOUT_S, Completed
from distbuild.worker.sandbox.opens import Opens

if TYPE_CHECKING:
    import subprocess

#: What programs need of the machine's own environment to run at all.
_ESSENTIAL = (
    "COMSPEC NUMBER_OF_PROCESSORS OS PATHEXT PROCESSOR_ARCHITECTURE PROGRAMDATA SYSTEMDRIVE"
    " SYSTEMROOT TEMP TMP WINDIR"
).split()
_READ_BYTES = 65536
#: Exit codes from here on are exceptions: an access violation is 0xC0000005.
_FIRST_EXCEPTION = 0xC0000000
_CODES = 1 << 32


class WindowsCancellation:
    """A wish to end something."""

    def __init__(self) -> None:
        self._signal = OneShot()

    def set(self) -> None:
        """Ask for the end; may be called from any thread, and more than once."""
        self._signal.set()

    def is_set(self) -> bool:
        """Whether the end is wished for."""
        return self._signal.is_set()

    def then(self, callback: Callable[[], None]) -> None:
        """Call back, without blocking, once the end is wished for."""
        self._signal.then(callback)

    def close(self) -> None:
        """There is nothing to free."""


def start(
    argv: Sequence[bytes],
    cwd: bytes | str,
    env: Mapping[bytes, bytes],
    terminal: Terminal | None = None,
    reach: None = None,
    opens: Opens | None = None,
) -> "WindowsRunning":
    """Start ``argv``, which has to be brought to its end. ``reach``: there is no such thing here.

    Raises InfrastructureError when the program cannot be started, and for a terminal: there is
    none for others to write to.
    """
    del reach
    if opens is not None:
        raise UnseenInputs("this system does not tell which files are opened")
    if terminal is not None or REPORT in argv:
        raise InfrastructureError("this system has neither terminals nor reports for compilers")
    given = {os.fsdecode(name).upper(): os.fsdecode(value) for name, value in env.items()}
    ours = {name: os.environ[name] for name in _ESSENTIAL if name in os.environ}
    words = [os.fsdecode(word) for word in argv]
    try:
        process, job = windows_process.start(words, os.fsdecode(cwd), {**ours, **given})
    except (OSError, ValueError) as error:
        raise InfrastructureError(f"cannot start {words[0]!r}: {error}") from error
    return WindowsRunning(process, job)


class WindowsRunning:
    """A process that was started; ``finish`` has to be called, once."""

    #: Another one may follow it, in the same slot, if this one fails.
    is_tentative = False

    def __init__(
        self,
        process: "subprocess.Popen[bytes]",
        job: JobObject,
    ) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        pipes = (process.stdout, process.stderr)
        self._process = process
        self._job = job
        self._lock = threading.Lock()
        self._read = (bytearray(), bytearray())
        self._ended = OneShot()
        self._how = ""
        self._readers = [
            threading.Thread(target=self._take, args=pair, name="output", daemon=True)
            for pair in zip(pipes, self._read, strict=True)
        ]
        for reader in self._readers:
            reader.start()
        threading.Thread(target=self._wait, name="end of a compiler", daemon=True).start()

    def then(self, callback: Callable[[str], None]) -> None:
        """Call back, without blocking, once it has ended, "", or has to be ended, "output"."""
        self._ended.then(lambda: callback(self._how))

    def has_failed(self) -> bool:
        """Whether it has ended by itself and not well; it is not waited for."""
        return False

    def finish(self, stopped: str) -> Completed:
        """End what is left of it, and say how it ended: by itself if ``stopped`` is ""."""
        status = self._process.wait() if not stopped else None
        self._job.end()
        if status is None:
            status = self._process.wait()
        for reader in self._readers:
            reader.join()
        self._job.close()
        with self._process:
            pass
        if status >= _FIRST_EXCEPTION:
            status -= _CODES
        return Completed(status, bytes(self._read[0]), bytes(self._read[1]), b"", stopped)

    def _take(self, pipe: IO[bytes], into: bytearray) -> None:
        while chunk := pipe.read(_READ_BYTES):
            into += chunk
            if sum(map(len, self._read)) > MAX_OUTPUT_BYTES:
                self._end("output")
                return

    def _wait(self) -> None:
        self._process.wait()
        self._end("")

    def _end(self, how: str) -> None:
        with self._lock:
            if self._ended.is_set():
                return
            self._how = how
        self._ended.set()


#: How often it is looked for those that have run for too long (seconds).
LOOK_S = 1.0

_log = logging.getLogger(__name__)


class _Watched:
    """One compiler; whoever comes first says how it has ended."""

    def __init__(self, ended: Callable[[str], None], deadline: float) -> None:
        self.deadline = deadline
        self._ended = ended
        self._lock = threading.Lock()
        self._is_over = False

    def end(self, stopped: str) -> bool:
        """Whether this was the first that was said."""
        with self._lock:
            if self._is_over:
                return False
            self._is_over = True
        try:
            self._ended(stopped)
        except Exception:  # noqa: BLE001 - the others are to be watched
            _log.exception("the end of a compiler was lost")
        return True


class WindowsProcessWatcher:
    """``watch`` may be called from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._watched: set[_Watched] = set()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)
        self._thread.start()

    def watch(
        self,
        running: WindowsRunning,
        cancellation: WindowsCancellation,
        ended: Callable[[str], None],
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """Call ``ended``, which must not block, with what stops ``running``: "" for its own end,
        ``cancelled``, ``timeout`` or ``output``. The caller then finishes it."""
        watched = _Watched(ended, time.monotonic() + timeout_s)
        with self._changed:
            self._watched.add(watched)
        running.then(lambda how: self._end(watched, how))
        cancellation.then(lambda: self._end(watched, "cancelled"))

    def close(self) -> None:
        """Wait until nothing is watched any more, and end. Again, it does nothing."""
        with self._changed:
            self._changed.wait_for(lambda: not self._watched)
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._changed.wait_for(lambda: self._closed, LOOK_S):
                    return
                now = time.monotonic()
                late = [one for one in self._watched if now >= one.deadline]
            for one in late:
                self._end(one, "timeout")

    def _end(self, watched: _Watched, stopped: str) -> None:
        if watched.end(stopped):
            with self._changed:
                self._watched.discard(watched)
                self._changed.notify_all()
