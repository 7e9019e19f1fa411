"""How a process may end, and the bounds within which it has to. Knows no system."""

import msgspec

#: gcc prints at most some MB for the worst template error; more is a compiler gone wild.
MAX_OUTPUT_BYTES = 64 * 1024 * 1024
#: The longest translation units known (generated, -O3) take minutes.
TIMEOUT_S = 30 * 60.0
#: Stands for a descriptor's number; its NUL keeps it apart from every real argument.
REPORT = b"\0report"


class Completed(msgspec.Struct, frozen=True):
    """How a process ended. ``status`` is as in subprocess: negative for a signal, and on Windows
    for an exception. ``stopped`` names what ended it in place of its own end: ``cancelled``,
    ``timeout`` or ``output``."""

    status: int
    stdout: bytes
    stderr: bytes
    report: bytes = b""
    stopped: str = ""
