"""A directory of its own for each simulated run."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def top(tmp_path: Path) -> Iterator[Path]:
    """Thousands of runs would fill a disk in memory."""
    yield tmp_path
    shutil.rmtree(tmp_path)
