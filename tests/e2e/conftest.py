"""Clusters for the end-to-end tests: one a module, since each process of one costs seconds."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Cluster
from tests.support.tools import need

#: How workers confine compilers, and the tool that this takes.
SANDBOXES = {"namespace": "bwrap", "plain": ""}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, certs_dir: Path) -> Iterator[Cluster]:
    """A syncer with an empty ``dirs`` and a daemon of four slots."""
    started = Cluster(tmp_path_factory.mktemp("cluster"), certs_dir, [{"num_cores": 4}])
    try:
        yield started.start()
        started.stop()
    finally:
        started.kill()


@pytest.fixture(scope="module")
def caching(tmp_path_factory: pytest.TempPathFactory, certs_dir: Path) -> Iterator[Cluster]:
    """One daemon, and a syncer with an object cache."""
    dev = {"cache_bytes": 10**9}
    started = Cluster(tmp_path_factory.mktemp("caching farm"), certs_dir, [{}], dev=dev)
    try:
        yield started.start()
        started.stop()
    finally:
        started.kill()


@pytest.fixture(scope="module", params=SANDBOXES)
def farm(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, certs_dir: Path
) -> Iterator[Cluster]:
    """A daemon of four slots that confines compilers in one way."""
    kind = request.param
    if SANDBOXES[kind]:
        need(SANDBOXES[kind])
    workers = [{"sandbox": kind, "num_cores": 4}]
    started = Cluster(tmp_path_factory.mktemp(f"{kind} farm"), certs_dir, workers)
    try:
        yield started.start()
        started.stop()
    finally:
        started.kill()
