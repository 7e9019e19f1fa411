"""Slots for local commands, and jobs that idle slots take from the farm's queue."""

import pytest

from distbuild.command.model import Local, LocalReason
from distbuild.farm.farm import Farm
from distbuild.farm.local_slots import LocalSlots, Relief
from tests.support.cluster import wait_until
from tests.support.tasks import asking, leased, run, task


def test_a_free_slot_is_taken_at_once() -> None:
    slots = LocalSlots(2)
    assert list(slots.acquire()) == []
    assert slots.counts() == {"slots": 2, "running": 1, "waiting": 0}


def test_the_others_wait_in_the_order_of_their_arrival() -> None:
    slots = LocalSlots(1)
    run(slots.acquire())
    waiting = [slots.acquire() for _ in range(2)]
    turns = [next(steps) for steps in waiting]
    slots.release()
    assert [turn.is_set() for turn in turns] == [True, False]
    slots.release()
    assert [turn.is_set() for turn in turns] == [True, True]
    assert slots.idle() == 0


def test_a_caller_that_goes_away_gives_up_its_turn() -> None:
    slots = LocalSlots(1)
    run(slots.acquire())
    gone, stays = slots.acquire(), slots.acquire()
    next(gone)
    turn = next(stays)
    gone.close()
    slots.release()
    assert turn.is_set()


def test_a_slot_that_was_granted_to_a_caller_that_goes_away_is_passed_on() -> None:
    slots = LocalSlots(1)
    run(slots.acquire())
    gone = slots.acquire()
    next(gone)
    slots.release()
    gone.close()
    assert slots.idle() == 1


def test_idle_slots_take_what_has_waited() -> None:
    farm, slots = Farm(expected=False), LocalSlots(1)
    leased(farm, asking("w", slots=0))  # a worker that takes nothing keeps the job in the queue
    relief = Relief(farm, slots, 0.01)
    relief.start()
    try:
        outcome = run(farm.execute(task()))
        assert isinstance(outcome, Local)
        assert outcome.reason is LocalReason.FARM_FULL
    finally:
        relief.stop()
        farm.stop()


def test_slots_that_are_all_taken_take_nothing() -> None:
    farm, slots = Farm(expected=False), LocalSlots(1)
    leased(farm, asking("w", slots=0))
    run(slots.acquire())
    job = farm.execute(task())
    next(job)
    relief = Relief(farm, slots, 0.01)
    relief.start()
    try:
        with pytest.raises(AssertionError, match="taken"):
            wait_until(lambda: farm.counts()["queued"] == 0, "taken", timeout=0.1)
    finally:
        relief.stop()
        job.close()
        farm.stop()
