"""The Windows that all these tests run in, and a directory of it for each."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.wine import Wine, find_wine

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.windows)


@pytest.fixture(scope="session")
def wine() -> Iterator[Wine]:
    found = find_wine()
    with found.kept_running():
        yield found


@pytest.fixture
def place(wine: Wine, tmp_path: Path) -> Iterator[Path]:
    """An empty directory on drive C."""
    directory = wine.drive / "t" / tmp_path.name
    directory.mkdir(parents=True)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)
