"""The ticker: it sleeps until something is due, and is called for what is due sooner."""

import math
import queue
from collections.abc import Iterator

import pytest

from distbuild.farm.long_polls import Ticker

LONG_S = 3600.0


class Clock:
    """Stands still; what is due is told by the test."""

    def __init__(self) -> None:
        self.dues: queue.Queue[float] = queue.Queue()
        self.acts: queue.Queue[None] = queue.Queue()

    def now(self) -> float:
        return 1000.0

    def act(self) -> float:
        self.acts.put(None)
        return self.dues.get(timeout=60)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ticker(clock: Clock) -> Iterator[Ticker]:
    made = Ticker(clock.act, "test", LONG_S, clock.now)
    made.start()
    yield made
    clock.dues.put(math.inf)  # where an act waits for one
    made.stop()


def acted(clock: Clock, timeout_s: float = 10.0) -> bool:
    try:
        clock.acts.get(timeout=timeout_s)
    except queue.Empty:
        return False
    return True


def test_what_is_due_now_is_done_again_at_once(clock: Clock, ticker: Ticker) -> None:
    for _ in range(3):
        assert acted(clock)
        clock.dues.put(clock.now())


def test_with_nothing_due_it_rests(clock: Clock, ticker: Ticker) -> None:
    assert acted(clock)
    clock.dues.put(math.inf)
    assert not acted(clock, 0.3)


def test_it_is_called_for_what_is_due_sooner_and_for_nothing_else(
    clock: Clock, ticker: Ticker
) -> None:
    assert acted(clock)
    clock.dues.put(clock.now() + LONG_S / 2)
    while ticker._wakes_at == math.inf:  # until it has gone to sleep
        pass
    ticker.sooner(clock.now() + LONG_S)
    assert not acted(clock, 0.3)
    ticker.sooner(clock.now() + 1.0)
    assert acted(clock)


def test_what_comes_while_it_acts_is_not_overlooked(clock: Clock, ticker: Ticker) -> None:
    assert acted(clock)
    ticker.sooner(clock.now() + LONG_S)
    clock.dues.put(math.inf)
    assert acted(clock)


def test_it_wakes_now_and_then_though_nothing_is_due(clock: Clock) -> None:
    made = Ticker(clock.act, "test", 0.01, clock.now)
    made.start()
    for _ in range(3):
        assert acted(clock)
        clock.dues.put(math.inf)
    clock.dues.put(math.inf)
    made.stop()
