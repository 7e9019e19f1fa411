"""Defines a compiler process's limits and result, and which exit codes and signals mean that the
process was killed, so that they say nothing about the source.

Used by the worker's sandboxes. Knows no operating system.
"""

import re

import msgspec

from distbuild.command.diagnostics import plain
from distbuild.protocol.coding import MAX_PRINTED_BYTES
from distbuild.protocol.errors import CompilerCrashed, InfrastructureError

#: A compiler that prints more is malfunctioning.
MAX_OUTPUT_BYTES = MAX_PRINTED_BYTES
#: The longest translation units known (generated, -O3) take minutes.
TIMEOUT_S = 30 * 60.0
#: Placeholder argument for a descriptor's number; no real argument contains its NUL.
REPORT = b"\0report"


class Completed(msgspec.Struct, frozen=True):
    """How a process ended. ``status`` is as in subprocess: negative for a signal, and on Windows
    for an exception. ``stopped``: why it was killed: ``cancelled``, ``timeout`` or ``output``; ""
    if it ended by itself."""

    status: int
    stdout: bytes
    stderr: bytes
    report: bytes = b""
    stopped: str = ""


class Usage(msgspec.Struct, frozen=True):
    """What a process and its children used: processor time, and the peak memory of the largest of
    them. Zero: not known; memory is known if it is more than this process's own."""

    cpu_us: int = 0
    memory_bytes: int = 0


#: Errors that a driver reports with the exit code of a wrong program but may be this machine's
#: fault. A compiler crash counts too: only the local compiler can prove that it is a compiler bug.
_LACK = (
    rb"out of memory|memory exhausted|Cannot allocate memory|No space left on device"
    rb"|Disk quota exceeded|time limit exceeded|size limit exceeded|Too many open files"
    rb"|Resource temporarily unavailable|Input/output error"
)
#: Matches only text that is not quoted from a source, since a source may contain anything.
_TROUBLE = re.compile(
    # A program's message about itself,
    rb"^(?:[^\s:]*/)?(?:[\w.+-]*-)?"
    rb"(?:gcc|g\+\+|cc|c\+\+|cc1\w*|clang(?:\+\+)?|as|collect2|lto1|lto-wrapper|objcopy)"
    rb"(?:-[0-9.]+)?: [^\n]*?(?P<program>" + _LACK + rb"|unable to execute command"
    rb"|frontend command failed"
    # gcc did not find, or could not start, one of its own programs.
    rb"|cannot execute|error trying to exec|installation problem)"
    # or a message of a library or the driver without a name,
    rb"|^(?:LLVM ERROR|(?:fatal )?error|virtual memory exhausted|\{standard input\}): "
    rb"[^\n]*?(?P<nameless>" + _LACK + rb")"
    # or a fatal error at a position in a source.
    rb"|^(?:(?!: )[^\s#|])(?:(?!: )[^\n])*?: [Ff]atal error: [^\n]*?(?P<fatal>"
    + _LACK
    + rb")['.]*$"
    rb"|(?P<crash>signal terminated program|internal compiler error:)",
    re.MULTILINE,
)
#: The compiler's own crashes among these, unless the system killed it for lack of memory.
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

    CompilerCrashed, if the compiler crashed.
    """
    if completed.stopped:
        raise InfrastructureError(f"the compiler was stopped: {completed.stopped}")
    if completed.status != 0 and (trouble := machine_trouble(completed.stderr)):
        if trouble in _CRASHES and _KILLED not in completed.stderr:
            raise CompilerCrashed(trouble.rstrip(":"))
        raise InfrastructureError(f"the worker's trouble: {trouble}")


def machine_trouble(stderr: bytes) -> str:
    """The fault of this machine that a failed compile's messages report; "" for none."""
    found = _TROUBLE.search(plain(stderr))
    return next((said.decode() for said in found.groups() if said), "") if found else ""
