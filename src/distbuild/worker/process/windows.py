"""Starts compilers, reads their output, watches them, and ends what is left of them. Windows.

The output is bounded, and read as it arrives by a thread for each pipe, since no call waits for
pipes and processes together. Knows no compiler.
"""

import sys

assert sys.platform == "win32"  # for the type checker, too

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, TYPE_CHECKING

from distbuild.one_shot import OneShot
from distbuild.protocol.errors import InfrastructureError, UnseenInputs
from distbuild.protocol.messages import Terminal
from distbuild.system.windows import process as windows_process
from distbuild.system.windows.process import JobObject
from distbuild.worker.process.limits import MAX_OUTPUT_BYTES, REPORT, TIMEOUT_S, Completed, Usage
from distbuild.worker.sandbox.opens import Opens

if TYPE_CHECKING:
    import subprocess

#: Variables of the machine's own environment that programs need to run at all.
_ESSENTIAL = (
    "COMSPEC NUMBER_OF_PROCESSORS OS PATHEXT PROCESSOR_ARCHITECTURE PROGRAMDATA SYSTEMDRIVE"
    " SYSTEMROOT TEMP TMP WINDIR"
).split()
_READ_BYTES = 65536
#: Exit codes from here on are exceptions: an access violation is 0xC0000005.
_FIRST_EXCEPTION = 0xC0000000
_CODES = 1 << 32


class WindowsCancellation(OneShot):
    """A request to end a process."""

    def close(self) -> None:
        """Nothing to free."""


def start(
    argv: Sequence[bytes],
    cwd: bytes | str,
    env: Mapping[bytes, bytes],
    terminal: Terminal | None = None,
    reach: None = None,
    opens: Opens | None = None,
) -> "WindowsRunning":
    """Start ``argv``; the caller has to ``finish`` it. ``reach`` is not supported here.

    Raises InfrastructureError when the program cannot be started, and for a terminal: Windows has
    none for other programs to write to. Raises UnseenInputs for ``opens``.
    """
    del reach
    if opens is not None:
        raise UnseenInputs("this system does not report which files are opened")
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
    """A started process; ``finish`` has to be called, once."""

    #: If this process fails, another one may follow in the same slot.
    is_tentative = False
    #: Not measured here.
    used = Usage()

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
        """Call ``callback``, which must not block, with "" after the process's end, or with
        "output" when it has to be stopped."""
        self._ended.then(lambda: callback(self._how))

    def has_failed(self) -> bool:
        """Whether it has ended by itself, with a failure; not determined here."""
        return False

    def finish(self, stopped: str) -> Completed:
        """End what is left of it; returns its result. ``stopped`` "": it ended by itself."""
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


#: Interval of the search for compilers that exceed their time limit (seconds).
LOOK_S = 1.0

_log = logging.getLogger(__name__)


class _Watched:
    """One compiler; the first reported end counts."""

    def __init__(self, ended: Callable[[str], None], deadline: float) -> None:
        self.deadline = deadline
        self._ended = ended
        self._lock = threading.Lock()
        self._is_over = False

    def end(self, stopped: str) -> bool:
        """Report an end; returns whether it was the first."""
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
    """Watches compilers and reports their ends. ``watch`` is thread-safe."""

    def __init__(self, look_s: float = LOOK_S) -> None:
        self._look_s = look_s
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
        """At the end, call ``ended``, which must not block, with the reason: "" for its own end,
        ``cancelled``, ``timeout`` or ``output``. The caller then finishes ``running``."""
        watched = _Watched(ended, time.monotonic() + timeout_s)
        with self._changed:
            self._watched.add(watched)
        running.then(lambda how: self._end(watched, how))
        cancellation.then(lambda: self._end(watched, "cancelled"))

    def close(self) -> None:
        """Wait until nothing is watched any more, and end the thread. Idempotent."""
        with self._changed:
            self._changed.wait_for(lambda: not self._watched)
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._changed.wait_for(lambda: self._closed, self._look_s):
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
