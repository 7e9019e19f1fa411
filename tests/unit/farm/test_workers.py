"""What the farm remembers of each worker."""

import itertools
import logging

import pytest

from distbuild.farm import workers
from distbuild.farm.jobs import Worker
from distbuild.farm.workers import (
    FIRST_PAUSE_S,
    MAX_FAILURES,
    MAX_PAUSE_S,
    Health,
    RefusedResults,
)


def test_refusals_are_counted_and_only_the_first_is_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    health = Health()
    with caplog.at_level(logging.INFO):
        health.refuse("w1", "one:8443", "first")
        health.refuse("w1", "one:8443", "second")
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert health.refused() == {"w1": RefusedResults("one:8443", 2, "second")}


def test_the_worker_that_was_refused_longest_ago_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workers, "MAX_WORKERS", 2)
    health = Health()
    for worker in ("a", "b", "a", "c"):
        health.refuse(worker, worker, "why")
        health.fail(Worker(worker, frozenset(), True, 0.0), 1, "why", 0.0)
    assert list(health.refused()) == ["a", "c"]
    assert list(health._failures) == ["a", "c"]


ONE = Worker("w1", frozenset(), True, 0.0, "one:8443")
jobs = itertools.count(1)


def fail(health: Health, now: float, count: int = 1) -> bool:
    """Whether the last of so many jobs' failures pauses the worker."""
    return [health.fail(ONE, next(jobs), "disk full", now) for _ in range(count)][-1]


def test_one_job_that_always_fails_pauses_no_worker() -> None:
    health = Health()
    assert not any(health.fail(ONE, 1, "odd", 0.0) for _ in range(100))


def test_some_failures_in_a_row_pause_a_worker() -> None:
    health = Health()
    assert not fail(health, 1.0, MAX_FAILURES - 1)
    assert health.paused_until("w1") == 0.0
    assert health.why("w1") == ""
    assert fail(health, 1.0)
    assert health.paused_until("w1") == 1.0 + FIRST_PAUSE_S
    assert health.why("w1") == "disk full"
    assert health.paused_until("w2") == 0.0


def test_a_result_between_failures_starts_the_count_again() -> None:
    health = Health()
    for _ in range(3):
        assert not fail(health, 1.0, MAX_FAILURES - 1)
        assert not health.succeed("w1")
    assert not health.is_on_trial("w1")


def test_jobs_from_before_a_pause_do_not_prolong_it() -> None:
    health = Health()
    fail(health, 1.0, MAX_FAILURES)
    assert not fail(health, 1.5, 30)
    assert health.paused_until("w1") == 1.0 + FIRST_PAUSE_S


def test_each_failure_on_trial_is_a_longer_pause_up_to_a_limit() -> None:
    health, now = Health(), 0.0
    fail(health, now, MAX_FAILURES - 1)
    pauses = []
    for _ in range(8):
        assert fail(health, now)
        pauses.append(health.paused_until("w1") - now)
        now = health.paused_until("w1")
        assert health.is_on_trial("w1")
    assert pauses == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    assert (FIRST_PAUSE_S, MAX_PAUSE_S) == (2.0, 60.0)


def test_a_result_ends_the_trial() -> None:
    health = Health()
    fail(health, 0.0, MAX_FAILURES)
    assert health.succeed("w1")
    assert not health.succeed("w1")
    assert not health.is_on_trial("w1")
    assert health.why("w1") == ""
    assert not fail(health, 9.0, MAX_FAILURES - 1)


def test_a_poll_is_looked_at_when_the_pause_ends() -> None:
    health = Health()
    assert health.next_look("w1", 0.0, 10.0) == 10.0
    fail(health, 0.0, MAX_FAILURES)
    assert health.next_look("w1", 1.0, 10.0) == FIRST_PAUSE_S
    assert health.next_look("w1", 1.0, 1.5) == 1.5
    assert health.next_look("w1", FIRST_PAUSE_S, 10.0) == 10.0
