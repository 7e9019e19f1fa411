"""Syncer side: what the farm knows of its workers from their requests and results.

A worker's result is refused if no honest worker can have sent it, and it may say itself that it
could not run the job. Either may happen once; a full disk or a damaged installation has it happen
to every job. Such a worker is paused: it gets no jobs for a while, longer after each further
failure. Pure: the time is an argument. The caller holds the farm's lock.
"""

import logging
import math
from collections.abc import Container

import msgspec

from distbuild.farm.jobs import QueuedJob, Worker
from distbuild.protocol.messages import LeaseRequest, Toolchain

#: After so many failures, of as many jobs, without a result between them, a worker is paused.
MAX_FAILURES = 3
#: The duration of the first pause (seconds); each further one is twice as long, up to a limit.
FIRST_PAUSE_S = 2.0
MAX_PAUSE_S = 60.0

log = logging.getLogger(__name__)


class Seen(msgspec.Struct, frozen=True):
    """A worker as its requests show it: its display name, the seconds since its last request, its
    compilers, its number of jobs, and why it gets few or none."""

    label: str
    silent_s: float
    toolchains: list[Toolchain]
    running: int
    failing: str = ""


class Descriptions:
    """How the workers describe themselves in their requests, and where they answer."""

    def __init__(self) -> None:
        self._toolchains: dict[str, tuple[list[Toolchain], frozenset[str]]] = {}
        # The configured HOST:PORT at which each worker answered.
        self._hosts: dict[str, str] = {}

    def label(self, request: LeaseRequest) -> str:
        """The display name of a worker that asks for jobs."""
        return self._hosts.get(request.worker) or request.label or request.worker

    def host(self, worker: str) -> str:
        """Where the worker answered; "": it did not."""
        return self._hosts.get(worker, "")

    def found(self, worker: str, host: str) -> None:
        """The worker answers at the configured ``host`` (HOST:PORT)."""
        self._hosts[worker] = host

    def identities(self, request: LeaseRequest) -> frozenset[str]:
        """The toolchain digests of a worker that asks; cached, since they seldom change."""
        known = self._toolchains.get(request.worker)
        if known is None or known[0] != request.toolchains:
            identities = frozenset(t.identity for t in request.toolchains)
            known = self._toolchains[request.worker] = (request.toolchains, identities)
        return known[1]

    def toolchains(self, worker: str) -> list[Toolchain]:
        """The worker's compilers, by its last request."""
        known = self._toolchains.get(worker)
        return [] if known is None else known[0]

    def forget(self, worker: str, *, host: bool = False) -> None:
        """Drop the worker's compilers, and with ``host`` where it answered."""
        self._toolchains.pop(worker, None)
        if host:
            self._hosts.pop(worker, None)

    def others(self, kept: Container[str]) -> list[str]:
        """The described workers that are not in ``kept``."""
        return [worker for worker in self._toolchains if worker not in kept]


class RefusedResults(msgspec.Struct, frozen=True):
    """The number of refused results of one worker, its display name, and the last reason."""

    label: str
    count: int
    why: str


class _Failures(msgspec.Struct):
    why: str = ""
    #: The numbers of the jobs: one job that no worker can run is no reason to pause any.
    jobs: set[int] = msgspec.field(default_factory=set)
    #: How many there were, each after the one before had failed: one moment's failure counts once,
    #: however many jobs the worker had then. And when the last one was counted.
    count: int = 0
    last: float = -math.inf
    pause_s: float = 0.0
    until: float = 0.0


class Health:
    """The refused results and failures of each worker, by its name; the latest are at the end.

    A hostile worker may use another name for each result: of more than ``most`` names the oldest
    are forgotten.
    """

    def __init__(self, most: int = 100) -> None:
        self._most = most
        self._refused: dict[str, RefusedResults] = {}
        self._failures: dict[str, _Failures] = {}

    def refuse(self, worker: str, label: str, why: str) -> None:
        """Count a refused result; the first one of a worker is logged as a warning."""
        before = self._refused.pop(worker, None)
        level = logging.WARNING if before is None else logging.INFO
        log.log(level, "a result of %s was refused: %s", label, why)
        self._refused[worker] = RefusedResults(label, before.count + 1 if before else 1, why)
        self._forget_oldest(self._refused)

    def refused(self) -> dict[str, RefusedResults]:
        """A copy of the refused results by worker."""
        return dict(self._refused)

    def fail(self, worker: Worker, job: QueuedJob, why: str, now: float) -> Worker | None:
        """A job gave no result on a worker. Returns the worker as paused because of that."""
        if job.avoided - {worker.name}:
            return None  # it has failed elsewhere, too
        failures = self._failures.pop(worker.name, None) or _Failures()
        self._failures[worker.name] = failures
        self._forget_oldest(self._failures)
        failures.why = why
        if len(failures.jobs) < MAX_FAILURES:
            failures.jobs.add(job.number)
        if job.leased <= failures.last:
            return None
        failures.last = now
        failures.count += 1
        if min(failures.count, len(failures.jobs)) < MAX_FAILURES:
            return None
        level = logging.INFO if failures.until else logging.WARNING
        failures.pause_s = min(2 * failures.pause_s or FIRST_PAUSE_S, MAX_PAUSE_S)
        failures.until = now + failures.pause_s
        log.log(level, "%s gets no jobs for %g s: %s", worker.label, failures.pause_s, why)
        return self.judged(worker)

    def succeed(self, worker: str) -> bool:
        """A job gave a result on a worker; whether it was paused before."""
        failures = self._failures.pop(worker, None)
        return failures is not None and failures.until > 0.0

    def judged(self, worker: Worker) -> Worker:
        """The worker with its pause, if it had one and has given no result since. Jobs wait for the
        end of a first pause: its reason may have been the moment's."""
        failures = self._failures.get(worker.name)
        if failures is None:
            return worker
        failing_until = failures.until if failures.pause_s > FIRST_PAUSE_S else 0.0
        return msgspec.structs.replace(
            worker, paused_until=failures.until, failing_until=failing_until
        )

    def why(self, worker: str) -> str:
        """The last failure of a worker that was paused, and has given no result since; "": none."""
        failures = self._failures.get(worker)
        return failures.why if failures is not None and failures.until else ""

    def _forget_oldest(self, known: dict[str, RefusedResults] | dict[str, _Failures]) -> None:
        if len(known) > self._most:
            del known[next(iter(known))]
