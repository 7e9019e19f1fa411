"""Syncer side: answers this machine's wrappers. ``syncer.compile`` compiles their commands; this
module writes the outputs, and lets commands that have to run locally wait for a slot. Knows no
HTTP.
"""

import logging
import os
from collections.abc import Callable, Generator

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

#: Reasons for which no local slot is taken: a command that is no compiler may start a whole build,
#: which would wait for the slot that it holds itself.
_UNLIMITED = frozenset({LocalReason.NOT_A_COMPILER})
#: The number of descriptors that the launcher accepts (src/launcher/outputs.h).
MAX_PASSED = 250


class Caller(msgspec.Struct, frozen=True):
    """A wrapper on this machine: the build's umask and group, and its view of the file system.

    ``places_outputs``: it renames the outputs into place itself.
    """

    umask: int
    group: int
    view: bytes
    places_outputs: bool = False


class WrapperOrders(msgspec.Struct, frozen=True):
    """Orders for a wrapper: print ``reply`` and exit, or become ``program`` (None: not found, or
    not searched, since the wrapper has another view of the files).

    ``holds_slot``: the caller owns a local slot and releases it when the program has ended.
    ``outputs``: files that the wrapper puts in place; the caller closes them after that.
    ``ended`` is to be called when the wrapper has done what it was ordered.
    """

    reply: SubmitReply
    program: str | None = None
    holds_slot: bool = False
    outputs: PreparedOutputs | None = None
    ended: Callable[[], None] = lambda: None


class LocalCallers:
    """Compiles for wrappers of this machine."""

    def __init__(self, compiles: Compiles, slots: LocalSlots) -> None:
        self._compiles = compiles
        self._views = views_of_files()
        self.slots = slots

    def sees_our_files(self, view: bytes) -> bool:
        """Whether a wrapper has the syncer's view of the file system."""
        return not self._views or view in self._views

    def run(
        self, submission: Submission, caller: Caller
    ) -> Generator[OneShot, None, WrapperOrders]:
        """Compile; returns the orders once the outputs are written or a local slot is acquired."""
        reply, outputs = yield from self._compile(submission, caller)
        if reply.outcome == "done":
            return WrapperOrders(reply, outputs=outputs)
        # If its view of the files is another, only the wrapper can find its compiler.
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
            # Frees their memory before the wrapper has received its answer.
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

    Preferably the wrapper, which waits for them, puts them in place. Then a syncer that is
    suspended here and resumed later cannot overwrite the files of a local compile.
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
