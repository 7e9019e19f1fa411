"""How a process may end, and the bounds within which it has to. Knows no system."""

import msgspec

from distbuild.protocol.coding import MAX_PRINTED_BYTES

#: More is a compiler gone wild.
MAX_OUTPUT_BYTES = MAX_PRINTED_BYTES
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
