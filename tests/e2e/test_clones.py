"""Workers that cannot be told apart by their names: cloned machines, containers of one image."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, free_ports, wait_until

UNITS = 6
#: So many builds give each worker work, also where the machine does other things meanwhile.
MOST_BUILDS = 10


@pytest.fixture
def clones(tmp_path: Path, certs_dir: Path) -> Iterator[Cluster]:
    """Three workers of one host name and one port, each at an address of its own; not started."""
    [port] = free_ports(1)
    workers = [{"bind": f"127.0.0.{n}", "port": port, "num_cores": 1} for n in (2, 3, 4)]
    made = Cluster(tmp_path / "farm", certs_dir, workers, cold=True)
    try:
        yield made
    finally:
        made.kill()


def build(cluster: Cluster, project: Path) -> None:
    """A few compiles at once, each long enough that every worker has to take some."""
    project.mkdir()
    text = "\n".join(f"double f{i}(double x) {{ return x * {i}.5 + {i}; }}" for i in range(400))
    for number in range(UNITS):
        (project / f"u{number}.c").write_text(f"int unit{number};\n{text}\n")
    words = [["gcc", "-O2", "-c", f"u{n}.c"] for n in range(UNITS)]
    running = [cluster.popen(argv, project, DIST_BUILD_FALLBACK="0") for argv in words]
    for process in running:
        _, stderr = process.communicate()
        assert (process.returncode, stderr) == (0, b"")


def check_all_are_shown_and_used(cluster: Cluster, project: Path) -> None:
    project.mkdir()
    done: list[int] = []
    for number in range(1, MOST_BUILDS + 1):
        build(cluster, project / str(number))
        shown = cluster.syncer.status()["workers"]
        assert {host: worker["state"] for host, worker in shown.items()} == {
            f"127.0.0.{n}:{cluster.daemons[0].port}": "up" for n in (2, 3, 4)
        }
        done = [worker["done"] for worker in shown.values()]
        assert sum(done) == number * UNITS
        if all(done):
            return
    raise AssertionError(f"a worker gets no work: {done}")


def test_three_workers_of_one_host_name_are_all_shown_and_used(
    clones: Cluster, tmp_path: Path
) -> None:
    clones.start()
    check_all_are_shown_and_used(clones, tmp_path / "project")
    clones.stop()


@pytest.mark.exhaustive
def test_workers_whose_home_was_copied_with_the_machine_are_all_shown_and_used(
    clones: Cluster, tmp_path: Path
) -> None:
    first, *copies = clones.daemons
    first.start()
    wait_until(first.answers, "the machine that is copied has run")
    first.stop()
    for copy in copies:
        for made in ("state", "store", ".dist_build_home"):
            source = first.home / made
            if source.is_dir():
                shutil.copytree(source, copy.home / made)
            elif source.exists():
                shutil.copy(source, copy.home / made)
    clones.start()
    check_all_are_shown_and_used(clones, tmp_path / "project")
    clones.stop()
