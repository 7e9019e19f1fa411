"""Throughput of a farm whose compiler only sleeps: what is lost is what dispatching costs.

Load, syncer, daemons and all slots share this machine. The generator is a small C program; running
the fake compiler directly, without any tool, says what that and the starts of processes cost.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import peers
from bench.common import (
    Command,
    Load,
    LoadGenerator,
    Options,
    cpu_of,
    farm,
    local_jobs,
    median,
    ours,
    syncer_pid,
    with_path,
)
from bench.fake import fake_compiler, sleeping_jobs
from bench.peers import Way
from bench.report import Cell, Plot, Result, Table
from tests.support.cluster import wrapper_command

BIN_S = 0.1
#: A thousand slots are more than distcc is made for: its client tries a lock file for each.
MOST_DAEMONS_WITH_PEER = 2


@dataclass(frozen=True)
class Shape:
    """Jobs of so many seconds over daemons with so many slots each; -j is the number of slots."""

    jobs: int
    seconds: float
    daemons: int
    slots: int

    @property
    def parallel(self) -> int:
        return self.daemons * self.slots

    @property
    def ideal(self) -> float:
        return math.ceil(self.jobs / self.parallel) * self.seconds

    def __str__(self) -> str:
        return (
            f"{self.jobs:,} jobs of {self.seconds:g} s, -j{self.parallel},"
            f" {self.daemons} x {self.slots} slots"
        )


FULL = (Shape(1000, 1.0, 2, 100), Shape(1000, 3.0, 2, 100), Shape(2000, 10.0, 10, 100))
QUICK = (Shape(60, 1.0, 2, 10), Shape(60, 3.0, 2, 10))


@dataclass(frozen=True)
class Run:
    """A load, the CPU seconds of the resident process meanwhile, and jobs compiled here."""

    load: Load
    resident: float
    here: int = 0


def run(options: Options) -> Result:
    result = Result()
    fake = fake_compiler(options.work / "fake")
    load = LoadGenerator(options.work)
    for shape in QUICK if options.quick else FULL:
        jobs = sleeping_jobs(options.work / f"jobs{shape.seconds}", shape.jobs, shape.seconds)
        with_peer = shape.daemons <= MOST_DAEMONS_WITH_PEER
        runs: dict[str, list[Run]] = {}
        for name, made in _runs(options, shape, load, fake, jobs, with_peer):
            runs.setdefault(name, []).append(made)
        result.tables.append(_table(options, shape, runs))
        result.plots.append(_plot(shape, runs))
    return result


def _runs(
    options: Options,
    shape: Shape,
    load: LoadGenerator,
    fake: Path,
    jobs: Sequence[Command],
    with_peer: bool,
) -> Iterator[tuple[str, Run]]:
    """All ways in turn, each round; the farm is started once and kept."""
    path = with_path(fake)
    daemon = {"num_cores": shape.slots, "sandbox": options.sandbox}
    with farm(options.work, [daemon] * shape.daemons, path_first=fake) as cluster:
        cluster.start()
        mine = Way("dist_build", wrapper_command(), ours(cluster), [syncer_pid(cluster)])
        _once(load, mine, jobs[: shape.daemons], shape, path)
        if local_jobs(cluster):
            raise RuntimeError(f"the farm compiles nothing: {cluster.jobs()['local']}")
        for _ in range(options.rounds):
            yield "direct", _once(load, Way("direct"), jobs, shape, path)
            before = local_jobs(cluster)
            done = _once(load, mine, jobs, shape, path)
            yield "dist_build", Run(done.load, done.resident, local_jobs(cluster) - before)
    if with_peer and not peers.missing("distcc", "distccd"):
        with peers.distccd(shape.parallel, path) as port:
            way = peers.distcc(options.work, f"127.0.0.1:{port}/{shape.parallel}")
            for _ in range(options.rounds):
                yield "distcc", _once(load, way, jobs, shape, path)


def _once(
    load: LoadGenerator,
    way: Way,
    jobs: Sequence[Command],
    shape: Shape,
    path: Mapping[str, str],
) -> Run:
    before = cpu_of(way.resident)
    done = load.run([job.behind(way.prefix) for job in jobs], shape.parallel, {**path, **way.env})
    return Run(done, cpu_of(way.resident) - before)


def _table(options: Options, shape: Shape, runs: Mapping[str, Sequence[Run]]) -> Table:
    rows: list[list[Cell]] = [["ideal", shape.ideal, 1.0, None, None, None]]
    for name, made in runs.items():
        wall = median([r.load.wall for r in made])
        cpu = median([r.load.cpu + r.resident for r in made])
        failed = sum(r.load.failed for r in made)
        row: list[Cell] = [name, wall, wall / shape.ideal, 1000 * cpu / shape.jobs, failed]
        rows.append([*row, sum(r.here for r in made) if name == "dist_build" else None])
    rounds = min(len(made) for made in runs.values())
    note = peers.missing("distcc", "distccd")
    if not note and "distcc" not in runs:
        note = f"distcc is not tried with {shape.parallel:,} slots"
    return Table(
        f"dispatch: {shape}",
        f"wall seconds until the last job has ended, median of {rounds} rounds; the compiler only"
        f' sleeps, sandbox "{options.sandbox}"; load, syncer and daemons share this machine',
        ["way", "wall s", "x ideal", "dev box CPU ms/job", "failed", "compiled here"],
        rows,
        [note] if note else [],
    )


def _plot(shape: Shape, runs: Mapping[str, Sequence[Run]]) -> Plot:
    """The last round of each way."""
    curves = {name: throughput(made[-1].load.ends) for name, made in runs.items()}
    name = f"dispatch-{shape.jobs}x{shape.seconds:g}s"
    return Plot(name, str(shape), "s since the start", "jobs ended in 100 ms", curves)


def throughput(ends: Sequence[float]) -> list[tuple[float, float]]:
    """How many ended in each 100 ms, by the end of that time in seconds."""
    bins = [0] * (int(max(ends, default=0.0) / BIN_S) + 1)
    for end in ends:
        bins[int(end / BIN_S)] += 1
    return [(round((i + 1) * BIN_S, 3), float(count)) for i, count in enumerate(bins)]
