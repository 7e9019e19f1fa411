"""Tools that a test needs and a machine may lack."""

import os
import shutil

import pytest


def need(name: str) -> str:
    """The tool's path, or skip; with DIST_BUILD_REQUIRE_TOOLS=1 fail instead."""
    path = shutil.which(name)
    if path is None:
        absent(f"{name} is not installed")
    assert path is not None
    return path


def need_versioned(name: str) -> str:
    """The name of a part of LLVM here, perhaps with a version as Debian has it; or as ``need``."""
    names = (name, *(f"{name}-{version}" for version in range(25, 12, -1)))
    found = next((one for one in names if shutil.which(one)), None)
    if found is None:
        absent(f"{name} is not installed")
    return str(found)


def absent(what: str) -> None:
    """Skip the test for want of something, or fail it where everything has to be there."""
    if os.environ.get("DIST_BUILD_REQUIRE_TOOLS") == "1":
        pytest.fail(f"{what}, and DIST_BUILD_REQUIRE_TOOLS=1")
    pytest.skip(what)
