"""Keeps a machine whose clock is wrong from answering compiles that may tell the time.

Right is the dev box's clock. Knows no network: what was told and what the time is come in.
"""

import os
from collections.abc import Iterable

import msgspec

from distbuild.command.model import CompileCommand, Family
from distbuild.protocol.errors import InfrastructureError
from distbuild.protocol.messages import Job
from distbuild.system import disk
from distbuild.worker.tree.tree import Tree

#: A job may wait for longer than this (seconds) before it starts: less does not show.
MAX_OFF_S = 2.0

#: ``__TIMESTAMP__`` is a file's time, which is mirrored.
_TELL_TIME = (b"__DATE__", b"__TIME__")


def off_by(told: float, now: float) -> float:
    """How far this machine's clock is ahead of one that said ``told`` (Unix time) just now.

    In seconds; 0 for what does not count, and where nothing was told. What the telling took on
    its way counts as well: a job's own delay is part of what its clock shows.
    """
    off = now - told
    return off if told and abs(off) > MAX_OFF_S else 0.0


class Clock(msgspec.Struct, frozen=True):
    """This machine's clock as it was when a job came: ``off_s`` ahead of the dev box's."""

    off_s: float = 0.0

    def check_command(self, job: Job, command: CompileCommand, tree: Tree) -> None:
        """Before a compile: refuse one whose words or own files tell the time.

        Raises InfrastructureError, as the other one: the job goes elsewhere.
        """
        if self._counts(job, command):
            if any(map(_tells_time, job.argv)):
                raise self._refusal("the command")
            self._check_files((file.path for file in job.files), tree)

    def check_inputs(
        self, job: Job, command: CompileCommand, tree: Tree, inputs: Iterable[bytes] | None
    ) -> None:
        """After a compile: refuse its result if what it read tells the time; None: not known."""
        if self._counts(job, command):
            if inputs is None:
                raise self._refusal("a failed compile, perhaps,")
            self._check_files(inputs, tree)

    def _counts(self, job: Job, command: CompileCommand) -> bool:
        # clang has listened to SOURCE_DATE_EPOCH since 16 only.
        fixed = command.family is Family.GCC and "SOURCE_DATE_EPOCH" in job.env
        return bool(self.off_s) and not fixed

    def _check_files(self, paths: Iterable[bytes], tree: Tree) -> None:
        for path in paths:
            try:
                with disk.open_to_read(tree.ground.real(path)) as file:
                    tells = _tells_time(file.read())
            except OSError:
                tells = True  # gone by now: it cannot be known
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
