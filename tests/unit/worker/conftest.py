import glob
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from distbuild.worker.sandbox.base import Sandbox
from tests.support.sandboxes import SANDBOXES, sandbox_of
from tests.unit.worker.devbox import DevBox

GCC = sorted(glob.glob("/usr/lib/gcc/*/*/include"))
SYSTEM_ROOTS = (
    "/usr/include",
    "/usr/local/include",
    *GCC,
    *map(os.path.realpath, glob.glob("/usr/lib/llvm-*/lib/clang/*/include")),
)


@pytest.fixture(scope="session")
def devbox(tmp_path_factory: pytest.TempPathFactory) -> DevBox:
    """A dev box whose system headers are mirrored; shared, since that takes a second."""
    box = DevBox(tmp_path_factory.mktemp("worker"))
    box.mirror(*filter(os.path.isdir, SYSTEM_ROOTS))
    # clang spells its C++ directories with ".." through these.
    for directory in map(os.path.dirname, GCC):
        version = os.path.basename(directory)
        way = f"/usr/bin/..{directory.removeprefix('/usr')}/../../../../include/c++/{version}"
        box.mirror_way(way)
    return box


@pytest.fixture
def namespace_sandbox(tmp_path: Path) -> Sandbox:
    return sandbox_of("namespace", tmp_path)


@pytest.fixture(params=SANDBOXES)
def sandbox(request: pytest.FixtureRequest, tmp_path: Path) -> Sandbox:
    return sandbox_of(request.param, tmp_path)


@pytest.fixture
def project(tmp_path: Path, devbox: DevBox) -> Iterator[Path]:
    """A mirrored project of one test."""
    from tests.unit.worker.devbox import make_project

    top = make_project(tmp_path / "proj")
    devbox.mirror(top)
    yield top
    gone = os.fsencode(tmp_path) + b"/"
    devbox.roots = {root for root in devbox.roots if not root.startswith(gone)}
    devbox.become({p: e for p, e in devbox.entries.items() if not p.startswith(gone)})
