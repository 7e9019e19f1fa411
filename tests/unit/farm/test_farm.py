"""The farm with real threads: what blocks is woken, and everything is answered."""

import contextlib
import functools
import queue
import threading
from collections.abc import Callable, Generator, Iterator
from typing import cast

import msgspec
import pytest

from distbuild.command.model import Local, LocalReason
from distbuild.farm.executor import Task
from distbuild.farm.farm import Farm
from distbuild.farm.jobs import FarmLimits
from distbuild.farm.queue import BACK_S, FORGET_S, GONE_S, LEASE_S, MAX_TRIES
from distbuild.farm.workers import FIRST_PAUSE_S
from distbuild.protocol.errors import TooMuchAtOnce
from distbuild.protocol.messages import LeaseRequest, RenewRequest, ResultRequest, Toolchain
from tests.support.cluster import wait_until
from tests.support.tasks import COMMAND, asking, failed, leased, renewed, run, task

LONG_S = 30.0


Limited = Callable[[FarmLimits], Farm]


@pytest.fixture
def limited() -> Iterator[Limited]:
    """Makes farms with these limits."""
    with contextlib.ExitStack() as stack:

        def make(limits: FarmLimits) -> Farm:
            made = Farm(expected=False, limits=limits)
            stack.callback(made.stop)
            return made

        yield make


@pytest.fixture
def farm(limited: Limited) -> Farm:
    return limited(FarmLimits())


class InThread:
    """A call in a thread of its own; ``result()`` waits for it."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._answers: queue.Queue[object] = queue.Queue()
        self._thread = threading.Thread(target=lambda: self._answers.put(call()))
        self._thread.start()

    def result(self) -> object:
        answer = self._answers.get(timeout=60)
        self._thread.join()
        return answer

    def is_waiting(self) -> bool:
        return self._thread.is_alive()


def lease_one(farm: Farm, request: LeaseRequest) -> tuple[str, Task]:
    given = leased(farm, request)
    assert len(given) == 1
    return given[0]


def submitted(farm: Farm, count: int, of: Task) -> list[InThread]:
    """Tasks on their way, all in the queue."""
    calls = [InThread(lambda: run(farm.execute(of))) for _ in range(count)]
    while farm.counts()["queued"] + farm.counts()["running"] < count:
        assert all(call.is_waiting() for call in calls)
    return calls


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"crashed": True}, LocalReason.COMPILER_CRASHED),
        ({"named": True}, LocalReason.NAMES_ITS_PLACE),
        ({"unseen": True}, LocalReason.ASSEMBLER_INPUT),
        ({"outside": True}, LocalReason.NO_NAMESPACE),
    ],
)
def test_what_no_other_worker_does_better_the_local_compiler_does_at_once(
    farm: Farm, how: dict[str, bool], reason: LocalReason
) -> None:
    assert leased(farm, asking("w1")) == []
    [call] = submitted(farm, 1, task("a"))
    lease, _ = lease_one(farm, asking("w1"))
    assert farm.deliver(ResultRequest(lease, "w1", error="no good", **how))  # type: ignore[arg-type]
    assert call.result() == Local(reason, "w1: no good")
    assert farm.counts()["retried"] == 0


def test_a_task_goes_to_a_worker_and_its_result_back(farm: Farm) -> None:
    assert leased(farm, asking("w1")) == []
    [call] = submitted(farm, 1, task("a"))
    lease, given = lease_one(farm, asking("w1", 4))
    assert given == task("a")
    result = ResultRequest(lease, "w1", exit_code=1, stderr=b"no")
    assert farm.deliver(result)
    assert call.result() == result
    assert not farm.deliver(result)
    assert farm.counts() == {"queued": 0, "running": 0, "cancelled": 0, "retried": 0}


@pytest.mark.parametrize("slots", [0, 1])
def test_a_waiting_worker_is_woken_by_a_task(farm: Farm, slots: int) -> None:
    """With no slot it is only told that there is something."""
    poll = InThread(lambda: leased(farm, asking("w1", slots, LONG_S)))
    while not farm.workers():
        assert poll.is_waiting()
    [call] = submitted(farm, 1, task())
    given = poll.result()
    assert isinstance(given, list)
    assert len(given) == slots
    [(lease, _)] = given or leased(farm, asking("w1"))
    assert farm.deliver(failed(lease, "w1"))
    call.result()


def test_a_worker_that_does_not_fit_is_not_woken(limited: Limited) -> None:
    farm = limited(FarmLimits(poll_s=0.1))
    leased(farm, asking("w1"))
    [call] = submitted(farm, 1, task())
    assert leased(farm, asking("w2", 1, LONG_S, "clang")) == []
    [(lease, _)] = leased(farm, asking("w1"))
    farm.deliver(failed(lease, "w1"))
    call.result()


def test_without_a_worker_a_task_is_local_at_once(farm: Farm) -> None:
    assert run(farm.execute(task())) == Local(LocalReason.NO_WORKER, "gcc")
    assert farm.obstacle(COMMAND, "gcc") == Local(LocalReason.NO_WORKER, "gcc")
    leased(farm, asking("w1"))
    assert farm.obstacle(COMMAND, "gcc") is None
    assert farm.obstacle(COMMAND, "x" * 64) == Local(LocalReason.NO_TOOLCHAIN, "x" * 12)


def test_right_after_the_start_the_first_worker_is_waited_for() -> None:
    farm = Farm(expected=True)
    try:
        call = InThread(lambda: run(farm.execute(task())))
        assert call.is_waiting()
        [(lease, _)] = leased(farm, asking("w1", 1, LONG_S))
        assert farm.deliver(failed(lease, "w1"))
        assert call.result() == failed(lease, "w1")
    finally:
        farm.stop()


def test_a_worker_that_never_comes_is_not_waited_for_for_long() -> None:
    moments = iter([0.0, 0.0, 100.0])
    farm = Farm(expected=True, now=lambda: next(moments, 100.0))
    try:
        assert run(farm.execute(task())) == Local(LocalReason.NO_WORKER, "gcc")
    finally:
        farm.stop()


def test_closing_a_task_ends_its_lease_and_wakes_the_renewal(farm: Farm) -> None:
    leased(farm, asking("w1"))
    execution = farm.execute(task())
    next(execution)
    lease, _ = lease_one(farm, asking("w1"))
    renewal = InThread(lambda: renewed(farm, RenewRequest("w1", [lease], LONG_S)))
    while not farm._renewals._waiting:
        assert renewal.is_waiting()
    execution.close()
    assert renewal.result() == [lease]
    assert not farm.deliver(failed(lease, "w1"))
    assert farm.counts() == {"queued": 0, "running": 0, "cancelled": 1, "retried": 0}


def test_closing_a_queued_task_takes_it_out_of_the_line(farm: Farm) -> None:
    leased(farm, asking("w1"))
    execution = farm.execute(task())
    next(execution)
    execution.close()
    assert leased(farm, asking("w1")) == []
    assert farm.counts()["cancelled"] == 1


def test_a_renewal_of_valid_leases_is_empty(limited: Limited) -> None:
    farm = limited(FarmLimits(poll_s=0.05))
    leased(farm, asking("w1"))
    [call] = submitted(farm, 1, task())
    lease, _ = lease_one(farm, asking("w1"))
    assert renewed(farm, RenewRequest("w1", [lease], LONG_S)) == []
    assert renewed(farm, RenewRequest("w2", [lease], LONG_S)) == [lease]
    farm.deliver(failed(lease, "w1"))
    call.result()


def test_a_failed_try_is_repeated_elsewhere_and_then_local(farm: Farm) -> None:
    for name in ("w1", "w2"):
        leased(farm, asking(name))
    [call] = submitted(farm, 1, task())
    for name in ("w1", "w2", "w1"):
        lease, _ = lease_one(farm, asking(name))
        assert farm.deliver(ResultRequest(lease, name, error="disk full"))
    assert call.result() == Local(LocalReason.LEASES_LOST, "w1: disk full")
    assert farm.counts()["retried"] == 2


def test_a_worker_that_went_loses_its_leases(farm: Farm) -> None:
    for name in ("w1", "w2"):
        leased(farm, asking(name))
    [call] = submitted(farm, 1, task())
    late, _ = lease_one(farm, asking("w1"))
    poll = InThread(lambda: leased(farm, asking("w2", 1, LONG_S)))
    farm.lost("w1")
    given = poll.result()
    assert isinstance(given, list)
    assert not farm.deliver(failed(late, "w1"))
    assert farm.deliver(failed(given[0][0], "w2"))
    assert call.result() == failed(given[0][0], "w2")


class Stepped:
    """A farm whose clock the test moves, with one job leased to ``w1``."""

    def __init__(self) -> None:
        self.now = 0.0
        self.farm = Farm(expected=False, now=lambda: self.now)
        leased(self.farm, asking("w1"))
        [self.call] = submitted(self.farm, 1, task())
        self.lease, _ = lease_one(self.farm, asking("w1"))

    def both(self) -> tuple[Generator[object, None, object], Generator[object, None, object]]:
        """A request for jobs and a renewal that wait."""
        poll = self.farm.lease(asking("w1", 1, LONG_S))
        renewal = self.farm.renew(RenewRequest("w1", [self.lease], LONG_S))
        next(poll)
        next(renewal)
        return poll, renewal

    def is_lost_at(self, now: float) -> bool:
        self.now = now
        self.farm._tick()
        return self.farm.counts()["running"] == 0


@pytest.fixture
def stepped() -> Iterator[Stepped]:
    made = Stepped()
    try:
        yield made
    finally:
        made.farm.stop()


def test_a_worker_whose_renewal_s_connection_ends_loses_its_leases(stepped: Stepped) -> None:
    renewal = stepped.farm.renew(RenewRequest("w1", [stepped.lease], LONG_S))
    next(renewal)
    renewal.close()
    assert not stepped.is_lost_at(GONE_S)
    assert stepped.is_lost_at(GONE_S + 0.1)
    assert stepped.call.result() == Local(LocalReason.NO_WORKER, "w1 fell silent")


def test_a_worker_that_connects_again_keeps_its_leases(stepped: Stepped) -> None:
    renewal = stepped.farm.renew(RenewRequest("w1", [stepped.lease], LONG_S))
    next(renewal)
    renewal.close()
    stepped.now = 1.0
    again = stepped.farm.renew(RenewRequest("w1", [stepped.lease], LONG_S))
    next(again)
    assert not stepped.is_lost_at(LEASE_S)
    again.close()


def test_an_old_connection_that_ends_late_means_nothing(stepped: Stepped) -> None:
    first, second = (
        stepped.farm.renew(RenewRequest("w1", [stepped.lease], LONG_S)) for _ in range(2)
    )
    next(first)
    next(second)
    first.close()
    assert not stepped.is_lost_at(LEASE_S)
    second.close()


def test_one_connection_of_two_that_ends_means_nothing(stepped: Stepped) -> None:
    poll, renewal = stepped.both()
    poll.close()
    assert not stepped.is_lost_at(LEASE_S)
    renewal.close()
    assert stepped.is_lost_at(LEASE_S + GONE_S + 0.1)


def test_a_renewal_that_ends_while_a_request_for_jobs_waits_is_sent_again(stepped: Stepped) -> None:
    """Else the other request may be answered into the void, and nothing would wait any more."""
    poll, renewal = stepped.both()
    renewal.close()
    assert not stepped.is_lost_at(BACK_S)
    assert stepped.is_lost_at(BACK_S + 0.1)
    poll.close()


def test_a_worker_does_not_come_back_for_its_next_renewal(stepped: Stepped) -> None:
    assert renewed(stepped.farm, RenewRequest("w1", [stepped.lease], 0.0)) == []
    assert not stepped.is_lost_at(BACK_S)
    assert stepped.is_lost_at(BACK_S + 0.1)


def test_silent_leases_run_out() -> None:
    now = [0.0]
    farm = Farm(expected=False, now=lambda: now[0])
    try:
        leased(farm, asking("w1"))
        [call] = submitted(farm, 1, task())
        lease_one(farm, asking("w1"))
        now[0] = 1000.0
        assert call.result() == Local(LocalReason.NO_WORKER, "w1 fell silent")
    finally:
        farm.stop()


def test_a_failed_job_wakes_a_worker_that_may_have_it(farm: Farm) -> None:
    """And not the one that failed it, though that one asked for more first."""
    failed, better = (farm.lease(asking(name, 1, LONG_S)) for name in ("failed", "better"))
    next(failed)
    event = next(better)
    execution = farm.execute(task())
    next(execution)
    with pytest.raises(StopIteration) as ended:
        next(failed)
    [(lease, _)] = ended.value.value
    again = farm.lease(asking("failed", 2, LONG_S))
    next(again)
    assert not event.is_set()
    assert farm.deliver(ResultRequest(lease, "failed", error="disk full"))
    assert event.is_set()
    for open_one in (execution, again, better):
        open_one.close()


def test_short_polls_end_in_time(limited: Limited) -> None:
    farm = limited(FarmLimits(rest_s=3600.0, grace_s=0.0))
    assert wait_until(lambda: farm._ticker._wakes_at > farm._now() + LONG_S, "it sleeps")
    poll = InThread(lambda: leased(farm, asking("w1", 1, 0.2)))
    renewal = InThread(lambda: renewed(farm, RenewRequest("w2", [], 0.2)))
    assert (poll.result(), renewal.result()) == ([], [])


def test_a_farewell_ends_the_polls_of_a_worker(farm: Farm) -> None:
    poll = InThread(lambda: leased(farm, asking("w1", 1, LONG_S)))
    while not farm.workers():
        assert poll.is_waiting()
    assert leased(farm, LeaseRequest("w1", 0, 0.0, [])) == []
    assert poll.result() == []
    assert farm.workers() == {}


def test_a_worker_that_was_lost_counts_again_while_its_request_waits() -> None:
    farm = Farm(expected=False)
    poll = InThread(lambda: leased(farm, asking("w1", 1, LONG_S)))
    while not farm.workers():
        assert poll.is_waiting()
    farm.lost("w1")
    assert farm.workers() == {}
    farm.found("w1", "w1:8443")
    while not farm.workers():
        assert poll.is_waiting()
    farm.stop()
    assert poll.result() == []


def test_stopping_answers_everything() -> None:
    farm = Farm(expected=False)
    leased(farm, asking("w1"))
    calls = submitted(farm, 3, task())
    lease_one(farm, asking("w1"))
    poll = InThread(lambda: leased(farm, asking("w2", 1, LONG_S, "clang")))
    renewal = InThread(lambda: renewed(farm, RenewRequest("w1", [], LONG_S)))
    while "w2" not in farm.workers() or not farm._renewals._waiting:
        assert poll.is_waiting()
    farm.stop()
    stopping = Local(LocalReason.SYNCER_STOPPING)
    assert [call.result() for call in calls] == [stopping] * 3
    assert (poll.result(), renewal.result()) == ([], [])
    assert run(farm.execute(task())) == stopping
    assert leased(farm, asking("w1", 1, LONG_S)) == []


def test_leases_of_two_farms_differ() -> None:
    leases = []
    for _ in range(2):
        farm = Farm(expected=False)
        leased(farm, asking("w1"))
        [call] = submitted(farm, 1, task())
        leases.append(lease_one(farm, asking("w1"))[0])
        farm.stop()
        call.result()
    assert leases[0] != leases[1]


def test_many_tasks_and_workers_lose_nothing(farm: Farm) -> None:
    stop = threading.Event()

    def work(name: str) -> None:
        while not stop.is_set():
            for lease, given in leased(farm, asking(name, 2, 0.05)):
                text = (given.implicit_include or "").encode()
                farm.deliver(failed(lease, name, text))

    for n in range(3):
        leased(farm, asking(f"w{n}"))
    workers = [threading.Thread(target=work, args=(f"w{n}",)) for n in range(3)]
    for worker in workers:
        worker.start()
    executions = [farm.execute(task(str(n))) for n in range(40)]
    calls = [InThread(functools.partial(run, execution)) for execution in executions]
    answers = [call.result() for call in calls]
    stop.set()
    for worker in workers:
        worker.join()
    assert [a.stdout for a in answers if isinstance(a, ResultRequest)] == [
        str(n).encode() for n in range(40)
    ]


def test_a_full_farm_is_relieved_of_its_oldest_job(farm: Farm) -> None:
    assert leased(farm, asking("w1")) == []
    assert not farm.relieve(0.0)
    [first] = submitted(farm, 1, task("a"))
    assert not farm.relieve(LONG_S)
    [_, second] = [first, *submitted_more(farm, task("b"))]
    assert farm.relieve(0.0)
    assert first.result() == Local(LocalReason.FARM_FULL)
    lease, given = lease_one(farm, asking("w1"))
    assert given == task("b")
    assert farm.deliver(failed(lease, "w1"))
    second.result()
    assert not farm.relieve(0.0)


def submitted_more(farm: Farm, of: Task) -> list[InThread]:
    before = farm.counts()["queued"]
    call = InThread(lambda: run(farm.execute(of)))
    while farm.counts()["queued"] == before:
        assert call.is_waiting()
    return [call]


def test_a_job_wakes_a_worker_with_a_free_slot_not_one_with_a_place_ahead(farm: Farm) -> None:
    """Which is not given a job ahead while the other is free: the job would wait for both."""
    requests = [
        LeaseRequest("w1", 1, LONG_S, [Toolchain("gcc", "gcc")], ahead=4),
        asking("w2", 1, LONG_S),
    ]
    polls = [farm.lease(request) for request in requests]
    bells = [next(poll) for poll in polls]
    calls = submitted(farm, 2, task())
    assert [bell.is_set() for bell in bells] == [True, True]
    for request, poll in zip(requests, polls, strict=True):
        with pytest.raises(StopIteration) as ended:
            next(poll)
        [(lease, _)] = ended.value.value
        assert farm.deliver(failed(lease, request.worker))
    assert all(isinstance(call.result(), ResultRequest) for call in calls)


def test_jobs_ahead_are_given_only_while_nobody_else_is_free(farm: Farm) -> None:
    def ahead(worker: str, slots: int) -> LeaseRequest:
        return LeaseRequest(worker, slots, 0.0, [Toolchain("gcc", "gcc")], ahead=2)

    assert leased(farm, ahead("w1", 1)) == []
    assert leased(farm, ahead("w2", 1)) == []
    calls = submitted(farm, 6, task())
    taken = [("w1", lease) for lease, _ in leased(farm, ahead("w1", 1))]
    assert len(taken) == 1  # w2 has a free slot, and is about to ask
    taken += [("w2", lease) for lease, _ in leased(farm, ahead("w2", 1))]
    assert len(taken) == 4
    taken += [("w1", lease) for lease, _ in leased(farm, ahead("w1", 0))]
    assert len(taken) == 6
    for worker, lease in taken:
        assert farm.deliver(failed(lease, worker))
    for call in calls:
        call.result()


def test_of_a_worker_that_is_silent_for_long_nothing_is_kept() -> None:
    now = [0.0]
    farm = Farm(expected=False, now=lambda: now[0])
    try:
        for name in ("gone", "there"):
            leased(farm, asking(name))
        now[0] = FORGET_S + 1.0
        leased(farm, asking("there"))
        assert wait_until(lambda: farm.workers().keys() == {"there"}, "the other is forgotten")
        assert farm._free.keys() == {"there"}
        assert farm._described.others({"there"}) == []
    finally:
        farm.stop()


def test_results_of_nobody_make_no_worker(farm: Farm) -> None:
    leased(farm, asking("w1"))
    for name in ("nobody", "w1"):
        assert not farm.deliver(ResultRequest("none", name))
    assert farm._free == {"w1": 2}


def test_results_that_nobody_takes_up_have_a_limit(limited: Limited) -> None:
    farm = limited(FarmLimits(held_bytes=100))
    leased(farm, asking("w1"))
    calls = [farm.execute(task("a")), farm.execute(task("b"))]
    for call in calls:
        next(call)
    [(first, _), (second, _)] = leased(farm, asking("w1", 2))
    # One has all there is, however much it is; the next has to wait until that is taken up.
    assert farm.deliver(failed(first, "w1", b"x" * 200))
    with pytest.raises(TooMuchAtOnce):
        farm.deliver(failed(second, "w1", b"x"))
    run(calls[0])
    assert farm.deliver(failed(second, "w1", b"x"))
    run(calls[1])
    assert farm._held == 0


def test_what_a_cancelled_job_held_is_given_back(farm: Farm) -> None:
    leased(farm, asking("w1"))
    call = farm.execute(task("a"))
    next(call)
    [(lease, _)] = leased(farm, asking("w1"))
    assert farm.deliver(failed(lease, "w1", b"x" * 200))
    assert farm._held == 200
    call.close()
    assert farm._held == 0


def test_a_worker_with_a_thousand_names_is_one_too_many(limited: Limited) -> None:
    farm = limited(FarmLimits(workers=3))
    for name in ("w1", "w2", "w3"):
        leased(farm, asking(name))
    with pytest.raises(TooMuchAtOnce):
        leased(farm, asking("w4"))
    assert leased(farm, asking("w1")) == []  # who is known goes on
    assert farm.workers().keys() == {"w1", "w2", "w3"}
    leased(farm, LeaseRequest("w2", 0, 0.0, []))
    assert leased(farm, asking("w4")) == []


def test_workers_of_one_label_are_two_and_are_shown_as_the_configuration_has_them(
    farm: Farm,
) -> None:
    for name in ("a.1", "a.2", "b.1"):
        leased(farm, msgspec.structs.replace(asking(name), label="box:8443"))
    farm.found("a.2", "build2:8443")
    assert {name: seen.label for name, seen in farm.workers().items()} == {
        "a.1": "box:8443",
        "a.2": "build2:8443",
        "b.1": "box:8443",
    }


def test_who_compiled_is_told_by_label(farm: Farm) -> None:
    request = msgspec.structs.replace(asking("a.1"), label="box:8443")
    leased(farm, request)
    [call] = submitted(farm, 1, task())
    lease, _ = lease_one(farm, request)
    assert farm.deliver(ResultRequest(lease, "a.1", exit_code=1))
    assert call.result() == ResultRequest(lease, "box:8443", exit_code=1)


# --- workers on which jobs fail -----------------------------------------------------------------


class Clocked:
    """A farm on a clock of its own, with a worker on which jobs fail."""

    def __init__(self) -> None:
        self.now = 0.0
        self.farm = Farm(expected=False, now=lambda: self.now)
        leased(self.farm, asking("sick"))

    def fail(self, count: int) -> None:
        """All jobs that the worker is given."""
        self.now += 0.1
        given = leased(self.farm, asking("sick", count))
        assert len(given) == count
        self.now += 0.1
        for lease, _ in given:
            assert self.farm.deliver(ResultRequest(lease, "sick", error="disk full"))


@pytest.fixture
def clocked() -> Iterator[Clocked]:
    made = Clocked()
    yield made
    made.farm.stop()


def test_jobs_wait_for_a_first_pause_only(clocked: Clocked) -> None:
    farm = clocked.farm
    calls = submitted(farm, 32, task())
    for _ in range(2):
        clocked.fail(8)
    clocked.fail(8)
    assert farm.workers()["sick"].failing == "disk full"
    assert leased(farm, asking("sick", 32)) == []
    assert farm.obstacle(COMMAND, "gcc") is None
    assert farm.counts()["queued"] == 24
    clocked.now += FIRST_PAUSE_S
    clocked.fail(8)
    assert farm.obstacle(COMMAND, "gcc") == Local(LocalReason.WORKERS_FAILING, "gcc")
    reasons = [call.result() for call in calls]
    assert {r.reason for r in reasons if isinstance(r, Local)} == {
        LocalReason.LEASES_LOST,
        LocalReason.WORKERS_FAILING,
    }


def test_jobs_that_fail_on_one_worker_are_given_to_another(clocked: Clocked) -> None:
    farm = clocked.farm
    calls = submitted(farm, 8, task())
    for _ in range(2):
        clocked.fail(8)
    given = leased(farm, asking("well", 8))
    assert len(given) == 8
    for lease, _ in given:
        assert farm.deliver(failed(lease, "well"))
    assert all(isinstance(call.result(), ResultRequest) for call in calls)


def paused(clocked: Clocked) -> None:
    """Have the worker be paused, with no job left."""
    calls = submitted(clocked.farm, 3, task())
    for _ in range(MAX_TRIES):
        clocked.fail(3)
    for call in calls:
        call.result()


def test_after_a_pause_and_a_result_all_is_as_before(clocked: Clocked) -> None:
    farm = clocked.farm
    paused(clocked)
    clocked.now += FIRST_PAUSE_S
    calls = submitted(farm, 5, task())
    given = leased(farm, asking("sick", 5))
    assert len(given) == 5
    for lease, _ in given:
        assert farm.deliver(failed(lease, "sick"))
    assert all(isinstance(call.result(), ResultRequest) for call in calls)
    assert farm.workers()["sick"].failing == ""


def test_a_long_poll_gets_a_job_when_the_pause_ends(clocked: Clocked) -> None:
    farm = clocked.farm
    paused(clocked)
    polling = InThread(lambda: leased(farm, asking("sick", 1, wait_s=LONG_S)))
    [call] = submitted(farm, 1, task())
    clocked.now += FIRST_PAUSE_S / 2
    assert polling.is_waiting()
    clocked.now += FIRST_PAUSE_S / 2
    [(lease, _)] = cast("list[tuple[str, Task]]", polling.result())
    assert farm.deliver(failed(lease, "sick"))
    assert isinstance(call.result(), ResultRequest)


def test_a_result_from_before_a_pause_ends_it(clocked: Clocked) -> None:
    farm = clocked.farm
    calls = submitted(farm, 1, task())
    [(early, _)] = leased(farm, asking("sick"))
    paused(clocked)
    calls += submitted(farm, 1, task())
    assert leased(farm, asking("sick")) == []
    assert farm.deliver(failed(early, "sick"))
    [(lease, _)] = leased(farm, asking("sick"))
    assert farm.deliver(failed(lease, "sick"))
    assert all(isinstance(call.result(), ResultRequest) for call in calls)


def test_a_paused_worker_takes_no_jobs_ahead_from_others(clocked: Clocked) -> None:
    farm = clocked.farm
    paused(clocked)
    assert leased(farm, asking("sick", 4)) == []
    calls = submitted(farm, 5, task())
    request = msgspec.structs.replace(asking("well", 1), ahead=4)
    given = leased(farm, request)
    assert len(given) == 5
    for lease, _ in given:
        assert farm.deliver(failed(lease, "well"))
    assert all(isinstance(call.result(), ResultRequest) for call in calls)


def test_a_test_compile_is_given_to_a_paused_worker(clocked: Clocked) -> None:
    farm = clocked.farm
    paused(clocked)
    [call] = submitted(farm, 1, msgspec.structs.replace(task(), worker="sick"))
    lease, _ = lease_one(farm, asking("sick"))
    assert farm.deliver(failed(lease, "sick"))
    assert isinstance(call.result(), ResultRequest)


def test_a_worker_that_leaves_and_gives_back_its_jobs_is_not_failing(farm: Farm) -> None:
    for name in ("w1", "w2"):
        leased(farm, asking(name))
    calls = submitted(farm, 5, task())
    given = leased(farm, asking("w1", 5))
    leased(farm, LeaseRequest("w1", 0, 0.0, []))
    for lease, _ in given:
        assert farm.deliver(ResultRequest(lease, "w1", error="this worker is stopping"))
    for lease, _ in leased(farm, asking("w2", 5)):
        assert farm.deliver(failed(lease, "w2"))
    assert all(isinstance(call.result(), ResultRequest) for call in calls)
    leased(farm, asking("w1"))
    assert farm.workers()["w1"].failing == ""


def test_who_failed_is_told_by_label(farm: Farm) -> None:
    request = msgspec.structs.replace(asking("a.1"), label="box:8443")
    leased(farm, request)
    [call] = submitted(farm, 1, task())
    for _ in range(MAX_TRIES):
        lease, _ = lease_one(farm, request)
        assert farm.deliver(ResultRequest(lease, "a.1", error="disk full"))
    assert call.result() == Local(LocalReason.LEASES_LOST, "box:8443: disk full")
    [call] = submitted(farm, 1, task())
    lease_one(farm, request)
    farm.lost("a.1")
    assert call.result() == Local(LocalReason.NO_WORKER, "box:8443 went away")
