"""The Windows that all these tests run in, and a directory of it for each."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.wine import UCRT, Wine, WineCluster, find_wine, running_cluster

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.windows)


@pytest.fixture(scope="session")
def wine() -> Iterator[Wine]:
    found = find_wine()
    with found.kept_running():
        found.build_executable()
        # A header where the Windows SDK has its own.
        headers = found.drive / UCRT
        headers.mkdir(parents=True, exist_ok=True)
        (headers / "stdio.h").write_text("int puts(const char *);\n")
        yield found


@pytest.fixture
def place(wine: Wine, tmp_path: Path) -> Iterator[Path]:
    """An empty directory on drive C."""
    directory = wine.drive / "t" / tmp_path.name
    directory.mkdir(parents=True)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def cluster(wine: Wine, certs_dir: Path) -> Iterator[WineCluster]:
    """A syncer and two daemons in wine, which take cl's compiles."""
    with running_cluster(wine, "shared", certs_dir) as cluster:
        yield cluster


@pytest.fixture
def own_cluster(wine: Wine, certs_dir: Path) -> Iterator[WineCluster]:
    """The same for one test alone."""
    with running_cluster(wine, "own", certs_dir) as cluster:
        yield cluster


@pytest.fixture
def project(place: Path) -> Path:
    """A source with a header beside it, and where its object goes."""
    (place / "tests").mkdir()
    (place / "build").mkdir()
    (place / "tests" / "number.h").write_text("#define NUMBER 3\n")
    (place / "tests" / "hello.c").write_text(
        '#include <stdio.h>\n#include "number.h"\n'
        'int main(void) { return puts("hello") * NUMBER; }\n'
    )
    return place
