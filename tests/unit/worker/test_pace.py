"""Requests are apart where there are many slots, and not otherwise."""

from distbuild.worker.slots import BURST, PER_SLOT_S, Pace


class Clock:
    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


def test_a_burst_does_not_wait_and_the_rest_is_apart() -> None:
    pace = Pace(100, Clock())
    delays = [round(pace.delay(), 9) for _ in range(BURST + 3)]
    apart = 100 * PER_SLOT_S
    assert delays[:BURST] == [0.0] * BURST
    assert [round(d / apart, 6) for d in delays[BURST:]] == [1, 2, 3]


def test_what_comes_slowly_never_waits() -> None:
    clock = Clock()
    pace = Pace(100, clock)
    for _ in range(200):
        clock.time += 100 * PER_SLOT_S
        assert pace.delay() < 1e-6


def test_a_burst_is_paid_for_by_a_pause() -> None:
    clock = Clock()
    pace = Pace(10, clock)
    for _ in range(20):
        pace.delay()
    clock.time += 3600.0
    assert [round(pace.delay(), 9) for _ in range(BURST)] == [0.0] * BURST


def test_a_small_worker_waits_for_milliseconds_at_the_most() -> None:
    pace = Pace(4, Clock())
    assert max(pace.delay() for _ in range(BURST + 2)) <= 0.00201
