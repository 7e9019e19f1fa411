"""The interface by which the syncer has compile tasks executed; ``Farm`` implements it."""

import time
from collections.abc import Callable, Generator
from typing import Protocol

import msgspec

from distbuild.command.model import CompileCommand, Local
from distbuild.one_shot import OneShot
from distbuild.protocol.messages import PREPARED, QUEUED, REMOTE, JobFile, ResultRequest, Terminal


class Stopwatch:
    """Measures the phases of one job, for the history and for a wrapper with DIST_BUILD_VERBOSE=2.

    A phase lasts from the end of the previous one; the rounds of one job are added up. The farm
    calls it while the job's generator is suspended, so that it needs no lock.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._since = now()
        #: The phase that ended last.
        self.ended = ""
        #: Seconds by phase.
        self.phases: dict[str, float] = {}
        #: The compiler's own time (seconds), by the workers' account; 0: not known.
        self.ran_s = 0.0
        #: The compiler's processor time (seconds) and peak memory, by the workers' account.
        self.cpu_s = 0.0
        self.memory_bytes = 0
        #: How often a worker has compiled it.
        self.rounds = 0
        #: What is compiled: an absolute path; "": not known.
        self.source = ""
        #: The worker that has leased it last, as it is shown; "": none yet.
        self.worker = ""
        #: Files that the compiler read, by the worker's account; 0: not known.
        self.inputs = 0
        #: Why the object cache had no result; "": it was not asked, or had one.
        self.missed = ""

    def end(self, phase: str) -> None:
        """A phase has ended now."""
        now = self._now()
        self.phases[phase] = self.phases.get(phase, 0.0) + now - self._since
        self._since, self.ended = now, phase

    def leased(self, worker: str) -> None:
        """A worker gets the job. After a lost lease the job counts as on the worker."""
        self.worker = worker
        if self.ended == PREPARED:
            self.end(QUEUED)

    def answered(self, ran_us: int, cpu_us: int = 0, memory_bytes: int = 0) -> None:
        """The result has come, with the worker's own account; 0: it gives none."""
        before = self.phases.get(REMOTE, 0.0)
        self.end(REMOTE)
        self.rounds += 1
        if ran_us / 1e6 <= self.phases[REMOTE] - before:  # else it cannot be true
            self.ran_s += ran_us / 1e6
        self.cpu_s += cpu_us / 1e6
        self.memory_bytes = max(self.memory_bytes, memory_bytes)

    def text(self) -> str:
        """Each phase with its milliseconds, in their order: ``queued 0.2, on the worker 3.1``."""
        parts = [f"{phase} {1000 * seconds:.1f}" for phase, seconds in self.phases.items()]
        if self.ran_s:
            at = list(self.phases).index(REMOTE)
            parts[at] += f" (ran {1000 * self.ran_s:.1f})"
        return ", ".join(parts)


class Task(msgspec.Struct, frozen=True):
    """A translation unit that is ready to be compiled remotely.

    Paths in ``search_dirs``, ``builtin_dirs`` and ``output_dirs`` are absolute.
    """

    command: CompileCommand
    env: dict[str, str]
    toolchain: str
    generation: int
    files: tuple[JobFile, ...]
    search_dirs: tuple[str, ...]
    builtin_dirs: tuple[str, ...]
    implicit_include: str | None
    output_dirs: tuple[str, ...]
    #: The processor that ``-march=native`` finds on the dev box; see ``command.native``.
    processor: tuple[str, ...]
    terminal: Terminal | None
    #: The source has a ``__has_include`` whose operand is a macro.
    asks_by_macro: bool = False
    #: The only worker that may lease it; "": any.
    worker: str = ""
    stopwatch: Stopwatch | None = None

    def leased(self, worker: str) -> None:
        """A worker, by its display name, gets the task."""
        if self.stopwatch is not None:
            self.stopwatch.leased(worker)


#: A generator that yields each event it waits for and is resumed once that has fired. Closing it
#: cancels the task. Returns the outcome.
Execution = Generator[OneShot, None, ResultRequest | Local]


class Executor(Protocol):
    """Compiles tasks somewhere."""

    def obstacle(self, command: CompileCommand, toolchain: str) -> Local | None:
        """The reason why a task like this cannot be executed now; None: it can."""

    def execute(self, task: Task) -> Execution:
        """Compile, as a generator.

        Returns the worker's result, not yet compared with the mirror, or the reason for a local
        compile.
        """
