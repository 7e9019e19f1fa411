"""The executor that queues tasks until workers lease them by long polls. Owns the queue's lock.

``JobQueue`` makes the decisions: it gets every event, and the actions that it returns are performed
here, outside the lock where they could block. Knows no HTTP.
"""

import math
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence

import msgspec

from distbuild.command.model import CompileCommand, Local, LocalReason
from distbuild.farm.executor import Execution, Task
from distbuild.farm.jobs import (
    Action,
    Assign,
    CompileLocally,
    EndLease,
    FarmLimits,
    Need,
    Wake,
    Worker,
    random_salt,
)
from distbuild.farm.long_polls import Poll, Polls, Ticker
from distbuild.farm.queue import JOB_TIMEOUT_S, JobQueue
from distbuild.farm.results import objection, only_here, size_of
from distbuild.farm.workers import Descriptions, Health, RefusedResults, Seen
from distbuild.one_shot import OneShot
from distbuild.protocol import messages
from distbuild.protocol.errors import IllegalTransition, TooMuchAtOnce
from distbuild.protocol.names import one_line

#: The part of a result that says whose it is.
Claim = messages.Claim | messages.ResultRequest
#: Leases, each with its task.
Given = list[tuple[str, Task]]


class _Waiting(msgspec.Struct):
    task: Task
    answered: OneShot = msgspec.field(default_factory=OneShot)
    outcome: messages.ResultRequest | Local | None = None
    #: The memory that the outcome takes (bytes).
    held: int = 0


class Farm:
    """An Executor over the workers that pull from this syncer.

    ``expected``: workers are configured, so that right after the start it is worth waiting for
    the first to report. ``now`` is a monotonic clock in seconds. No worker keeps a job for longer
    than ``job_timeout_s``.
    """

    def __init__(
        self,
        *,
        expected: bool,
        now: Callable[[], float] = time.monotonic,
        job_timeout_s: float = JOB_TIMEOUT_S,
        limits: FarmLimits | None = None,
    ) -> None:
        self._now = now
        self._limits = limits or FarmLimits()
        self._queue = JobQueue(random_salt, job_timeout_s)
        self._lock = threading.Lock()
        self._waiting: dict[int, _Waiting] = {}
        self._held = 0
        self._polls = Polls()
        self._renewals = Polls()
        self._health = Health()
        self._described = Descriptions()
        # Free slots of each worker, estimated from its requests and results.
        self._free: dict[str, int] = {}
        self._stopping = threading.Event()
        self._started = now()
        self._expected = expected
        self._first = OneShot()
        self._ticker = Ticker(self._tick, "leases", self._limits.rest_s, now)
        self._ticker.start()

    def stop(self) -> None:
        """Answer every waiting job with a local compile and end the long polls."""
        self._stopping.set()
        self._first.set()
        with self._lock:
            why = LocalReason.SYNCER_STOPPING
            self._perform([CompileLocally(number, why) for number in self._waiting])
            self._polls.notify_all()
            self._renewals.notify_all()
        self._ticker.stop()

    # --- the executor's side --------------------------------------------------------------------

    def obstacle(self, command: CompileCommand, toolchain: str) -> Local | None:
        need = Need(toolchain, command.needs_original_paths)
        with self._lock:
            reason = self._queue.obstacle(need, self._now())
        return None if reason is None else Local(reason, toolchain[:12])

    def execute(self, task: Task) -> Execution:
        waited = self._now() - self._started
        if self._expected and waited < self._limits.grace_s and not self._first.is_set():
            yield self._first
        entry = _Waiting(task)
        need = Need(task.toolchain, task.command.needs_original_paths, task.worker)
        name = hash((task.command.cwd, task.command.source, task.command.output))
        with self._lock:
            if self._stopping.is_set():
                return Local(LocalReason.SYNCER_STOPPING)
            number, actions = self._queue.submit(need, self._now(), name)
            self._waiting[number] = entry
            self._perform(actions)
        try:
            yield entry.answered
        except GeneratorExit:
            with self._lock:
                self._perform(self._queue.cancel(number))
            raise
        finally:
            with self._lock:
                self._waiting.pop(number, None)
                self._held -= entry.held
        if entry.outcome is None:
            raise IllegalTransition(f"job {number} was answered with nothing")
        return entry.outcome

    # --- the workers' side ----------------------------------------------------------------------

    def lease(self, request: messages.LeaseRequest) -> Generator[OneShot, None, Given]:
        """Lease jobs to a worker; waits for the first one up to the time that the worker asked for.

        With ``slots`` 0 it only waits until there is a job that fits. A request without toolchains
        is the worker's farewell: an earlier long poll of this worker ends empty. Raises
        TooMuchAtOnce for more than ``FarmLimits.workers``.
        """
        if not request.toolchains:
            self._farewell(request.worker)
            return []
        deadline = self._now() + min(request.wait_s, self._limits.poll_s)
        with self._lock:
            workers = self._queue.workers
            if request.worker not in workers and len(workers) >= self._limits.workers:
                raise TooMuchAtOnce(f"{self._limits.workers} workers are known already")
            poll = self._polls.enter(request.worker, request.slots, deadline)
        try:
            while True:
                with self._lock:
                    event = poll.begin()
                    if not self._polls.is_current(request.worker, poll):
                        return []
                    now = self._now()
                    given, ready = self._look(request, now)
                    pause_ends = self._queue.workers[request.worker].paused_until
                    poll.deadline = min(deadline, pause_ends) if now < pause_ends else deadline
                self._ticker.sooner(poll.deadline)
                if ready or now >= deadline or self._stopping.is_set():
                    poll.answered = True
                    return given
                yield event
        finally:
            self._left(request.worker, poll)

    def _look(self, request: messages.LeaseRequest, now: float) -> tuple[Given, bool]:
        """The jobs for a polling worker, and whether the poll can be answered now."""
        identities, label = self._described.identities(request), self._described.label(request)
        worker = Worker(request.worker, identities, request.namespaces, now, label)
        worker = self._health.judged(worker)
        self._queue.heard(worker)
        self._first.set()
        given = self._assign(request, now)
        only_listens = request.slots == 0 and request.ahead == 0
        return given, bool(given) or (only_listens and self._queue.offers(worker, now))

    def _farewell(self, worker: str) -> None:
        with self._lock:
            self._forget(worker)
            self._perform(self._queue.leave(worker, self._now()))
            self._polls.dismiss(worker)

    def _assign(self, request: messages.LeaseRequest, now: float) -> Given:
        if self._stopping.is_set():
            return []
        self._free.pop(request.worker, None)
        # Another worker with a free slot could start the job at once, and will soon poll for it.
        ahead = 0 if any(free > 0 for free in self._free.values()) else request.ahead
        actions = self._queue.lease(request.worker, request.slots, now, ahead)
        if now >= self._queue.workers[request.worker].paused_until:
            self._free[request.worker] = request.slots - len(actions)
        given = [(a.lease, self._waiting[a.number].task) for a in actions if isinstance(a, Assign)]
        for _, task in given:
            task.leased(self._described.label(request))
        return given

    def relieve(self, waited_s: float) -> bool:
        """Have the oldest job compiled locally if it has waited so long; whether there was one."""
        with self._lock:
            self._perform(actions := self._queue.relieve(waited_s, self._now()))
            return bool(actions)

    def renew(self, request: messages.RenewRequest) -> Generator[OneShot, None, list[str]]:
        """Extend leases; returns those that ended. A long poll: waits a while for one to end."""
        deadline = self._now() + min(request.wait_s, self._limits.poll_s)
        with self._lock:
            poll = self._renewals.enter(request.worker, 0, deadline)
        self._ticker.sooner(deadline)
        try:
            while True:
                with self._lock:
                    event = poll.begin()
                    now = self._now()
                    ended = self._queue.renew(request.worker, request.leases, now)
                    is_current = self._renewals.is_current(request.worker, poll)
                if ended or now >= deadline or not is_current or self._stopping.is_set():
                    poll.answered = True
                    return ended
                yield event
        finally:
            self._left(request.worker, poll, request.leases)

    def _left(self, worker: str, poll: Poll, renewed: Sequence[str] | None = None) -> None:
        """A worker's request was answered, or its connection has ended. ``renewed``: the leases of
        a renewal; None: it was for jobs."""
        polls = self._polls if renewed is None else self._renewals
        with self._lock:
            now, is_last, due = self._now(), polls.is_current(worker, poll), math.inf
            if polls.leave(worker, poll):
                polls.notify_all()
            waits = self._polls.has(worker) or self._renewals.has(worker)
            if is_last and not poll.answered and not waits:
                due = self._queue.disconnected(worker, now)
            elif is_last and renewed:
                due = self._queue.answered(worker, renewed, now)
        self._ticker.sooner(due)

    def deliver(
        self, result: messages.ResultRequest, notify: Callable[[OneShot], None] = OneShot.set
    ) -> bool:
        """Accept a worker's result. False: it is dropped, since the lease is not valid any more or
        the result cannot be an honest one.

        ``notify`` fires the event of the answered job, at once or soon. Raises TooMuchAtOnce while
        too many other results are not fetched yet.
        """
        with self._lock:
            if result.worker in self._free:
                self._free[result.worker] += 1
            waiting = self._under(result)
        # Without the lock: this may block on a disk.
        problem = objection(waiting.task, result) if waiting and not result.error else ""
        with self._lock:
            waiting = self._under(result)
            if waiting is None:
                return False
            if problem:
                self._refuse(result, problem)
                return False
            self._take(result, waiting, notify)
            return True

    def refuse(self, claim: messages.Claim, problem: str) -> None:
        """Handle a malformed result: the job is queued again for another worker."""
        with self._lock:
            if self._queue.leased(claim.lease_id, claim.worker) is not None:
                self._refuse(claim, problem)

    def _under(self, result: messages.ResultRequest) -> _Waiting | None:
        """The job that a result answers; None: the lease has ended, or is another worker's."""
        number = self._queue.leased(result.lease_id, result.worker)
        return None if number is None else self._waiting.get(number)

    def _take(
        self, result: messages.ResultRequest, waiting: _Waiting, notify: Callable[[OneShot], None]
    ) -> None:
        label, why = self._queue.label(result.lease_id), one_line(result.error)
        reason = only_here(result)
        if result.error and reason is None:
            self._failed(result, LocalReason.LEASES_LOST, why)
            return
        if reason is None:
            size = size_of(result)
            if self._held and self._held + size > self._limits.held_bytes:
                raise TooMuchAtOnce("too many results at once")
            waiting.held = size
            self._held += size
            worker = self._queue.workers.get(result.worker)
            if self._health.succeed(result.worker) and worker is not None:
                self._queue.heard(msgspec.structs.replace(worker, paused_until=0, failing_until=0))
                self._polls.ring_one(result.worker)
        usable = reason is None and result.exit_code == 0
        self._queue.ended(result.lease_id, self._now(), usable=usable)
        self._perform(self._queue.finish(result.lease_id))
        shown = msgspec.structs.replace(result, worker=label)
        waiting.outcome = shown if reason is None else Local(reason, f"{label}: {why}")
        notify(waiting.answered)

    def _refuse(self, claim: Claim, problem: str) -> None:
        self._health.refuse(claim.worker, self._queue.label(claim.lease_id), problem)
        self._failed(claim, LocalReason.RESULT_REFUSED, problem)

    def _failed(self, claim: Claim, reason: LocalReason, why: str) -> None:
        """A worker gave no usable result: its job is queued again. After several in a row the
        worker is paused; jobs that only it can take wait for the end of its first pause alone."""
        now, lease = self._now(), claim.lease_id
        label, worker = self._queue.label(lease), self._queue.workers.get(claim.worker)
        self._queue.ended(lease, now, usable=False)
        # One that has said farewell gives back its jobs: that is no failure.
        job = self._queue.job(self._queue.leased(lease, claim.worker) or 0)
        paused = self._health.fail(worker, job, why, now) if worker and job else None
        if paused is not None:
            self._queue.heard(paused)
            self._free.pop(paused.name, None)
        self._perform(self._queue.retry(lease, reason, f"{label}: {why}", now))
        if paused is not None:
            self._perform(self._queue.tick(now))
            self._polls.ring_one(paused.name)

    def refused(self) -> dict[str, RefusedResults]:
        """The refused results of each worker, by its name."""
        with self._lock:
            return self._health.refused()

    def lost(self, worker: str) -> None:
        """A worker does not answer. One that said farewell keeps its leases to finish its jobs."""
        with self._lock:
            self._forget(worker, host=True)
            if worker in self._queue.workers:
                self._perform(self._queue.lost(worker, self._now()))

    def expel(self, worker: str) -> None:
        """A worker was removed: its jobs go elsewhere, and its long poll ends."""
        self.lost(worker)
        self._farewell(worker)

    def found(self, worker: str, host: str) -> None:
        """A worker answers at the configured ``host`` (HOST:PORT), its display name from now on.
        Its waiting long poll is looked at again, so that it counts at once."""
        with self._lock:
            self._described.found(worker, host)
            self._polls.ring_one(worker)

    def _forget(self, worker: str, *, host: bool = False) -> None:
        self._free.pop(worker, None)
        self._described.forget(worker, host=host)

    def counts(self) -> dict[str, int]:
        """Numbers of jobs by state, for ``/status``."""
        with self._lock:
            counters, queue = self._queue.counters, self._queue
            now = {"queued": queue.queued(), "running": queue.running()}
            return {**now, "cancelled": counters.cancelled, "retried": counters.retried}

    def workers(self) -> dict[str, Seen]:
        """The known workers, by name."""
        with self._lock:
            now, held = self._now(), self._queue.held()
            return {
                name: Seen(
                    self._described.host(name) or worker.label,
                    now - worker.heard,
                    self._described.toolchains(name),
                    held[name],
                    self._health.why(name),
                )
                for name, worker in self._queue.workers.items()
            }

    # --- actions --------------------------------------------------------------------------------

    def _perform(self, actions: Iterable[Action]) -> None:
        """Perform the queue's actions; called with the lock held, never blocks."""
        for action in actions:
            match action:
                case Wake(workers):
                    self._polls.notify(workers)
                case CompileLocally(number, reason, detail):
                    waiting = self._waiting.get(number)
                    if waiting is not None and not waiting.answered.is_set():
                        waiting.outcome = Local(reason, detail)
                        waiting.answered.set()
                case EndLease(worker, _):
                    self._renewals.ring_one(worker)
                case Assign():
                    raise IllegalTransition("a job was assigned that no request waits for")

    def _tick(self) -> float:
        """Process deadlines; returns the time of the next one."""
        grace_ends = self._started + self._limits.grace_s
        if self._now() >= grace_ends:
            self._first.set()
        with self._lock:
            now = self._now()
            self._perform(self._queue.tick(now))
            for name in self._described.others(self._queue.workers):
                self._forget(name)
            polls = (self._polls.ring_late(now), self._renewals.ring_late(now))
            return min(self._queue.due(now), *polls, math.inf if now > grace_ends else grace_ends)
