"""Precompiled headers: gcc's are made here and used by the workers, clang's are also made there."""

import os
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, run_here
from tests.support.cmake import BESIDE, built, lay_out, outcomes
from tests.support.objects import assert_same
from tests.support.tools import need

pytestmark = [pytest.mark.compiler, pytest.mark.timeout(600)]

FILES = {
    "pre.h": '#pragma once\n#include <string>\n#include "inc/part.h"\n'
    "template <class T> struct Box { T v{}; T get() { return v + PART; } };\n",
    "inc/part.h": "#define PART 3\nstatic inline int part() { return PART; }\n",
    "empty.cc": "/* generated */\n",
    "x.cc": "std::string run() { return std::to_string(Box<long>().get() + part()); }\n",
    "y.cc": '#include "pre.h"\nint other() { return Box<int>().get(); }\n',
}
#: As CMake makes and uses one.
MAKE = "clang++ -g -O1 {} -Winvalid-pch -fpch-instantiate-templates -Xclang -emit-pch"
MAKE += " -Xclang -include -Xclang {}/pre.h -x c++-header -MD -MT pch -MF {}/pch.d"
MAKE += " -o {}/pre.h.pch -c {}/empty.cc"
USE = "clang++ -g -O1 {} -Winvalid-pch -fpch-instantiate-templates -Xclang -include-pch"
USE += " -Xclang {}/pre.h.pch -Xclang -include -Xclang {}/pre.h -MD -MF x.d -o x.o -c x.cc"
CMAKE = """cmake_minimum_required(VERSION 3.16)
project(pre CXX)
add_library(lib STATIC a.cpp b.cpp c.cpp)
target_precompile_headers(lib PRIVATE <map> <string> pre.h)
target_include_directories(lib PRIVATE .)
add_executable(user main.cpp)
target_link_libraries(user lib)
target_precompile_headers(user REUSE_FROM lib)
target_include_directories(user PRIVATE .)
"""
BUILD = {
    **FILES,
    "CMakeLists.txt": CMAKE,
    "a.cpp": "std::map<int, std::string> a() { return {{part(), std::to_string(PART)}}; }\n",
    "b.cpp": "long b() { return Box<long>().get(); }\n",
    "c.cpp": "#include <vector>\nstd::vector<int> c() { return {part()}; }\n",
    "main.cpp": "long b();\nint main() { return b() + part() - 6; }\n",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    need("bwrap")
    need("clang++")
    return lay_out(tmp_path / "project", FILES)


def line(text: str, project: Path, options: str = "") -> list[str]:
    return text.format(options, *[project] * text.count("{}")).split()


def compiled(cluster: Cluster, project: Path, text: str, options: str = "") -> dict[str, int]:
    return outcomes(cluster, lambda: assert_same(cluster, line(text, project, options), project))


def make(project: Path) -> None:
    """Make the header for the compiles that follow."""
    assert run_here(line(MAKE, project), project).exit_code == 0


@pytest.mark.parametrize("options", ["", "-Xclang -fno-pch-timestamp"])
def test_clangs_header_is_made_and_used_by_workers(
    cluster: Cluster, project: Path, options: str
) -> None:
    assert compiled(cluster, project, MAKE, options) == {"done": 1}
    assert run_here(line(MAKE, project, options), project).exit_code == 0
    assert compiled(cluster, project, USE, options) == {"done": 1}
    without_system_headers = USE.replace("-MD", "-MMD")
    assert compiled(cluster, project, without_system_headers, options) == {"done": 1}


def test_a_precompiled_header_is_made_again(cluster: Cluster, project: Path) -> None:
    """The earlier one is there, beside its header."""
    make(project)
    assert compiled(cluster, project, USE) == {"done": 1}
    (project / "inc" / "part.h").write_text("#define PART 4\nstatic int part() { return 4; }\n")
    assert compiled(cluster, project, MAKE) == {"done": 1}


def test_the_driver_looks_beside_a_header_that_it_includes_itself(
    cluster: Cluster, project: Path
) -> None:
    make(project)
    argv = MAKE.replace("-Xclang -include -Xclang {}", "-include {}")
    assert compiled(cluster, project, argv) == {"precompiled_header": 1}


def test_clangs_own_option_for_it(cluster: Cluster, project: Path) -> None:
    make(project)
    argv = "clang++ -g -O1 -fpch-instantiate-templates -include-pch pre.h.pch -c x.cc -o x.o"
    assert compiled(cluster, project, argv) == {"done": 1}


def test_a_header_that_is_newer_than_the_precompiled_one_is_the_same_error(
    cluster: Cluster, project: Path
) -> None:
    make(project)
    assert compiled(cluster, project, USE) == {"done": 1}
    os.utime(project / "inc/part.h", (1, 1))
    assert compiled(cluster, project, USE) == {"unproved_failure": 1}
    (project / "inc/part.h").write_text("#define PART 44\nstatic inline int part() { return 1; }\n")
    assert compiled(cluster, project, USE) == {"unproved_failure": 1}
    make(project)
    assert compiled(cluster, project, USE) == {"done": 1}


@pytest.mark.parametrize("text", ["", "no precompiled header\n"])
def test_a_file_that_is_no_precompiled_header_is_the_same_error(
    cluster: Cluster, project: Path, text: str
) -> None:
    (project / "pre.h.pch").write_text(text)
    assert compiled(cluster, project, USE) == {"unproved_failure": 1}


def test_a_precompiled_header_that_is_missing_is_left_to_the_compiler(
    cluster: Cluster, project: Path
) -> None:
    assert compiled(cluster, project, USE) == {"special_input": 1}


@pytest.mark.parametrize(
    ("compiler", "made"), [("g++", {"precompiled_header": 1}), ("clang++", {"done": 1})]
)
def test_a_cmake_build_with_a_precompiled_header(
    cluster: Cluster, tmp_path: Path, compiler: str, made: dict[str, int]
) -> None:
    for tool in ("bwrap", "cmake", "ninja", compiler):
        need(tool)
    root = lay_out(tmp_path / "build here", BUILD)
    local = built(cluster, root, compiler, wrapped=False)
    ours: dict[str, bytes] = {}
    found = outcomes(cluster, lambda: ours.update(built(cluster, root, compiler, wrapped=True)))
    assert ours.keys() == local.keys()
    # Two local runs of gcc make different precompiled headers.
    assert [n for n in local if ours[n] != local[n] and not n.endswith(".gch")] == []
    used = {name: count for name, count in found.items() if name not in BESIDE}
    assert used == {**made, "done": made.get("done", 0) + 4}
