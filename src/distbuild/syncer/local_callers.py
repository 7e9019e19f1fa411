"""Serves the wrappers of this machine: writes the outputs for them, and lets local work take turns.

Works on what ``Compiles`` answers. Knows no HTTP.
"""

import logging
import os
from collections.abc import Generator

import msgspec

from distbuild.command.model import Local, LocalReason
from distbuild.compiler.find import find_driver
from distbuild.farm.local_slots import LocalSlots
from distbuild.one_shot import OneShot
from distbuild.protocol.errors import InfrastructureError
from distbuild.protocol.messages import SubmitReply
from distbuild.syncer.compile import Compiles
from distbuild.syncer.understand import Submission
from distbuild.system.process import views_of_files
from distbuild.write_outputs import PreparedOutputs, Rights

log = logging.getLogger(__name__)

#: Commands that are no compiler may start whole builds, which must not wait for themselves.
_UNLIMITED = frozenset({LocalReason.NOT_A_COMPILER})
#: As many descriptors as the launcher takes (src/launcher/outputs.h).
MAX_PASSED = 250


class Caller(msgspec.Struct, frozen=True):
    """A wrapper on this machine: the build's umask and group, and what its paths mean."""

    umask: int
    group: int
    view: bytes
    places_outputs: bool = False


class WrapperOrders(msgspec.Struct, frozen=True):
    """What the wrapper has to do: say ``reply`` and exit, or become ``program`` (None: not found,
    or not looked for, since the wrapper has another view of the files).

    ``holds_slot``: a local slot is the caller's, to be given back when the program has ended.
    ``outputs``: files that the wrapper puts in place; to be closed after that.
    """

    reply: SubmitReply
    program: str | None = None
    holds_slot: bool = False
    outputs: PreparedOutputs | None = None


class Here:
    """Compiles for wrappers of this machine."""

    def __init__(self, compiles: Compiles, slots: LocalSlots) -> None:
        self._compiles = compiles
        self._views = views_of_files() or [b""]
        self.slots = slots

    def sees_our_files(self, view: bytes) -> bool:
        """Whether a wrapper's paths lead where ours do."""
        return view in self._views

    def run(
        self, submission: Submission, caller: Caller
    ) -> Generator[OneShot, None, WrapperOrders]:
        """The answer to a wrapper; its outputs are written, or its local slot is taken."""
        reply, outputs = yield from self._compile(submission, caller)
        if reply.outcome == "done":
            return WrapperOrders(reply, outputs=outputs)
        # In another view of the files the wrapper alone can find its compiler.
        is_elsewhere = reply.reason == LocalReason.OTHER_FILES
        path = submission.env.get("PATH", os.defpath)
        program = None if is_elsewhere else find_driver(submission.argv[0], submission.cwd, path)
        holds = (program is not None or is_elsewhere) and reply.reason not in _UNLIMITED
        if holds:
            yield from self.slots.acquire()
        return WrapperOrders(reply, program, holds)

    def _compile(
        self, submission: Submission, caller: Caller
    ) -> Generator[OneShot, None, tuple[SubmitReply, PreparedOutputs | None]]:
        if not self.sees_our_files(caller.view):
            return self._compiles.locally(Local(LocalReason.OTHER_FILES)), None
        try:
            reply = yield from self._compiles.compile(submission)
            outputs = _write(reply, caller) if reply.outcome == "done" else None
            # Their memory is not kept until the wrapper has taken its answer.
            reply = msgspec.structs.replace(reply, outputs=[])
        except InfrastructureError as error:
            return self._compiles.locally(Local(LocalReason.OUTPUT_NOT_WRITTEN, str(error))), None
        except Exception as error:
            log.exception("compile failed")
            detail = f"{type(error).__name__}: {error}"
            return self._compiles.locally(Local(LocalReason.SYNCER_ERROR, detail)), None
        return reply, outputs


def _write(reply: SubmitReply, caller: Caller) -> PreparedOutputs | None:
    """Write the outputs, and put them in place if the caller does not; raises InfrastructureError.

    Who waits for them puts them in place. So a syncer that is stopped here, and goes on later,
    cannot overwrite what was compiled locally meanwhile.
    """
    rights = Rights(caller.umask, caller.group)
    outputs = PreparedOutputs(reply.outputs, reply.removed, rights, reply.rewritten)
    if caller.places_outputs and len(reply.outputs) <= MAX_PASSED:
        return outputs
    try:
        outputs.put_in_place()
    finally:
        outputs.close()
    return None
