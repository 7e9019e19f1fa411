"""The cl family's command lines: each leaves what it leaves locally, and runs where it should."""

import dataclasses
import functools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from tests.support.cluster import Cluster, Done
from tests.support.differential import Line, Outcome, all_lines, compare
from tests.support.tools import need, need_versioned
from tests.support.yard_cl import lay_out

TABLE = Path(__file__).parent / "lines/cl.txt"
DEFAULT = "$CL {} /c src/main.c /Fobuild/out.obj"
COPIES = 3
#: `make test` has one row of so many.
SHARE = 6
#: Machines of COFF objects; an object of more sections than 16 bits count has another header.
_MACHINES = (b"\x64\x86", b"\x4c\x01", b"\x64\xaa")
_BIG = b"\0\0\xff\xff"


@functools.cache
def rows(project: Path = Path("/PROJECT"), name: str = "clang-cl") -> list[Line]:
    """The command lines; ``project`` stands for $PWD in them."""
    return all_lines([TABLE], {"CL": name}, project, DEFAULT)


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory, certs_dir: Path) -> Iterator[Cluster]:
    """One worker that shows the original paths."""
    need("bwrap")
    started = Cluster(tmp_path_factory.mktemp("farm"), certs_dir, [{"sandbox": "namespace"}])
    try:
        yield started.start()
        started.stop()
    finally:
        started.kill()


@pytest.fixture(scope="module")
def outcomes(
    request: pytest.FixtureRequest, farm: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> dict[int, Outcome]:
    """Both runs of every command line that was chosen, several at a time."""
    chosen = sorted(
        int(str(item.callspec.params["row"]))
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.function is test_a_line_equals_the_local_one
    )
    name = need_versioned("clang-cl")
    copies: SimpleQueue[Path] = SimpleQueue()
    for number in range(COPIES):
        copies.put(lay_out(tmp_path_factory.mktemp(f"copy{number}") / "project"))

    def run(row: int) -> Outcome:
        project = copies.get()
        try:
            return without_times(compare(farm, project, rows(project, name)[row]))
        finally:
            copies.put(project)

    with ThreadPoolExecutor(COPIES) as pool:
        return dict(zip(chosen, pool.map(run, chosen), strict=True))


def without_times(outcome: Outcome) -> Outcome:
    """The same with the time at which each COFF object was written blotted out."""
    return dataclasses.replace(
        outcome,
        local=_timeless(outcome.local),
        again=_timeless(outcome.again),
        ours=_timeless(outcome.ours),
    )


def _timeless(done: Done) -> Done:
    found: dict[str, Any] = dict(done.files)
    files: Any = {name: (mode, _plain(content)) for name, (mode, content) in found.items()}
    return dataclasses.replace(done, files=files)


def _plain(content: bytes) -> bytes:
    at = 8 if content.startswith(_BIG) else 4
    if not content.startswith((_BIG, *_MACHINES)):
        return content
    return content[:at] + bytes(4) + content[at + 4 :]


def parameters() -> Iterator[Any]:
    """All rows; of those that run on workers each second one is slow. `make test` has a sixth of
    the rest."""
    for at, line in enumerate(rows()):
        marks = () if at // 2 % SHARE == 0 else (pytest.mark.exhaustive,)
        if line.expected == "remote" and at % 2:
            marks = (pytest.mark.slow,)
        yield pytest.param(at, marks=marks, id=str(line))


@pytest.mark.compiler
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("row", list(parameters()))
def test_a_line_equals_the_local_one(outcomes: dict[int, Outcome], row: int) -> None:
    assert outcomes[row].differences() == []
    assert outcomes[row].happened == rows()[row].expected, outcomes[row].said


@pytest.mark.compiler
@pytest.mark.timeout(3600)
def test_explain_says_what_then_happens(
    farm: Cluster, outcomes: dict[int, Outcome], tmp_path_factory: pytest.TempPathFactory
) -> None:
    project = lay_out(tmp_path_factory.mktemp("explained") / "project")
    some = list(outcomes)[::5]

    for row in some:
        line = rows(project, need_versioned("clang-cl"))[row]
        done = farm.run(["explain", "--", *line.argv], project / line.where, **line.env)
        first = done.stdout.decode(errors="replace").partition("\n")[0]
        said = "remote" if first == "distributed" else first.removeprefix("local: ").split(" ")[0]
        assert said == outcomes[row].happened, str(line)
