"""gcc's own test programs, most of them meant to warn or to fail, say what they say locally."""

import re
import shlex
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import pytest

from tests.support.cluster import Cluster
from tests.support.differential import Line, compare
from tests.support.projects import unpack_or_skip
from tests.support.tools import need

#: Directories of the suite, and how many programs of each are compiled, spread evenly.
SUITE = {
    "gcc.dg": 260,
    "gcc.dg/cpp": 120,
    "c-c++-common": 80,
    "g++.dg/parse": 60,
    "g++.dg/warn": 60,
    "g++.dg/template": 60,
}
COPIES = 2
_OPTIONS = re.compile(r'\{\s*dg-(?:additional-)?options\s+"([^"]*)"')
#: What differs between any two runs, takes minutes, or is about more than one file.
_NEVER = re.compile(r"-(?:fdump|flto|v\b|ftime|fmem|fself|Q\b|print|fplugin|B|save-temps|M)")


def select(suite: Path, place: str, count: int) -> list[Path]:
    """So many programs of a directory."""
    every = sorted(path for path in (suite / place).iterdir() if path.suffix in (".c", ".C", ".i"))
    usable = [path for path in every if not _NEVER.search(" ".join(options_of(path)))]
    return usable[:: max(1, len(usable) // count)][:count]


def options_of(program: Path) -> list[str]:
    """The options that the suite compiles it with."""
    return " ".join(_OPTIONS.findall(program.read_text(errors="replace"))).split()


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory, certs_dir: Path) -> Iterator[Cluster]:
    need("bwrap")
    started = Cluster(tmp_path_factory.mktemp("farm"), certs_dir, [{"sandbox": "namespace"}])
    try:
        yield started.start()
        started.stop()
    finally:
        started.kill()


@pytest.mark.compiler
@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("place", SUITE)
def test_programs_that_warn_and_fail(farm: Cluster, tmp_path: Path, place: str) -> None:
    need("gcc"), need("g++")
    members = [f"*/gcc/testsuite/{place}/*.[chCHi]"]
    unpacked = unpack_or_skip(
        "gcc-12-source", "usr/src/gcc-12/gcc-12*.tar.xz", members, tmp_path / "suite"
    )
    (suite,) = unpacked.glob("*/gcc/testsuite")
    programs = select(suite, place, SUITE[place])
    copies: SimpleQueue[Path] = SimpleQueue()
    for number in range(COPIES):
        copy = tmp_path / f"copy{number}"
        copy.mkdir()
        for path in [*(suite / place).glob("*.[hH]"), *programs]:
            shutil.copy2(path, copy)
        copies.put(copy)

    def differences(program: Path) -> list[str]:
        compiler = "g++" if place.startswith("g++") else "gcc"
        words = [compiler, *options_of(program), "-c", program.name, "-o", "out.o"]
        copy = copies.get()
        try:
            outcome = compare(farm, copy, Line(tuple(words)))
        finally:
            copies.put(copy)
        return [f"{shlex.join(words)} [{outcome.said}]: {text}" for text in outcome.differences()]

    with ThreadPoolExecutor(COPIES) as pool:
        found = [text for texts in pool.map(differences, programs) for text in texts]

    assert len(programs) >= SUITE[place] // 2
    assert found == []
    counts = farm.jobs()
    assert sum(counts["local"].values()) <= counts["done"] // 10, counts
