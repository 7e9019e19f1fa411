"""Windows and this system together, and what else is asked of the wrapper there."""

from pathlib import Path

import pytest

from tests.support.cluster import wait_until
from tests.support.objects import left_by
from tests.support.wine import EXECUTABLE, Wine, WineCluster, running_cluster
from tests.windows.test_compile import EXAMPLE, direct

pytestmark = pytest.mark.timeout(600)


def test_a_worker_of_another_system_takes_no_compile_of_cl(
    wine: Wine, certs_dir: Path, project: Path
) -> None:
    """Both ends of TLS are of both systems: it is told of the mirror, and it asks for work."""
    with running_cluster(wine, "mixed", certs_dir, here=["daemon1"]) as cluster:
        daemon = cluster.daemons[1]
        wait_until(lambda: daemon.status()["clients"], "the mirror has reached it")
        cluster.daemons[0].kill()
        gone = f"127.0.0.1:{cluster.daemons[0].port}"
        wait_until(
            lambda: cluster.syncer.status()["workers"][gone]["state"] != "up", "it is missed", 60.0
        )
        line = f'"{EXECUTABLE}" {EXAMPLE}'
        done = left_by(lambda: wine.script(line, project, **cluster.wrapper()), project / "build")
        truth = direct(cluster, EXAMPLE, project)
        assert (done.exit_code, done.files) == (0, truth.files)
        assert b"compiled locally: no_toolchain" in done.stderr
        assert list(cluster.jobs()["local"]) == ["no_toolchain"]


def test_a_worker_of_windows_serves_the_status_to_a_syncer_of_this_system(
    wine: Wine, certs_dir: Path
) -> None:
    with running_cluster(wine, "foreign", certs_dir, here=["syncer"], workers=[{}]) as cluster:
        host = f"127.0.0.1:{cluster.daemons[0].port}"

        def compilers() -> list[str]:
            worker = cluster.syncer.status()["workers"][host]
            return [toolchain["name"] for toolchain in worker.get("toolchains", [])]

        assert wait_until(compilers, "its own status is shown") == ["cl.exe"]


def test_the_subcommands_answer(cluster: WineCluster, place: Path) -> None:
    def said(*words: str) -> str:
        done = cluster.wine.run([EXECUTABLE, *words], place, **cluster.wrapper())
        assert done.exit_code == 0, (done.stdout + done.stderr).decode()
        return done.stdout.decode()

    assert "workers" in said("status")
    assert said("install").count("up to date") == len(cluster.daemons)
    first, *checks = said("doctor").splitlines()
    assert first.startswith("warn  system: Windows is experimental")
    assert checks
    assert all(line.startswith("ok ") for line in checks), checks
    assert said("clean").count("sandbox removed") == len(cluster.daemons)


def test_without_a_syncer_the_compiler_runs_here(
    wine: Wine, certs_dir: Path, project: Path
) -> None:
    cluster = WineCluster(wine, project / "homes", certs_dir)
    line = f'"{EXECUTABLE}" {EXAMPLE}'
    environ = cluster.wrapper()
    done = left_by(lambda: wine.script(line, project, **environ), project / "build")
    truth = direct(cluster, EXAMPLE, project)
    assert (done.exit_code, done.stdout, done.files) == (0, truth.stdout, truth.files)
    assert b"compiled locally: no syncer at " in done.stderr
    refused = wine.script(line, project, **environ, DIST_BUILD_FALLBACK="0")
    assert refused.exit_code == 103
