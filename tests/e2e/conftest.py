"""Clusters for the end-to-end tests: one a module, since a start costs a second."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Cluster
from tests.support.tools import need

#: How workers confine compilers, and the tool that this takes.
SANDBOXES = {"namespace": "bwrap", "plain": ""}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, certs_dir: Path) -> Iterator[Cluster]:
    """A syncer with an empty ``dirs`` and two daemons of two slots."""
    started = Cluster(tmp_path_factory.mktemp("cluster"), certs_dir)
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
    """Two daemons that confine compilers in one way."""
    kind = request.param
    if SANDBOXES[kind]:
        need(SANDBOXES[kind])
    started = Cluster(
        tmp_path_factory.mktemp(f"{kind} farm"), certs_dir, [{"sandbox": kind}, {"sandbox": kind}]
    )
    try:
        yield started.start()
        started.stop()
    finally:
        started.kill()
