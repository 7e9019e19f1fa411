"""Hundreds of command lines: each leaves what it leaves locally, and runs where it should."""

import functools
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from tests.support.cluster import Cluster
from tests.support.differential import Line, Outcome, all_lines, compare
from tests.support.tools import need
from tests.support.yard import lay_out

LINES = Path(__file__).parent / "lines"
NAMES = {"gcc": {"CC": "gcc", "CXX": "g++"}, "clang": {"CC": "clang", "CXX": "clang++"}}
#: `make test` has one row of so many.
SHARE = 8
#: Copies of the project, each with one command at a time in it.
COPIES = 3


@functools.cache
def rows(compiler: str, project: Path = Path("/PROJECT")) -> list[Line]:
    """The command lines for one family; ``project`` stands for $PWD in them."""
    tables = [LINES / "common.txt", LINES / f"{compiler}.txt"]
    # The longer name first: "$CC" begins no other, "$CXX" does not begin with it.
    return all_lines(tables, NAMES[compiler], project)


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
) -> dict[tuple[str, int], Future[Outcome]]:
    """Both runs of every command line that was chosen, several at a time."""
    chosen: list[tuple[str, int]] = [
        row_of(item)
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.function is test_a_line_equals_the_local_one
    ]
    copies: SimpleQueue[Path] = SimpleQueue()
    for number in range(COPIES):
        copies.put(lay_out(tmp_path_factory.mktemp(f"copy{number}") / "project"))

    def run(row: tuple[str, int]) -> Outcome:
        project = copies.get()
        try:
            return compare(farm, project, rows(row[0], project)[row[1]])
        finally:
            copies.put(project)

    with ThreadPoolExecutor(COPIES) as pool:
        return {row: pool.submit(run, row) for row in chosen}


def row_of(item: pytest.Function) -> tuple[str, int]:
    """The parameter of a test."""
    row: Any = item.callspec.params["row"]
    return str(row[0]), int(row[1])


def explained(farm: Cluster, project: Path, line: Line) -> str:
    """What ``explain`` says will become of a command line: "remote" or the reason."""
    words = ["explain", "--", *line.argv]
    said = farm.run(words, project / line.where, **line.env).stdout.decode(errors="replace")
    first = said.partition("\n")[0]
    return "remote" if first == "distributed" else first.removeprefix("local: ").partition(" ")[0]


def parameters() -> Iterator[Any]:
    """All rows. Those for both families are slow with one of them, in turn. `make test` has a
    sixth of the rest: each row also has tests of its parse, and each kind has many rows."""
    shared = len(all_lines([LINES / "common.txt"], NAMES["gcc"], Path("/PROJECT")))
    for number, name in enumerate(NAMES):
        for at, line in enumerate(rows(name)):
            is_other_s = at < shared and at % len(NAMES) != number
            is_among_quick = at // len(NAMES) % SHARE == 0
            marks = [] if is_among_quick else [pytest.mark.exhaustive]
            if is_other_s:
                marks = [pytest.mark.slow]
            yield pytest.param((name, at), marks=marks, id=f"{name}: {line}")


@pytest.mark.compiler
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("row", list(parameters()))
def test_a_line_equals_the_local_one(
    outcomes: dict[tuple[str, int], Future[Outcome]], row: tuple[str, int]
) -> None:
    line = rows(row[0])[row[1]]
    program = line.argv[0]
    # A relative path is in the project, and a PATH of its own too.
    if "PATH" not in line.env and (program.startswith("/") or "/" not in program):
        need(program)

    outcome = outcomes[row].result()

    assert outcome.differences() == []
    assert outcome.fits(rows(row[0])[row[1]].expected), outcome.said


@pytest.mark.compiler
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("count", [5, pytest.param(60, marks=pytest.mark.exhaustive)])
def test_explain_says_what_then_happens(
    farm: Cluster, tmp_path_factory: pytest.TempPathFactory, count: int
) -> None:
    project = lay_out(tmp_path_factory.mktemp("explained") / "project")
    every = [line for name in NAMES for line in rows(name, project)]
    # What a worker finds out by compiling nobody can say before.
    known = [line for line in every if line.expected != "compiler_crashed"]
    remote = [line for line in known if line.expected == "remote"]
    local = [line for line in known if line.expected != "remote"]
    some = [*remote[:: len(remote) // count], *local[:: len(local) // count]]

    with ThreadPoolExecutor(COPIES) as pool:
        said = list(pool.map(lambda line: explained(farm, project, line), some))

    assert len(some) >= 2 * count
    assert [(str(line), word) for line, word in zip(some, said, strict=True)] == [
        (str(line), line.expected) for line in some
    ]


@pytest.mark.compiler
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("compiler", NAMES)
def test_plain_workers_are_as_faithful(
    tmp_path_factory: pytest.TempPathFactory, certs_dir: Path, compiler: str
) -> None:
    """Without namespaces more is compiled locally; nothing is compiled differently."""
    plain = Cluster(tmp_path_factory.mktemp("plain"), certs_dir, [{"sandbox": "plain"}])
    project = lay_out(tmp_path_factory.mktemp("relocated") / "project")
    try:
        plain.start()
        wrong = []
        for line in rows(compiler, project):
            outcome = compare(plain, project, line)
            fits = outcome.fits(line.expected) or outcome.happened == "no_namespace"
            if outcome.differences() or not fits:
                wrong.append((str(line), outcome.said, outcome.differences()))
        assert wrong == [], "\n".join(map(str, wrong))
        plain.stop()
    finally:
        plain.kill()
