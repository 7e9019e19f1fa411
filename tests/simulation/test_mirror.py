"""Random runs of a simulated farm with a mirror: no job reads an older tree than its own."""

import shutil
from pathlib import Path

import pytest

from tests.simulation.simulated_farm import simulated
from tests.simulation.simulated_mirror import MIRROR_MODULES, MirroredFarm
from tests.simulation.test_farm import MORE_SEEDS, SEEDS, go_on, run_each


def fresh(top: Path) -> Path:
    """The directory, empty."""
    shutil.rmtree(top)
    top.mkdir()
    return top


def run_mirrored(seed: int | str, top: Path) -> None:
    """One random run to its end."""
    with simulated(seed, lambda world: MirroredFarm(world, top), MIRROR_MODULES) as farm:
        chance, world = farm.world.chance, farm.world
        for _ in range(chance.choice((0, 5, 40))):
            world.after(chance.uniform(0.01, 60.0), lambda: farm.dev.edit())
        go_on(farm)


# Each takes five times as long as one without a mirror.
@pytest.mark.parametrize("seed", SEEDS[::5])
def test_no_job_reads_an_older_tree_than_its_own(top: Path, seed: int) -> None:
    run_mirrored(seed, top)


@pytest.mark.exhaustive
def test_no_job_reads_an_older_tree_with_more_seeds(top: Path) -> None:
    run_each(MORE_SEEDS[::5], lambda seed: run_mirrored(seed, fresh(top)))
