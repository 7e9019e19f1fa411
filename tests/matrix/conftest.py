"""Prints the results of the matrix as one table, and writes them to docs/compilers.md if asked."""

import os
from pathlib import Path

import pytest

from tests.support.results import RESULTS, Results

DOCUMENT = Path(__file__).parents[2] / "docs" / "compilers.md"
#: The table follows this line.
MARK = "<!-- written by make matrix -->\n"


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RESULTS] = Results()


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    lines = config.stash[RESULTS].lines()
    for line in lines:
        terminalreporter.write_line(line)
    if lines and os.environ.get("MATRIX_DOCS") == "1":
        before = DOCUMENT.read_text(encoding="utf-8").partition(MARK)[0]
        DOCUMENT.write_text(before + MARK + "\n" + "\n".join(lines) + "\n", encoding="utf-8")
