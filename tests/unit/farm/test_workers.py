"""What the farm remembers of each worker."""

import itertools
import logging

import pytest

from distbuild.farm.jobs import Need, QueuedJob, Worker
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


def test_the_worker_that_was_refused_longest_ago_is_forgotten() -> None:
    health = Health(2)
    for worker in ("a", "b", "a", "c"):
        health.refuse(worker, worker, "why")
        health.fail(Worker(worker, frozenset(), True, 0.0), job(0.0), "why", 0.0)
    assert list(health.refused()) == ["a", "c"]
    assert list(health._failures) == ["a", "c"]


ONE = Worker("w1", frozenset(), True, 0.0, "one:8443")
numbers = itertools.count(1)


def job(leased: float, number: int = 0, avoided: frozenset[str] = frozenset()) -> QueuedJob:
    return QueuedJob(
        number or next(numbers), Need("gcc"), worker="w1", leased=leased, avoided=avoided
    )


def fail(health: Health, now: float) -> Worker | None:
    """A job fails that was leased a moment before."""
    return health.fail(ONE, job(now - 0.1), "disk full", now)


def paused(health: Health, now: float = 3.0) -> Worker:
    """The worker after so many failures that the last one pauses it, at ``now``."""
    for before in range(MAX_FAILURES - 1, 0, -1):
        assert fail(health, now - before) is None
    found = fail(health, now)
    assert found is not None
    return found


def test_some_failures_in_a_row_pause_a_worker() -> None:
    health = Health()
    assert health.why("w1") == ""
    found = paused(health, 3.0)
    assert (found.paused_until, found.failing_until) == (3.0 + FIRST_PAUSE_S, 0.0)
    assert health.judged(ONE) == found
    assert health.why("w1") == "disk full"
    other = Worker("w2", frozenset(), True, 0.0)
    assert health.judged(other) == other


def test_one_job_that_always_fails_pauses_no_worker() -> None:
    health = Health()
    assert not any(health.fail(ONE, job(now, 7), "odd", now + 0.1) for now in range(100))


def test_a_job_that_failed_elsewhere_counts_against_nobody() -> None:
    health = Health()
    elsewhere = frozenset({"w2"})
    assert not any(
        health.fail(ONE, job(now, avoided=elsewhere), "odd", now + 0.1) for now in range(100)
    )


def test_all_jobs_that_one_moment_fails_count_once() -> None:
    health = Health()
    for _ in range(100):
        assert health.fail(ONE, job(0.5), "no network", 1.0) is None
    assert fail(health, 2.0) is None
    assert fail(health, 3.0) is not None


def test_a_result_between_failures_starts_the_count_again() -> None:
    health = Health()
    for round_ in range(3):
        for number in range(MAX_FAILURES - 1):
            assert fail(health, 10.0 * round_ + number) is None
        assert not health.succeed("w1")


def test_jobs_from_before_a_pause_do_not_prolong_it() -> None:
    health = Health()
    found = paused(health, 3.0)
    for _ in range(30):
        assert health.fail(ONE, job(2.9), "disk full", 3.5) is None
    assert health.judged(ONE) == found


def test_each_further_failure_is_a_longer_pause_that_no_job_waits_for() -> None:
    health = Health()
    found = paused(health)
    pauses = [found.paused_until - 3.0]
    for _ in range(7):
        now = found.paused_until + 0.2
        again = fail(health, now)
        assert again is not None
        found = again
        assert found.failing_until == found.paused_until
        pauses.append(round(found.paused_until - now, 6))
    assert pauses == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    assert (FIRST_PAUSE_S, MAX_PAUSE_S) == (2.0, 60.0)


def test_a_result_ends_it() -> None:
    health = Health()
    paused(health)
    assert health.succeed("w1")
    assert not health.succeed("w1")
    assert health.judged(ONE) == ONE
    assert health.why("w1") == ""
    assert fail(health, 9.0) is None
