"""What a run of the tests says of those that were skipped, and while it goes on."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.support.summary import MAX_REASONS, packages, summarize

ROOT = Path(__file__).parents[2]


def test_missing_tools_are_one_line_and_one_command() -> None:
    reasons = Counter(
        {
            "Skipped: /usr/bin/clang is not installed": 7,
            "Skipped: bwrap is not installed": 9,
            "odd": 1,
        }
    )
    assert summarize(reasons, {"clang": "clang", "bwrap": "bubblewrap"}) == [
        "skipped for want of a tool: bwrap (9), clang (7)",
        "  to run those too: sudo apt-get install bubblewrap clang",
        "skipped 1: odd",
    ]


def test_nothing_skipped_is_no_line() -> None:
    assert summarize(Counter(), {}) == []


def test_many_reasons_are_a_few_lines() -> None:
    lines = summarize(Counter({f"reason {n}": 1 for n in range(100)}), {})
    assert len(lines) == MAX_REASONS + 1
    assert lines[-1] == f"skipped {100 - MAX_REASONS}: {100 - MAX_REASONS} other reasons"


def test_packages_are_those_of_the_complete_machine() -> None:
    assert packages()["bwrap"] == "bubblewrap"
    assert packages()["ninja"] == "ninja-build"


TESTS = """
import pytest
@pytest.mark.parametrize("n", range(200))
def test_good(n): pass
def test_bad(): assert False
@pytest.fixture
def broken(): raise OSError
def test_error(broken): pass
def test_skipped(): pytest.skip("clang is not installed")
"""


@pytest.mark.program
def test_a_run_says_what_failed_and_no_dots(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    words = [sys.executable, "-m", "pytest", "-q", "--rootdir", str(tmp_path), "-c", "/dev/null"]
    words += ["-p", "tests.support.summary", "-p", "no:cacheprovider", "test_it.py"]
    done = subprocess.run(
        words,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    lines = [line for line in done.stdout.splitlines() if not re.match(r"\d+s:", line)]
    assert lines[:2] == ["FAILED test_it.py::test_bad", "FAILED test_it.py::test_error"]
    assert "skipped for want of a tool: clang (1)" in lines
    assert "200 passed, 1 skipped, 1 error" in lines[-1] or "1 failed, 200 passed" in lines[-1]
    assert not [line for line in lines if ".." in line]
