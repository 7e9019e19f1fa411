"""CPU that one compile costs the dev box, for real projects and by size; beside the peers'.

Counted: the wrapper with all that it starts and waits for, and the resident process of the dev box
(syncer, include server). Not counted: daemons and distccd, which stand for build machines.
"""

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import launcher, peers
from bench.common import (
    Command,
    LoadGenerator,
    Options,
    Skipped,
    cpu_of,
    farm,
    local_jobs,
    median,
    ours,
    syncer_pid,
)
from bench.corpora import PROJECTS, commands_of, synthetic
from bench.peers import Way
from bench.report import Cell, Plot, Result, Table
from tests.support.cluster import Cluster, wrapper_command

PARALLEL = 2
SIZES = (1_000, 8_000, 64_000, 512_000, 2_000_000)
MANY_BELOW = 100_000
LOCAL = Way("local compile")


@dataclass(frozen=True)
class Cost:
    """Of one file: CPU of the dev box in ms, and wall time of the whole divided by files."""

    cpu_ms: float
    wall_ms: float
    failed: int = 0


class Bench:
    """The ways to compile, all running, and a load generator to try them with."""

    def __init__(self, options: Options, cluster: Cluster, ways: Sequence[Way], note: str) -> None:
        self.options, self.cluster, self.ways, self.note = options, cluster, ways, note
        self._load = LoadGenerator(options.work)

    def once(self, way: Way, commands: Sequence[Command], rest_s: float = 0.0) -> Cost:
        """Compile everything, as in a fresh tree: to remove an object of an earlier round is no
        part of it. What the resident processes do in the ``rest_s`` afterwards is."""
        for command in commands:
            command.object().unlink(missing_ok=True)
        before = cpu_of(way.resident)
        load = self._load.run([c.behind(way.prefix) for c in commands], PARALLEL, way.env)
        time.sleep(rest_s)
        cpu = load.cpu + cpu_of(way.resident) - before
        files = len(commands)
        return Cost(1000 * cpu / files, 1000 * load.wall / files, load.failed)

    def compare(
        self, ways: Sequence[Way], commands: Sequence[Command], rest_s: float = 0.0
    ) -> dict[str, Cost]:
        """Medians; rounds go through the ways in turn, so that a slow minute hits them all.

        A first round that is not counted fills mirrors and caches.
        """
        rounds: dict[str, list[Cost]] = {way.name: [] for way in ways}
        for number in range(1 + self.options.rounds):
            for way in ways:
                if number or way is not LOCAL:
                    cost = self.once(way, commands, rest_s)
                    if number:
                        rounds[way.name].append(cost)
        return {name: _medians(costs) for name, costs in rounds.items()}


def _medians(costs: Sequence[Cost]) -> Cost:
    return Cost(
        median([c.cpu_ms for c in costs]),
        median([c.wall_ms for c in costs]),
        sum(c.failed for c in costs),
    )


def run(options: Options) -> Result:
    result = Result()
    with _bench(options) as bench:
        for name in list(PROJECTS)[: options.size(3, 2)]:
            try:
                commands = commands_of(name, options.work)
            except Skipped as error:
                result.tables.append(Table(f"cost: {name}", str(error), [""], []))
                continue
            result.tables.append(_project(bench, name, commands[: options.size(10**6, 6)]))
        _by_size(bench, result)
    result.tables.append(launcher.table(options))
    return result


@contextlib.contextmanager
def _bench(options: Options) -> Iterator[Bench]:
    """Everything started."""
    work = options.work
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(farm(work, [{}, {}])).start()
        mine = Way("dist_build", wrapper_command(), ours(cluster), [syncer_pid(cluster)])
        ways, notes = [LOCAL, mine], [peers.missing("distcc", "distccd", "ccache")]
        if not peers.missing("distcc", "distccd"):
            port = stack.enter_context(peers.distccd(4))
            ways.append(peers.distcc(work, f"127.0.0.1:{port}"))
            pump = stack.enter_context(peers.pump(work, port))
            if pump is not None and _pumps(options, pump):
                ways.append(pump)
            else:
                notes.append("distcc-pump left out: not installed, or its include server gives up")
        if not peers.missing("ccache"):
            ways.append(peers.ccache(work))
        yield Bench(options, cluster, ways, "; ".join(filter(None, notes)))


def _pumps(options: Options, pump: Way) -> bool:
    """Whether it is used: where the include server fails, distcc preprocesses and only says so."""
    commands = _synthetic(options.work / "pump", SIZES[0], 1, False)
    done = LoadGenerator(options.work).run([c.behind(pump.prefix) for c in commands], 1, pump.env)
    return not done.failed and "include server" not in done.said


def _project(bench: Bench, name: str, commands: Sequence[Command]) -> Table:
    local_before = local_jobs(bench.cluster)
    costs = bench.compare(bench.ways, commands)
    distcc = costs.get("distcc")
    rows: list[list[Cell]] = []
    for way, cost in costs.items():
        to_local = cost.cpu_ms / costs[LOCAL.name].cpu_ms
        to_distcc = cost.cpu_ms / distcc.cpu_ms if distcc else None
        rows.append([way, cost.cpu_ms, to_local, to_distcc, cost.wall_ms, cost.failed])
    here = local_jobs(bench.cluster) - local_before
    return Table(
        f"cost: {name}",
        f"CPU of the dev box for each of {len(commands)} files (wrapper with all it starts, plus"
        f" the resident process), -j{PARALLEL}, median of {bench.options.rounds} rounds after one"
        " that fills mirror and caches; all processes on this machine, so wall time is no farm's",
        ["way", "CPU ms/file", "x local", "x distcc", "wall ms/file", "failed"],
        rows,
        [note for note in (bench.note, here and f"dist_build compiled {here} here") if note],
    )


def _by_size(bench: Bench, result: Result) -> None:
    sizes = SIZES[: bench.options.size(len(SIZES), 3)]
    ways = [way for way in bench.ways if way is not LOCAL]
    rows: list[list[Cell]] = []
    for data in (False, True):
        what = "source and object grow" if data else "source grows"
        curves: dict[str, list[tuple[float, float]]] = {way.name: [] for way in ways}
        for size in sizes:
            directory = bench.options.work / f"size{size}{data}"
            # The syncer's CPU comes in ticks of 10 ms: small files have to be many.
            count = bench.options.size(40 if size < MANY_BELOW else 10, 3)
            costs = bench.compare(ways, _synthetic(directory, size, count, data))
            rows.append([f"{what}: {size / 1000:,.0f} kB", *(c.cpu_ms for c in costs.values())])
            for name, cost in costs.items():
                curves[name].append((size / 1000, cost.cpu_ms))
        plot = f"cost-{'object' if data else 'source'}-size"
        title = f"CPU of the dev box per file, {what}"
        result.plots.append(Plot(plot, title, "source, kB", "ms", curves, logarithmic=True))
    measured = "CPU ms of the dev box per file by the size of made-up C sources"
    columns = ["size of the source", *(way.name for way in ways)]
    result.tables.append(Table("cost by file size", measured, columns, rows))


def _synthetic(directory: Path, size: int, count: int, data: bool) -> list[Command]:
    directory.mkdir()
    for number in range(count):
        (directory / f"s{number}.c").write_text(synthetic(size, number, data=data))
    words = ["gcc", "-O2", "-c"]
    return [Command(directory, [*words, f"s{n}.c", "-o", f"s{n}.o"]) for n in range(count)]
