"""Worker side: refuses compiles whose object may contain the time while this clock is wrong.

The dev box's clock is the reference. Knows no network: both times are arguments.
"""

import os
from collections.abc import Iterable

import msgspec

from distbuild.command.model import CompileCommand, Family
from distbuild.protocol.errors import InfrastructureError
from distbuild.protocol.messages import Job
from distbuild.system import disk
from distbuild.worker.tree.tree import Tree

#: Smaller differences (seconds) are ignored: a job may wait longer than this before it starts.
MAX_OFF_S = 2.0

#: Without ``__TIMESTAMP__``: it is a file's time, which is mirrored.
_TELL_TIME = (b"__DATE__", b"__TIME__")


def off_by(sent: float, now: float) -> float:
    """Seconds by which this machine's clock is ahead of one that just sent ``sent`` (Unix time).

    0 up to MAX_OFF_S, and where ``sent`` is 0 (not sent). Includes the message's own delay: a
    job's delay is part of the time that it would show, too.
    """
    off = now - sent
    return off if sent and abs(off) > MAX_OFF_S else 0.0


class Clock(msgspec.Struct, frozen=True):
    """This machine's clock when a job arrived: ``off_s`` seconds ahead of the dev box's."""

    off_s: float = 0.0

    def check_command(self, job: Job, command: CompileCommand, tree: Tree) -> None:
        """Before a compile: refuse one whose arguments or own files use a time macro.

        Raises InfrastructureError, as ``check_inputs`` does: the job goes elsewhere.
        """
        if self._counts(job, command):
            if any(map(_tells_time, job.argv)):
                raise self._refusal("the command")
            self._check_files((file.path for file in job.files), tree)

    def check_inputs(
        self, job: Job, command: CompileCommand, tree: Tree, inputs: Iterable[bytes] | None
    ) -> None:
        """After a compile: refuse its result if an input uses a time macro; None: not known."""
        if self._counts(job, command):
            if inputs is None:
                raise self._refusal("a failed compile, perhaps,")
            self._check_files(inputs, tree)

    def _counts(self, job: Job, command: CompileCommand) -> bool:
        # clang reads SOURCE_DATE_EPOCH only since version 16.
        fixed = command.family is Family.GCC and "SOURCE_DATE_EPOCH" in job.env
        return bool(self.off_s) and not fixed

    def _check_files(self, paths: Iterable[bytes], tree: Tree) -> None:
        for path in paths:
            try:
                with disk.open_to_read(tree.ground.real(path)) as file:
                    tells = _tells_time(file.read())
            except OSError:
                tells = True  # removed meanwhile: it may have used one
            if tells:
                raise self._refusal(os.fsdecode(path))

    def _refusal(self, what: str) -> InfrastructureError:
        way = "ahead of" if self.off_s > 0 else "behind"
        return InfrastructureError(
            f"{what} tells the time, and the worker's clock is {abs(self.off_s):.0f} s {way}"
            " the dev box's"
        )


def _tells_time(text: bytes) -> bool:
    return any(macro in text for macro in _TELL_TIME)
