"""A worker whose clock is hours off: what tells the time is not its business."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, run_here

pytestmark = pytest.mark.compiler

ARGV = ["gcc", "-g", "-c", "a.c", "-o", "a.o"]
REASON = b"tells the time, and the worker's clock is 10800 s ahead of the dev box's"


@pytest.fixture
def cluster(tmp_path: Path, certs_dir: Path) -> Iterator[Cluster]:
    """One worker, three hours ahead."""
    (tmp_path / "early").mkdir()
    (tmp_path / "early/sitecustomize.py").write_text(
        "import time\nright = time.time\ntime.time = lambda: right() + 10800\n"
    )
    started = Cluster(tmp_path / "cluster", certs_dir, [{}])
    started.daemons[0].prefix = ["env", f"PYTHONPATH={tmp_path / 'early'}"]
    try:
        yield started.start()
        started.stop()
    finally:
        started.kill()


def test_what_tells_the_time_is_compiled_where_the_clock_is_right(
    cluster: Cluster, tmp_path: Path
) -> None:
    (tmp_path / "when.h").write_text("const char *when = __DATE__;\n")
    (tmp_path / "a.c").write_text('#include "when.h"\n')
    done = cluster.run(ARGV, tmp_path)
    assert (done.exit_code, done.stdout) == (0, b"")
    assert REASON in done.stderr
    assert cluster.jobs()["local"] == {"leases_lost": 1}
    ours = (tmp_path / "a.o").read_bytes()
    # The day may have changed meanwhile; then it does not once more.
    assert ours in [_compiled_here(tmp_path), _compiled_here(tmp_path)]


def test_all_else_is_compiled_by_the_worker(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text("int a;\n")
    done = cluster.run(ARGV, tmp_path)
    assert (done.exit_code, done.stderr) == (0, b"")
    assert cluster.jobs()["done"] == 1
    assert (tmp_path / "a.o").read_bytes() == _compiled_here(tmp_path)


def _compiled_here(directory: Path) -> bytes:
    assert run_here(ARGV, directory).exit_code == 0
    return (directory / "a.o").read_bytes()
