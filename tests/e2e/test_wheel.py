"""The wheel, installed in a virtual environment of its own: set up, join, compile."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from distbuild import __version__
from tests.support.cluster import run_here, wait_until
from tests.support.joining import JoinedFarm
from tests.support.tools import absent, need

ROOT = Path(__file__).parents[2]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
ELF = b"\x7fELF"

# Installing takes long; tests/e2e/test_join.py has the rest.
pytestmark = [pytest.mark.compiler, pytest.mark.program, pytest.mark.exhaustive]


def checked(*words: str | Path) -> None:
    """Run pip; without a package index the test is skipped."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if "No matching distribution" in done.stderr or "Could not find a version" in done.stderr:
        absent("a package index that can be reached is not here")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the programs that the wheel installs."""
    place = tmp_path_factory.mktemp("wheel")
    # setuptools writes into the tree from which it builds.
    for name in ("src", "pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("dist", "__pycache__", "*.egg-info")
            shutil.copytree(ROOT / name, place / "tree" / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, place / "tree" / name)
    checked(*PIP, "wheel", "--quiet", "--no-deps", "-w", place, place / "tree")
    (wheel,) = place.glob("dist_build-*.whl")
    assert wheel.name == f"dist_build-{__version__}-py3-none-any.whl"
    checked(sys.executable, "-m", "venv", place / "env")
    checked(place / "env" / "bin" / "python", *PIP[1:], "install", "--quiet", wheel)
    return place / "env" / "bin"


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory, programs: Path) -> Iterator[JoinedFarm]:
    """A dev box and a worker, made with the installed programs only."""
    made = JoinedFarm(tmp_path_factory.mktemp("installed"), programs)
    try:
        made.serve()
        made.join("build1")
        wait_until(lambda: made.states() == {"build1": "up"}, "build1 is up")
        yield made
        made.stop()
    finally:
        made.kill()


def test_a_compile_is_distributed_with_the_same_bytes(farm: JoinedFarm, tmp_path: Path) -> None:
    need("gcc")
    (tmp_path / "a.c").write_text("#include <stdio.h>\nint a;\n")
    home = {"DIST_BUILD_HOME": str(farm.syncer.home), "DIST_BUILD_VERBOSE": "1"}
    done = run_here([*farm.wrapper(), "gcc", "-g", "-c", "a.c"], tmp_path, **home)
    assert (done.exit_code, done.stderr) == (0, b"dist_build: compiled by build1\n")
    there = (tmp_path / "a.o").read_bytes()
    run_here(["gcc", "-g", "-c", "a.c"], tmp_path)
    assert (tmp_path / "a.o").read_bytes() == there


def test_the_first_use_has_compiled_the_launcher(farm: JoinedFarm, programs: Path) -> None:
    assert farm.states() == {"build1": "up"}
    for name in ("dist_build", "dist_build.exe"):
        assert (programs / name).read_bytes()[:4] == ELF
    said = subprocess.run([programs / "dist_build.exe", "--version"], capture_output=True)
    assert said.stdout.decode() == f"dist_build {__version__}\n"


def test_setup_names_the_installed_programs(farm: JoinedFarm, programs: Path) -> None:
    assert str(programs / "dist_build-syncer") in farm.said
    assert "    dist_build-daemon join https://127.0.0.1:" in farm.said


def test_without_a_compiler_the_client_takes_its_place(programs: Path, tmp_path: Path) -> None:
    own = tmp_path / "bin"
    own.mkdir()
    # The script as pip has made it; the launcher took its place at the first use.
    client = (programs / "dist_build_client").read_text()
    text = client.replace("wrapper.main import client", "wrapper.installed import main")
    assert text != client
    (own / "dist_build").write_text(text.replace("client()", "main()"))
    (own / "dist_build").chmod(0o755)
    done = subprocess.run([own / "dist_build", "--version"], env={"PATH": ""}, capture_output=True)
    assert done.stdout.decode() == f"dist_build {__version__}\n", done.stderr
    assert (own / "dist_build").read_text().startswith("#!")
    # It is not tried for each compile.
    assert (own / ".dist_build_no_launcher").exists()
