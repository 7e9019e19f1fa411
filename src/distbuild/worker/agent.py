"""Takes jobs from one syncer, has them run, and delivers their results.

Knows no compiler and no HTTP. Each agent has its own threads; slots are shared by all agents.
"""

import contextlib
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

from distbuild.mirror.store import Store
from distbuild.protocol.errors import DistBuildError, InfrastructureError, ProtocolError
from distbuild.protocol.messages import Job, LeaseReply, LeaseRequest, ResultRequest
from distbuild.worker.client import Syncer
from distbuild.worker.compilers import Compilers
from distbuild.worker.follow import follow, reach
from distbuild.worker.forest import Forest
from distbuild.worker.job import JobRunner
from distbuild.worker.leases import Leases
from distbuild.worker.runner import Cancellation
from distbuild.worker.slots import Slots, Tally
from distbuild.worker.tree import Tree

#: How long a syncer holds a request for jobs back while it has none.
LEASE_WAIT_S = 20.0
FIRST_BACKOFF_S = 0.2
MAX_BACKOFF_S = 5.0
#: Pause after a syncer said that it has work and then had none: another worker was faster.
EMPTY_TURN_S = 0.1
DELIVERY_TRIES = 5

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Workshop:
    """What all agents of a worker share."""

    name: str
    forest: Forest
    store: Store
    compilers: Compilers
    runner: JobRunner
    namespaces: bool
    slots: Slots
    tally: Tally
    executor: Executor


class Agent:
    """Serves ``syncer``. ``alone``: there is no other syncer, so slots may wait at this one."""

    def __init__(
        self, syncer: Syncer, workshop: Workshop, stop: threading.Event, *, alone: bool
    ) -> None:
        self._syncer = syncer
        self._shop = workshop
        self._stop = stop
        self._alone = alone
        self._leases = Leases(workshop.name, syncer)
        self._position = ("", 0)
        self._backoff_s = FIRST_BACKOFF_S
        self._paused = threading.Event()  # never set: only its timeout is used
        self._asking = _thread(self._serve, f"agent {syncer.url}")
        self._renewing = _thread(self._leases.keep, f"leases {syncer.url}")

    def start(self) -> None:
        """Begin to ask for jobs."""
        self._asking.start()
        self._renewing.start()

    def leave(self, timeout_s: float) -> None:
        """After the stop: ask no more. What runs goes on."""
        self._say_farewell()
        self._asking.join(timeout_s)

    def finish(self, timeout_s: float) -> None:
        """After ``leave``, when all results have been delivered."""
        self._leases.close()
        self._renewing.join(timeout_s)

    def _serve(self) -> None:
        while not self._stop.is_set():
            try:
                self._turn()
                self._backoff_s = FIRST_BACKOFF_S
            except DistBuildError as error:
                # Once per outage; the first pause is the sign of a new one.
                level = logging.WARNING if self._backoff_s == FIRST_BACKOFF_S else logging.DEBUG
                _log.log(level, "%s", error)
                self._stop.wait(self._backoff_s)
                self._backoff_s = min(2 * self._backoff_s, MAX_BACKOFF_S)

    def _turn(self) -> None:
        """Ask once for jobs and have them run."""
        if not self._alone:
            # Without slots in hand, so that they are free for whoever has work first.
            self._shop.slots.wait_free()
            self._accept(self._ask(0, LEASE_WAIT_S))
        slots = self._shop.slots.take()
        taken = 0
        try:
            if slots:
                reply = self._ask(slots, LEASE_WAIT_S if self._alone else 0.0)
                taken = len(reply.jobs)
                self._accept(reply)
        finally:
            self._shop.slots.give(slots - taken)
        if not self._alone and not taken:
            self._stop.wait(EMPTY_TURN_S)

    def _ask(self, slots: int, wait_s: float) -> LeaseReply:
        epoch, generation = self._position
        reply = self._syncer.lease(
            LeaseRequest(
                worker=self._shop.name,
                slots=slots,
                wait_s=0.0 if self._stop.is_set() else wait_s,
                toolchains=self._shop.compilers.advertised(),
                epoch=epoch,
                generation=generation,
                namespaces=self._shop.namespaces,
            )
        )
        if len(reply.jobs) > slots:
            raise ProtocolError(f"{self._syncer.url} gave {len(reply.jobs)} jobs for {slots} slots")
        return reply

    def _accept(self, reply: LeaseReply) -> None:
        """Bring the tree up to date and give each job, one per taken slot, to a thread."""
        if self._stop.is_set():
            for job in reply.jobs:
                self._deliver(self._shop.runner.failed(job, "this worker is stopping"))
            self._shop.slots.give(len(reply.jobs))
            return
        held = [(job, self._leases.add(job.lease_id)) for job in reply.jobs]
        tree, error = None, ""
        try:
            tree = self._shop.forest.tree(reply.client)
            if reply.changes is not None:
                follow(tree, reply.changes, self._syncer, self._shop.store)
            self._position = tree.position()[:2]
        except DistBuildError as failure:
            error = str(failure)
        for job, cancellation in held:
            run = _Run(job, cancellation, tree, reply.epoch, error)
            self._shop.executor.submit(self._perform, run)

    def _perform(self, run: "_Run") -> None:
        """One job on a thread of its own: the slot is free as soon as the compiler has ended."""
        tally = self._shop.tally
        tally.started()
        result, how = None, "failed"
        try:
            result = self._compile(run)
            how = "cancelled" if result is None else "failed" if result.error else "done"
        finally:
            tally.ended(how)
            self._shop.slots.give()
            if result is not None:
                self._deliver(result)
            self._leases.remove(run.job.lease_id)

    def _compile(self, run: "_Run") -> ResultRequest | None:
        if run.tree is None or run.error:
            return self._shop.runner.failed(run.job, run.error)
        try:
            reach(run.tree, run.epoch, run.job, self._syncer, self._shop.store)
        except DistBuildError as error:
            return self._shop.runner.failed(run.job, str(error))
        return self._shop.runner.run(run.job, run.tree, run.cancellation)

    def _deliver(self, result: ResultRequest) -> None:
        """Try a few times; after that the lease runs out at the syncer."""
        pause = FIRST_BACKOFF_S
        for _ in range(DELIVERY_TRIES):
            try:
                self._syncer.result(result)
                return
            except InfrastructureError as error:
                _log.info("result not delivered: %s", error)
                self._paused.wait(pause)
                pause *= 2
            except DistBuildError as error:
                _log.warning("result refused: %s", error)
                return
        _log.warning("gave up delivering a result to %s", self._syncer.url)

    def _say_farewell(self) -> None:
        """An offer of nothing: the syncer then answers this worker's waiting requests."""
        with contextlib.suppress(DistBuildError):
            self._syncer.lease(LeaseRequest(self._shop.name, 0, 0.0, []))


def _thread(target: Callable[[], None], name: str) -> threading.Thread:
    return threading.Thread(target=target, name=name, daemon=True)


@dataclass(frozen=True, slots=True)
class _Run:
    """A lease on its way to a slot; ``error``: why its tree could not be made ready."""

    job: Job
    cancellation: Cancellation
    tree: Tree | None
    epoch: str
    error: str
