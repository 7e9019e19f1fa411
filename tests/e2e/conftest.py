"""Clusters for the end-to-end tests: shared, since each process of one costs a second.

A test that stops one of its processes, or needs it as it is after its start, makes its own.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, running
from tests.support.tools import need

#: How workers confine compilers, and the tool that this takes.
SANDBOXES = {"namespace": "bwrap", "plain": ""}


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory, certs_dir: Path) -> Iterator[Cluster]:
    """A syncer with an empty ``dirs`` and a daemon of four slots."""
    root = tmp_path_factory.mktemp("cluster")
    with running(Cluster(root, certs_dir, [{"num_cores": 4}])) as started:
        yield started


@pytest.fixture(scope="session")
def caching(tmp_path_factory: pytest.TempPathFactory, certs_dir: Path) -> Iterator[Cluster]:
    """One daemon, and a syncer with an object cache."""
    root, dev = tmp_path_factory.mktemp("caching farm"), {"cache_bytes": 10**9}
    with running(Cluster(root, certs_dir, [{}], dev=dev)) as started:
        yield started


@pytest.fixture(scope="session")
def farms(
    tmp_path_factory: pytest.TempPathFactory, certs_dir: Path
) -> Iterator[Callable[[str], Cluster]]:
    """Starts the farm with a kind of sandbox when it is first asked for."""
    with contextlib.ExitStack() as stack:

        @functools.cache
        def start(kind: str) -> Cluster:
            root = tmp_path_factory.mktemp(f"{kind} farm")
            made = Cluster(root, certs_dir, [{"sandbox": kind, "num_cores": 4}])
            return stack.enter_context(running(made))

        yield start


@pytest.fixture(scope="module", params=SANDBOXES)
def farm(request: pytest.FixtureRequest, farms: Callable[[str], Cluster]) -> Cluster:
    """A daemon of four slots that confines compilers in one way."""
    kind = str(request.param)
    if SANDBOXES[kind]:
        need(SANDBOXES[kind])
    return farms(kind)
