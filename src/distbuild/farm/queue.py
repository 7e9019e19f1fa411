"""The farm's job queue as a pure state machine: events in, actions out.

All decisions on a job's state are made here. Uses no lock, clock, thread, socket or disk: the time
is an argument, and the actions to perform are returned. An event that is illegal in the job's state
raises ``IllegalTransition`` and changes nothing.

    QUEUED -> LEASED -> DONE | LOCAL | CANCELLED        a lost or returned lease: back to QUEUED
"""

import itertools
import math
from collections import Counter, deque
from collections.abc import Callable, Iterable

import msgspec

from distbuild.command.model import LocalReason
from distbuild.farm.jobs import (
    FINAL,
    TRANSITIONS,
    Action,
    Assign,
    CompileLocally,
    Counters,
    Durations,
    EndLease,
    Event,
    Need,
    QueuedJob,
    State,
    Wake,
    Worker,
)
from distbuild.protocol.errors import IllegalTransition

#: A lease that is not renewed for this long (seconds) is lost. Workers renew every five seconds.
LEASE_S = 15.0
#: A worker whose renewal was answered sends the next one at once. If none has come after this time
#: (seconds), its leases are lost.
BACK_S = 5.0
#: The same after the connection of a waiting request has ended: its process may have died.
GONE_S = 2.0
#: A worker whose last request is this old (seconds) counts as down.
WORKER_S = 15.0
#: After this time (seconds) it is forgotten.
FORGET_S = 60.0
#: After so many lost leases or failed tries a job is compiled locally.
MAX_TRIES = 3
#: The longest run of a job (seconds), unless configured.
JOB_TIMEOUT_S = 1200.0
#: After so many runs over the limit a job is compiled locally.
MAX_OVERRUNS = 2


class JobQueue(msgspec.Struct):
    """All jobs that are not answered yet, oldest first, and the known workers.

    ``salt`` returns the prefix of a lease's name. Knowing the name is enough to answer the job. So
    outside of tests the prefix is random: no worker can guess another's lease, and no lease of an
    earlier run of the syncer is taken for one of this run.
    """

    salt: Callable[[], str] = str
    job_timeout_s: float = JOB_TIMEOUT_S
    counters: Counters = msgspec.field(default_factory=Counters)
    workers: dict[str, Worker] = msgspec.field(default_factory=dict)
    _jobs: dict[int, QueuedJob] = msgspec.field(default_factory=dict)
    # Queued jobs in order of arrival; a job that is queued again keeps its place in this order.
    _queued: dict[int, None] = msgspec.field(default_factory=dict)
    _leases: dict[str, int] = msgspec.field(default_factory=dict)
    _numbers: "itertools.count[int]" = msgspec.field(default_factory=lambda: itertools.count(1))

    _lease_numbers: "itertools.count[int]" = msgspec.field(
        default_factory=lambda: itertools.count(1)
    )
    # Leases that wait for a slot of their worker, by worker, oldest first; also some that ended.
    _ahead: dict[str, deque[str]] = msgspec.field(default_factory=dict)
    _durations: Durations = msgspec.field(default_factory=Durations)

    def __repr__(self) -> str:
        return (
            f"<JobQueue queued={self.queued()} running={self.running()} done={self.counters.done}>"
        )

    # --- questions ------------------------------------------------------------------------------

    def queued(self) -> int:
        """Jobs waiting for a worker."""
        return len(self._queued)

    def running(self) -> int:
        """Jobs leased to a worker."""
        return len(self._leases)

    def held(self) -> Counter[str]:
        """The number of jobs leased to each worker."""
        return Counter(self._jobs[number].worker for number in self._leases.values())

    def leased(self, lease: str, worker: str) -> int | None:
        """The job under a lease; None: it is not valid any more, or is another worker's."""
        number = self._leases.get(lease)
        return number if number is not None and self._jobs[number].worker == worker else None

    def job(self, number: int) -> QueuedJob | None:
        """The job; None: it was answered."""
        return self._jobs.get(number)

    def label(self, lease: str) -> str:
        """The display name of the worker that has a lease; "": the lease is not valid any more."""
        number = self._leases.get(lease)
        return "" if number is None else self._jobs[number].label

    def obstacle(self, need: Need, now: float) -> LocalReason | None:
        """Why none of the present workers can ever take such a job; None: one can."""
        up = [w for w in self.workers.values() if now - w.heard <= WORKER_S]
        if need.worker:
            up = [worker for worker in up if worker.name == need.worker]
        if not up:
            return LocalReason.NO_WORKER
        able = [w for w in up if need.toolchain in w.toolchains]
        if not able:
            return LocalReason.NO_TOOLCHAIN
        fit = [w for w in able if w.namespaces or not need.namespaces]
        if not fit:
            return LocalReason.NO_NAMESPACE
        waits = any(now >= w.failing_until or w.name == need.worker for w in fit)
        return None if waits else LocalReason.WORKERS_FAILING

    def offers(self, worker: Worker, now: float) -> bool:
        """Whether a queued job may be leased to this worker."""
        return any(
            self._is_for(worker, job, now) for job in map(self._jobs.__getitem__, self._queued)
        )

    # --- events ---------------------------------------------------------------------------------

    def submit(self, need: Need, now: float, name: int = 0) -> tuple[int, list[Action]]:
        """Add a job. If no worker could take it, it is answered at once. Its duration is remembered
        under ``name``."""
        number = next(self._numbers)
        reason = self.obstacle(need, now)
        if reason is not None:
            return number, [CompileLocally(number, reason, need.toolchain)]
        job = self._jobs[number] = QueuedJob(number, need, since=now, name=name)
        self._queued[number] = None
        return number, self._wake(job, now)

    def heard(self, worker: Worker) -> list[Action]:
        """A worker described itself."""
        self.workers[worker.name] = worker
        return []

    def lease(self, name: str, slots: int, now: float, ahead: int = 0) -> list[Action]:
        """Assign up to ``slots`` jobs to a worker, the oldest that fit, and up to ``ahead`` more,
        which begin once a slot is free."""
        worker = self.workers.get(name)
        if worker is None:
            raise IllegalTransition(f"lease by unknown worker {name}")
        actions: list[Action] = []
        for number in list(self._queued):
            if len(actions) >= slots + ahead:
                break
            job = self._jobs[number]
            if self._is_for(worker, job, now):
                actions.append(self._assign(job, worker, now))
                if len(actions) > slots:
                    self._wait_for_slot(job)
        return actions

    def _wait_for_slot(self, job: QueuedJob) -> None:
        """Mark a leased job as not begun: until then only the limit of all jobs applies."""
        job.ends = job.started + self.job_timeout_s
        job.started = math.inf
        self._ahead.setdefault(job.worker, deque()).append(job.lease)

    def _is_for(self, worker: Worker, job: QueuedJob, now: float) -> bool:
        """Whether a worker may lease a job: not if the job failed on it while another worker that
        fits is up on which it did not."""
        return worker.fits(job.need, now) and not (
            worker.name in job.avoided
            and any(
                w.fits(job.need, now) and n not in job.avoided and now - w.heard <= WORKER_S
                for n, w in self.workers.items()
            )
        )

    def _assign(self, job: QueuedJob, worker: Worker, now: float) -> Assign:
        self._move(job, Event.LEASE)
        job.worker, job.label = worker.name, worker.label or worker.name
        job.leased, job.deadline = now, now + LEASE_S
        job.lease = f"{self.salt()}{job.number}.{next(self._lease_numbers)}"
        self._leases[job.lease] = job.number
        job.started, job.limit = now, self._durations.limit(job.name, self.job_timeout_s)
        job.ends = now + job.limit
        return Assign(job.number, worker.name, job.lease)

    def ended(self, lease: str, now: float, *, usable: bool) -> None:
        """The compiler under a lease has ended; called before its result is accepted. The worker's
        next lease begins. The duration of a ``usable`` result is remembered."""
        job = self._holder(lease)
        if usable and job.name and job.started <= now:
            self._durations.remember(job.name, now - job.started)
        waiting = self._ahead.get(job.worker, ())
        while waiting:
            number = self._leases.get(waiting.popleft())
            if number is not None and number != job.number:
                following = self._jobs[number]
                following.started = now
                following.ends = min(following.ends, now + following.limit)
                return
        self._ahead.pop(job.worker, None)

    def renew(self, name: str, leases: Iterable[str], now: float) -> list[str]:
        """Extend the leases that a worker still works on; returns those that have ended for it."""
        worker = self.workers.get(name)
        if worker is not None:
            self.workers[name] = msgspec.structs.replace(worker, heard=now)
        ended = []
        for lease in leases:
            number = self._leases.get(lease)
            if number is None or self._jobs[number].worker != name:
                ended.append(lease)
            else:
                self._jobs[number].deadline = now + LEASE_S
        return ended

    def answered(self, name: str, leases: Iterable[str], now: float) -> float:
        """A worker's renewal of these has ended: they are lost unless they are renewed within
        ``BACK_S``. Returns the end of that time. The worker may not have got others yet."""
        return self._shorten(name, leases, now + BACK_S)

    def disconnected(self, name: str, now: float) -> float:
        """The connections of a worker's waiting requests have ended: unless it connects again
        within ``GONE_S``, its leases are lost and it counts as down, as if it had not been heard
        for so long. Returns the end of that time."""
        worker = self.workers.get(name)
        if worker is not None:
            heard = min(worker.heard, now + GONE_S - WORKER_S)
            self.workers[name] = msgspec.structs.replace(worker, heard=heard)
        return self._shorten(name, self._leases, now + GONE_S)

    def _shorten(self, name: str, leases: Iterable[str], end: float) -> float:
        for number in filter(None, map(self._leases.get, leases)):
            job = self._jobs[number]
            if job.worker == name:
                job.deadline = min(job.deadline, end)
        return end

    def finish(self, lease: str) -> list[Action]:
        """The result under a lease was accepted."""
        self._move(self._holder(lease), Event.FINISH)
        self.counters.done += 1
        return []

    def retry(self, lease: str, reason: LocalReason, detail: str, now: float) -> list[Action]:
        """The lease gave no usable result: queue the job again, or give it up after three tries."""
        job = self._holder(lease)
        job.tries += 1
        if job.tries >= MAX_TRIES:
            return self._give_up(job, reason, detail)
        job.avoided = job.avoided | {job.worker}
        self._move(job, Event.REQUEUE)
        obstacle = self.obstacle(job.need, now)
        if obstacle is not None:
            return self._give_up(job, obstacle, detail)
        self.counters.retried += 1
        return self._wake(job, now)

    def relieve(self, waited_s: float, now: float) -> list[Action]:
        """The dev box has an idle core: compile there the oldest job, if it has waited so long.

        The oldest, since a build has waited for it the longest.
        """
        number = next(iter(self._queued), None)
        if number is None or now - self._jobs[number].since < waited_s:
            return []
        return self._give_up(self._jobs[number], LocalReason.FARM_FULL, "")

    def cancel(self, number: int) -> list[Action]:
        """The wrapper is gone. Idempotent; does nothing for a job that was answered already."""
        job = self._jobs.get(number)
        if job is None:
            return []
        ended = [EndLease(job.worker, job.lease)] if job.state is State.LEASED else []
        self._move(job, Event.CANCEL)
        self.counters.cancelled += 1
        return [*ended]

    def tick(self, now: float) -> list[Action]:
        """Time has passed: expire leases, forget workers, answer jobs that no worker can take."""
        actions: list[Action] = []
        for worker in list(self.workers.values()):
            if now - worker.heard > FORGET_S:
                del self.workers[worker.name]
                self._ahead.pop(worker.name, None)
        for lease, number in list(self._leases.items()):
            job = self._jobs[number]
            if job.deadline < now:
                detail = f"{job.label} fell silent"
                actions.append(EndLease(job.worker, lease))
                actions.extend(self.retry(lease, LocalReason.LEASES_LOST, detail, now))
            elif job.ends < now:
                actions.append(EndLease(job.worker, lease))
                actions.extend(self._overrun(job, now))
        actions.extend(self._give_up_hopeless(now))
        return [*actions, *self._second_chances(now)]

    def _overrun(self, job: QueuedJob, now: float) -> list[Action]:
        """The compiler may hang: try the job on another worker once, then locally."""
        detail = f"{job.worker} took longer than {job.limit:.0f} s"
        job.overruns += 1
        self._durations.forget(job.name)
        avoided = job.avoided | {job.worker}
        elsewhere = any(
            w.fits(job.need, now) and name not in avoided and now - w.heard <= WORKER_S
            for name, w in self.workers.items()
        )
        if job.overruns >= MAX_OVERRUNS or not elsewhere:
            return self._give_up(job, LocalReason.LEASES_LOST, detail)
        return self.retry(job.lease, LocalReason.LEASES_LOST, detail, now)

    def due(self, now: float) -> float:
        """The earliest time at which ``tick`` has something to do; infinity: none is known."""
        silent = [w.heard + WORKER_S for w in self.workers.values()] if self._queued else []
        forgotten = [w.heard + FORGET_S for w in self.workers.values()]
        leased = map(self._jobs.__getitem__, self._leases.values())
        lost = [min(job.deadline, job.ends) for job in leased]
        return min((*(at for at in silent if at >= now), *forgotten, *lost), default=math.inf)

    def _give_up_hopeless(self, now: float) -> list[Action]:
        """Answer the queued jobs that no worker can take any more."""
        actions: list[Action] = []
        for number in list(self._queued):
            job = self._jobs[number]
            reason = self.obstacle(job.need, now)
            if reason is not None:
                actions.extend(self._give_up(job, reason, job.need.toolchain))
        return actions

    def leave(self, name: str, now: float) -> list[Action]:
        """A worker takes no more jobs, but finishes those that it has."""
        self.workers.pop(name, None)
        return [*self._give_up_hopeless(now), *self._second_chances(now)]

    def lost(self, name: str, now: float) -> list[Action]:
        """A worker is known to be gone: its leases end at once."""
        self.workers.pop(name, None)
        actions: list[Action] = []
        for lease, number in list(self._leases.items()):
            job = self._jobs[number]
            if job.worker == name:
                detail = f"{job.label} went away"
                actions.extend(self.retry(lease, LocalReason.LEASES_LOST, detail, now))
        return [*actions, *self._second_chances(now)]

    def _second_chances(self, now: float) -> list[Action]:
        """Wake the workers that may lease a queued job now although it failed on them before."""
        names = tuple(
            name
            for name, worker in self.workers.items()
            if any(
                name in job.avoided and self._is_for(worker, job, now)
                for job in map(self._jobs.__getitem__, self._queued)
            )
        )
        return [Wake(names)] if names else []

    # --- transitions ----------------------------------------------------------------------------

    def _wake(self, job: QueuedJob, now: float) -> list[Action]:
        names = tuple(n for n, w in self.workers.items() if self._is_for(w, job, now))
        return [Wake(names)] if names else []

    def _holder(self, lease: str) -> QueuedJob:
        number = self._leases.get(lease)
        if number is None:
            raise IllegalTransition(f"lease {lease} is not valid")
        return self._jobs[number]

    def _give_up(self, job: QueuedJob, reason: LocalReason, detail: str) -> list[Action]:
        self._move(job, Event.GIVE_UP)
        return [CompileLocally(job.number, reason, detail)]

    def _move(self, job: QueuedJob, event: Event) -> None:
        """The one place where a job's state changes."""
        target = TRANSITIONS.get((job.state, event))
        if target is None:
            raise IllegalTransition(f"{event.name} of job {job.number}, which is {job.state.name}")
        if job.state is State.LEASED:
            del self._leases[job.lease]
            job.lease, job.worker, job.label = "", "", ""
        self._queued.pop(job.number, None)
        job.state = target
        if target is State.QUEUED:
            self._queued = dict.fromkeys(sorted([*self._queued, job.number]))
        elif target in FINAL:
            del self._jobs[job.number]
