"""The simulation finds what it is for: each planted bug breaks a run within 2,000 seeds."""

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from distbuild.farm.farm import Farm
from distbuild.farm.jobs import Event, State
from distbuild.farm.queue import JobQueue
from distbuild.mirror.manifest import Manifest, Summary
from distbuild.one_shot import OneShot
from distbuild.protocol.errors import IllegalTransition
from distbuild.push.pusher import Pusher
from distbuild.worker import agent
from distbuild.worker.agent import Agent
from distbuild.worker.leases import Leases
from distbuild.worker.slots import Slots
from distbuild.worker.tree import blob_file, next_state, tree
from distbuild.worker.tree.on_disk import DiskTree
from distbuild.worker.tree.tree import Tree
from tests.simulation.simulated_farm import Broken
from tests.simulation.test_farm import run
from tests.simulation.test_mirror import fresh, run_mirrored

MOST_SEEDS = 2_000
#: What says that a bug was found: what is looked at from outside, a run without an end, and what
#: the code refuses by itself. Any other error is one of the plant.
FOUND = (Broken, AssertionError, IllegalTransition)
Plant = Callable[[pytest.MonkeyPatch], None]
PLANTS: list[Plant] = []
MIRROR_PLANTS: list[Plant] = []


def plant(among: list[Plant]) -> Callable[[Plant], Plant]:
    """List a function that plants a bug."""

    def listed(function: Plant) -> Plant:
        among.append(function)
        return function

    return listed


@plant(PLANTS)
def double_lease(patch: pytest.MonkeyPatch) -> None:
    """An earlier lease of a job counts as well as its present one."""
    given: dict[str, tuple[int, str]] = {}
    assign, leased = JobQueue._assign, JobQueue.leased

    def remembering(self, job, worker, now):
        assigned = assign(self, job, worker, now)
        given[job.lease] = job.number, worker.name
        return assigned

    def wrong(self, lease, worker):
        number, owner = given.get(lease, (0, ""))
        job = self._jobs.get(number)
        if owner != worker or job is None or not job.lease:
            return leased(self, lease, worker)
        return number

    patch.setattr(JobQueue, "_assign", remembering)
    patch.setattr(JobQueue, "leased", wrong)


@plant(PLANTS)
def same_job_to_two_workers(patch: pytest.MonkeyPatch) -> None:
    """A leased job stays in the queue."""
    move = JobQueue._move

    def wrong(self, job, event):
        move(self, job, event)
        if event is Event.LEASE and job.tries:
            job.state = State.QUEUED
            self._queued[job.number] = None

    patch.setattr(JobQueue, "_move", wrong)


@plant(PLANTS)
def lost_wake_up(patch: pytest.MonkeyPatch) -> None:
    """Who begins to wait just after an event has fired waits for ever."""

    def wrong(self, callback):
        if self._callbacks is not None:
            self._callbacks.append(callback)

    patch.setattr(OneShot, "then", wrong)


@plant(PLANTS)
def no_wake_up(patch: pytest.MonkeyPatch) -> None:
    """A job that comes back to the queue wakes nobody."""
    retry = JobQueue.retry
    patch.setattr(JobQueue, "retry", lambda self, *of: retry(self, *of) and [])


@plant(PLANTS)
def forgotten_cancel(patch: pytest.MonkeyPatch) -> None:
    """The worker is never told that a lease has ended."""
    renew = JobQueue.renew
    patch.setattr(JobQueue, "renew", lambda self, *of: renew(self, *of) and [])


@plant(PLANTS)
def deaf_worker(patch: pytest.MonkeyPatch) -> None:
    """The worker does not cancel what has ended."""
    patch.setattr(Leases, "end", lambda self, leases: None)


@plant(PLANTS)
def lease_of_a_dead_worker(patch: pytest.MonkeyPatch) -> None:
    """A lease that ran out is not ended."""
    tick = JobQueue.tick

    def wrong(self, now):
        deadlines = {number: job.deadline for number, job in self._jobs.items()}
        for job in self._jobs.values():
            job.deadline = max(job.deadline, now)
        actions = tick(self, now)
        for number, job in self._jobs.items():
            job.deadline = deadlines[number]
        return actions

    patch.setattr(JobQueue, "tick", wrong)


@plant(PLANTS)
def slot_leak(patch: pytest.MonkeyPatch) -> None:
    """The slot of a job that had no compiler is not handed on."""
    go_on = Agent._go_on

    def wrong(self, run, steps, stopped, *, has_slot):
        go_on(self, run, steps, stopped, has_slot=has_slot and not run.cancellation.is_set())

    patch.setattr(Agent, "_go_on", wrong)


@plant(PLANTS)
def offer_leak(patch: pytest.MonkeyPatch) -> None:
    """The slots of an offer are not given back if the request failed."""
    settle = Slots.settle

    def wrong(self, offer, got=()):
        return settle(self, offer, got) if got or offer.slots < 2 else []

    patch.setattr(Slots, "settle", wrong)


@plant(PLANTS)
def result_of_another_job(patch: pytest.MonkeyPatch) -> None:
    """A result answers the newest job in place of its own."""

    def wrong(self, result):
        number = self._queue.leased(result.lease_id, result.worker)
        return None if number is None else self._waiting.get(max(self._waiting, default=0))

    patch.setattr(Farm, "_under", wrong)


@plant(PLANTS)
def unbounded_retry(patch: pytest.MonkeyPatch) -> None:
    """Tries are not counted."""
    retry = JobQueue.retry

    def wrong(self, lease, *of):
        self._holder(lease).tries = 0
        return retry(self, lease, *of)

    patch.setattr(JobQueue, "retry", wrong)


@plant(MIRROR_PLANTS)
def stale_tree(patch: pytest.MonkeyPatch) -> None:
    """A job begins without looking whether its tree is up to date."""
    patch.setattr(agent, "reach", lambda *of: None)


def believe_summaries(patch: pytest.MonkeyPatch) -> None:
    """A worker takes changes without comparing its tree with their summary, which shows by itself
    that some are missing. Offers without entries are compared."""
    compute = next_state.next_summary
    believed: list[bytes] = [b""]

    class Believed(Summary):
        def digest(self) -> bytes:
            return believed[0]

    def summary_of(summary, old, wanted, touched):
        right = compute(summary, old, wanted, touched)
        right.__class__ = Believed
        return right

    apply = Tree.apply

    def wrong(self, changes):
        believed[0] = changes.summary
        try:
            return apply(self, changes)
        finally:
            self._summary.__class__ = Summary

    patch.setattr(tree, "next_summary", summary_of)
    patch.setattr(Tree, "apply", wrong)


@plant(MIRROR_PLANTS)
def generation_skipped(patch: pytest.MonkeyPatch) -> None:
    """The syncer counts changes as sent that came during a push, and the worker takes those that
    begin after its own generation."""
    believe_summaries(patch)
    apply, send = Tree.apply, Pusher._send

    def skipping(self, changes):
        is_applied = send(self, changes)
        if is_applied:
            self.generation = self._mirroring.manifest.generation
        return is_applied

    def wrong(self, changes):
        if changes.epoch == self.epoch:
            self.generation = max(self.generation, changes.base)
        return apply(self, changes)

    patch.setattr(Pusher, "_send", skipping)
    patch.setattr(Tree, "apply", wrong)


@plant(MIRROR_PLANTS)
def changes_left_out(patch: pytest.MonkeyPatch) -> None:
    """The syncer tells less than has changed."""
    believe_summaries(patch)
    since = Manifest.since
    patch.setattr(Manifest, "since", lambda self, after: since(self, after)[after > 0 :])


@plant(MIRROR_PLANTS)
def forgotten_removal(patch: pytest.MonkeyPatch) -> None:
    """A removed file stays on the worker's disk."""
    remove = DiskTree.remove
    patch.setattr(
        DiskTree, "remove", lambda self, path: None if path.endswith(b"x.h") else remove(self, path)
    )


@plant(MIRROR_PLANTS)
def wrong_content(patch: pytest.MonkeyPatch) -> None:
    """The store takes what it is sent for what it asked for."""
    patch.setattr(
        blob_file, "_write_hashed", lambda chunks, handle, *of: bool(os.write(handle, b"?"))
    )


# Requests that a broken run leaves open may fail when they are closed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("planted", PLANTS, ids=lambda planted: planted.__name__)
def test_a_planted_bug_is_found(
    monkeypatch: pytest.MonkeyPatch, planted: Callable[[pytest.MonkeyPatch], None]
) -> None:
    planted(monkeypatch)
    is_found_by(run, monkeypatch)


def is_found_by(run_one: Callable[[int], object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("logging.Logger.isEnabledFor", lambda *_: False)
    for seed in itertools.count():
        assert seed < MOST_SEEDS, "not found"
        try:
            run_one(seed)
        except FOUND as error:
            print(f"seed {seed}: {type(error).__name__}: {error}")
            return


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("planted", MIRROR_PLANTS, ids=lambda planted: planted.__name__)
def test_a_planted_bug_of_the_mirror_is_found(
    monkeypatch: pytest.MonkeyPatch, planted: Callable[[pytest.MonkeyPatch], None], top: Path
) -> None:
    planted(monkeypatch)
    is_found_by(lambda seed: run_mirrored(seed, fresh(top)), monkeypatch)


def test_without_a_bug_the_summaries_may_be_believed(
    monkeypatch: pytest.MonkeyPatch, top: Path
) -> None:
    """What is found with the plants above is theirs."""
    believe_summaries(monkeypatch)
    for seed in range(10):
        run_mirrored(seed, fresh(top))
