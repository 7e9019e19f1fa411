"""Write a header, then compile at once: never a stale result, in whatever way it is written.

The short run is part of ``make test``; ``-m slow`` is a thousand times over.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, wrapper_command
from tests.support.objects import assert_same

ROUNDS = (4, pytest.param(8, marks=pytest.mark.exhaustive))
SLOW_ROUNDS = 125


class Project:
    """A source that includes <value.h> from one of three search directories, early to late."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.early, self.middle, self.late = root / "early", root / "middle", root / "late"
        for directory in (self.early, self.middle, self.late, root / "src"):
            directory.mkdir(parents=True)
        (root / "src" / "use.c").write_text(
            "#include <value.h>\n#if __has_include(<extra.h>)\nint extra = 1;\n#endif\n"
            "int value = VALUE;\nconst char *where = WHERE;\n"
        )
        self.write(self.late, 0)

    @property
    def argv(self) -> list[str]:
        dirs = [f"-I{d}" for d in (self.early, self.middle, self.late)]
        return ["gcc", "-O1", "-g", "-MD", *dirs, "-c", "src/use.c", "-o", "src/use.o"]

    def text(self, value: int) -> str:
        return f"#define VALUE {value}\n#define WHERE __FILE__\n/* {'x' * (value % 7)} */\n"

    def write(self, directory: Path, value: int) -> None:
        (directory / "value.h").write_text(self.text(value))


def in_place(project: Project, n: int) -> None:
    project.write(project.late, n)


def same_size_in_place(project: Project, n: int) -> None:
    text = f"#define VALUE {n % 10}\n#define WHERE __FILE__\n"
    (project.late / "value.h").write_text(text)


def write_and_rename(project: Project, n: int) -> None:
    temporary = project.late / "value.h.new"
    temporary.write_text(project.text(n))
    temporary.rename(project.late / "value.h")


def make_directories_then_write(project: Project, n: int) -> None:
    shutil.rmtree(project.middle)
    deep = project.middle / "deep" / f"er{n}"
    deep.mkdir(parents=True)
    (deep / "inner.h").write_text(project.text(n))
    (project.middle / "value.h").write_text(f'#include "deep/er{n}/inner.h"\n')


def delete_and_recreate(project: Project, n: int) -> None:
    (project.late / "value.h").unlink()
    project.write(project.late, n)


def move_a_directory(project: Project, n: int) -> None:
    fresh = project.root / "fresh"
    fresh.mkdir()
    project.write(fresh, n)
    shutil.rmtree(project.middle)
    fresh.rename(project.middle)


def move_a_parent_directory(project: Project, n: int) -> None:
    """The search directory itself is not touched: what is above it is exchanged."""
    outer = project.root / "outer"
    if not outer.exists():
        (outer / "inner").mkdir(parents=True)
        shutil.rmtree(project.early)
        project.early.symlink_to(outer / "inner")
    other = project.root / "outer.new"
    (other / "inner").mkdir(parents=True)
    project.write(other / "inner", n)
    outer.rename(project.root / f"outer.{n}")
    other.rename(outer)


def switch_a_symlink(project: Project, n: int) -> None:
    version = project.root / f"version{n}"
    version.mkdir()
    project.write(version, n)
    link = project.root / "link.new"
    link.symlink_to(version)
    if project.early.is_dir() and not project.early.is_symlink():
        shutil.rmtree(project.early)
    link.rename(project.early)


def shadow_a_later_one(project: Project, n: int) -> None:
    for directory in (project.early, project.middle):
        (directory / "value.h").unlink(missing_ok=True)
    project.write((project.early, project.middle)[n % 2], n)


def delete_so_that_the_next_counts(project: Project, n: int) -> None:
    if n % 2:
        project.write(project.early, n)
        project.write(project.middle, n + 1000)
    (project.early / "value.h").unlink(missing_ok=True)
    if not n % 2:
        (project.middle / "value.h").unlink(missing_ok=True)


def through_another_hard_link(project: Project, n: int) -> None:
    """The directory of the other name is not watched, so no event tells of it."""
    other = project.root.parent / f"{project.root.name}-other.h"
    if not other.exists():
        os.link(project.late / "value.h", other)
    other.write_text(project.text(n))


def appear_for_has_include(project: Project, n: int) -> None:
    extra = project.middle / "extra.h"
    if n % 2:
        extra.write_text("")
    else:
        extra.unlink(missing_ok=True)


WAYS = [
    in_place,
    same_size_in_place,
    write_and_rename,
    make_directories_then_write,
    delete_and_recreate,
    move_a_directory,
    move_a_parent_directory,
    switch_a_symlink,
    shadow_a_later_one,
    delete_so_that_the_next_counts,
    through_another_hard_link,
    appear_for_has_include,
]


def write_and_compile(cluster: Cluster, root: Path, way: Callable[..., None], rounds: int) -> None:
    project = Project(root)
    for n in range(1, rounds + 1):
        way(project, n)
        ours = subprocess.run(
            [*wrapper_command(), *project.argv],
            cwd=root,
            env=cluster.environment(DIST_BUILD_FALLBACK="0"),
            capture_output=True,
            check=False,
        )
        assert ours.returncode == 0, f"{ours}\n{cluster.logs()}"
        results = {name: (root / "src" / name).read_bytes() for name in ("use.o", "use.d")}
        subprocess.run(project.argv, cwd=root, check=True)
        truth = {name: (root / "src" / name).read_bytes() for name in ("use.o", "use.d")}
        assert results == truth, f"round {n} is stale"


@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_header_written_just_before_counts(
    cluster: Cluster, tmp_path: Path, way: Callable[..., None], rounds: int
) -> None:
    before = cluster.jobs()
    write_and_compile(cluster, tmp_path / "project", way, rounds)
    after = cluster.jobs()
    assert after["done"] - before["done"] == rounds
    assert after["local"] == before["local"]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_thousand_times_over(cluster: Cluster, tmp_path: Path, way: Callable[..., None]) -> None:
    write_and_compile(cluster, tmp_path / "project", way, SLOW_ROUNDS)


def test_a_header_edited_during_a_compile_is_compiled_again(
    cluster: Cluster, tmp_path: Path
) -> None:
    """The compiler is held up by a source that takes long; the header changes meanwhile."""
    header = tmp_path / "late.h"
    header.write_text("int late = 1;\n")
    slow = "\n".join(f"double f{i}(double x) {{ return x * {i}.5 + {i}; }}" for i in range(2500))
    (tmp_path / "long.c").write_text(f'#include "late.h"\n{slow}\n')
    argv = ["gcc", "-O2", "-c", "long.c", "-o", "long.o"]
    with cluster.popen(argv, tmp_path, DIST_BUILD_FALLBACK="0") as process:
        while not cluster.jobs()["running"] and process.poll() is None:
            time.sleep(0.01)
        assert process.poll() is None, "the compile was over before the header could be edited"
        header.write_text("int late = 2;\n")
        assert process.wait() == 0, process.stderr.read()
    ours = (tmp_path / "long.o").read_bytes()
    subprocess.run(argv, cwd=tmp_path, check=True)
    assert (tmp_path / "long.o").read_bytes() == ours


def test_what_builds_write_for_each_compile_is_no_reason_to_compile_again(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Of a compile that fails it is not known which files it read: each change would be one."""
    by_products = [
        tmp_path / "build" / name
        for name in ("CMakeFiles/Progress/1", "CMakeFiles/Progress/count.txt", ".a.o.cmd", "a.loT")
    ]
    (tmp_path / "build/CMakeFiles/Progress").mkdir(parents=True)
    slow = "\n".join(f"double f{i}(double x) {{ return x * {i}.5 + {i}; }}" for i in range(2500))
    (tmp_path / "long.c").write_text(f"{slow}\nint x = y;\n")
    argv = ["gcc", "-c", "../long.c", "-o", "long.o"]
    cluster.run(argv, tmp_path / "build")
    retried = cluster.jobs()["retried"]
    with cluster.popen(argv, tmp_path / "build", DIST_BUILD_FALLBACK="0") as process:
        while process.poll() is None:
            for path in by_products:
                path.write_text("1\n")
                path.unlink()
            time.sleep(0.001)
        assert process.returncode == 1, process.stderr.read()
    assert cluster.jobs()["retried"] == retried


def test_a_search_directory_that_vanishes_and_comes_back(cluster: Cluster, tmp_path: Path) -> None:
    project = Project(tmp_path / "p")
    project.write(project.early, 5)
    assert_same(cluster, project.argv, project.root)
    shutil.rmtree(project.early)
    assert_same(cluster, project.argv, project.root)
    project.early.mkdir()
    project.write(project.early, 6)
    os.sync()
    assert_same(cluster, project.argv, project.root)
