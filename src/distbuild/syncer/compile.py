"""One compile from the wrapper's words to its answer. The table of contents of the syncer:

    understand -> prepare -> execute -> examine -> answer, or again, or locally

Knows no HTTP and no thread. A compile is a generator: it yields now and then while it waits, and
closing it, as a vanished wrapper does, cancels the job.
"""

import logging
import os
import threading
from collections import Counter
from collections.abc import Generator

from distbuild.command.missing import missing_includes
from distbuild.command.model import CompileCommand, Family, Local, LocalReason
from distbuild.mirror.scan import Scanner
from distbuild.protocol.messages import FileEntry, ResultRequest, SubmitReply
from distbuild.syncer import proof
from distbuild.syncer.executor import HEARTBEAT_S, Executor, Task
from distbuild.syncer.mirroring import Mirroring
from distbuild.syncer.prepare import Preparer, Submission, Understood

log = logging.getLogger(__name__)

#: A job whose inputs keep changing, or turn out not to be mirrored, runs at most this often.
MAX_ROUNDS = 4
_WITHHELD_MARK = b"dist_build_withheld"


class Compiles:
    """Answers submissions; counts how."""

    def __init__(
        self, preparer: Preparer, executor: Executor, mirroring: Mirroring, scanner: Scanner
    ) -> None:
        self._preparer = preparer
        self._executor = executor
        self._mirroring = mirroring
        self._scanner = scanner
        self._lock = threading.Lock()
        self.local: Counter[str] = Counter()
        self.done = 0
        self.failed = 0
        self.repeated = 0

    def explain(self, submission: Submission) -> Local | None:
        """Why a command would be compiled locally; None: it would be distributed."""
        known = self._preparer.understand(submission)
        if isinstance(known, Local):
            return known
        task = self._preparer.prepare(submission, known)
        if isinstance(task, Local):
            return task
        obstacle = self._executor.obstacle(known.command, known.identity.digest)
        return None if obstacle is None else self._named(obstacle, known)

    def compile(self, submission: Submission) -> Generator[None, None, SubmitReply]:
        """Returns the answer to the wrapper."""
        known = self._preparer.understand(submission)
        if isinstance(known, Local):
            return self._locally(known)
        while not self._mirroring.ready.wait(HEARTBEAT_S):
            yield
        for _ in range(MAX_ROUNDS):
            task = self._preparer.prepare(submission, known)
            if isinstance(task, Local):
                return self._locally(task)
            result = yield from self._executor.execute(task)
            if isinstance(result, Local):
                return self._locally(self._named(result, known))
            verdict = self._judge(task, result)
            if isinstance(verdict, Local):
                return self._locally(verdict)
            if verdict:
                return self._remotely(known.command, result)
            with self._lock:
                self.repeated += 1
        return self._locally(Local(LocalReason.INPUTS_CHANGED, submission.argv[-1]))

    @staticmethod
    def _named(local: Local, known: Understood) -> Local:
        """The queue knows compilers by digest only; people want the version."""
        if local.reason in (LocalReason.NO_TOOLCHAIN, LocalReason.NO_NAMESPACE):
            return Local(local.reason, f"for {known.identity.version}")
        if local.detail and known.identity.digest.startswith(local.detail):
            return Local(local.reason)
        return local

    # --- the proof ------------------------------------------------------------------------------

    def _judge(self, task: Task, result: ResultRequest) -> bool | Local:
        """True: the result is the local compiler's. False: compile again. Local: give it up."""
        own = {os.fsdecode(f.path): f.entry for f in task.files}
        if result.disturbed or not self._sources_unchanged(own):
            return False
        if result.exit_code != 0 and not result.inputs:
            return self._judge_failure(task, result)
        findings = self._examine(task, result, own)
        if findings.reads_more:
            return Local(LocalReason.ASSEMBLER_INPUT, findings.reads_more)
        if findings.precompiled:
            return Local(LocalReason.PRECOMPILED_HEADER, findings.precompiled)
        if findings.in_doubt():
            log.info("compiled again: %s", findings)
            self._mirror(findings.to_mirror())
            self._mirroring.recheck(findings.stale)
            self._mirroring.require(os.path.dirname(p) for p in findings.stale)
        return not findings.in_doubt()

    def _examine(
        self, task: Task, result: ResultRequest, own: dict[str, FileEntry]
    ) -> proof.Findings:
        lookup = self._mirroring.manifest.get
        findings = proof.examine(result.inputs, lookup, own)
        findings.shadowing = proof.shadowing(
            (os.fsdecode(i.path) for i in result.inputs),
            task.search_dirs,
            self._mirroring.roots.shallow(),
            lookup,
            os.path.exists,
        )
        return findings

    def _sources_unchanged(self, own: dict[str, FileEntry]) -> bool:
        for path, entry in own.items():
            now = self._scanner.file(path)
            if not isinstance(now, FileEntry) or now.digest != entry.digest:
                return False
        return True

    def _judge_failure(self, task: Task, result: ResultRequest) -> bool | Local:
        """A failed compile lists no inputs. It stands unless a file of ours was missing."""
        if _WITHHELD_MARK in result.stderr:
            return self._want_withheld(task, result)
        if b"ssembler messages" in result.stderr:
            return Local(LocalReason.ASSEMBLER_INPUT, task.command.source)
        if self._mirroring.roots.shallow() and self._uses_shallow(task):
            return self._judge_missing(task, result, doubtful=True)
        return self._judge_missing(task, result, doubtful=False)

    def _uses_shallow(self, task: Task) -> bool:
        shallow = set(self._mirroring.roots.shallow())
        return any(os.path.realpath(d) in shallow for d in task.search_dirs)

    def _judge_missing(self, task: Task, result: ResultRequest, *, doubtful: bool) -> bool | Local:
        candidates: list[str] = []
        for missing in missing_includes(result.stderr, lambda p, n: self._line(task, p, n)):
            if missing.name is None:
                return Local(LocalReason.INPUT_NOT_MIRRORED, missing.includer)
            includer = os.path.join(task.command.cwd, missing.includer)
            places = [os.path.dirname(includer), *task.search_dirs]
            paths = [os.path.join(place, missing.name) for place in places]
            for path in paths:
                precompiled = next((p for p in proof.precompiled(path) if os.path.exists(p)), None)
                if precompiled is not None:
                    # A compiler takes it also where the header itself is missing.
                    return Local(LocalReason.PRECOMPILED_HEADER, precompiled)
            candidates.extend(p for p in paths if os.path.isfile(p))
        if candidates:
            if self._mirror(candidates):
                return False
            return Local(LocalReason.INPUT_NOT_MIRRORED, candidates[0])
        # With partly mirrored directories a failure may come from a file that was not found there.
        return Local(LocalReason.INPUT_NOT_MIRRORED, task.command.source) if doubtful else True

    def _want_withheld(self, task: Task, result: ResultRequest) -> bool | Local:
        """The compiler ran into a placeholder: the line that names it starts with its path."""
        paths = []
        for line in result.stderr.splitlines():
            if _WITHHELD_MARK in line and b":" in line:
                name = os.fsdecode(line.partition(b":")[0])
                paths.append(os.path.join(task.command.cwd, name))
        if self._mirror(paths):
            return False
        return Local(LocalReason.INPUT_NOT_MIRRORED, ", ".join(paths[:1]))

    def _mirror(self, paths: list[str]) -> bool:
        """Add files, and the directories they are in, to the mirror; whether that changed it."""
        before = self._mirroring.manifest.generation
        self._mirroring.require(os.path.dirname(path) for path in paths)
        for path in paths:
            self._mirroring.want(path)
        return self._mirroring.manifest.generation > before

    @staticmethod
    def _line(task: Task, path: str, number: int) -> bytes | None:
        try:
            with open(os.path.join(task.command.cwd, path), "rb") as file:
                for at, line in enumerate(file, start=1):
                    if at == number:
                        return line
        except OSError:
            return None
        return None

    # --- answers --------------------------------------------------------------------------------

    def _locally(self, local: Local) -> SubmitReply:
        with self._lock:
            self.local[local.reason] += 1
        return SubmitReply(
            "local",
            reason=str(local.reason),
            detail=local.detail,
            silent=local.reason.by_design,
        )

    def _remotely(self, command: CompileCommand, result: ResultRequest) -> SubmitReply:
        with self._lock:
            self.done += 1
            self.failed += result.exit_code != 0
        return SubmitReply(
            "done",
            exit_code=result.exit_code,
            stdout=result.stdout,
            stderr=result.stderr,
            outputs=result.outputs,
            removed=_removed(command, result),
            worker=result.worker,
        )


def _removed(command: CompileCommand, result: ResultRequest) -> list[bytes]:
    """clang deletes what an earlier run left when it fails; gcc leaves it. Measured, 14 and 12."""
    if command.family is not Family.CLANG or result.exit_code == 0:
        return []
    names = [command.output]
    if command.dependencies is not None:
        names.append(command.dependencies.path)
    written = {file.path for file in result.outputs}
    paths = (os.fsencode(os.path.join(command.cwd, name)) for name in names)
    return [path for path in paths if path not in written]
