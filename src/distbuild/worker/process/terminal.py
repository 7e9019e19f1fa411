"""Pseudo-terminals that look to a compiler like the developer's. Knows no process.

They pass every byte on as it is: what the developer's own terminal makes of a newline it makes
once it gets these bytes.
"""

import fcntl
import os
import struct
import termios
import tty

import msgspec

from distbuild.protocol.errors import InfrastructureError
from distbuild.protocol.messages import Window

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
