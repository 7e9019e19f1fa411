"""Worker side: leases jobs from one syncer, runs them in slots and queues their results.

Knows no compiler and no HTTP. Each agent has its own threads; slots are shared by all agents.
"""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

import msgspec

from distbuild.protocol.errors import DistBuildError, ProtocolError
from distbuild.protocol.messages import Job, LeaseReply, LeaseRequest, ResultRequest
from distbuild.worker.client import SyncerLink, follow, reach
from distbuild.worker.clock_check import Clock, off_by
from distbuild.worker.compilers import InstalledCompilers
from distbuild.worker.job import JobRunner, Steps
from distbuild.worker.leases import AgentTiming, Leases
from distbuild.worker.process.here import Cancellation, Running, Watcher
from distbuild.worker.results import ResultSender
from distbuild.worker.slots import Offer, Pace, Slots, Tally
from distbuild.worker.tree.store import Store
from distbuild.worker.tree.tree import Tree
from distbuild.worker.tree.trees import Trees

FIRST_BACKOFF_S = 0.2
MAX_BACKOFF_S = 5.0
#: Pause after a syncer announced work and then had none: another worker was faster.
EMPTY_TURN_S = 0.1
_STOPPING = "this worker is stopping"

_log = logging.getLogger(__name__)


class Run(msgspec.Struct, frozen=True):
    """A leased job for a slot; ``error``: why its tree could not be brought up to date."""

    job: Job
    cancellation: Cancellation
    tree: Tree | None
    epoch: str
    error: str
    clock: Clock


class Workshop(msgspec.Struct, frozen=True):
    """The parts that all agents of a worker share. A few threads start compilers, one waits for
    their ends, a few collect their results."""

    #: ``name`` identifies this process to syncers; ``label`` (HOST:PORT) is for people.
    name: str
    label: str
    #: Where it takes changes of the mirror; 0: nowhere.
    port: int
    trees: Trees
    store: Store
    compilers: InstalledCompilers
    runner: JobRunner
    namespaces: bool
    slots: Slots[Run]
    tally: Tally
    starters: Executor
    watcher: Watcher
    finishers: Executor

    def finish(self) -> None:
        """After the agents have left: wait for the running compilers, then end the threads.

        The starters outlive their compilers: a bubblewrap dies with the thread that started it.
        """
        self.slots.wait_unused()
        self.watcher.close()
        self.starters.shutdown(wait=True)
        self.finishers.shutdown(wait=True)


class Agent:
    """Serves ``syncer``. ``alone``: it is the only one, so its long poll may reserve slots."""

    def __init__(
        self,
        syncer: SyncerLink,
        workshop: Workshop,
        stop: threading.Event,
        *,
        alone: bool,
        timing: AgentTiming | None = None,
    ) -> None:
        self._timing = timing or AgentTiming()
        self._syncer = syncer
        self._shop = workshop
        self._stop = stop
        self._alone = alone
        self._leases = Leases(workshop.name, syncer, self._drop_cancelled, self._timing)
        self._delivery = ResultSender(syncer, self._forget, Pace(workshop.slots.total))
        self._pace = Pace(workshop.slots.total)
        self._position = ("", 0)
        self._life = os.urandom(8).hex()
        self._backoff_s = FIRST_BACKOFF_S
        self._is_off = False
        self._is_full = False
        self._asking = _thread(self._serve, f"agent {syncer.url}")
        self._renewing = _thread(self._leases.keep, f"leases {syncer.url}")

    def start(self) -> None:
        """Start the threads that lease jobs, renew leases and send results."""
        self._asking.start()
        self._renewing.start()
        self._delivery.start()

    def leave(self, timeout_s: float) -> None:
        """After ``stop`` is set: lease no more, return unstarted jobs. Running jobs continue."""
        # First: jobs that are given back by a worker that still takes some count as failed there.
        self._say_farewell()
        self._give_back_waiting()
        self._asking.join(timeout_s)
        self._give_back_waiting()

    def finish(self, timeout_s: float) -> None:
        """After ``leave``, when no job runs any more: send the last results, end the threads."""
        self._delivery.close()
        self._leases.close()
        self._renewing.join(timeout_s)

    def _serve(self) -> None:
        while not self._stop.is_set():
            try:
                self._turn()
                self._backoff_s = FIRST_BACKOFF_S
            except DistBuildError as error:
                # A warning once per outage: the first backoff marks a new outage.
                level = logging.WARNING if self._backoff_s == FIRST_BACKOFF_S else logging.DEBUG
                _log.log(level, "%s", error)
                self._stop.wait(self._backoff_s)
                self._backoff_s = min(2 * self._backoff_s, MAX_BACKOFF_S)

    def _turn(self) -> None:
        """Lease jobs once and start those that have a slot."""
        if self._has_no_room():
            self._stop.wait(self._timing.full_pause_s)
            return
        if not self._alone:
            # This poll reserves no slots: they stay free for the first syncer that has work.
            with self._leases.heartbeat():
                self._shop.slots.wait_free()
            self._accept(self._ask(Offer(), self._timing.lease_wait_s))
        if delay := self._pace.delay():
            self._stop.wait(delay)
        with self._leases.heartbeat():
            offer = self._shop.slots.take()
        runs: list[Run] = []
        try:
            if offer != Offer():
                # A request for jobs ahead only does not wait: a slot may become free meanwhile.
                wait_s = self._timing.lease_wait_s if self._alone and offer.slots else 0.0
                runs = self._accept(self._ask(offer, wait_s))
        finally:
            for run in self._shop.slots.settle(offer, runs):
                self._shop.starters.submit(self._work, run)
        if not self._alone and not runs:
            self._stop.wait(EMPTY_TURN_S)

    def _has_no_room(self) -> bool:
        """Whether the disk is full: then no jobs are leased. Notifies the syncer when it fills."""
        was_full, self._is_full = self._is_full, self._shop.store.is_full()
        if self._is_full and not was_full:
            free = self._shop.store.free_bytes()
            _log.warning("no jobs are taken: the disk is full, %d bytes are free", free)
            self._say_farewell()
        elif was_full and not self._is_full:
            _log.warning("jobs are taken again: the disk has room")
        return self._is_full

    def _ask(self, offer: Offer, wait_s: float) -> LeaseReply:
        epoch, generation = self._position
        reply = self._syncer.lease(
            LeaseRequest(
                worker=self._shop.name,
                slots=offer.slots,
                ahead=offer.ahead,
                wait_s=0.0 if self._stop.is_set() else wait_s,
                toolchains=self._shop.compilers.advertised(),
                epoch=epoch,
                generation=generation,
                namespaces=self._shop.namespaces,
                life=self._life,
                label=self._shop.label,
                port=self._shop.port,
            )
        )
        if len(reply.jobs) > offer.slots + offer.ahead:
            raise ProtocolError(f"{self._syncer.url} gave {len(reply.jobs)} jobs for {offer}")
        if not self._leases.are_new([job.lease_id for job in reply.jobs]):
            raise ProtocolError(f"{self._syncer.url} gave two jobs under one lease")
        return reply

    def _accept(self, reply: LeaseReply) -> list[Run]:
        """Register the leases and bring the tree up to date; returns the jobs, ready for slots."""
        clock = self._compared(reply.clock)
        held = [(job, self._leases.add(job.lease_id)) for job in reply.jobs]
        if self._stop.is_set():
            for job in reply.jobs:
                self._delivery.put(self._shop.runner.failed(job, _STOPPING))
            return []
        tree, error = None, ""
        try:
            tree = self._shop.trees.tree_for(self._syncer.url, reply.client)
            if reply.changes is not None:
                follow(tree, reply.changes, self._syncer, self._shop.store)
            self._position = tree.position()[:2]
        except DistBuildError as failure:
            if not reply.jobs:
                raise
            error = str(failure)
        return [Run(job, ended, tree, reply.epoch, error, clock) for job, ended in held]

    def _compared(self, sent: float) -> Clock:
        off_s = off_by(sent, time.time())
        if off_s and not self._is_off:
            _log.warning("this clock is %+.0f s off that of %s", off_s, self._syncer.url)
        self._is_off = bool(off_s)
        self._shop.tally.clock_off_s = round(off_s, 1)
        return Clock(off_s)

    def _work(self, run: Run) -> None:
        """Run a job that has a slot, up to the start of its compiler."""
        self._shop.tally.started()
        self._go_on(run, self._steps(run), None, has_slot=True)

    def _go_on(self, run: Run, steps: Steps, stopped: str | None, *, has_slot: bool) -> None:
        """Run a job up to its next wait, for its compiler, whose end frees the slot."""
        result = None
        try:
            compiler = next(steps) if stopped is None else steps.send(stopped)
        except StopIteration as end:
            result = end.value
        except Exception as error:  # noqa: BLE001 - after any error the job goes elsewhere
            _log.exception("a job failed")
            result = self._shop.runner.failed(run.job, f"{type(error).__name__}: {error}")
        else:
            self._shop.watcher.watch(
                compiler,
                run.cancellation,
                lambda how: self._ended(run, steps, how, compiler, has_slot=has_slot),
            )
            return
        if has_slot:
            self._hand_on()  # no compiler's end has freed the slot
        self._shop.tally.ended(
            "cancelled" if result is None else "failed" if result.error else "done"
        )
        if result is None:
            self._leases.remove([run.job.lease_id])
        else:
            if result.error:
                self._shop.trees.heal()
            self._delivery.put(result)

    def _ended(
        self, run: Run, steps: Steps, stopped: str, compiler: Running, *, has_slot: bool
    ) -> None:
        """Called by the watcher when a compiler has ended."""
        is_followed = compiler.is_tentative and compiler.has_failed()
        if has_slot and not is_followed:
            self._hand_on()
        has_slot &= is_followed
        self._shop.finishers.submit(self._go_on, run, steps, stopped, has_slot=has_slot)

    def _hand_on(self) -> None:
        following = self._shop.slots.next()
        if following is not None:
            self._shop.starters.submit(self._work, following)

    def _steps(self, run: Run) -> Steps:
        if run.cancellation.is_set():
            return None
        if run.tree is None or run.error:
            return self._shop.runner.failed(run.job, run.error)
        try:
            reach(run.tree, run.epoch, run.job, self._syncer, self._shop.store)
        except DistBuildError as error:
            return self._shop.runner.failed(run.job, str(error))
        return (yield from self._shop.runner.run(run.job, run.tree, run.cancellation, run.clock))

    def _forget(self, results: Sequence[ResultRequest]) -> None:
        self._leases.remove(result.lease_id for result in results)

    def _drop_cancelled(self) -> None:
        """Remove the jobs of ended leases from the line for slots; called by ``Leases``."""
        for run in self._shop.slots.drop(lambda run: run.cancellation.is_set()):
            self._shop.tally.dropped()
            self._leases.remove([run.job.lease_id])

    def _give_back_waiting(self) -> None:
        for run in self._shop.slots.drop(lambda _: True):
            self._delivery.put(self._shop.runner.failed(run.job, _STOPPING))

    def _say_farewell(self) -> None:
        """Offer no slots: the syncer then answers this worker's waiting requests."""
        with contextlib.suppress(DistBuildError):
            self._syncer.lease(LeaseRequest(self._shop.name, 0, 0.0, []))


def _thread(target: Callable[[], None], name: str) -> threading.Thread:
    return threading.Thread(target=target, name=name, daemon=True)
