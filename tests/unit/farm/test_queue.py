"""Sequences of events and the exact actions that come back."""

from collections.abc import Callable

import pytest

from distbuild.command.model import LocalReason
from distbuild.farm.jobs import (
    MAX_KNOWN,
    MIN_LIMIT_S,
    Action,
    Assign,
    CompileLocally,
    Durations,
    EndLease,
    Need,
    Wake,
    Worker,
)
from distbuild.farm.queue import (
    BACK_S,
    FORGET_S,
    GONE_S,
    JOB_TIMEOUT_S,
    LEASE_S,
    MAX_TRIES,
    WORKER_S,
    JobQueue,
)
from distbuild.protocol.errors import IllegalTransition
from tests.support.queues import inconsistencies

GCC = Need("gcc")
IN_NAMESPACE = Need("gcc", namespaces=True)
CLANG = Need("clang")
LOST = LocalReason.LEASES_LOST

Step = tuple[Callable[[JobQueue], object], object]


def worker(name: str, heard: float = 0.0, *, toolchain: str = "gcc", ns: bool = True) -> Worker:
    return Worker(name, frozenset({toolchain}), ns, heard)


def queue_with(*workers: Worker) -> JobQueue:
    queue = JobQueue()
    for each in workers:
        assert queue.heard(each) == []
    return queue


def submit(need: Need, now: float = 0.0) -> Callable[[JobQueue], tuple[int, list[Action]]]:
    return lambda queue: queue.submit(need, now)


def lease(name: str, slots: int = 1, now: float = 0.0) -> Callable[[JobQueue], list[Action]]:
    return lambda queue: queue.lease(name, slots, now)


def retry(lease_id: str, now: float = 0.0) -> Callable[[JobQueue], list[Action]]:
    return lambda queue: queue.retry(lease_id, LOST, "why", now)


def finish(lease_id: str) -> Callable[[JobQueue], list[Action]]:
    return lambda queue: queue.finish(lease_id)


def cancel(number: int) -> Callable[[JobQueue], list[Action]]:
    return lambda queue: queue.cancel(number)


def tick(now: float) -> Callable[[JobQueue], list[Action]]:
    return lambda queue: queue.tick(now)


def renew(name: str, leases: list[str], now: float = 0.0) -> Callable[[JobQueue], list[str]]:
    return lambda queue: queue.renew(name, leases, now)


def leave(name: str, now: float = 0.0) -> Callable[[JobQueue], list[Action]]:
    return lambda queue: queue.leave(name, now)


def lost(name: str, now: float = 0.0) -> Callable[[JobQueue], list[Action]]:
    return lambda queue: queue.lost(name, now)


def renewed(name: str, lease_id: str, begin: float, end: float) -> list[Step]:
    """As a worker does while its compiler runs; all others are heard, too."""
    times = [begin + LEASE_S * n for n in range(1, int((end - begin) / LEASE_S) + 1)]
    steps: list[Step] = []
    for now in times:
        steps += [(renew(who, [lease_id] if who == name else [], now), []) for who in ("w1", "w2")]
        steps.append((tick(now), []))
    return steps


def ended(lease_id: str, now: float, *, usable: bool = True) -> Callable[[JobQueue], None]:
    return lambda queue: queue.ended(lease_id, now, usable=usable)


ONE, TWO = (worker("w1"),), (worker("w1"), worker("w2"))
SEQUENCES: dict[str, tuple[tuple[Worker, ...], list[Step]]] = {
    "a job runs through": (
        ONE,
        [
            (submit(GCC), (1, [Wake(("w1",))])),
            (lease("w1"), [Assign(1, "w1", "1.1")]),
            (finish("1.1"), []),
            (lease("w1"), []),
        ],
    ),
    "without a worker a job is local at once": (
        (),
        [(submit(GCC), (1, [CompileLocally(1, LocalReason.NO_WORKER, "gcc")]))],
    ),
    "without its compiler a job is local at once": (
        ONE,
        [(submit(CLANG), (1, [CompileLocally(1, LocalReason.NO_TOOLCHAIN, "clang")]))],
    ),
    "without namespaces a job that needs them is local at once": (
        (worker("w1", ns=False),),
        [(submit(IN_NAMESPACE), (1, [CompileLocally(1, LocalReason.NO_NAMESPACE, "gcc")]))],
    ),
    "a silent worker counts as none": (
        ONE,
        [
            (submit(GCC, WORKER_S), (1, [Wake(("w1",))])),
            (submit(GCC, WORKER_S + 1), (2, [CompileLocally(2, LocalReason.NO_WORKER, "gcc")])),
        ],
    ),
    "only those that fit are woken and served": (
        (worker("w1", ns=False), worker("w2"), worker("w3", toolchain="clang")),
        [
            (submit(IN_NAMESPACE), (1, [Wake(("w2",))])),
            (submit(CLANG), (2, [Wake(("w3",))])),
            (lease("w1", 4), []),
            (lease("w3", 4), [Assign(2, "w3", "2.1")]),
            (lease("w2", 4), [Assign(1, "w2", "1.2")]),
        ],
    ),
    "the oldest first and never more than there are slots": (
        ONE,
        [
            (submit(GCC), (1, [Wake(("w1",))])),
            (submit(GCC), (2, [Wake(("w1",))])),
            (submit(GCC), (3, [Wake(("w1",))])),
            (lease("w1", 0), []),
            (lease("w1", 2), [Assign(1, "w1", "1.1"), Assign(2, "w1", "2.2")]),
            (lease("w1", 2), [Assign(3, "w1", "3.3")]),
        ],
    ),
    "what takes too long goes elsewhere once, and then to the dev box": (
        TWO,
        [
            (submit(GCC), (1, [Wake(("w1", "w2"))])),
            (lease("w1"), [Assign(1, "w1", "1.1")]),
            *renewed("w1", "1.1", 0.0, JOB_TIMEOUT_S),
            (tick(JOB_TIMEOUT_S), []),
            (tick(JOB_TIMEOUT_S + 1), [EndLease("w1", "1.1"), Wake(("w2",))]),
            (renew("w1", ["1.1"], JOB_TIMEOUT_S + 1), ["1.1"]),
            (lease("w1", 1, JOB_TIMEOUT_S + 1), []),
            (lease("w2", 1, JOB_TIMEOUT_S + 1), [Assign(1, "w2", "1.2")]),
            *renewed("w2", "1.2", JOB_TIMEOUT_S + 1, 2 * JOB_TIMEOUT_S + 1),
            (
                tick(2 * JOB_TIMEOUT_S + 2),
                [
                    EndLease("w2", "1.2"),
                    CompileLocally(1, LOST, "w2 took longer than 1200 s"),
                ],
            ),
        ],
    ),
    "what takes too long has nowhere to go but to the dev box": (
        ONE,
        [
            (submit(GCC), (1, [Wake(("w1",))])),
            (lease("w1"), [Assign(1, "w1", "1.1")]),
            *renewed("w1", "1.1", 0.0, JOB_TIMEOUT_S),
            (
                tick(JOB_TIMEOUT_S + 1),
                [EndLease("w1", "1.1"), CompileLocally(1, LOST, "w1 took longer than 1200 s")],
            ),
        ],
    ),
    "a failed job goes elsewhere, and before younger ones": (
        TWO,
        [
            (submit(GCC), (1, [Wake(("w1", "w2"))])),
            (lease("w1"), [Assign(1, "w1", "1.1")]),
            (submit(GCC), (2, [Wake(("w1", "w2"))])),
            (retry("1.1"), [Wake(("w2",))]),
            (lease("w1"), [Assign(2, "w1", "2.2")]),
            (lease("w1"), []),
            (lease("w2"), [Assign(1, "w2", "1.3")]),
        ],
    ),
    "the only worker gets a job that it failed again": (
        ONE,
        [
            (submit(GCC), (1, [Wake(("w1",))])),
            (lease("w1"), [Assign(1, "w1", "1.1")]),
            (retry("1.1"), [Wake(("w1",))]),
            (lease("w1"), [Assign(1, "w1", "1.2")]),
        ],
    ),
    "after three tries a job is local": (
        ONE,
        [
            (submit(GCC), (1, [Wake(("w1",))])),
            (lease("w1"), [Assign(1, "w1", "1.1")]),
            (retry("1.1"), [Wake(("w1",))]),
            (lease("w1"), [Assign(1, "w1", "1.2")]),
            (retry("1.2"), [Wake(("w1",))]),
            (lease("w1"), [Assign(1, "w1", "1.3")]),
            (retry("1.3"), [CompileLocally(1, LOST, "why")]),
            (lease("w1"), []),
        ],
    ),
    "a renewed lease lives on and a silent one is lost": (
        TWO,
        [
            (submit(GCC), (1, [Wake(("w1", "w2"))])),
            (submit(GCC), (2, [Wake(("w1", "w2"))])),
            (lease("w1", 2), [Assign(1, "w1", "1.1"), Assign(2, "w1", "2.2")]),
            (renew("w1", ["1.1"], 10.0), []),
            (renew("w2", ["1.1", "9.9"], 10.0), ["1.1", "9.9"]),
            (tick(LEASE_S), []),
            (tick(LEASE_S + 1), [EndLease("w1", "2.2"), Wake(("w2",))]),
            (renew("w1", ["1.1", "2.2"], LEASE_S + 1), ["2.2"]),
        ],
    ),
    "a job whose last worker fell silent is local": (
        ONE,
        [
            (submit(GCC), (1, [Wake(("w1",))])),
            (submit(GCC), (2, [Wake(("w1",))])),
            (lease("w1"), [Assign(1, "w1", "1.1")]),
            (
                tick(WORKER_S + 1),
                [
                    EndLease("w1", "1.1"),
                    CompileLocally(1, LocalReason.NO_WORKER, "w1 fell silent"),
                    CompileLocally(2, LocalReason.NO_WORKER, "gcc"),
                ],
            ),
        ],
    ),
    "cancelling ends a lease, and twice is once": (
        ONE,
        [
            (submit(GCC), (1, [Wake(("w1",))])),
            (submit(GCC), (2, [Wake(("w1",))])),
            (lease("w1"), [Assign(1, "w1", "1.1")]),
            (cancel(1), [EndLease("w1", "1.1")]),
            (cancel(1), []),
            (cancel(2), []),
            (renew("w1", ["1.1"]), ["1.1"]),
            (lease("w1"), []),
        ],
    ),
    "jobs of a worker that went go to another": (
        TWO,
        [
            (submit(GCC), (1, [Wake(("w1", "w2"))])),
            (lease("w1"), [Assign(1, "w1", "1.1")]),
            (lost("w1"), [Wake(("w2",))]),
            (lease("w2"), [Assign(1, "w2", "1.2")]),
        ],
    ),
    "who failed a job is woken when the better worker went": (
        TWO,
        [
            (submit(GCC), (1, [Wake(("w1", "w2"))])),
            (lease("w1"), [Assign(1, "w1", "1.1")]),
            (retry("1.1"), [Wake(("w2",))]),
            (lease("w1"), []),
            (lost("w2"), [Wake(("w1",))]),
            (lease("w1"), [Assign(1, "w1", "1.2")]),
        ],
    ),
    "a worker that leaves finishes what it has and gets no more": (
        TWO,
        [
            (submit(GCC), (1, [Wake(("w1", "w2"))])),
            (submit(GCC), (2, [Wake(("w1", "w2"))])),
            (lease("w1"), [Assign(1, "w1", "1.1")]),
            (leave("w1"), []),
            (renew("w1", ["1.1"]), []),
            (leave("w2"), [CompileLocally(2, LocalReason.NO_WORKER, "gcc")]),
            (finish("1.1"), []),
        ],
    ),
    "who failed a job is woken when the better worker leaves": (
        TWO,
        [
            (submit(GCC), (1, [Wake(("w1", "w2"))])),
            (lease("w1"), [Assign(1, "w1", "1.1")]),
            (retry("1.1"), [Wake(("w2",))]),
            (leave("w2"), [Wake(("w1",))]),
            (lease("w1"), [Assign(1, "w1", "1.2")]),
        ],
    ),
    "who failed a job is woken when the better worker fell silent": (
        (worker("w1", 10.0), worker("w2")),
        [
            (submit(GCC, 10.0), (1, [Wake(("w1", "w2"))])),
            (lease("w1", 1, 10.0), [Assign(1, "w1", "1.1")]),
            (retry("1.1", 10.0), [Wake(("w2",))]),
            (lease("w1", 1, 10.0), []),
            (tick(WORKER_S), []),
            (tick(WORKER_S + 1), [Wake(("w1",))]),
            (lease("w1", 1, WORKER_S + 1), [Assign(1, "w1", "1.2")]),
        ],
    ),
}


@pytest.mark.parametrize("sequence", SEQUENCES.values(), ids=SEQUENCES.keys())
def test_events_give_exactly_these_actions(
    sequence: tuple[tuple[Worker, ...], list[Step]],
) -> None:
    workers, steps = sequence
    queue = queue_with(*workers)
    given = [event(queue) for event, _ in steps]
    assert given == [expected for _, expected in steps]
    assert inconsistencies(queue) == []


@pytest.mark.parametrize("event", [finish("1.1"), retry("1.1")])
def test_late_result_of_a_lost_lease_is_refused_and_changes_nothing(
    event: Callable[[JobQueue], object],
) -> None:
    queue = queue_with(worker("w1"), worker("w2"))
    queue.submit(GCC, 0.0)
    queue.lease("w1", 1, 0.0)
    queue.lost("w1", 0.0)
    before = repr(queue), repr(queue.job(1))
    with pytest.raises(IllegalTransition):
        event(queue)
    assert (repr(queue), repr(queue.job(1))) == before
    assert queue.lease("w2", 1, 0.0) == [Assign(1, "w2", "1.2")]


def test_lease_by_an_unknown_worker_is_refused() -> None:
    queue = queue_with(worker("w1"))
    queue.submit(GCC, 0.0)
    with pytest.raises(IllegalTransition):
        queue.lease("w2", 1, 0.0)
    assert queue.queued() == 1


def test_leases_of_another_run_of_the_syncer_are_not_taken_for_ours() -> None:
    runs = [JobQueue(salt="a".lower), JobQueue(salt="b".lower)]
    leases: set[str] = set()
    for queue in runs:
        queue.heard(worker("w1"))
        queue.submit(GCC, 0.0)
        leases.update(a.lease for a in queue.lease("w1", 1, 0.0) if isinstance(a, Assign))
    assert leases == {"a1.1", "b1.1"}


def test_retried_counts_the_tries_that_follow() -> None:
    queue = queue_with(worker("w1"))
    for _ in range(2):
        queue.submit(GCC, 0.0)
    for number in range(MAX_TRIES):
        queue.lease("w1", 1, 0.0)
        queue.retry(f"1.{number + 1}", LOST, "", 0.0)
    assert queue.counters.retried == MAX_TRIES - 1
    queue.lease("w1", 1, 0.0)
    queue.lost("w1", 0.0)
    assert queue.counters.retried == MAX_TRIES - 1
    assert repr(queue) == "<JobQueue queued=0 running=0 done=0>"


def test_a_worker_that_is_silent_for_long_is_forgotten() -> None:
    queue = queue_with(worker("w1"), worker("w2", 1.0))
    assert queue.tick(FORGET_S) == []
    assert queue.workers.keys() == {"w1", "w2"}
    assert queue.tick(FORGET_S + 1.0) == []
    assert queue.workers.keys() == {"w2"}


def test_a_lease_is_only_its_worker_s() -> None:
    queue = queue_with(worker("w1"), worker("w2"))
    queue.submit(GCC, 0.0)
    [assigned] = queue.lease("w1", 1, 0.0)
    assert isinstance(assigned, Assign)
    assert queue.leased(assigned.lease, "w1") == 1
    assert queue.leased(assigned.lease, "w2") is None
    assert queue.renew("w2", [assigned.lease], 1.0) == [assigned.lease]


# --- how long a job may run -----------------------------------------------------------------


def run_once(queue: JobQueue, name: int, took: float, now: float, *, usable: bool = True) -> None:
    """A job that w1 has for so long; it ends well."""
    number, _ = queue.submit(GCC, now, name)
    assert [type(action) for action in queue.lease("w1", 1, now)] == [Assign]
    job = queue.job(number)
    assert job is not None
    queue.ended(job.lease, now + took, usable=usable)
    queue.finish(job.lease)


@pytest.mark.parametrize(
    ("took", "limit"), [(0.1, MIN_LIMIT_S), (7.0, 70.0), (119.0, 1190.0), (300.0, JOB_TIMEOUT_S)]
)
def test_a_known_job_may_take_ten_times_as_long_as_before(took: float, limit: float) -> None:
    queue = queue_with(*ONE)
    run_once(queue, 7, took, 0.0)
    number, _ = queue.submit(GCC, 0.0, 7)
    queue.lease("w1", 1, 0.0)
    job = queue.job(number)
    assert job is not None
    assert (job.limit, job.ends) == (limit, limit)
    assert queue.due(0.0) == min(LEASE_S, limit)
    job.deadline = limit
    assert queue.due(0.0) == min(limit, FORGET_S)


@pytest.mark.parametrize("name", [0, 8])
def test_another_job_may_take_the_longest_time(name: int) -> None:
    """Nameless ones are not known either, nor those that failed."""
    queue = queue_with(*ONE)
    run_once(queue, 0, 1.0, 0.0)
    run_once(queue, 7, 1.0, 0.0)
    run_once(queue, 8, 1.0, 0.0, usable=False)
    number, _ = queue.submit(GCC, 0.0, name)
    queue.lease("w1", 1, 0.0)
    job = queue.job(number)
    assert job is not None
    assert job.limit == JOB_TIMEOUT_S


def test_a_configured_time_is_never_exceeded() -> None:
    queue = JobQueue(job_timeout_s=5.0)
    queue.heard(worker("w1"))
    run_once(queue, 7, 1.0, 0.0)
    number, _ = queue.submit(GCC, 0.0, 7)
    queue.lease("w1", 1, 0.0)
    assert queue.tick(5.0) == []
    assert queue.tick(5.5) == [
        EndLease("w1", "2.2"),
        CompileLocally(number, LOST, "w1 took longer than 5 s"),
    ]


def test_what_took_too_long_is_not_known_any_more() -> None:
    """Its source may have grown."""
    queue = queue_with(*ONE)
    run_once(queue, 7, 1.0, 0.0)
    queue.submit(GCC, 0.0, 7)
    queue.lease("w1", 1, 0.0)
    queue.renew("w1", ["2.2"], MIN_LIMIT_S)
    assert queue.tick(MIN_LIMIT_S + 1)[0] == EndLease("w1", "2.2")
    number, _ = queue.submit(GCC, MIN_LIMIT_S, 7)
    queue.lease("w1", 1, MIN_LIMIT_S)
    job = queue.job(number)
    assert job is not None
    assert job.limit == JOB_TIMEOUT_S


def test_a_job_that_waits_for_a_slot_of_its_worker_takes_no_time() -> None:
    queue = queue_with(*ONE)
    for name in (7, 8, 9):
        run_once(queue, name, 1.0, 0.0)
    numbers = [queue.submit(GCC, 0.0, name)[0] for name in (7, 8, 9)]
    queue.lease("w1", 1, 0.0, ahead=2)
    jobs = [job for job in map(queue.job, numbers) if job is not None]
    assert [job.ends for job in jobs] == [MIN_LIMIT_S, JOB_TIMEOUT_S, JOB_TIMEOUT_S]
    queue.cancel(numbers[1])
    queue.ended(jobs[0].lease, 50.0, usable=True)
    queue.finish(jobs[0].lease)
    assert (jobs[2].started, jobs[2].ends) == (50.0, 50.0 + MIN_LIMIT_S)
    queue.ended(jobs[2].lease, 51.0, usable=True)
    assert queue._durations.limit(9, JOB_TIMEOUT_S) == MIN_LIMIT_S
    assert queue._ahead == {}


def test_the_durations_of_few_jobs_are_remembered() -> None:
    durations = Durations()
    for name in range(1, MAX_KNOWN + 3):
        durations.remember(name, 20.0)
    durations.remember(3, 30.0)
    durations.remember(0, 40.0)
    limits = {name: durations.limit(name, JOB_TIMEOUT_S) for name in (2, 3, 4, 5)}
    assert limits == {2: JOB_TIMEOUT_S, 3: 300.0, 4: JOB_TIMEOUT_S, 5: 200.0}


def assigned(queue: JobQueue, name: str, now: float) -> str:
    """The lease of a new job of this worker."""
    queue.submit(GCC, now)
    [one] = queue.lease(name, 1, now)
    assert isinstance(one, Assign)
    return one.lease


def test_a_worker_whose_connection_ended_comes_back_or_loses_its_leases() -> None:
    queue = queue_with(worker("w1"), worker("w2"))
    leases = [assigned(queue, name, 0.0) for name in ("w1", "w1", "w2")]
    assert queue.disconnected("w1", 1.0) == 1.0 + GONE_S
    assert queue.renew("w1", leases[:1], 1.5) == []
    assert queue.tick(1.0 + GONE_S) == []
    lost = queue.tick(1.1 + GONE_S)
    assert lost[0] == EndLease("w1", leases[1])
    assert queue.leased(leases[0], "w1")
    assert queue.leased(leases[2], "w2")


def test_a_worker_that_does_not_come_back_counts_as_down() -> None:
    queue = queue_with(worker("w1"))
    queue.disconnected("w1", 0.0)
    assert queue.obstacle(GCC, GONE_S) is None
    assert queue.obstacle(GCC, GONE_S + 0.1) is LocalReason.NO_WORKER
    queue.heard(worker("w1", GONE_S + 1.0))
    assert queue.obstacle(GCC, GONE_S + 1.0) is None


def test_a_disconnection_gives_no_more_time() -> None:
    queue = queue_with(worker("w1"))
    lease = assigned(queue, "w1", 0.0)
    assert queue.disconnected("w1", LEASE_S - 1.0) > LEASE_S
    assert queue.obstacle(GCC, WORKER_S + 0.1) is LocalReason.NO_WORKER
    assert EndLease("w1", lease) in queue.tick(LEASE_S + 0.1)
    assert queue.disconnected("w3", 0.0) == GONE_S


def test_leases_are_renewed_soon_after_the_answer_to_their_last_renewal() -> None:
    queue = queue_with(worker("w1"), worker("w2"))
    mine, new, other = (assigned(queue, name, 0.0) for name in ("w1", "w1", "w2"))
    assert queue.answered("w1", [mine, other, "?"], 1.0) == 1.0 + BACK_S
    assert queue.due(1.0) == 1.0 + BACK_S
    assert EndLease("w1", mine) in queue.tick(1.1 + BACK_S)
    assert queue.leased(new, "w1"), "the worker may not have got it yet"
    assert queue.leased(other, "w2")
    assert queue.obstacle(GCC, 1.1 + BACK_S) is None
