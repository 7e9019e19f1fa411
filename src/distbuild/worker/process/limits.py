"""How a process may end, and the bounds within which it has to. Knows no system."""

import re

import msgspec

from distbuild.command.diagnostics import plain
from distbuild.protocol.coding import MAX_PRINTED_BYTES
from distbuild.protocol.errors import CompilerCrashed, InfrastructureError

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


#: What a driver reports with the exit code of a wrong program, and may be this machine's fault. A
#: crash of the compiler counts too: only the local compiler can tell that it is a bug of its own.
_LACK = (
    rb"out of memory|memory exhausted|Cannot allocate memory|No space left on device"
    rb"|Disk quota exceeded|time limit exceeded|size limit exceeded|Too many open files"
    rb"|Resource temporarily unavailable|Input/output error"
)
#: Only where nothing is quoted from a source, which may say anything.
_TROUBLE = re.compile(
    # A program speaks of itself,
    rb"^(?:[^\s:]*/)?(?:[\w.+-]*-)?"
    rb"(?:gcc|g\+\+|cc|c\+\+|cc1\w*|clang(?:\+\+)?|as|collect2|lto1|lto-wrapper|objcopy)"
    rb"(?:-[0-9.]+)?: [^\n]*?(?P<program>" + _LACK + rb"|unable to execute command"
    rb"|frontend command failed"
    # gcc has not found, or could not start, a part of itself.
    rb"|cannot execute|error trying to exec|installation problem)"
    # or a library or the driver without a name,
    rb"|^(?:LLVM ERROR|(?:fatal )?error|virtual memory exhausted|\{standard input\}): "
    rb"[^\n]*?(?P<nameless>" + _LACK + rb")"
    # or a place in a source is where it had to give up.
    rb"|^(?:(?!: )[^\s#|])(?:(?!: )[^\n])*?: [Ff]atal error: [^\n]*?(?P<fatal>"
    + _LACK
    + rb")['.]*$"
    rb"|(?P<crash>signal terminated program|internal compiler error:)",
    re.MULTILINE,
)
#: Of these, what a compiler does by itself, unless the system killed it for want of memory.
_CRASHES = frozenset(
    (
        "unable to execute command",
        "frontend command failed",
        "signal terminated program",
        "internal compiler error:",
    )
)
_KILLED = b"Killed"


def check(completed: Completed) -> None:
    """Raise InfrastructureError for an end that is no verdict of the compiler.

    CompilerCrashed, if that is how it ended.
    """
    if completed.stopped:
        raise InfrastructureError(f"the compiler was stopped: {completed.stopped}")
    if completed.status != 0 and (trouble := machine_trouble(completed.stderr)):
        if trouble in _CRASHES and _KILLED not in completed.stderr:
            raise CompilerCrashed(trouble.rstrip(":"))
        raise InfrastructureError(f"the worker's trouble: {trouble}")


def machine_trouble(stderr: bytes) -> str:
    """What a failed compile's messages say of this machine, not of the program; "" for nothing."""
    found = _TROUBLE.search(plain(stderr))
    return next((said.decode() for said in found.groups() if said), "") if found else ""
