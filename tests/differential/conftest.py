"""The farm of tests that name no other: two workers, each with the best sandbox that works here."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, running


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory, certs_dir: Path) -> Iterator[Cluster]:
    with running(Cluster(tmp_path_factory.mktemp("farm"), certs_dir)) as started:
        yield started
