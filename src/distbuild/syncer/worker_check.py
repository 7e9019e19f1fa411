"""Tests each worker by a compile of one line, for ``doctor``. Knows no HTTP and no mirror.

It tests all steps of a job: the worker leases it, a compiler runs in its sandbox, and the result is
delivered. Needs nothing mirrored, since the source is sent with the job.
"""

import posixpath
import time
from collections.abc import Mapping
from typing import Literal

import msgspec

from distbuild.command.model import CompileCommand, Local, LocalReason
from distbuild.command.parse import parse
from distbuild.compiler.identity import Identity
from distbuild.farm.executor import Execution, Executor, Task
from distbuild.one_shot import OneShot
from distbuild.protocol.codec import pack_quickly
from distbuild.protocol.errors import InfrastructureError
from distbuild.protocol.messages import FileEntry, JobFile, ResultRequest

#: The time limit for all test compiles together (seconds).
CHECK_S = 3.0
_SOURCE, _OUTPUT = "check.c", "check.o"
_TEXT = b"int dist_build_check;\n"
_REFUSALS = (LocalReason.NO_WORKER, LocalReason.NO_TOOLCHAIN, LocalReason.NO_NAMESPACE)
_MAX_DETAIL = 200


class Checked(msgspec.Struct, frozen=True):
    """The outcome of a worker's test compile, and its duration.

    ``refused``: the queue has no such worker now. ``silent``: no result arrived in time.
    """

    outcome: Literal["compiled", "failed", "refused", "silent"]
    seconds: float
    detail: str = ""


class _Test(msgspec.Struct):
    """A test compile in flight; ``awaited`` is the event before which it cannot go on."""

    execution: Execution
    awaited: OneShot
    began: float
    checked: Checked | None = None

    def advance(self, deadline: float) -> None:
        """Continue until it has ended or the deadline (monotonic clock) has passed."""
        while self.checked is None and self.awaited.wait(max(0.0, deadline - time.monotonic())):
            try:
                self.awaited = next(self.execution)
            except StopIteration as ended:
                self.checked = _judged(ended.value, time.monotonic() - self.began)

    def end(self) -> Checked:
        """The outcome; a test that still waits is cancelled."""
        self.execution.close()
        return self.checked or Checked("silent", time.monotonic() - self.began)


def check_workers(
    executor: Executor,
    compilers: Mapping[str, tuple[str, Identity]],
    directory: str,
    limit_s: float = CHECK_S,
) -> dict[str, Checked]:
    """Test all workers concurrently; returns the outcomes by the worker's name.

    ``compilers``: for each worker the name and identity of one that it has. ``directory``: the
    absolute path that the job gives for its source; nothing is read there. Raises
    InfrastructureError if a compiler's name cannot be parsed.
    """
    began = time.monotonic()
    tests = {}
    for worker, (name, identity) in compilers.items():
        happened = OneShot()
        happened.set()
        task = task_for(worker, name, identity, directory)
        tests[worker] = _Test(executor.execute(task), happened, began)
    for deadline in (began, began + limit_s):  # queues all tests before it waits for one
        for test in tests.values():
            test.advance(deadline)
    return {worker: test.end() for worker, test in tests.items()}


def task_for(worker: str, name: str, identity: Identity, directory: str) -> Task:
    """The compile of one line that only this worker may lease. Raises InfrastructureError."""
    argv = (name, "-nostdinc", "-c", _SOURCE, "-o", _OUTPUT)
    command = parse(argv, directory, lambda _: None, identity.family)
    if not isinstance(command, CompileCommand):
        raise InfrastructureError(f"{name} cannot be tested: {command.reason}")
    blob = pack_quickly(_TEXT)
    source = posixpath.join(directory, _SOURCE).encode("utf-8", "surrogateescape")
    file = JobFile(source, FileEntry(blob.digest, blob.size, 0o444, 0), blob)
    return Task(
        command=command,
        env={},
        toolchain=identity.digest,
        generation=0,
        files=(file,),
        search_dirs=(),
        builtin_dirs=(),
        implicit_include=None,
        output_dirs=(directory,),
        processor=(),
        terminal=None,
        worker=worker,
    )


def _judged(outcome: ResultRequest | Local, seconds: float) -> Checked:
    if isinstance(outcome, Local):
        why = f"{outcome.reason}: {outcome.detail}".rstrip(": ")[:_MAX_DETAIL]
        return Checked("refused" if outcome.reason in _REFUSALS else "failed", seconds, why)
    if outcome.exit_code != 0:
        return Checked("failed", seconds, _first_line(outcome.stderr))
    return Checked("compiled", seconds)


def _first_line(text: bytes) -> str:
    lines = text.decode("utf-8", "replace").strip().splitlines()
    return lines[0][:_MAX_DETAIL] if lines else "it failed and printed nothing"
