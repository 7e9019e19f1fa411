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


def absent(what: str) -> None:
    """Skip the test for want of something, or fail it where everything has to be there."""
    if os.environ.get("DIST_BUILD_REQUIRE_TOOLS") == "1":
        pytest.fail(f"{what}, and DIST_BUILD_REQUIRE_TOOLS=1")
    pytest.skip(what)
