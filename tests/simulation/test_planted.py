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
from distbuild.worker import agent
from distbuild.worker.agent import Agent
from distbuild.worker.leases import Leases
from distbuild.worker.slots import Slots
from distbuild.worker.tree import blob_file
from distbuild.worker.tree.on_disk import DiskTree
from distbuild.worker.tree.tree import Tree
from tests.simulation.simulated_farm import Broken
from tests.simulation.test_farm import run
from tests.simulation.test_mirror import fresh, run_mirrored

MOST_SEEDS = 2_000
Plant = Callable[[pytest.MonkeyPatch], None]
PLANTS: list[Plant] = []


def plant(function: Plant) -> Plant:
    PLANTS.append(function)
    return function


@plant
def double_lease(patch: pytest.MonkeyPatch) -> None:
    """A job that is queued again keeps its earlier lease, and so has two."""
    move = JobQueue._move

    def wrong(self, job, event):
        lease, number = job.lease, job.number
        move(self, job, event)
        if event is Event.REQUEUE:
            self._leases[lease] = number

    patch.setattr(JobQueue, "_move", wrong)


@plant
def same_job_to_two_workers(patch: pytest.MonkeyPatch) -> None:
    """A leased job stays in the queue."""
    move = JobQueue._move

    def wrong(self, job, event):
        move(self, job, event)
        if event is Event.LEASE and job.tries:
            job.state = State.QUEUED
            self._queued[job.number] = None

    patch.setattr(JobQueue, "_move", wrong)


@plant
def lost_wake_up(patch: pytest.MonkeyPatch) -> None:
    """Who begins to wait just after an event has fired waits for ever."""

    def wrong(self, callback):
        if self._callbacks is not None:
            self._callbacks.append(callback)

    patch.setattr(OneShot, "then", wrong)


@plant
def no_wake_up(patch: pytest.MonkeyPatch) -> None:
    """A job that comes back to the queue wakes nobody."""
    retry = JobQueue.retry
    patch.setattr(JobQueue, "retry", lambda self, *of: retry(self, *of) and [])


@plant
def forgotten_cancel(patch: pytest.MonkeyPatch) -> None:
    """The worker is never told that a lease has ended."""
    renew = JobQueue.renew
    patch.setattr(JobQueue, "renew", lambda self, *of: renew(self, *of) and [])


@plant
def deaf_worker(patch: pytest.MonkeyPatch) -> None:
    """The worker does not cancel what has ended."""
    patch.setattr(Leases, "end", lambda self, leases: None)


@plant
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


@plant
def slot_leak(patch: pytest.MonkeyPatch) -> None:
    """The slot of a job that had no compiler is not handed on."""
    go_on = Agent._go_on

    def wrong(self, run, steps, stopped, *, has_slot):
        go_on(self, run, steps, stopped, has_slot=has_slot and not run.cancellation.is_set())

    patch.setattr(Agent, "_go_on", wrong)


@plant
def offer_leak(patch: pytest.MonkeyPatch) -> None:
    """The slots of an offer are not given back if the request failed."""
    settle = Slots.settle

    def wrong(self, offer, got=()):
        return settle(self, offer, got) if got or offer.slots < 2 else []

    patch.setattr(Slots, "settle", wrong)


@plant
def result_of_another_job(patch: pytest.MonkeyPatch) -> None:
    """A result answers the newest job in place of its own."""

    def wrong(self, result):
        number = self._queue.leased(result.lease_id, result.worker)
        return None if number is None else self._waiting.get(max(self._waiting, default=0))

    patch.setattr(Farm, "_under", wrong)


@plant
def unbounded_retry(patch: pytest.MonkeyPatch) -> None:
    """Tries are not counted."""
    retry = JobQueue.retry

    def wrong(self, lease, *of):
        self._holder(lease).tries = 0
        return retry(self, lease, *of)

    patch.setattr(JobQueue, "retry", wrong)


MIRROR_PLANTS: list[Plant] = []


def plant_in_mirror(function: Plant) -> Plant:
    MIRROR_PLANTS.append(function)
    return function


@plant_in_mirror
def stale_tree(patch: pytest.MonkeyPatch) -> None:
    """A job begins without looking whether its tree is up to date."""
    patch.setattr(agent, "reach", lambda *of: None)


@plant_in_mirror
def generation_skipped(patch: pytest.MonkeyPatch) -> None:
    """The worker takes changes that begin after its own generation."""
    apply = Tree.apply

    def wrong(self, changes):
        if 0 < self.generation < changes.base and changes.epoch == self.epoch:
            self.generation = changes.base
        return apply(self, changes)

    patch.setattr(Tree, "apply", wrong)
    patch.setattr(Summary, "digest", lambda self: bytes(32))


@plant_in_mirror
def generation_too_high(patch: pytest.MonkeyPatch) -> None:
    """The syncer tells less than has changed."""
    since = Manifest.since
    patch.setattr(Manifest, "since", lambda self, after: since(self, after)[after > 0 :])
    patch.setattr(Summary, "digest", lambda self: bytes(32))


@plant_in_mirror
def forgotten_removal(patch: pytest.MonkeyPatch) -> None:
    """A removed file stays on the worker's disk."""
    remove = DiskTree.remove
    patch.setattr(
        DiskTree, "remove", lambda self, path: None if path.endswith(b"x.h") else remove(self, path)
    )


@plant_in_mirror
def wrong_content(patch: pytest.MonkeyPatch) -> None:
    """The store takes what it is sent for what it asked for."""
    patch.setattr(
        blob_file, "_write_hashed", lambda chunks, handle, *of: bool(os.write(handle, b"?"))
    )


# Requests that a broken run leaves open may fail when they are closed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.in_turn("planted", of=4)
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
        except (Broken, Exception) as error:  # noqa: BLE001 - also what the code itself refuses
            print(f"seed {seed}: {type(error).__name__}: {error}")
            return


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.in_turn("planted", of=5)
@pytest.mark.parametrize("planted", MIRROR_PLANTS, ids=lambda planted: planted.__name__)
def test_a_planted_bug_of_the_mirror_is_found(
    monkeypatch: pytest.MonkeyPatch, planted: Callable[[pytest.MonkeyPatch], None], top: Path
) -> None:
    planted(monkeypatch)
    is_found_by(lambda seed: run_mirrored(seed, fresh(top)), monkeypatch)
