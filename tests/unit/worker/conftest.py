import glob
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from distbuild.worker.sandbox.base import Sandbox
from distbuild.worker.sandbox.namespace import NamespaceSandbox, find_bwrap, probe
from distbuild.worker.sandbox.plain import PlainSandbox
from tests.unit.worker.devbox import SEARCH_PATH, DevBox

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


@pytest.fixture(scope="session")
def namespace_obstacle() -> str:
    return probe(find_bwrap(SEARCH_PATH))


@pytest.fixture
def namespace_sandbox(
    require_tool: Callable[[str], str], namespace_obstacle: str
) -> NamespaceSandbox:
    bwrap = require_tool("bwrap")
    if namespace_obstacle:
        if os.environ.get("DIST_BUILD_REQUIRE_TOOLS") == "1":
            pytest.fail(namespace_obstacle)
        pytest.skip(namespace_obstacle)
    return NamespaceSandbox(bwrap, SEARCH_PATH)


@pytest.fixture(params=["namespace", "plain"])
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    if request.param == "plain":
        return PlainSandbox(SEARCH_PATH)
    found: Sandbox = request.getfixturevalue("namespace_sandbox")
    return found


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
