"""clang-cl through Linux workers: Microsoft's way of calling a compiler, and Ninja's use of it."""

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, run_here, wrapper_command
from tests.support.stand_in import make_stand_in
from tests.support.tools import need_versioned

pytestmark = pytest.mark.compiler

VC = "Program Files (x86)/Microsoft Visual Studio/2019/Community/VC/Tools/MSVC/14.29.30037"
UCRT = "Program Files (x86)/Windows Kits/10/Include/10.0.19041.0/ucrt"
SOURCES = 6


@pytest.fixture
def clang_cl(require_tool: Callable[[str], str]) -> str:
    require_tool("bwrap")
    return need_versioned("clang-cl")


def test_the_compiler_of_visual_studio_at_its_own_place(
    cluster: Cluster, clang_cl: str, tmp_path: Path
) -> None:
    programs = Path(os.path.realpath(run_here(["which", clang_cl], tmp_path).stdout.decode()[:-1]))
    compiler = tmp_path / VC / "bin/Hostx64/x64/cl.exe"
    compiler.parent.mkdir(parents=True)
    compiler.symlink_to(programs)
    for place, text in ((UCRT, "#define PRINTED 1\n"), (f"{VC}/include", "#define THROWN 2\n")):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / f"{Path(place).name}.h").write_text(text)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/hello.c").write_text(
        "#include <ucrt.h>\n#include <include.h>\nint main(void) { return PRINTED + THROWN; }\n"
    )
    (tmp_path / "build").mkdir()
    words = [str(compiler), "/I", str(tmp_path / UCRT), "/I", str(tmp_path / VC / "include")]
    words += ["/c", "/Fobuild/", "/EHsc", "tests/hello.c", "/Brepro"]
    made = tmp_path / "build/hello.obj"

    local = run_here(words, tmp_path)
    expected = made.read_bytes()
    made.unlink()
    before = cluster.jobs()
    ours = cluster.run(words, tmp_path, DIST_BUILD_FALLBACK="0")

    assert ours == local
    assert made.read_bytes() == expected
    assert cluster.jobs()["done"] == before["done"] + 1


def test_each_of_several_sources_is_a_job(cluster: Cluster, clang_cl: str, tmp_path: Path) -> None:
    names = [f"s{number}.c" for number in range(5)]
    for number, name in enumerate(names):
        (tmp_path / name).write_text(f"int f{number}(void) {{ return {number}; }}\n")
    before = cluster.jobs()

    done = cluster.run([clang_cl, "/c", "/MP", *names], tmp_path)

    assert done.exit_code == 0
    assert all((tmp_path / name).with_suffix(".obj").exists() for name in names)
    assert cluster.jobs()["done"] == before["done"] + len(names)


def test_a_worker_without_it_gets_none_of_its_jobs(
    cluster: Cluster, clang_cl: str, tmp_path: Path
) -> None:
    (tmp_path / "x.c").write_text("int x;\n")
    other = tmp_path / "other/clang-cl"
    other.parent.mkdir()
    make_stand_in(other, clang_cl)

    done = cluster.run([other, "/c", "x.c"], tmp_path, DIST_BUILD_VERBOSE="1")

    assert b"no_toolchain: for clang-cl" in done.stderr
    assert (tmp_path / "x.obj").exists()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Every source has a header of its own and the common one."""
    source = tmp_path / "a project"
    (source / "inc").mkdir(parents=True)
    (source / "inc/common.h").write_text("#define COMMON 1\n")
    for number in range(SOURCES):
        (source / f"inc/h{number}.h").write_text(f"#define H{number} {number}\n")
        suffix = "cpp" if number % 2 else "c"
        (source / f"s{number}.{suffix}").write_text(
            f'#include "common.h"\n#include "h{number}.h"\n'
            f"int f{number}(int a) {{ return a + COMMON + H{number}; }}\n"
        )
    (source / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.18)\nproject(sample C CXX)\n"
        "include_directories(inc)\nfile(GLOB sources *.c *.cpp)\n"
        "add_library(sample STATIC ${sources})\n"
    )
    return source


def test_ninja_compiles_again_what_a_touched_header_is_in(
    cluster: Cluster, clang_cl: str, project: Path, require_tool: Callable[[str], str]
) -> None:
    names = ("llvm-lib", "llvm-rc", "lld-link")
    tools = {name: str(shutil.which(need_versioned(name))) for name in names}
    for name in ("cmake", "ninja"):
        require_tool(name)
    launched, plain = project / "launched", project / "plain"
    configure(cluster, project, launched, clang_cl, tools, launcher=";".join(wrapper_command()))
    configure(cluster, project, plain, clang_cl, tools)

    assert remote(cluster, lambda: ninja(cluster, launched)) == SOURCES
    assert "no work to do" in ninja(cluster, launched)
    (project / "inc/h3.h").write_text("#define H3 33\n")
    assert remote(cluster, lambda: ninja(cluster, launched)) == 1
    (project / "inc/common.h").write_text("#define COMMON 10\n")
    assert remote(cluster, lambda: ninja(cluster, launched)) == SOURCES
    assert "no work to do" in ninja(cluster, launched)

    ninja(cluster, plain)
    assert objects(launched) == objects(plain)


def configure(
    cluster: Cluster,
    source: Path,
    build: Path,
    compiler: str,
    tools: Mapping[str, str],
    launcher: str = "",
) -> None:
    options = {
        "CMAKE_SYSTEM_NAME": "Windows",
        "CMAKE_TRY_COMPILE_TARGET_TYPE": "STATIC_LIBRARY",
        "CMAKE_BUILD_TYPE": "Release",
        "CMAKE_C_COMPILER": compiler,
        "CMAKE_CXX_COMPILER": compiler,
        "CMAKE_C_FLAGS": "/Brepro",
        "CMAKE_CXX_FLAGS": "/Brepro",
        "CMAKE_AR": tools["llvm-lib"],
        "CMAKE_LINKER": tools["lld-link"],
        "CMAKE_RC_COMPILER": tools["llvm-rc"],
        "CMAKE_C_COMPILER_LAUNCHER": launcher,
        "CMAKE_CXX_COMPILER_LAUNCHER": launcher,
    }
    words = ["cmake", "-G", "Ninja", "-S", str(source), "-B", str(build)]
    run(cluster, [*words, *(f"-D{name}={value}" for name, value in options.items())], source)


def ninja(cluster: Cluster, build: Path) -> str:
    return run(cluster, ["ninja", "-j4"], build)


def run(cluster: Cluster, words: list[str], cwd: Path) -> str:
    done = subprocess.run(
        words,
        cwd=cwd,
        env=cluster.environment(DIST_BUILD_FALLBACK="0"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{words}\n{done.stdout[-4000:]}\n{cluster.logs()}"
    return done.stdout


def remote(cluster: Cluster, build: Callable[[], object]) -> int:
    """How many compiles a build has done remotely."""
    before = cluster.jobs()["done"]
    build()
    return int(cluster.jobs()["done"]) - int(before)


def objects(build: Path) -> dict[str, bytes]:
    found = {str(p.relative_to(build)): p.read_bytes() for p in build.rglob("sample.dir/**/*.obj")}
    assert found
    return found
