"""A syncer that has no worker but those which a test sends it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Cluster
from tests.support.hostile_worker import HostileWorker


@pytest.fixture(scope="module")
def syncer(tmp_path_factory: pytest.TempPathFactory, certs_dir: Path) -> Iterator[Cluster]:
    """A real syncer without a worker of its own."""
    started = Cluster(tmp_path_factory.mktemp("syncer"), certs_dir, [])
    try:
        yield started.start()
        started.stop()
    finally:
        started.kill()


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory, certs_dir: Path) -> Iterator[Cluster]:
    """A syncer with one honest worker."""
    started = Cluster(tmp_path_factory.mktemp("mixed"), certs_dir, [{"sandbox": "plain"}])
    try:
        yield started.start()
        started.stop()
    finally:
        started.kill()


@pytest.fixture
def evil(syncer: Cluster, certs_dir: Path) -> Iterator[HostileWorker]:
    """A stolen build machine: it has the worker's token."""
    made = HostileWorker(syncer.url, certs_dir)
    yield made
    made.close()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A source ``a.c`` and a header; nothing but these."""
    root = tmp_path / "project"
    root.mkdir()
    (root / "a.c").write_text('#include "a.h"\nint a = A;\n')
    (root / "a.h").write_text("#define A 1\n")
    return root
