"""A syncer that is stopped in the middle of a build: every compile ends, and none is done twice."""

import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from distbuild.wrapper.local import ADVICE
from tests.support.cluster import EXECUTABLE, Cluster, Done, run_here, wait_until
from tests.support.objects import files_below

COUNT, JOBS = 20, 8
SILENT = (
    "dist_build: compiled locally: the syncer has said nothing for 10 s: it is stopped, or stuck"
    f"{ADVICE}\n"
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    for n in range(COUNT):
        body = "\n".join(f"double f{i}(double x) {{ return x * {i} + {n}; }}" for i in range(300))
        (root / f"u{n}.c").write_text(f'#include "u.h"\n{body}\n')
    (root / "u.h").write_text("#define X 1\n")
    return root


def argv(n: int) -> list[str]:
    return ["gcc", "-g", "-O1", "-MMD", "-c", f"u{n}.c", "-o", f"u{n}.o"]


def freeze(cluster: Cluster) -> None:
    assert cluster.syncer.popen is not None
    os.kill(cluster.syncer.popen.pid, signal.SIGSTOP)


def thaw(cluster: Cluster) -> None:
    assert cluster.syncer.popen is not None
    os.kill(cluster.syncer.popen.pid, signal.SIGCONT)


@pytest.mark.parametrize("after", [0, pytest.param(9, marks=pytest.mark.exhaustive)])
def test_every_compile_of_a_build_ends_with_the_right_object(
    tmp_path: Path, certs_dir: Path, project: Path, after: int
) -> None:
    for n in range(COUNT):
        run_here(argv(n), project)
    expected = files_below(project)
    own = Cluster(tmp_path / "farm", certs_dir)
    try:
        own.start()
        for built in project.glob("*.[od]"):
            built.unlink()

        def compile_one(n: int) -> Done:
            if n == after:
                freeze(own)
            return own.run(argv(n), project)

        with ThreadPoolExecutor(JOBS) as pool:
            done = list(pool.map(compile_one, range(COUNT)))
        assert [one.exit_code for one in done] == [0] * COUNT
        assert b"".join(one.stderr for one in done).decode() == SILENT
        assert files_below(project) == expected
        # What it was doing when it was stopped, it must not end over the build's head.
        for built in project.glob("*.[od]"):
            built.unlink()
        thaw(own)
        wait_until(lambda: not own.jobs()["running"] and not own.jobs()["queued"], "it gave up")
        again = own.run(argv(0), project, DIST_BUILD_FALLBACK="0")
        assert (again.exit_code, again.stderr) == (0, b"")
        assert sorted(p.name for p in project.glob("*.[od]")) == ["u0.d", "u0.o"]
        own.stop()
    finally:
        own.kill()


def test_without_fallback_it_is_an_error_and_a_link_is_still_made(
    tmp_path: Path, certs_dir: Path, project: Path
) -> None:
    own = Cluster(tmp_path / "farm", certs_dir, [{}])
    try:
        own.start()
        freeze(own)
        forbidden = own.run(argv(0), project, DIST_BUILD_FALLBACK="0")
        assert (forbidden.exit_code, forbidden.stdout) == (103, b"")
        assert forbidden.stderr.startswith(b"dist_build: not compiled: the syncer has said nothing")
        run_here(argv(0), project)
        link = ["gcc", "-shared", "u0.o", "-o", "u.so"]
        done = own.run(link, project, DIST_BUILD_FALLBACK="0")
        assert (done.exit_code, done.stderr) == (0, b"")
        assert (project / "u.so").exists()
    finally:
        own.kill()


@pytest.mark.exhaustive
def test_the_python_client_ends_as_well(tmp_path: Path, certs_dir: Path, project: Path) -> None:
    client = EXECUTABLE.with_name("dist_build_client")
    if not client.exists():
        pytest.skip("there is no client beside the launcher")
    own = Cluster(tmp_path / "farm", certs_dir, [{}])
    try:
        own.start()
        freeze(own)
        done = subprocess.run(
            [client, *argv(0)],
            cwd=project,
            env=own.environment(),
            capture_output=True,
            check=True,
            timeout=600,
        )
        assert done.stderr.count(b"\n") == 1
        assert (project / "u0.o").exists()
    finally:
        own.kill()
