"""Random edits and builds: each hit of the object cache is what the local compiler gives."""

from pathlib import Path

import pytest

from tests.support.caching_box import CachingBox
from tests.support.tools import need
from tests.support.walk import Walk


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


def test_random_edits_and_builds(tmp_path: Path) -> None:
    need("gcc")
    need("clang")
    assert sum(walk(tmp_path / str(seed), seed, 25) for seed in (1006, 1007)) > 0


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("seed", range(50))
def test_many_random_edits_and_builds(tmp_path: Path, seed: int) -> None:
    need("gcc")
    need("clang")
    walk(tmp_path, seed, 200)
