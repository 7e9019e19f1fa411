"""Worker side: runs a leased job up to its result: check, prepare, run, collect.

Every failure but the compiler's own verdict becomes ``ResultRequest.error``. Knows no network.
"""

import contextlib
import functools
import itertools
import logging
import os
import posixpath
import time
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, TypeVar

import msgspec

from distbuild.command import native
from distbuild.command.diagnostics import blamed
from distbuild.command.model import CompileCommand, Local
from distbuild.command.named_modules import with_modules
from distbuild.command.original_paths import on_terminal
from distbuild.command.parse_cache import Recall
from distbuild.command.side_effects import Writable
from distbuild.protocol.codec import is_expanding, pack_inputs, pack_marks, pack_output, unpack
from distbuild.protocol.errors import (
    CompilerCrashed,
    DistBuildError,
    InfrastructureError,
    NamesItsPlace,
    OutsideTree,
    ProtocolError,
    UnseenInputs,
)
from distbuild.protocol.messages import (
    MAX_BLOB_BYTES,
    MAX_CPU_US,
    MAX_EXIT_CODE,
    MAX_MEMORY_BYTES,
    MAX_PRINTED_BYTES,
    MAX_RAN_US,
    MAX_RESULTS_BYTES,
    Digest,
    InputFile,
    Job,
    OutputFile,
    ResultRequest,
    SymlinkEntry,
)
from distbuild.system import disk
from distbuild.worker.clock_check import Clock
from distbuild.worker.compilers import InstalledCompilers, InstalledDriver
from distbuild.worker.process.here import Cancellation, Running, start
from distbuild.worker.process.limits import Usage, check
from distbuild.worker.sandbox import assembler
from distbuild.worker.sandbox.base import CompilerResult, Sandbox, SandboxTask, Written
from distbuild.worker.sandbox.opens import Opens
from distbuild.worker.sandbox.output_dirs import empty, remove
from distbuild.worker.sandbox.view import SPECS
from distbuild.worker.tree.on_disk import WITHHELD_TEXT
from distbuild.worker.tree.paths import check_job
from distbuild.worker.tree.store import translated
from distbuild.worker.tree.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Iterable

_MARK = WITHHELD_TEXT.split()[-1]
_WITHHELD = _MARK.decode()

_log = logging.getLogger(__name__)

#: Limit for packed outputs: the result's messages and inputs have to fit into the request too.
_MAX_PACKED = MAX_RESULTS_BYTES // 2
#: Sources and texts that are remembered at most.
_MAX_KNOWN = 100_000
_T = TypeVar("_T")
#: A job in progress, suspended while its compiler runs: see ``JobRunner.run``.
Steps = Generator[Running, str, ResultRequest | None]


class JobRunner:
    """Runs jobs in ``sandbox``; ``directory`` holds their private files, on the trees' disk."""

    def __init__(
        self, name: str, compilers: InstalledCompilers, sandbox: Sandbox, directory: bytes
    ) -> None:
        self._recall = Recall()
        self._name = name
        self._compilers = compilers
        self._sandbox = sandbox
        self._directory = directory
        self._numbers = itertools.count()
        self._spare: list[bytes] = []
        # Sources that use inline assembler; digests of texts that do not test whether they may.
        self._assembling: set[str] = set()
        self._unasking: set[Digest] = set()

    def run(
        self, job: Job, tree: Tree, cancellation: Cancellation, clock: Clock | None = None
    ) -> Steps:
        """The result of a job whose generation ``tree`` has; None when it was cancelled.

        ``clock``: this machine's clock when the job arrived; None for a correct one.

        Yields the running compiler and is sent what stopped it. After a compiler that
        ``is_tentative`` it may yield another one.
        """
        try:
            return (yield from self._run(job, tree, cancellation, clock or Clock()))
        except DistBuildError as error:
            crashed = isinstance(error, CompilerCrashed)
            if crashed:
                _log.warning("%s crashed: %s", os.fsdecode(job.argv[0]), error)
            return msgspec.structs.replace(
                self.failed(job, str(error)),
                crashed=crashed,
                named=isinstance(error, NamesItsPlace),
                unseen=isinstance(error, UnseenInputs),
                outside=isinstance(error, OutsideTree),
            )

    def failed(self, job: Job, error: str) -> ResultRequest:
        """A result without the compiler's verdict; ``error`` is the reason."""
        return ResultRequest(job.lease_id, self._name, error=error or "unknown")

    def _run(self, job: Job, tree: Tree, cancellation: Cancellation, clock: Clock) -> Steps:
        began = time.monotonic()
        check_job(job)
        driver = self._driver(job)
        command = _with_modules(self._command(job, driver), job, tree)
        source = command.absolute(command.source)
        forbids = assembler.can_forbid(command) and source not in self._assembling
        with tree.holds.holding(job.files, _directories(job, tree)):
            if cancellation.is_set():
                return None
            clock.check_command(job, command, tree)
            task = SandboxTask(job, command, driver, tree, b"", clock, forbids, began)
            with contextlib.suppress(_WithAssembler):
                return (yield from self._compile(task))
            task = msgspec.structs.replace(task, forbids_assembler=False)
            result = yield from self._compile(task)
            if result is not None and result.exit_code == 0:
                _note(source, self._assembling)  # its next compile is not tentative
            return result

    def _compile(self, task: SandboxTask) -> Steps:
        """One run of the compiler. Raises _WithAssembler if it may have met inline assembler."""
        task = msgspec.structs.replace(task, directory=self._new_directory())
        # After any other end a child of the compiler may still be alive, and write there.
        clean_end = False
        try:
            revision = task.tree.revision()
            execution = self._sandbox.prepare(task)
            opens = None if assembler.is_seen(task) else Opens(execution.is_of_task)
            command = (execution.argv, execution.cwd, execution.env, task.job.terminal)
            running = start(*command, execution.reach, opens)
            running.is_tentative = task.forbids_assembler
            stopped = "cancelled"
            try:
                stopped = yield running
            finally:
                completed = running.finish(stopped)
                if opens is not None:
                    opens.close()
            clean_end = completed.status == 0 and not completed.stopped
            if completed.stopped == "cancelled":
                return None
            if not self._compilers.is_same(task.driver):
                raise InfrastructureError(f"{task.driver.path} was replaced by another compiler")
            check(completed)
            if task.forbids_assembler and completed.status != 0 and _MARK not in completed.stderr:
                # That may be the reason, and its message has many forms: any failure counts.
                raise _WithAssembler
            opened = opens.names() if opens is not None and completed.status == 0 else ()
            return self._result(task, execution.answer(completed, opened), revision, running.used)
        finally:
            if clean_end and empty(task.directory, keep=self._sandbox.namespaces):
                self._spare.append(task.directory)
            else:
                remove(task.directory)

    def _driver(self, job: Job) -> InstalledDriver:
        if not job.argv:
            raise ProtocolError("a job without a command")
        name = posixpath.basename(os.fsdecode(job.argv[0]))
        driver = self._compilers.find(job.toolchain, name)
        if driver is None:
            raise InfrastructureError(f"no compiler {job.toolchain[:16]} here")
        return driver

    def _command(self, job: Job, driver: InstalledDriver) -> CompileCommand:
        """The job's command, parsed again: a worker does not trust a command that it executes."""
        argv = [os.fsdecode(word) for word in job.argv]
        command = self._recall.parse(
            argv, os.fsdecode(job.cwd), lambda _: None, driver.identity.family
        )
        if isinstance(command, Local):
            raise ProtocolError(f"refused: {command.reason} {command.detail}".rstrip())
        command = _for_processor(command, job)
        if job.terminal is None:
            return command
        env = {name: os.fsdecode(value) for name, value in job.env.items()}
        return on_terminal(command, env, driver.identity.version)

    def _new_directory(self) -> bytes:
        """An empty directory; reused, since creating and removing one takes time."""
        with contextlib.suppress(IndexError):
            while True:
                directory = self._spare.pop()
                if disk.isdir(directory):
                    return directory
        with translated():
            while True:
                directory = b"%s/%d" % (self._directory, next(self._numbers))
                with contextlib.suppress(FileExistsError):  # another runner has made it
                    disk.mkdir(directory)
                    return directory

    def _may_ask(self, task: SandboxTask, inputs: list[InputFile]) -> bool:
        """Whether an input's text or a -D argument may test for inline assembler."""
        if any(assembler.may_ask(word) for word in task.job.argv if word.startswith(b"-D")):
            return True
        for file in inputs:
            if file.digest in self._unasking or not file.digest:
                continue
            with translated(), disk.open_to_read(task.tree.ground.real(file.path)) as text:
                if assembler.may_ask(text.read()):
                    return True
            _note(file.digest, self._unasking)
        return False

    def _result(
        self, task: SandboxTask, answer: CompilerResult, revision: int, used: Usage
    ) -> ResultRequest:
        _check(task, answer)
        inputs = _inputs(task, answer)
        failed = answer.exit_code != 0
        if task.forbids_assembler and not failed and self._may_ask(task, inputs):
            raise _WithAssembler
        listed = {file.path for file in inputs}
        assembled = [path for path in answer.assembled if path not in listed]
        if answer.dependencies is None and not failed:
            raise InfrastructureError("the compiler wrote no dependency file")
        paths = [file.path for file in inputs]
        task.clock.check_inputs(task.job, task.command, task.tree, None if failed else paths)
        more = [InputFile(path, task.tree.digest_at(path)) for path in assembled]
        if all(file.digest for file in (*inputs, *more)):
            _refuse_placeholders(answer)
        disturbed = task.tree.is_changed_since(revision, [*paths, *assembled])
        if answer.dependencies is None and task.command.family.speaks_cl:
            # A failed cl lists no inputs. With other families such a failure proves nothing anyway.
            disturbed = task.tree.revision() != revision
        if failed and not disturbed and _MARK not in answer.stderr:
            disturbed = task.tree.has_lost_files(revision)
        return ResultRequest(
            lease_id=task.job.lease_id,
            worker=self._name,
            exit_code=answer.exit_code,
            stdout=answer.stdout,
            stderr=answer.stderr,
            outputs=_packed(answer.written),
            packed_inputs=pack_inputs(inputs) if inputs else b"",
            marks=pack_marks(inputs),
            assembled=more,
            disturbed=disturbed,
            ran_us=min(MAX_RAN_US, int(1e6 * (time.monotonic() - task.began))),
            cpu_us=min(MAX_CPU_US, used.cpu_us),
            memory_bytes=min(MAX_MEMORY_BYTES, used.memory_bytes),
        )


class _WithAssembler(Exception):
    """A compile with inline assembler forbidden is void: it is repeated with it allowed."""


def _note(value: _T, known: set[_T]) -> None:
    """Add a value to a set, which is cleared first when it has _MAX_KNOWN values."""
    if len(known) >= _MAX_KNOWN:
        known.clear()
    known.add(value)


def _for_processor(command: CompileCommand, job: Job) -> CompileCommand:
    """The command with "native" options replaced by those of the dev box's processor."""
    if not native.is_wanted(command):
        return command
    try:
        words = native.checked(job.processor, command.family)
    except ValueError as error:
        raise ProtocolError(f"refused: {error}") from error
    return native.applied(command, words, os.fsdecode(SPECS))


def _with_modules(command: CompileCommand, job: Job, tree: Tree) -> CompileCommand:
    """The command with the compiled module that it writes, which the job's files name."""
    if not command.module_mapper:
        return command
    directory, name = posixpath.split(command.absolute(command.module_mapper))
    real = posixpath.join(tree.resolve(directory) or posixpath.normpath(directory), name)
    sent = next((f.blob for f in job.files if f.path == os.fsencode(real)), None)
    if sent is None:
        raise ProtocolError("a job without its module mapper")
    found = with_modules(command, unpack(sent), lambda: unpack(job.files[0].blob))
    if isinstance(found, Local):
        raise ProtocolError(f"refused: {found.reason} {found.detail}".rstrip())
    return found


def _refuse_placeholders(answer: CompilerResult) -> None:
    """Raise UnseenInputs for an output with a placeholder's text: the list of inputs lacked it."""
    for file in answer.written:
        if _MARK in file.content:
            raise UnseenInputs(f"a placeholder's text is in {os.fsdecode(file.path)}")


def _check(task: SandboxTask, answer: CompilerResult) -> None:
    """Raise InfrastructureError for a result that the syncer would refuse as dishonest."""
    if not 0 <= answer.exit_code <= MAX_EXIT_CODE:
        raise InfrastructureError(f"the compiler ended with {answer.exit_code}")
    if len(answer.stdout) + len(answer.stderr) > MAX_PRINTED_BYTES:
        raise InfrastructureError("the compiler printed too much")

    def is_same(real: str, named: str) -> bool:
        found = task.tree.resolve(named) or posixpath.normpath(named)
        return real.rstrip("/") == found.rstrip("/")

    writable = Writable(task.command, is_same)
    for file in answer.written:
        path = os.fsdecode(file.path)
        if not writable.has(path):
            raise InfrastructureError(f"the compiler wrote {path}, which its command does not say")


def _packed(written: Sequence[Written]) -> list[OutputFile]:
    outputs = [OutputFile(file.path, file.mode, pack_output(file.content)) for file in written]
    size = sum(output.blob.size for output in outputs)
    packed = sum(len(output.blob.data) for output in outputs)
    if size > MAX_BLOB_BYTES or packed > _MAX_PACKED or is_expanding(size, packed):
        raise InfrastructureError(f"the compiler wrote {size} bytes, packed in {packed}")
    return outputs


def _directories(job: Job, tree: Tree) -> list[bytes]:
    """Directories that have to exist: the cwd, and those for outputs."""
    found = []
    for directory in (job.cwd, *job.output_dirs):
        real = tree.resolve(os.fsdecode(directory))
        found.append(os.fsencode(real) if real is not None else _new_in(tree, directory))
    return [directory for directory in found if directory != b"/"]


def _new_in(tree: Tree, directory: bytes) -> bytes:
    """The path of a directory that the tree lacks, without ``.``, ``..`` and doubled slashes."""
    way, climbs, rest = directory.rpartition(b"/../")
    if climbs:
        above = tree.resolve(os.fsdecode(way + b"/.."))
        directory = b"/.." if above is None else posixpath.join(os.fsencode(above), rest)
    if b".." in directory.split(b"/"):
        raise InfrastructureError(f"the mirror does not lead to {os.fsdecode(way + climbs)!r}")
    return b"/" + posixpath.normpath(directory).lstrip(b"/")


def _inputs(task: SandboxTask, answer: CompilerResult) -> list[InputFile]:
    if answer.dependencies is not None:
        unlisted = map(os.fsencode, task.command.unlisted_files)
        names: Iterable[bytes] = (*answer.dependencies, *unlisted)
    else:
        names = map(os.fsencode, blamed(answer.stderr, _WITHHELD))
    # Many headers are in few directories, and resolving a path costs a lookup per component.
    resolve = functools.cache(task.tree.resolve)
    inputs: dict[bytes, InputFile] = {}
    for name in names:
        path = task.command.absolute(os.fsdecode(name))
        real = _resolved_in(task.tree, path, resolve)
        known = os.fsencode(real if real is not None else posixpath.normpath(path))
        known = task.tree.spelled(known)
        if known not in inputs:
            inputs[known] = InputFile(known, task.tree.digest_at(known))
    return list(inputs.values())


def _resolved_in(tree: Tree, path: str, resolve: Callable[[str], str | None]) -> str | None:
    """``resolve(path)``, computed from its directory, whose result ``resolve`` caches."""
    directory, _, name = path.rpartition("/")
    if name in ("", ".", ".."):
        return resolve(path)
    parent = resolve(directory)
    if parent is None:
        return None
    real = parent.rstrip("/") + "/" + name
    entry = tree.lookup(real)
    if isinstance(entry, SymlinkEntry):
        return resolve(path)
    return None if entry is None else real
