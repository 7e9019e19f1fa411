"""The phases of a job: added up over its rounds, and no more believed than can be true."""

import msgspec
import pytest

from distbuild.farm.executor import Stopwatch
from distbuild.farm.farm import Farm
from distbuild.protocol import messages
from distbuild.protocol.errors import ProtocolError
from distbuild.protocol.messages import (
    MAX_CPU_US,
    MAX_MEMORY_BYTES,
    MAX_RAN_US,
    PREPARED,
    QUEUED,
    REMOTE,
    UNDERSTOOD,
    VERIFIED,
    ResultRequest,
    SubmitReply,
)
from tests.support.tasks import asking, failed, leased, task


class Clock:
    def __init__(self) -> None:
        self.now = 5.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def spend(stopwatch: Stopwatch, clock: Clock, phases: dict[str, float], ran_us: int = 0) -> None:
    """Each phase with its milliseconds."""
    for phase, milliseconds in phases.items():
        clock.now += milliseconds / 1000
        if phase == QUEUED:
            stopwatch.leased("w")
        elif phase == REMOTE:
            stopwatch.answered(ran_us)
        else:
            stopwatch.end(phase)


ROUND = {PREPARED: 2.0, QUEUED: 4.0, REMOTE: 8.0, VERIFIED: 16.0}


def test_each_phase_has_its_milliseconds(clock: Clock) -> None:
    stopwatch = Stopwatch(clock)
    spend(stopwatch, clock, {UNDERSTOOD: 1.0, **ROUND})
    assert stopwatch.text() == (
        "understood 1.0, prepared 2.0, queued 4.0, on the worker 8.0, verified 16.0"
    )


def test_rounds_are_added_up(clock: Clock) -> None:
    stopwatch = Stopwatch(clock)
    spend(stopwatch, clock, {UNDERSTOOD: 1.0, **ROUND}, 3000)
    spend(stopwatch, clock, ROUND, 4000)
    assert stopwatch.text() == (
        "understood 1.0, prepared 4.0, queued 8.0, on the worker 16.0 (ran 7.0), verified 32.0"
    )


def test_a_lease_after_a_lost_one_is_no_queueing(clock: Clock) -> None:
    stopwatch = Stopwatch(clock)
    spend(stopwatch, clock, {PREPARED: 1.0, QUEUED: 1.0})
    clock.now += 0.015
    stopwatch.leased("w")
    clock.now += 0.001
    stopwatch.answered(0)
    assert stopwatch.text() == "prepared 1.0, queued 1.0, on the worker 16.0"


@pytest.mark.parametrize("ran_us", [8_001, MAX_RAN_US])
def test_a_worker_cannot_have_run_longer_than_it_had_the_job(clock: Clock, ran_us: int) -> None:
    stopwatch = Stopwatch(clock)
    spend(stopwatch, clock, ROUND, ran_us)
    assert "(ran" not in stopwatch.text()


@pytest.mark.parametrize("value", [-1, "most", 1.5, "1", 2**64 - 1])
@pytest.mark.parametrize(
    ("field", "most"),
    [("ran_us", MAX_RAN_US), ("cpu_us", MAX_CPU_US), ("memory_bytes", MAX_MEMORY_BYTES)],
)
def test_a_result_with_an_impossible_account_is_refused(
    field: str, most: int, value: object
) -> None:
    plain = msgspec.to_builtins(ResultRequest("l", "w1"), builtin_types=(bytes,))
    decoded = messages.decode(msgspec.msgpack.encode({**plain, field: most}), ResultRequest)
    assert getattr(decoded, field) == most
    wrong = most + 1 if value == "most" else value
    with pytest.raises(ProtocolError):
        messages.decode(msgspec.msgpack.encode({**plain, field: wrong}), ResultRequest)


def test_processor_time_adds_up_and_the_largest_memory_counts(clock: Clock) -> None:
    stopwatch = Stopwatch(clock)
    for cpu_us, memory in ((500_000, 7), (250_000, 9), (0, 0)):
        stopwatch.answered(0, cpu_us, memory)
    assert (stopwatch.cpu_s, stopwatch.memory_bytes) == (0.75, 9)


@pytest.mark.parametrize("times", ["a\n", "\x1b[2J", "x" * 201, "A", "é"])
def test_a_reply_with_odd_times_is_refused(times: str) -> None:
    data = messages.encode(SubmitReply("done", times=times))
    with pytest.raises(ProtocolError):
        messages.decode(data, SubmitReply)


def test_the_longest_text_fits_into_a_reply(clock: Clock) -> None:
    stopwatch = Stopwatch(clock)
    spend(stopwatch, clock, {UNDERSTOOD: 1e9, **dict.fromkeys(ROUND, 1e9)}, MAX_RAN_US)
    data = messages.encode(SubmitReply("done", times=stopwatch.text()))
    assert messages.decode(data, SubmitReply).times == stopwatch.text()


def test_the_farm_ends_the_wait_when_a_worker_gets_the_job() -> None:
    farm, stopwatch = Farm(expected=False), Stopwatch()
    try:
        leased(farm, asking("w1"))
        stopwatch.end(PREPARED)
        job = farm.execute(msgspec.structs.replace(task(), stopwatch=stopwatch))
        answered = next(job)
        assert QUEUED not in stopwatch.text()
        [(lease, _)] = leased(farm, asking("w1"))
        assert f", {QUEUED} " in stopwatch.text()
        assert farm.deliver(failed(lease, "w1"))
        assert answered.is_set()
        job.close()
    finally:
        farm.stop()
