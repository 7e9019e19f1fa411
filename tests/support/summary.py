"""How ``make test`` shows a run: progress every few seconds, and skipped tests by what is missing.

A plugin for pytest: ``-p tests.support.summary``. With pytest-xdist only the controlling process
prints. Knows no test.
"""

import os
import re
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

#: The longest silence (seconds) is a little more.
PERIOD_S = 5.0
WIDTH = 76
MAX_REASONS = 12
CI = Path(__file__).parents[2] / ".ci" / "run"

_NOT_INSTALLED = re.compile(r"(?:Skipped: )?(\S+) is not installed")


def packages() -> dict[str, str]:
    """The Debian package of each tool, as the tests of a complete machine install them."""
    text = re.search(r"NEEDED=\((.*?)\)", CI.read_text(encoding="utf-8"), re.DOTALL)
    return dict(re.findall(r"(\S+):(\S+)", text[1])) if text else {}


def summarize(reasons: Counter[str], known: dict[str, str]) -> list[str]:
    """Lines for people: missing tools on one, then each other reason; and how to get the tools."""
    tools, others = Counter[str](), Counter[str]()
    for reason, count in reasons.items():
        match = _NOT_INSTALLED.match(reason)
        if match:
            tools[os.path.basename(match[1])] += count
        else:
            others[reason.removeprefix("Skipped: ")] += count
    lines = []
    if tools:
        named = ", ".join(f"{tool} ({count})" for tool, count in tools.most_common())
        lines.append(f"skipped for want of a tool: {named}")
        wanted = sorted({known[tool] for tool in tools if tool in known})
        if wanted:
            lines.append(f"  to run those too: sudo apt-get install {' '.join(wanted)}")
    for reason, count in others.most_common(MAX_REASONS):
        lines.append(f"skipped {count}: {' '.join(reason.split())[:100]}")
    if len(others) > MAX_REASONS:
        rest = sum(others.values()) - sum(n for _, n in others.most_common(MAX_REASONS))
        lines.append(f"skipped {rest}: {len(others) - MAX_REASONS} other reasons")
    return lines


class Summary:
    """Writes to the standard output that pytest was started with, past its capturing."""

    def __init__(self, output: int) -> None:
        self._output = output
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._tick, name="progress", daemon=True)
        self._started = time.monotonic()
        self._column = 0
        self._lock = threading.Lock()
        self._total = 0
        self._done: set[str] = set()
        self._skipped = Counter[str]()

    # --- hooks ----------------------------------------------------------------------------------

    def pytest_sessionstart(self) -> None:
        """Progress begins before the tests are collected."""
        self._thread.start()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """One process runs all."""
        self._total = max(self._total, len(session.items))

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        """Each of several processes has found the same tests."""
        self._total = len(ids)

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: Any) -> tuple[str, str, str] | None:
        """Neither dot nor word: what went wrong is said at the end."""
        if isinstance(report, pytest.TestReport) and not hasattr(report, "wasxfail"):
            if report.passed and report.when != "call":
                return "", "", ""
            if report.failed and report.when != "call":
                return "error", "", ""
            return report.outcome, "", ""
        return None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count; name a failure at once."""
        self._done.add(report.nodeid)
        if report.failed:
            self._write(f"FAILED {report.nodeid}", alone=True)
        if str(report.outcome) == "rerun":  # of pytest-rerunfailures
            self._write(f"failed once {report.nodeid}", alone=True)
        if report.skipped and isinstance(report.longrepr, tuple):
            self._skipped[str(report.longrepr[2])] += 1

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """After pytest's own list of failures."""
        for line in summarize(self._skipped, packages()):
            terminalreporter.write_line(line)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """No more progress."""
        self._ended.set()
        self._thread.join()

    # --- progress -------------------------------------------------------------------------------

    def _tick(self) -> None:
        while not self._ended.wait(PERIOD_S):
            share = f"{100 * len(self._done) // self._total}%" if self._total else "collecting"
            self._write(f"{time.monotonic() - self._started:.0f}s:{share}")

    def _write(self, text: str, *, alone: bool = False) -> None:
        with self._lock:
            starts_a_line = not self._column or alone or self._column + len(text) >= WIDTH
            before = "\n" if starts_a_line and self._column else " " if self._column else ""
            self._column = 0 if alone else len(text) + (0 if starts_a_line else self._column + 1)
            os.write(self._output, (before + text + ("\n" if alone else "")).encode())


#: Taken before pytest captures what is written.
_OUTPUT = os.dup(1)


def pytest_configure(config: pytest.Config) -> None:
    """Only the process that the user sees."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Summary(_OUTPUT), "dist_build summary")
