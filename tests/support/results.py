"""Results of test runs with different compilers, from pytest's XML files, as one table."""

import datetime
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import dataclass, field

import pytest

RESULTS = pytest.StashKey["Results"]()
BOTH = "both"


@dataclass
class Run:
    """The tests of one part with one compiler."""

    passed: int = 0
    failed: int = 0
    skipped: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        numbers = [f"{self.passed} passed"]
        numbers += [f"**{self.failed} failed**"] if self.failed else []
        numbers += [f"{self.skipped.total()} skipped"] if self.skipped else []
        return ", ".join(numbers)


class Results:
    """The runs by suite, compiler and part, in the order in which they were added."""

    def __init__(self) -> None:
        self._runs: dict[tuple[str, str], dict[str, Run]] = {}
        self._parts: dict[str, None] = {}

    def add(self, suite: str, versions: dict[str, str], part: str, xml: str) -> list[str]:
        """Count the tests in an XML file; the names of those that failed. ``versions``: by family,
        what the compilers print of themselves."""
        self._parts[part] = None
        failed = []
        for case in ET.fromstring(xml).iter("testcase"):
            name = f"{case.get('classname')}::{case.get('name')}"
            compiler = versions.get(family_of(name)) or " and ".join(versions.values())
            run = self._runs.setdefault((suite, compiler), {}).setdefault(part, Run())
            if (skip := case.find("skipped")) is not None:
                run.skipped[skip.get("message", "")] += 1
            elif case.find("failure") is not None or case.find("error") is not None:
                run.failed += 1
                failed.append(name)
            else:
                run.passed += 1
        return failed

    def lines(self) -> list[str]:
        """A table, and what was skipped; empty without a run."""
        if not self._runs:
            return []
        parts = list(self._parts)
        lines = [
            f"Run on {datetime.datetime.now(tz=datetime.UTC):%Y-%m-%d}.",
            "",
            f"| Debian | compiler | {' | '.join(parts)} |",
            "|---|---|" + "---|" * len(parts),
        ]
        skipped: dict[str, Counter[str]] = {}
        for (suite, compiler), runs in sorted(self._runs.items()):
            cells = (str(runs[part]) if part in runs else "" for part in parts)
            lines.append(f"| {suite} | {compiler} | {' | '.join(cells)} |")
            for run in runs.values():
                for reason, count in run.skipped.items():
                    skipped.setdefault(reason, Counter())[f"{suite} {compiler}"] += count
        if skipped:
            lines += ["", "Skipped:", ""]
        for reason, where in sorted(skipped.items()):
            lines.append(f"- {reason}: {', '.join(f'{w} ({n})' for w, n in where.items())}")
        return lines


def family_of(name: str) -> str:
    """The family of compilers that a test, by its name and parameters, is about."""
    if "clang" in name:
        return "clang"
    return "gcc" if "gcc" in name or "g++" in name else BOTH
