"""Real projects, fetched when the test runs: every compile of their builds equals the local one.

What was compiled through the wrapper lies in its place afterwards, and the projects' own tests
run on that.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.cluster import Cluster
from tests.support.projects import fetch_or_skip
from tests.support.recorded import Recorder, compare_all
from tests.support.tools import need

pytestmark = [pytest.mark.compiler, pytest.mark.slow, pytest.mark.timeout(3600)]
#: More of a build's compiles than this are not to stay on the dev box.
MOST_LOCAL = 0.02


@dataclass(frozen=True)
class Project:
    """A source package with its tarball's digest, and shell commands; $REC is the recorder,
    $SRC the project, $JOBS what to say to make."""

    package: str
    sha256: str
    build: str
    #: At least so many compiles are expected.
    compiles: int
    tools: str = "make"
    test: str = "true"
    #: Reasons for which compiles stay here, with how many.
    local: Mapping[str, int] = field(default_factory=dict)
    #: More packages that have to be there, by the variable that says where.
    more: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    #: What of the tarball is unpacked; empty: all.
    members: Sequence[str] = ()
    #: Which compiles differ between two local runs, by how many at most.
    unstable: int = 0

    def __str__(self) -> str:
        return self.package


_CMAKE = (
    "cmake -S $SRC -B build -DCMAKE_C_COMPILER_LAUNCHER=$REC -DCMAKE_CXX_COMPILER_LAUNCHER=$REC"
)
_GIT = "NO_GETTEXT=1 NO_TCLTK=1 NO_PERL=1 NO_PYTHON=1 NO_OPENSSL=1 NO_CURL=1 NO_EXPAT=1"
#: LLVM has precompiled headers by default with clang from 18 on.
_CLANG = next((str(n) for n in range(40, 17, -1) if shutil.which(f"clang-{n}")), "18")
_LLVM = "LLVMDemangle LLVMSupport LLVMTableGen"
_LLVM_TESTS = "DemangleTests SupportTests TableGenTests"
PROJECTS = [
    # From ./configure on; assembler.
    Project(
        "libffi",
        "d66c56ad259a82cf2a9dfc408b32bf5da52371500b84745f7fb8b645712df676",
        'CC="$REC gcc" CXX="$REC g++" ./configure --disable-docs && make $JOBS',
        20,
    ),
    Project(
        "xz-utils",
        "5d9827aa1875b21c288f78864bb26d2650b436ea8d2cad364e4921eb6266a5a5",
        'CC="$REC gcc" ./configure --disable-doc --disable-nls && make $JOBS',
        90,
        test="make $JOBS check",
    ),
    Project(
        "libzstd",
        "8cf4bbb65e77ec348d052c8d6230eba66d435bddf64c8b5be2fcb16880c19953",
        'make $JOBS -C programs CC="$REC gcc" zstd',
        40,
        test="programs/zstd -q -f README.md -o r && programs/zstd -d -c r | cmp - README.md",
    ),
    Project(
        "libjsoncpp",
        "f409856e5920c18d0c2fb85276e24ee607d2a09b5e7d5f0a371368903c275da2",
        f"{_CMAKE} -DCCACHE_EXECUTABLE=OFF -DCMAKE_BUILD_TYPE=RelWithDebInfo"
        " -DJSONCPP_WITH_POST_BUILD_UNITTEST=OFF && make $JOBS -C build",
        10,
        tools="make cmake",
        test="make $JOBS -C build test",
    ),
    Project(
        "ninja-build",
        "31747ae633213f1eda3842686f83c2aa1412e0f5691d1c14dbbcc67fe7400cea",
        # With -flto, as in a release, two local compiles differ.
        f"{_CMAKE} -DCMAKE_BUILD_TYPE=Debug && make $JOBS -C build",
        50,
        tools="make cmake",
        test="build/ninja_test",
    ),
    # A precompiled header.
    Project(
        "spdlog",
        "620ca6842b5c21014470bd42eb4716024674214fb973b5ffa3aaea33310ad327",
        "cmake -S $FMT -B fmt -DFMT_TEST=OFF -DFMT_DOC=OFF && make $JOBS -C fmt && "
        f"{_CMAKE} -DSPDLOG_ENABLE_PCH=ON -DSPDLOG_FMT_EXTERNAL=ON -Dfmt_DIR=$PWD/fmt"
        " -DSPDLOG_BUILD_EXAMPLE=ON && make $JOBS -C build",
        8,
        tools="make cmake",
        test="build/example/example",
        local={"precompiled_header": 1},
        more={
            "FMT": (
                "fmtlib",
                "84ce1c2d0be3a9863935137969dcec6970125caac032f82474640bfc81463583",
            )
        },
        unstable=1,
    ),
    # More than 300 files; generated headers.
    Project(
        "git",
        "c58da92c378df4a986ca33266897a7397e86c22ee266a284d8c2432c39066b59",
        f'make $JOBS {_GIT} CC="$REC gcc" CFLAGS="-O1 -g -Wall"',
        350,
        test=f"make $JOBS {_GIT} CC=gcc CFLAGS='-O1 -g -Wall' && cd t && ./t0000-basic.sh",
    ),
    # -nostdinc, several -include, assembler. By its version: the newest is another one each month.
    Project(
        "linux=6.1.176-1",
        "9aad4025973feea3f0d978e82ab7db97d8d5ce3f59fcc6b1f316153d66e3a504",
        'make tinyconfig && make $JOBS CC="$REC gcc"',
        400,
        tools="make flex bison bc",
    ),
    # The same with clang, as Android builds it.
    Project(
        "linux=6.1.176-1",
        "9aad4025973feea3f0d978e82ab7db97d8d5ce3f59fcc6b1f316153d66e3a504",
        'make LLVM=-14 tinyconfig && make $JOBS LLVM=-14 CC="$REC clang-14"',
        350,
        tools="make flex bison bc clang-14 ld.lld-14 llvm-ar-14",
    ),
    # Precompiled headers, each made from another one; files that TableGen makes. Any version that
    # the suite has: Debian 12 has none.
    Project(
        "llvm-toolchain-23",
        "",
        f"cmake -G Ninja -S llvm -B build -DCMAKE_C_COMPILER=clang-{_CLANG}"
        f" -DCMAKE_CXX_COMPILER=clang++-{_CLANG} -DCMAKE_CXX_COMPILER_LAUNCHER=$REC"
        " -DCMAKE_C_COMPILER_LAUNCHER=$REC -DCMAKE_BUILD_TYPE=Debug -DLLVM_TARGETS_TO_BUILD="
        f" -DLLVM_INCLUDE_BENCHMARKS=OFF && ninja $JOBS -C build {_LLVM} {_LLVM_TESTS}",
        250,
        tools=f"cmake ninja clang++-{_CLANG}",
        test="for part in Demangle Support TableGen; do"
        " build/unittests/$part/${part}Tests || exit 1; done",
        members=["*/llvm/*", "*/cmake/*", "*/third-party/*", "*/libc/*"],
    ),
]


def shell(command: str, cwd: Path, variables: Mapping[str, str]) -> None:
    """Run a line of a project; it has to succeed."""
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=cwd,
        env={**os.environ, "JOBS": "-j4", **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:].decode(errors="replace")


@pytest.mark.parametrize("project", PROJECTS, ids=str)
def test_every_compile_of_a_project_equals_the_local_one(
    farm: Cluster, tmp_path: Path, project: Project
) -> None:
    for tool in ("gcc", "g++", *project.tools.split()):
        need(tool)
    source = fetch_or_skip(project.package, tmp_path / "project", project.sha256, project.members)
    recorder = Recorder(tmp_path / "recorded")
    variables = {"REC": str(recorder.program), "SRC": str(source)}
    for name, (package, sha256) in project.more.items():
        variables[name] = str(fetch_or_skip(package, tmp_path / package, sha256))
    shell(project.build, source, variables)
    commands = recorder.compiles()

    found = compare_all(farm, commands)

    assert found.different == [], found
    assert len(found.unstable) <= project.unstable, found.unstable
    assert len(commands) >= project.compiles
    assert found.local == project.local
    most = max(MOST_LOCAL * len(commands), sum(project.local.values()))
    assert sum(found.local.values()) <= most
    shell(project.test, source, variables)
