"""Real projects, built through the settings that the README gives, then tested by themselves."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, wrapper_command
from tests.support.projects import fetch_or_skip

pytestmark = [pytest.mark.compiler, pytest.mark.timeout(600)]
PARALLEL = "-j8"


def run(words: list[str], cwd: Path, cluster: Cluster) -> str:
    done = subprocess.run(
        words,
        cwd=cwd,
        env=cluster.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{words}\n{done.stdout[-4000:]}\n{cluster.logs()}"
    return done.stdout


def counted(cluster: Cluster, build: Callable[[], object]) -> tuple[int, set[str]]:
    """How many compiles a build had done remotely, and for which reasons others were local."""
    before = cluster.jobs()
    build()
    after = cluster.jobs()
    local = {r for r, n in after["local"].items() if n != before["local"].get(r, 0)}
    return after["done"] - before["done"], local


def test_cmake_and_ninja_build_cjson_and_its_tests_pass(
    cluster: Cluster, tmp_path: Path, require_tool: Callable[[str], str]
) -> None:
    require_tool("cmake")
    require_tool("ninja")
    source = fetch_or_skip("cjson", tmp_path / "cjson")
    build = tmp_path / "build"
    launcher = ";".join(wrapper_command())
    launched = f"-DCMAKE_C_COMPILER_LAUNCHER={launcher}"
    run(["cmake", "-G", "Ninja", "-S", str(source), "-B", str(build), launched], tmp_path, cluster)
    remote, local = counted(cluster, lambda: run(["ninja", PARALLEL], build, cluster))
    assert remote >= 20
    assert local <= {"link"}
    assert "100% tests passed" in run(["ctest"], build, cluster)
    assert "no work to do" in run(["ninja"], build, cluster)
    header = source / "tests" / "common.h"
    header.write_text(header.read_text() + "\n")
    remote, local = counted(cluster, lambda: run(["ninja", PARALLEL], build, cluster))
    assert 8 <= remote < 20, "only what includes the header is compiled again"
    assert "100% tests passed" in run(["ctest"], build, cluster)


def test_make_builds_bzip2_and_its_tests_pass(cluster: Cluster, tmp_path: Path) -> None:
    source = fetch_or_skip("bzip2", tmp_path / "bzip2")
    compiler = f"CC={' '.join(wrapper_command())} gcc"
    remote, local = counted(cluster, lambda: run(["make", PARALLEL, compiler], source, cluster))
    assert remote >= 8
    assert local <= {"link"}
    assert "like you're in business" in run(["make", "test", compiler], source, cluster)


def test_configure_and_make_build_zlib_and_its_tests_pass(cluster: Cluster, tmp_path: Path) -> None:
    source = fetch_or_skip("zlib", tmp_path / "zlib")
    wrapped = f"CC={' '.join(wrapper_command())} gcc"
    run(["env", wrapped, "./configure"], source, cluster)
    remote, local = counted(cluster, lambda: run(["make", PARALLEL], source, cluster))
    assert remote >= 20
    assert local <= {"link"}
    assert "zlib test OK" in run(["make", "test"], source, cluster)
