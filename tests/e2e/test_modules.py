"""CMake's C++20 builds are distributed, for all their options."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.cluster import Cluster
from tests.support.cmake import BESIDE, built, lay_out, outcomes
from tests.support.objects import assert_same
from tests.support.tools import need

pytestmark = pytest.mark.compiler

INERT = "$root .\n"
SOURCE = """#include "h.h"
#include <cstddef>
struct S { std::size_t n = H; };
template <class T> T twice(T t) { auto f = [](T x) { return x + x; }; return f(t); }
std::size_t run() { return twice(S().n) + sizeof(__FILE__); }
"""
CMAKE = """cmake_minimum_required(VERSION 3.28)
project(hello CXX)
set(CMAKE_CXX_STANDARD 20)
add_library(lib STATIC lib/a.cpp lib/b.cpp)
target_include_directories(lib PUBLIC include)
add_executable(hello main.cpp)
target_link_libraries(hello lib)
"""
MODULES = """
add_library(mods STATIC)
target_sources(mods PUBLIC FILE_SET CXX_MODULES FILES m.cppm PRIVATE plain.cpp)
add_executable(user user.cpp)
target_link_libraries(user mods)
"""
FILES = {
    "include/h.h": "#include <string>\n"
    "inline std::string hi(int i) { return std::to_string(i); }\n"
    "template <class T> struct S { T v{}; static inline int n = 0; T get() { return v + n++; } };\n"
    "std::string a(int);\nstd::string b(int);\n",
    "lib/a.cpp": '#include "h.h"\nstd::string a(int i) { return hi(i) + __FILE__; }\n',
    "lib/b.cpp": '#include "h.h"\nstd::string b(int i) { S<long> s; return hi(s.get() + i); }\n',
    "main.cpp": '#include "h.h"\nint main() { return (a(1) + b(2)).empty(); }\n',
    "m.cppm": "module;\n#include <string>\n"
    "export module m;\nexport std::string m() { return {}; }\n",
    "n.cppm": "module;\n#include <string>\nexport module n;\nimport m;\nexport import :part;\n"
    "export std::string n() { return m() + std::to_string(part()); }\n",
    "part.cppm": "export module n:part;\nexport int part() { return 1; }\n",
    "plain.cpp": "int plain() { return 1; }\n",
    "user.cpp": "#include <string>\nimport m;\nint main() { return m().size(); }\n",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    files = {"x.cc": SOURCE, "inc/h.h": "#define H 3\n", "d/x.o.modmap": INERT}
    return lay_out(tmp_path / "project", files)


LINE = "-std=c++20 -g -O1 -Iinc -MD -fmodules-ts -fmodule-mapper={} -x c++ -o d/x.o -c x.cc"


def command(mapper: str = "d/x.o.modmap") -> list[str]:
    return ["g++", *LINE.format(mapper).split()]


def reasons(cluster: Cluster, argv: list[str], project: Path) -> dict[str, int]:
    """Compile as locally; the outcomes of the wrapper's command."""
    return outcomes(cluster, lambda: assert_same(cluster, argv, project))


@pytest.mark.parametrize("text", [INERT, "", "\n$root .\n\n"])
def test_a_mapper_that_maps_nothing_is_distributed(
    cluster: Cluster, project: Path, text: str
) -> None:
    need("bwrap")
    (project / "d/x.o.modmap").write_text(text)
    assert reasons(cluster, command(), project) == {"done": 1}


def test_a_mapper_in_another_directory_is_found(
    cluster: Cluster, project: Path, tmp_path: Path
) -> None:
    need("bwrap")
    lay_out(tmp_path / "real", {"m": INERT})
    (tmp_path / "elsewhere").symlink_to("real")
    for mapper in (tmp_path / "real/m", tmp_path / "elsewhere/m", "../real/m"):
        assert reasons(cluster, command(str(mapper)), project) == {"done": 1}


def test_a_mapper_is_read_at_each_compile(cluster: Cluster, project: Path) -> None:
    need("bwrap")
    mapper = project / "d/x.o.modmap"
    for text in (INERT, "$root .\nfoo foo.gcm\n", INERT, "$root other\n", INERT):
        mapper.write_text(text)
        outcome = {"modules": 1} if "other" in text else {"done": 1}
        assert reasons(cluster, command(), project) == outcome


HOSTILE: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: None,
    "a directory": Path.mkdir,
    "NUL": lambda path: path.write_bytes(b"$root .\n\0\n"),
    "10 MB": lambda path: path.write_bytes(b"$root .\n" * 1_300_000),
    "unreadable bytes": lambda path: path.write_bytes(b"\xff\xfe\n"),
    "carriage returns": lambda path: path.write_bytes(b"$root .\r\n"),
    "a link": lambda path: path.symlink_to("../inc/h.h"),
    "a header unit": lambda path: path.write_text("./inc/h.h x\n"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_any_other_mapper_is_left_to_the_compiler(
    cluster: Cluster, project: Path, kind: str
) -> None:
    mapper = project / "d/x.o.modmap"
    mapper.unlink()
    HOSTILE[kind](mapper)
    assert reasons(cluster, command(), project) == {"modules": 1}


@pytest.mark.parametrize("option", ["-fmodule-mapper=d/fifo", "@d/fifo"])
def test_a_pipe_blocks_nothing(cluster: Cluster, project: Path, option: str) -> None:
    """The wrapper's compiler waits for its content; the syncer does not."""
    os.mkfifo(project / "d/fifo")
    argv = ["explain", "--", "g++", "-fmodules-ts", option, "-c", "x.cc"]
    assert cluster.run(argv, project).stdout.startswith(b"local: ")


@pytest.mark.parametrize("unit", [",/inc/h.h.gcm", "usr/include/features.h.gcm"])
def test_a_place_of_header_units_is_left_to_the_compiler(
    cluster: Cluster, project: Path, unit: str
) -> None:
    """gcc takes a header unit for an included header, whatever the mapper says."""
    lay_out(project, {unit: "no compiled module\n"})
    assert reasons(cluster, command(), project) == {"modules": 1}


@pytest.mark.parametrize(
    "text", ["export module foo;\n", "import foo;\n", "module foo;\n", "import <cstddef>;\n"]
)
def test_a_module_that_is_not_mapped_is_the_same_error(
    cluster: Cluster, project: Path, text: str
) -> None:
    need("bwrap")
    (project / "x.cc").write_text(text + "int f();\n")
    assert reasons(cluster, command(), project) == {"unproved_failure": 1}


# --- builds by CMake -----------------------------------------------------------------------------


def version_of(program: str, *words: str) -> tuple[int, ...]:
    said = subprocess.run([program, *words], capture_output=True, text=True, check=False).stdout
    return tuple(map(int, re.findall(r"\d+", said)[:2]))


def first_from(names: list[str], least: int, *words: str) -> str | None:
    found = (name for name in names if shutil.which(name))
    return next((name for name in found if version_of(name, *words) >= (least,)), None)


def scanning(family: str) -> str:
    """A compiler that CMake has scan C++20 sources, or skip."""
    cmake = shutil.which("cmake")
    if cmake is None or version_of(cmake, "--version") < (3, 28):
        pytest.skip("cmake of version 3.28 or later is not installed")
    need("ninja")
    if family == "gcc":
        names = ["g++", *(f"g++-{version}" for version in range(20, 13, -1))]
        found = first_from(names, 14, "-dumpversion")
    else:
        names = ["clang++", *(f"clang++-{version}" for version in range(25, 15, -1))]
        found = first_from(names, 16, "-dumpversion")
        major = version_of(found, "-dumpversion")[0] if found else 0
        if not (shutil.which("clang-scan-deps") or shutil.which(f"clang-scan-deps-{major}")):
            pytest.skip("clang-scan-deps is not installed")
    if found is None:
        pytest.skip(f"a {family} for which CMake scans C++20 sources is not installed")
    return found


@pytest.mark.timeout(600)
@pytest.mark.parametrize("family", ["gcc", "clang"])
def test_a_cmake_build_without_modules_is_distributed(
    cluster: Cluster, tmp_path: Path, family: str
) -> None:
    need("bwrap")
    compiler = scanning(family)
    root = lay_out(tmp_path / "hello", {**FILES, "CMakeLists.txt": CMAKE})
    local = built(cluster, root, compiler, wrapped=False)
    ours: dict[str, bytes] = {}
    found = outcomes(cluster, lambda: ours.update(built(cluster, root, compiler, wrapped=True)))
    assert ours == local
    assert {name: found[name] for name in found if name not in BESIDE} == {"done": 3}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("family", ["gcc", "clang"])
def test_a_cmake_build_with_modules_is_distributed(
    cluster: Cluster, tmp_path: Path, family: str
) -> None:
    need("bwrap")
    compiler = scanning(family)
    modules = MODULES.replace("m.cppm", "m.cppm n.cppm part.cppm")
    root = lay_out(tmp_path / "mods", {**FILES, "CMakeLists.txt": CMAKE + modules})
    local = built(cluster, root, compiler, wrapped=False)
    ours: dict[str, bytes] = {}
    found = outcomes(cluster, lambda: ours.update(built(cluster, root, compiler, wrapped=True)))
    assert ours.keys() == local.keys()
    # Two local runs of gcc differ, too: its compiled modules contain the time, and it lists what a
    # source imports in any order.
    loose = (".gcm", ".ddi") if family == "gcc" else ()
    exact = [name for name in local if not name.endswith(loose)]
    if wrong := [name for name in exact if ours[name] != local[name]]:
        # From 19 on clang notes in a module the times of those that it imports.
        again = built(cluster, root, compiler, wrapped=False)
        assert [name for name in wrong if again[name] == local[name]] == []
        assert all(name.endswith(".pcm") for name in wrong)
    assert {n: found[n] for n in found if n not in BESIDE} == {"done": 8}
