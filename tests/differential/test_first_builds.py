"""Real projects, fetched when the test runs, built from clean on workers that never saw them.

With ``DIST_BUILD_FALLBACK=0``: no compile may fail, and none stay here but by design. Then again,
on workers that know the project.
"""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from distbuild.command.model import LocalReason
from tests.support.cluster import Cluster, wrapper_command
from tests.support.projects import fetch_or_skip
from tests.support.tools import need

pytestmark = [pytest.mark.compiler, pytest.mark.slow, pytest.mark.timeout(3600)]
JOBS = "-j12"


@dataclass(frozen=True)
class Project:
    """A source package and shell commands in its directory; $CC is the wrapped compiler, $DB the
    wrapper. What is configured and cleaned is not counted."""

    package: str
    configure: str
    build: str
    clean: str
    #: At least so many are compiled by workers, each time.
    compiles: int
    tools: str = "make"

    def __str__(self) -> str:
        return self.package.partition("=")[0]


_FLAGS = 'CFLAGS="-O0 -g"'
PROJECTS = [
    Project(
        "postgresql-15=15.18-0+deb12u1",
        f'CC="$CC" ./configure {_FLAGS} --without-readline --without-zlib'
        " && make -C src/backend generated-headers",
        # One after the other: each would else make the first two at the same time.
        "for part in common port timezone backend interfaces/libpq bin/psql;"
        f" do make {JOBS} -C src/$part || exit; done",
        "make -s -C src clean && make -C src/backend generated-headers",
        700,
    ),
    Project(
        "ffmpeg",
        './configure --cc="$CC" --disable-x86asm --disable-optimizations --disable-doc'
        " --disable-encoders --disable-muxers --disable-programs --disable-filters"
        " --disable-stripping",
        f"make {JOBS}",
        "make clean",
        700,
    ),
    Project(
        "glib2.0",
        'CC="$CC" $PYTHON -m mesonbuild.mesonmain setup build -Dtests=true --wrap-mode=nofallback'
        " -Dlibmount=disabled -Dselinux=disabled -Dnls=disabled",
        f"ninja {JOBS} -C build",
        "ninja -C build -t clean",
        300,
        tools="ninja pkg-config",
    ),
    Project(
        "openssl=3.0.20-1~deb12u2",
        './config CC="$CC" --debug && make build_generated',
        # One after the other: each is a make of its own, which makes the same objects.
        f"make {JOBS} build_libs && make {JOBS} apps/openssl",
        "make clean && make build_generated",
        800,
        tools="make perl",
    ),
    Project(
        "python3.11=3.11.2-6+deb12u8",
        f'CC="$CC" ./configure {_FLAGS} --with-pydebug',
        f"make {JOBS} python",
        "make clean",
        100,
    ),
    Project(
        "zlib",
        f'CC="$CC" {_FLAGS} ./configure',
        f"make {JOBS}",
        "make clean",
        30,
    ),
    Project(
        "lua5.4",
        "true",
        f'make {JOBS} CC="$CC" linux',
        "make clean",
        30,
    ),
    Project(
        "xz-utils",
        f'CC="$CC" {_FLAGS} ./configure --disable-doc --disable-nls',
        f"make {JOBS}",
        "make clean",
        90,
    ),
]


@pytest.fixture
def farm(tmp_path: Path, certs_dir: Path) -> Iterator[Cluster]:
    """Two workers that know nothing."""
    started = Cluster(tmp_path / "farm", certs_dir)
    try:
        yield started.start()
        started.stop()
    finally:
        started.kill()


def shell(command: str, cwd: Path, env: Mapping[str, str]) -> str:
    """Run a line of a project, which has to succeed; what it said."""
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=cwd,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    said = done.stdout.decode(errors="replace")
    ours = [line for line in said.splitlines() if line.startswith("dist_build: ")]
    assert done.returncode == 0, "\n".join([*ours, said[-4000:]])
    return said


def counts(farm: Cluster) -> Counter[str]:
    jobs = farm.jobs()
    return Counter({"done": jobs["done"], "again": jobs["retried"], **jobs["local"]})


@pytest.mark.parametrize("project", PROJECTS, ids=str)
def test_no_compile_of_a_first_build_stays_here_but_by_design(
    farm: Cluster, tmp_path: Path, project: Project
) -> None:
    for tool in ("gcc", *project.tools.split()):
        need(tool)
    source = fetch_or_skip(project.package, tmp_path / "project")
    wrapper = " ".join(wrapper_command())
    env = farm.environment(
        CC=f"{wrapper} gcc", DB=wrapper, PYTHON=os.environ.get("MESON_PYTHON", sys.executable)
    )
    shell(project.configure, source, env)
    for round_ in ("first", "second"):
        before = counts(farm)
        said = shell(project.build, source, {**env, "DIST_BUILD_FALLBACK": "0"})
        done = counts(farm)
        done.subtract(before)
        print(f"{project}, {round_} build: {dict(+done)}")
        assert [line for line in said.splitlines() if line.startswith("dist_build: ")] == []
        failures = [name for name, n in done.items() if n and _is_failure(name)]
        assert failures == []
        assert done["done"] >= project.compiles
        shell(project.clean, source, env)


def _is_failure(name: str) -> bool:
    return name not in ("done", "again") and not LocalReason(name).by_design
