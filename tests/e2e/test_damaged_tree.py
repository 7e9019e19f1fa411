"""A worker's mirrored files are deleted behind its back: jobs fail there once at most."""

import shutil
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, wait_until
from tests.support.objects import assert_same

SOURCE = '#include "deep/a.h"\n#include <b.h>\nint x{0} = A + B;\n'


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    (root / "include/deep").mkdir(parents=True)
    (root / "include/deep/a.h").write_text("#define A 1\n")
    (root / "include/b.h").write_text("#define B 2\n")
    for number in range(4):
        (root / f"x{number}.c").write_text(SOURCE.format(number))
    return root


def mirrored(farm: Cluster, path: Path) -> Path:
    """The worker's copy of a file or directory."""
    (found,) = farm.daemons[0].home.glob(f"sandbox/*{path}")
    return found


def is_compiled_there(farm: Cluster, project: Path, number: int) -> bool:
    """Compile a source, with the local compiler's result; whether the worker has compiled it."""
    argv = ["gcc", "-g", "-Iinclude", "-c", f"x{number}.c", "-o", f"x{number}.o"]
    done = farm.jobs()["done"]
    assert_same(farm, argv, project)
    return bool(farm.jobs()["done"] == done + 1)


@pytest.mark.in_turn("farm", "lost", of=4)
@pytest.mark.parametrize(
    "lost", [["include/deep/a.h"], ["include/b.h"], ["include/deep"], ["include"], ["."]]
)
def test_what_is_lost_is_put_again(farm: Cluster, project: Path, lost: list[str]) -> None:
    assert is_compiled_there(farm, project, 0)
    for name in lost:
        path = mirrored(farm, (project / name).resolve())
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    wait_until(lambda: is_compiled_there(farm, project, 1), "it is put again")
    assert is_compiled_there(farm, project, 2)
    assert is_compiled_there(farm, project, 3)
