"""Tools that a test needs and a machine may lack."""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

FIRST_CONFIGURED = 16


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


def need_configured(name: str) -> str:
    """The name of a part of LLVM (clang, clang++, clang-cl) that reads configuration files by
    itself, as it does from version 16 on."""
    for version in ("", *(f"-{number}" for number in range(25, 15, -1))):
        found = shutil.which(name + version)
        if found and _clang_version(found) >= FIRST_CONFIGURED:
            return name + version
    absent(f"{name} of version {FIRST_CONFIGURED} or later is not installed")
    raise AssertionError


def _clang_version(path: str) -> int:
    done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"clang version (\d+)", done.stdout)
    return int(found[1]) if found else 0


def name_dump(text: str) -> str:
    """The text with the name, for DUMP, that gcc's -fdump-tree-original gives to its dump of a.c:
    it has a number, which differs by gcc's version."""
    if "DUMP" not in text:
        return text
    with tempfile.TemporaryDirectory() as place:
        source = Path(place) / "a.c"
        source.touch()
        words = [need("gcc"), "-fdump-tree-original", "-c", "a.c"]
        subprocess.run(words, cwd=place, check=True)
        (dump,) = source.parent.glob("a.c.*.original")
    return text.replace("DUMP", dump.name)


def takes_assembler_of_path() -> bool:
    """Whether gcc runs the assembler that PATH names; Debian's gcc 16 is built to run one."""
    words = [need("gcc"), "-print-prog-name=as"]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    return said == "as"


def absent(what: str) -> None:
    """Skip the test for want of something, or fail it where everything has to be there."""
    if os.environ.get("DIST_BUILD_REQUIRE_TOOLS") == "1":
        pytest.fail(f"{what}, and DIST_BUILD_REQUIRE_TOOLS=1")
    pytest.skip(what)
