"""Real projects, built through the settings that the README gives, then tested by themselves."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, wrapper_command
from tests.support.objects import files_below
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
    # CMake from 4.0 on refuses what asks for one as old as cJSON does.
    options = [f"-DCMAKE_C_COMPILER_LAUNCHER={launcher}", "-DCMAKE_POLICY_VERSION_MINIMUM=3.5"]
    run(["cmake", "-G", "Ninja", "-S", str(source), "-B", str(build), *options], tmp_path, cluster)
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


#: What Qt's moc does: it reads a header, and writes a source and a file that a source includes.
MOC = """\
name=$(sed -n 's/^class \\([A-Za-z0-9]*\\).*/\\1/p' "$1")
case $2 in
  *.moc) echo "int $name::generated() { return $(grep -c signal "$1"); }" ;;
  *) printf '#include "../%s"\\nint moc_%s(%s *x) { return x->value; }\\n' "$1" "$name" "$name" ;;
esac >"$2"
"""
QT_LIKE = """\
NAMES := {names}
all: $(NAMES:%=build/%.o) $(NAMES:%=build/moc_%.o)
.SECONDARY:
build/%.moc: src/%.h moc
\tsh moc $< $@
build/moc_%.cpp: src/%.h moc
\tsh moc $< $@
build/%.o: src/%.cpp build/%.moc
\t$(CXX) -g -O1 -Wall -Ibuild -MMD -c $< -o $@
build/moc_%.o: build/moc_%.cpp
\t$(CXX) -g -O1 -Wall -Ibuild -MMD -c $< -o $@
-include build/*.d
"""


@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_sources_that_include_what_the_build_makes(
    cluster: Cluster, tmp_path: Path, require_tool: Callable[[str], str], compiler: str
) -> None:
    """As projects with Qt do: each file is made a moment before it is compiled, or included."""
    names = [f"Widget{n}" for n in range(10)]
    (tmp_path / "src").mkdir()
    (tmp_path / "moc").write_text(MOC)
    (tmp_path / "Makefile").write_text(QT_LIKE.format(names=" ".join(names)))
    for name in names:
        header = f"class {name} {{ public: int value; int generated(); }};  // signal\n"
        (tmp_path / f"src/{name}.h").write_text(header)
        text = f'#include "{name}.h"\nint use({name} *w) {{ return w->generated(); }}\n'
        (tmp_path / f"src/{name}.cpp").write_text(f'{text}#include "{name}.moc"\n')

    def built(wrapper: list[str]) -> dict[str, bytes]:
        """The files of a build from nothing."""
        shutil.rmtree(tmp_path / "build", ignore_errors=True)
        (tmp_path / "build").mkdir()
        command = " ".join([*wrapper, require_tool(compiler)])
        run(["make", PARALLEL, f"CXX={command}"], tmp_path, cluster)
        return files_below(tmp_path / "build")

    expected = built([])
    assert len(expected) == 6 * len(names)
    ours: list[dict[str, bytes]] = []
    remote, local = counted(cluster, lambda: ours.append(built(wrapper_command())))
    assert (ours, remote, local) == ([expected], 2 * len(names), set())
    with (tmp_path / "src/Widget3.h").open("a") as file:
        file.write("// another signal\n")
    remote, local = counted(cluster, lambda: ours.append(built(wrapper_command())))
    assert (remote, local) == (2 * len(names), set())
    assert ours[-1] != expected
    assert ours[-1] == built([])
