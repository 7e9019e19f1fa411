"""Random runs of a simulated farm: whatever breaks, each job is answered once, and nothing is lost.

SIMULATION_SEEDS="5" or "0-20000" chooses the seeds. A failing one gives the same run again.
"""

import functools
import os
from collections.abc import Callable, Iterable

import pytest

from tests.simulation.simulated_farm import ANSWERED_S, Broken, SimulatedFarm, simulated

FIRST, _, LAST = os.environ.get("SIMULATION_SEEDS", "0-100").partition("-")
SEEDS = range(int(FIRST), int(LAST) if LAST else int(FIRST) + 1)
#: More of them than make test has time for.
MORE_SEEDS = range(100_000, 101_000)
#: How long things break (virtual seconds).
TROUBLE_S = 60.0
LOOK_S = 1.0


def run(seed: int | str) -> tuple[object, ...]:
    """One random run to its end; what happened in it."""
    with simulated(seed, SimulatedFarm) as farm:
        go_on(farm)
        return farm.world.steps, farm.world.now, dict(farm.leased), farm.answers, farm.local


def go_on(farm: SimulatedFarm) -> None:
    """Workers, compiles and troubles by chance; then what must hold."""
    world, chance = farm.world, farm.world.chance
    for _ in range(chance.randint(1, 4)):
        farm.add_worker(chance.randint(1, 4), chance.choice((0, 0, 2, 4)))
    farm.network.loss = chance.choice((0.0, 0.0, 0.02, 0.2))
    farm.failing = chance.choice((0.0, 0.0, 0.1))
    farm.longest_s = chance.choice((2.0, 10.0, 200.0))
    troubles = chance.choice((0, 1, 3, 10))
    for _ in range(chance.randint(5, 40)):
        gives_up = chance.choice((None, None, None, chance.uniform(0.0, 20.0)))
        begins = chance.choice((0.0, chance.uniform(0.0, 30.0)))
        world.after(begins, functools.partial(farm.submit, gives_up))
    for _ in range(troubles):
        world.after(chance.uniform(0.0, TROUBLE_S), lambda: break_something(farm))
    world.after(TROUBLE_S, lambda: end_trouble(farm))
    keep_looking(farm)
    start = world.now
    world.run(lambda: world.now > start + TROUBLE_S and not farm.open, TROUBLE_S + ANSWERED_S)
    rest = max(world.now, start + 2 * TROUBLE_S) + 90.0
    world.run(lambda: world.now > rest, 300.0)
    farm.check_that_nothing_is_left()


def keep_looking(farm: SimulatedFarm) -> None:
    def look() -> None:
        farm.look(LOOK_S)
        farm.world.after(LOOK_S, look)

    farm.world.after(LOOK_S, look)


def break_something(farm: SimulatedFarm) -> None:
    chance, alive = farm.world.chance, farm.alive()
    if not alive:
        farm.add_worker(2, 2)
        return
    worker = chance.choice(alive)
    match chance.randrange(5):
        case 0:
            farm.die(worker)
        case 1:
            worker.host.frozen_until = farm.world.now + chance.choice((1.0, 10.0, 40.0))
        case 2:
            farm.cut(worker, chance.choice((1.0, 10.0, 40.0)))
        case 3:
            worker.leave()
        case _:
            farm.add_worker(chance.randint(1, 4), chance.choice((0, 2)))


def end_trouble(farm: SimulatedFarm) -> None:
    farm.network.loss = farm.failing = 0.0
    for worker in farm.alive():
        farm.network.is_cut[worker.host] = False


@pytest.mark.parametrize("seed", SEEDS)
def test_each_job_is_answered_once_and_nothing_is_left(seed: int) -> None:
    run(seed)


@pytest.mark.parametrize("seed", [204_784, 206_893, 210_677, 213_679])
def test_jobs_that_woke_one_request_for_places_ahead_are_leased_to_others(seed: int) -> None:
    run(seed)


@pytest.mark.parametrize("seed", SEEDS[:3])
def test_a_seed_gives_the_same_run_again(seed: int) -> None:
    assert run(seed) == run(seed)


@pytest.mark.exhaustive
def test_each_job_is_answered_once_with_more_seeds() -> None:
    run_each(MORE_SEEDS, run)


def run_each(seeds: Iterable[int], run_one: Callable[[int], object]) -> None:
    """Also says the seed of a failure."""
    for seed in seeds:
        try:
            run_one(seed)
        except (Broken, Exception) as error:
            raise AssertionError(f"seed {seed}") from error
