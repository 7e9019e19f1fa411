"""CMake's builds with gcc's named modules: many of them, edits, and the standard library."""

import re
from pathlib import Path

import pytest

from tests.e2e.test_gcc_modules import USES_STD, alike, std_source
from tests.e2e.test_modules import scanning, version_of
from tests.support import many_modules
from tests.support.cluster import Cluster, run_here
from tests.support.cmake import BESIDE, brought_up_to_date, built, lay_out, outcomes
from tests.support.tools import need

pytestmark = pytest.mark.compiler

#: An edit of the project, and the sources that have to be compiled then.
EDITS = {
    "an interface": (
        ("mid/geo_point.cpp", "int x = 0, y = 0;", "int x = 0, y = 0, z = 1;"),
        {
            *("mid/geo_point.cpp", "mid/geo_shape.cpp", "mid/geo_detail.cpp", "mid/geo.cpp"),
            *("mid/geo_impl.cpp", "mid/engine.cpp", "mid/engine_impl.cpp", "mid/facade.cpp"),
            *("tool/main.cpp", "tool/other.cpp"),
        },
    ),
    "an implementation": (
        ("mid/geo_impl.cpp", "return 0;", "return 5;"),
        {"mid/geo_impl.cpp"},
    ),
}


def compiled(files: dict[str, bytes], before: dict[str, bytes]) -> set[str]:
    """The sources whose objects differ."""
    changed = (name for name in files if name.endswith(".o") and files[name] != before[name])
    return {re.sub(r"CMakeFiles/[^/]*\.dir/|\.o$", "", name) for name in changed}


@pytest.mark.timeout(900)
@pytest.mark.in_turn("kind")
@pytest.mark.parametrize("kind", EDITS)
def test_a_cmake_build_of_many_modules_is_distributed(
    cluster: Cluster, tmp_path: Path, kind: str
) -> None:
    compiler = scanning("gcc")
    need("bwrap")
    root = lay_out(tmp_path / "many", many_modules.FILES)
    local = built(cluster, root, compiler, wrapped=False)
    ours: dict[str, bytes] = {}
    found = outcomes(cluster, lambda: ours.update(built(cluster, root, compiler, wrapped=True)))
    assert alike(ours) == alike(local)
    assert {n: found[n] for n in found if n not in BESIDE} == {"done": len(many_modules.SOURCES)}
    assert run_here([str(root / "build/tool")], root).stdout.decode() == many_modules.SAYS

    edit, sources = EDITS[kind]
    lay_out(root, {edit[0]: many_modules.edited(*edit)[edit[0]]})
    later: dict[str, bytes] = {}
    found = outcomes(cluster, lambda: later.update(brought_up_to_date(cluster, root)))
    assert alike(later) == alike(built(cluster, root, compiler, wrapped=False))
    assert {n: found[n] for n in found if n not in BESIDE} == {"done": len(sources)}
    assert compiled(later, ours) <= sources


#: What CMake of a version wants to be told, since its support of the module is an experiment.
EXPERIMENTS: dict[tuple[int, ...], str] = {(4, 3): "451f2fe2-a8a2-47c3-bc32-94786d8fc91b"}
STD_CMAKE = """cmake_minimum_required(VERSION 3.30)
set(CMAKE_EXPERIMENTAL_CXX_IMPORT_STD "{}")
project(uses_std CXX)
set(CMAKE_CXX_STANDARD 23)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_CXX_MODULE_STD ON)
add_executable(use use.cc)
"""


@pytest.mark.timeout(600)
def test_a_cmake_build_that_imports_the_standard_library(cluster: Cluster, tmp_path: Path) -> None:
    compiler = scanning("gcc")
    need("bwrap")
    std_source(compiler)
    experiment = EXPERIMENTS.get(version_of("cmake", "--version"))
    if experiment is None:
        pytest.skip("a CMake whose support of the module std is known here is not installed")
    text = STD_CMAKE.format(experiment)
    root = lay_out(tmp_path / "std", {"CMakeLists.txt": text, "use.cc": USES_STD})
    local = built(cluster, root, compiler, wrapped=False)
    ours: dict[str, bytes] = {}
    found = outcomes(cluster, lambda: ours.update(built(cluster, root, compiler, wrapped=True)))
    assert ours.keys() == local.keys()
    differing = [name for name in ours if alike(ours)[name] != alike(local)[name]]
    assert differing == []
    # std, std.compat and the program.
    assert {n: found[n] for n in found if n not in BESIDE} == {"done": 3}
