"""A process with all that it starts, from its start to its end. Knows no compiler. Windows.

Its output is read as it comes, and bounded, by a thread for each pipe, since nothing there waits
for pipes and processes together.
"""

import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import IO, TYPE_CHECKING

from distbuild.one_shot import OneShot
from distbuild.protocol.errors import InfrastructureError, UnseenInputs
from distbuild.protocol.messages import Terminal
from distbuild.worker.process.limits import MAX_OUTPUT_BYTES, REPORT, Completed
from distbuild.worker.sandbox.opens import Opens

assert sys.platform == "win32"  # for the type checker, too

from distbuild.system.windows import process as windows_process
from distbuild.system.windows.process import JobObject

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
