"""Random edits and builds, also around and during a compile, with kills of the syncer, lost events
and damage of the cache's file: each hit of the object cache is what the local compiler gives."""

from pathlib import Path

import pytest

from tests.support.caching_box import CachingBox
from tests.support.tools import need
from tests.support.walk import Walk
from tests.support.walk_faults import walk_with_faults


def walk(base: Path, seed: int, steps: int) -> int:
    """One seed's walk, with a restart of the syncer in its middle; returns the number of hits."""
    box = CachingBox(base / "box")
    try:
        here = Walk(box, base / "trees", seed)
        for step in range(steps):
            if step == steps // 2:
                box.stop()
                box.start()
            here.step()
        return here.hits
    finally:
        box.stop()


@pytest.mark.parametrize("seed", [1007, pytest.param(1008, marks=pytest.mark.exhaustive)])
def test_random_edits_and_builds(tmp_path: Path, seed: int) -> None:
    need("gcc")
    need("clang")
    assert walk(tmp_path, seed, 25) > 0


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("seed", range(50))
def test_many_random_edits_and_builds(tmp_path: Path, seed: int) -> None:
    need("gcc")
    need("clang")
    walk(tmp_path, seed, 200)


@pytest.mark.exhaustive
def test_random_builds_with_kills_and_a_damaged_file(tmp_path: Path) -> None:
    need("gcc")
    need("clang")
    assert walk_with_faults(tmp_path, 1, 3).steps > 0


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("seed", range(300, 330))
def test_many_random_builds_with_kills_and_a_damaged_file(tmp_path: Path, seed: int) -> None:
    need("gcc")
    need("clang")
    assert walk_with_faults(tmp_path, seed, 8).steps > 0
