"""Tests that compare with a compiler, in Debian systems with other compilers: ``make matrix``.

DIST_BUILD_SUITES chooses the systems. Each is made once, with debootstrap, by root.
"""

import os
import re
import shutil
from collections.abc import Iterator

import pytest

from bench.corpora import PROJECTS
from tests.support.chosen import VARIABLE
from tests.support.debian import CHECKOUT, Debian
from tests.support.projects import downloaded
from tests.support.results import RESULTS

pytestmark = [pytest.mark.matrix, pytest.mark.timeout(0)]

#: The compilers of each suite, those of one run together.
SUITES = {
    "bookworm": ("gcc-12 clang-16",),
    "trixie": ("gcc-14 clang-19",),
    "sid": ("gcc-15 clang-21", "gcc-16 clang-22"),
}
PARTS = {
    "option tables": "tests/unit/command/test_tables_real.py",
    "command lines": "tests/differential/test_lines.py tests/differential/test_generated.py",
    "projects": "tests/differential/test_sources.py",
    "CMake, modules": "tests/e2e/test_modules.py",
    "named modules": "tests/e2e/test_named_modules.py tests/e2e/test_gcc_modules.py"
    " tests/e2e/test_gcc_modules_cmake.py",
    "#embed": "tests/e2e/test_embed.py",
    "precompiled headers": "tests/e2e/test_precompiled.py",
    "identity": "tests/security/test_identity.py tests/security/test_traced.py",
}
XML = "/tmp/results.xml"
PYTEST = (
    f".venv/bin/python -m pytest -q -p no:cacheprovider -o junit_family=xunit1 --junitxml={XML}"
    " -o timeout_func_only=true --timeout 900 --reruns 1 --dist loadfile"
).split()


def runs() -> Iterator[tuple[str, str, str]]:
    for suite in os.environ.get("DIST_BUILD_SUITES", " ".join(SUITES)).split():
        for compilers in SUITES[suite]:
            yield from ((suite, compilers, part) for part in PARTS)


@pytest.fixture(scope="session")
def ready() -> set[str]:
    """The suites whose systems have the present checkout."""
    return set()


def made(suite: str, ready: set[str]) -> Debian:
    system = Debian(suite)
    if suite not in ready:
        system.make(compiler for words in SUITES[suite] for compiler in words.split())
        system.copy_checkout()
        # The same versions everywhere: a mirror need not have a suite's newest sources.
        for recipe in PROJECTS.values():
            kept = system.root / "root/.cache/dist_build-tests" / recipe.package
            shutil.copytree(downloaded(recipe.package), kept, dirs_exist_ok=True)
        system.check(["tools/venv.sh", "dev"])
        system.check(["./generate_dist_build_executable.sh"])
        ready.add(suite)
    return system


def versions(system: Debian, compilers: str) -> dict[str, str]:
    found = {}
    for compiler in compilers.split():
        said = system.check([compiler, "--version"]).partition("\n")[0]
        number = re.search(r"\d+\.\d+\.\d+", re.sub(r"\(.*?\)", "", said))
        family = compiler.partition("-")[0]
        found[family] = f"{family} {number[0]}" if number else compiler
    return found


@pytest.mark.parametrize(("suite", "compilers", "part"), list(runs()))
def test_part_of_the_matrix(
    suite: str, compilers: str, part: str, ready: set[str], request: pytest.FixtureRequest
) -> None:
    system = made(suite, ready)
    processes = os.environ.get("TEST_PROCESSES", "2")
    words = [*PYTEST, "-n", processes, "-m", "not slow", *PARTS[part].split()]
    xml = system.root / XML[1:]
    xml.unlink(missing_ok=True)

    done = system.run(words, {VARIABLE: compilers})

    said = done.stdout.decode(errors="replace")
    assert xml.exists(), said[-4000:]
    results = request.config.stash[RESULTS]
    failed = results.add(suite, versions(system, compilers), part, xml.read_text())
    assert failed == [], f"in {system.root}{CHECKOUT}:\n{said[-8000:]}"
