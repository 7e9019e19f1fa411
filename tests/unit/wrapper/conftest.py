"""The launcher, built once, and a copy of it for each test."""

from pathlib import Path

import pytest

from tests.support.launcher import Launcher, compile_launcher
from tests.support.tools import need


@pytest.fixture(scope="session")
def built_launcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, as it must not be changed."""
    return compile_launcher(need("cc"), tmp_path_factory.mktemp("launcher") / "dist_build.exe")


@pytest.fixture
def launcher(built_launcher: Path, tmp_path: Path) -> Launcher:
    """One in a directory of its own."""
    return Launcher.install(built_launcher, tmp_path / "dist")
