"""Runs one submitted compile from the wrapper's command line to the reply. The syncer's main steps:

    understand -> prepare -> execute -> judge -> answer, or again, or locally

Knows no HTTP and no thread. A compile is a generator that yields each event it waits for. Closing
it cancels the job; that is done when the wrapper is gone.
"""

import logging
import os
import posixpath
import re
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence

import msgspec

from distbuild.cache.objects import Lookup, ObjectCache
from distbuild.command import probe
from distbuild.command.model import CompileCommand, Family, Local, LocalReason
from distbuild.command.side_effects import is_rewritten
from distbuild.farm.executor import Executor, Task
from distbuild.mirror.live import Mirroring
from distbuild.mirror.scan import Scanner
from distbuild.one_shot import OneShot
from distbuild.protocol.codec import MARK_BYTES
from distbuild.protocol.messages import (
    PREPARED,
    UNDERSTOOD,
    VERIFIED,
    ResultRequest,
    SubmitReply,
)
from distbuild.syncer.prepare import Preparer
from distbuild.syncer.understand import Submission, Understood
from distbuild.syncer.verify import Judge, Verdict, hides_places
from distbuild.system import disk

#: Lines that a driver prints once for the whole command: clang's warnings, Microsoft's banner.
_OF_THE_COMMAND = re.compile(rb"clang: (?:\x1b\[[0-9;]*m)*warning: |Microsoft |Copyright |\r?$")

Compile = Generator[OneShot, None, SubmitReply]


def compile_several(
    parts: Sequence[Submission], compile_one: Callable[[Submission], Compile]
) -> Compile:
    """The reply for all parts. If a part has to be compiled locally, its reply stands for all.

    Like the drivers, drops the parts after the first source that fails.
    """
    running = [compile_one(part) for part in parts]
    waiting: dict[int, OneShot] = {}
    replies: dict[int, SubmitReply] = {}
    try:
        for at in range(len(running)):
            _advance(at, running, waiting, replies)
        while (last := _last(replies, len(running))) is None:
            one_of_them = OneShot()
            for signal in waiting.values():
                signal.then(one_of_them.set)
            yield one_of_them
            for at in [at for at, signal in waiting.items() if signal.is_set()]:
                del waiting[at]
                _advance(at, running, waiting, replies)
        return _together([replies[at] for at in range(last + 1)])
    finally:
        for compile_ in running:
            compile_.close()


def _advance(
    at: int,
    running: Sequence[Compile],
    waiting: dict[int, OneShot],
    replies: dict[int, SubmitReply],
) -> None:
    try:
        waiting[at] = next(running[at])
    except StopIteration as end:
        replies[at] = end.value


def _last(replies: dict[int, SubmitReply], count: int) -> int | None:
    """The part that decides the reply: the first that failed, else the last; None: still open."""
    for at in range(count):
        reply = replies.get(at)
        if reply is None:
            return None
        if reply.outcome != "done" or reply.exit_code != 0:
            return at
    return count - 1


def _together(replies: Sequence[SubmitReply]) -> SubmitReply:
    last = replies[-1]
    if last.outcome != "done":
        return last
    said = list(_without_repetition([reply.stderr for reply in replies]))
    return SubmitReply(
        "done",
        exit_code=last.exit_code,
        stdout=b"".join(reply.stdout for reply in replies),
        stderr=b"".join(said),
        outputs=[file for reply in replies for file in reply.outputs],
        removed=[path for reply in replies for path in reply.removed],
        rewritten=[path for reply in replies for path in reply.rewritten],
        worker=", ".join(dict.fromkeys(reply.worker for reply in replies)),
    )


def _without_repetition(texts: Sequence[bytes]) -> Iterator[bytes]:
    """The output of each part, without the leading lines that the first has printed for all."""
    first = texts[0].splitlines(keepends=True)
    yield texts[0]
    for text in texts[1:]:
        lines = text.splitlines(keepends=True)
        same = 0
        while (
            same < min(len(lines), len(first))
            and lines[same] == first[same]
            and _OF_THE_COMMAND.match(lines[same])
        ):
            same += 1
        yield b"".join(lines[same:])


log = logging.getLogger(__name__)

_DRIVER_ERROR = re.compile(
    rb"^[^\s:]*clang(?:[^\s:]*: (?:\x1b\[[0-9;]*m)*error| \(LLVM option parsing\)): ", re.MULTILINE
)
#: An error without a source location: clang -cc1 rejected its arguments and read no source.
_REFUSED = re.compile(rb"^(?:\x1b\[[0-9;]*m)*error: ", re.MULTILINE)
#: A job whose inputs keep changing runs at most this often.
MAX_ROUNDS = 4
#: The bound on all rounds. ``MAX_ROUNDS`` does not count those that brought a file that the job
#: lacked: a withheld source may include another one.
MAX_ROUNDS_IN_ALL = 32


class Compiles:
    """Compiles submissions, remotely where possible, and counts the outcomes."""

    def __init__(
        self,
        preparer: Preparer,
        executor: Executor,
        mirroring: Mirroring,
        scanner: Scanner,
        cache: ObjectCache | None = None,
    ) -> None:
        self._preparer = preparer
        self._executor = executor
        self._mirroring = mirroring
        self._judge = Judge(mirroring, scanner)
        self._scanner = scanner
        self._cache = cache
        self._lock = threading.Lock()
        self.local: Counter[str] = Counter()
        self.done = 0
        self.failed = 0
        self.repeated = 0

    def explain(self, submission: Submission) -> Local | None:
        """Why a command would be compiled locally; None: it would be distributed."""
        known = self._preparer.understand(submission)
        if isinstance(known, Local):
            several = known.reason is LocalReason.SEVERAL_SOURCES
            parts = self._preparer.parts(submission) if several else []
            return next(filter(None, map(self.explain, parts)), None) if parts else known
        task = self._preparer.prepare(submission, known)
        if isinstance(task, Local):
            return task
        obstacle = self._executor.obstacle(task.command, known.identity.digest)
        return None if obstacle is None else self._named(obstacle, known, task.command)

    def explain_cache(self, submission: Submission) -> str:
        """What the object cache has for a command with one source; "": there is no cache."""
        known = self._preparer.understand(submission)
        if self._cache is None or isinstance(known, Local):
            return ""
        task = self._preparer.prepare(submission, known)
        return "" if isinstance(task, Local) else self._cache.explain(task)

    def compile(self, submission: Submission) -> Generator[OneShot, None, SubmitReply]:
        """Compile as a generator; returns the reply to the wrapper."""
        known = self._preparer.understand(submission)
        submission.end(UNDERSTOOD)
        if submission.stopwatch is not None and not isinstance(known, Local):
            submission.stopwatch.source = known.command.absolute(known.command.source)
        if isinstance(known, Local):
            several = known.reason is LocalReason.SEVERAL_SOURCES
            parts = self._preparer.parts(submission) if several else []
            if not parts:
                return self.locally(known)
            return (yield from compile_several(parts, self.compile))
        return (yield from self._compile(submission, known))

    def _compile(
        self, submission: Submission, known: Understood
    ) -> Generator[OneShot, None, SubmitReply]:
        if not self._mirroring.ready.is_set():
            yield self._mirroring.ready
        cache = None if submission.env.get(probe.CACHE_SWITCH) == "0" else self._cache
        obstacle = Local(LocalReason.INPUTS_CHANGED, known.command.source)
        in_vain = 0
        for _ in range(MAX_ROUNDS_IN_ALL):
            task = self._preparer.prepare(submission, known)
            submission.end(PREPARED)
            if isinstance(task, Local):
                return self.locally(task)
            lookup = _found(cache, submission, task)
            cached = lookup.result
            if cached and not lookup.is_checked:
                return self._remotely(submission, task.command, cached)
            result = yield from self._executor.execute(task)
            verdict = self._verdict(submission, task, result)
            if isinstance(verdict, Local) and cached:
                return self._remotely(submission, task.command, cached)
            if isinstance(verdict, Local):
                obstacle = self._named(verdict, known, task.command)
                tied = self._with_precompiled(known, task, verdict)
                tied = tied or self._with_namespace(known, task, verdict)
                if tied is None:
                    break
                known = tied
            elif verdict is Verdict.STANDS and isinstance(result, ResultRequest):
                _keep(cache, lookup, task, result)
                return self._remotely(submission, task.command, result)
            with self._lock:
                self.repeated += 1
            in_vain += verdict is not Verdict.AGAIN_WITH_MORE
            if in_vain == MAX_ROUNDS:
                break
        return self.locally(obstacle)

    def _verdict(
        self, submission: Submission, task: Task, result: ResultRequest | Local
    ) -> Verdict | Local:
        if isinstance(result, Local):
            return result
        if submission.stopwatch is not None:
            submission.stopwatch.answered(result.ran_us, result.cpu_us, result.memory_bytes)
            submission.stopwatch.inputs = len(result.marks) // MARK_BYTES or len(result.inputs)
        verdict = self._judge.judge(task, result)
        submission.end(VERIFIED)
        if verdict is Verdict.STANDS and _speaks_of_itself(submission, task.command, result):
            return Local(LocalReason.NOT_A_COMPILER, submission.argv[0])
        return verdict

    def _with_precompiled(self, known: Understood, task: Task, local: Local) -> Understood | None:
        """The same command with its original paths, where a worker finds the precompiled header.

        None: no worker can run it so, the header cannot be mirrored, or ``local`` has another
        reason.
        """
        if local.reason is not LocalReason.PRECOMPILED_HEADER:
            return None
        if known.command.family is not Family.GCC:
            return None
        tied = self._tied(known, "a precompiled header")
        return tied if tied is not None and self._judge.bring(task, local.detail) else None

    def _with_namespace(self, known: Understood, task: Task, local: Local) -> Understood | None:
        """The same command for a worker with namespaces, after one without them read a file outside
        the client's tree. None: there is no such worker, or ``local`` has another reason."""
        if local.reason is not LocalReason.NO_NAMESPACE or task.command.needs_original_paths:
            return None
        return self._tied(known, "a path outside the mirrored directories")

    def _tied(self, known: Understood, why: str) -> Understood | None:
        """The same command with its original paths; None: no worker can run it so."""
        command = msgspec.structs.replace(known.command, tied_by=why)
        if self._executor.obstacle(command, known.identity.digest) is not None:
            return None
        return msgspec.structs.replace(known, command=command)

    @staticmethod
    def _named(local: Local, known: Understood, command: CompileCommand) -> Local:
        """Replace the compiler's digest, all that the queue knows, by the version for the user."""
        if local.reason in (LocalReason.NO_TOOLCHAIN, LocalReason.WORKERS_FAILING):
            return Local(local.reason, f"for {known.identity.version}")
        if local.reason is LocalReason.NO_NAMESPACE:
            why = f"{command.tied_by}, with {known.identity.version}"
            return Local(local.reason, why if command.tied_by else local.detail)
        if local.detail and known.identity.digest.startswith(local.detail):
            return Local(local.reason)
        return local

    def cached(self) -> dict[str, object] | None:
        """The object cache's counts; None: there is no cache."""
        return None if self._cache is None else self._cache.status()

    def clear_cache(self) -> None:
        """Empty the object cache, if there is one."""
        if self._cache is not None:
            self._cache.clear()

    # --- answers --------------------------------------------------------------------------------

    def locally(self, local: Local) -> SubmitReply:
        """The reply that has the wrapper compile locally; counted by reason."""
        with self._lock:
            self.local[local.reason] += 1
        return SubmitReply(
            "local",
            reason=str(local.reason),
            detail=local.detail,
            silent=local.reason.by_design,
        )

    def _remotely(
        self, submission: Submission, command: CompileCommand, result: ResultRequest
    ) -> SubmitReply:
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
            rewritten=[file.path for file in result.outputs if _is_rewritten(command, file.path)],
            worker=result.worker,
            times=submission.shown_times(),
        )


def _found(cache: ObjectCache | None, submission: Submission, task: Task) -> Lookup:
    """What the object cache has for a task; nothing without a cache."""
    lookup = Lookup(None) if cache is None else cache.find(task)
    if lookup.result and _speaks_of_itself(submission, task.command, lookup.result):
        return msgspec.structs.replace(lookup, result=None)
    return lookup


def _keep(cache: ObjectCache | None, lookup: Lookup, task: Task, result: ResultRequest) -> None:
    if cache is not None:
        cache.keep(lookup, task, result)


def _is_rewritten(command: CompileCommand, path: bytes) -> bool:
    name = os.fsdecode(path)
    if is_rewritten(command, name):
        return True
    if not is_rewritten(command, name, empty=True):
        return False
    try:
        return disk.lstat(name).st_size == 0
    except OSError:
        return False


def _speaks_of_itself(
    submission: Submission, command: CompileCommand, result: ResultRequest
) -> bool:
    """Whether a compiler that was called by another name prints its own in a message."""
    if command.compiler == submission.argv[0]:
        return False
    return os.fsencode(posixpath.basename(command.compiler)) + b": " in result.stderr


def _read_nothing(command: CompileCommand, result: ResultRequest) -> bool:
    return not hides_places(command) and _REFUSED.search(result.stderr) is not None


def _removed(command: CompileCommand, result: ResultRequest) -> list[bytes]:
    """The outputs to delete. A failing clang deletes those of an earlier run, gcc does not
    (measured with clang 14 and gcc 12)."""
    if not command.family.is_clang or result.exit_code == 0:
        return []
    if _DRIVER_ERROR.search(result.stderr):
        return []  # the driver rejected the command and compiled nothing
    names = [command.output] if command.output else []
    if command.dependencies is not None and not _read_nothing(command, result):
        names.append(command.dependencies.path)
    written = {file.path for file in result.outputs}
    paths = (os.fsencode(command.absolute(name)) for name in names)
    return [path for path in paths if _by_real_directory(path) not in written]


def _by_real_directory(path: bytes) -> bytes:
    """An output's path as workers send it: with symlinks and ``..`` in its directory resolved."""
    directory, _, name = path.rpartition(b"/")
    return disk.realpath(directory or b"/").rstrip(b"/") + b"/" + name
