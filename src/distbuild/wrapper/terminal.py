"""What a compiler would find out about the terminal that it writes to. Knows no compiler."""

import contextlib
import os

from distbuild.protocol.messages import Terminal, Window
from distbuild.system.paths import WINDOWS

_STDIN, _STDERR = 0, 2


def find_terminal() -> Terminal | None:
    """The terminal of standard error, with that of standard input; None when it is none.

    Nor is a console of Windows one: no worker there can show its compiler another.
    """
    stderr = None if WINDOWS else _window(_STDERR)
    return None if stderr is None else Terminal(stderr, _window(_STDIN))


def _window(descriptor: int) -> Window | None:
    if not os.isatty(descriptor):
        return None
    with contextlib.suppress(OSError):
        return Window(*os.get_terminal_size(descriptor))
    return Window()
