"""Commands on a terminal, as a developer runs them."""

import contextlib
import fcntl
import os
import struct
import subprocess
import termios
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.support.cluster import Done

Size = tuple[int, int]


@dataclass(frozen=True)
class Screen:
    """A terminal of so many columns and rows as standard error.

    ``stdin``: whether it is standard input too, or the size of another one that is.
    """

    size: Size = (80, 24)
    stdin: bool | Size = True

    def run(
        self, words: Sequence[str | os.PathLike[str]], cwd: Path, env: Mapping[str, str]
    ) -> Done:
        """What a command says, to its end; standard error as the terminal gets it."""
        with _terminal(self.size) as (reader, writer), contextlib.ExitStack() as stack:
            given: int | IO[bytes] = writer if self.stdin is True else subprocess.DEVNULL
            if isinstance(self.stdin, tuple):
                given = stack.enter_context(_terminal(self.stdin))[1]
            process = subprocess.Popen(
                words, cwd=cwd, env=env, stdin=given, stdout=subprocess.PIPE, stderr=writer
            )
            writer.close()
            shown = _read_to_end(reader)
            stdout = process.communicate()[0]
        return Done(process.returncode, stdout, shown)


@contextlib.contextmanager
def _terminal(size: Size) -> Iterator[tuple[int, IO[bytes]]]:
    reader, number = os.openpty()
    fcntl.ioctl(number, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
    with open(number, "wb", buffering=0) as writer:
        try:
            yield reader, writer
        finally:
            os.close(reader)


def _read_to_end(reader: int) -> bytes:
    shown = b""
    with contextlib.suppress(OSError):  # EIO: nobody has it open any more
        while chunk := os.read(reader, 65536):
            shown += chunk
    return shown
