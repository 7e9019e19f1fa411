"""Clusters for the end-to-end tests: one a module, since a start costs a second."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, certs_dir: Path) -> Iterator[Cluster]:
    """A syncer with an empty ``dirs`` and two daemons of two slots."""
    started = Cluster(tmp_path_factory.mktemp("cluster"), certs_dir)
    try:
        yield started.start()
        started.stop()
    finally:
        started.kill()
