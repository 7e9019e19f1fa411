"""What a hit of the object cache costs the dev box, beside ccache's, and what filling it costs."""

import contextlib
import subprocess

from bench import peers
from bench.common import Command, Options, Skipped, farm, median, ours, syncer_pid
from bench.corpora import PROJECTS, commands_of
from bench.cost import PARALLEL, Bench, Cost
from bench.peers import Way
from bench.report import Cell, Result, Table
from tests.support.cluster import wait_until, wrapper_command

CACHE_BYTES = 10**9
#: Results are kept a moment after their compiles.
REST_S = 0.5
WITHOUT, FILLING, HITS = "without a cache", "first compile, kept", "hit"


def run(options: Options) -> Result:
    result = Result()
    with contextlib.ExitStack() as stack:
        dev = {"cache_bytes": CACHE_BYTES}
        cluster = stack.enter_context(farm(options.work, [{}, {}], dev)).start()
        env, resident = ours(cluster), [syncer_pid(cluster)]
        prefix = wrapper_command()
        ways = {
            WITHOUT: Way(WITHOUT, prefix, {**env, "DIST_BUILD_CACHE": "0"}, resident),
            FILLING: Way(FILLING, prefix, env, resident),
            HITS: Way(HITS, prefix, env, resident),
        }
        if not (note := peers.missing("ccache")):
            ways["ccache"] = peers.ccache(options.work)
        bench = Bench(options, cluster, list(ways.values()), note)
        for name in list(PROJECTS)[: options.size(3, 1)]:
            try:
                commands = commands_of(name, options.work)
            except Skipped as error:
                result.tables.append(Table(f"cache: {name}", str(error), [""], []))
                continue
            result.tables.append(_project(bench, ways, name, commands[: options.size(10**6, 6)]))
    return result


def _project(bench: Bench, ways: dict[str, Way], name: str, commands: list[Command]) -> Table:
    for way in ways.values():
        bench.once(way, commands)  # fills mirrors and ccache
    costs: dict[str, list[Cost]] = {name: [] for name in ways}
    for _ in range(bench.options.rounds):
        for label, way in ways.items():
            if label == FILLING:
                _clear(bench)
            costs[label].append(bench.once(way, commands, REST_S))
            _settle(bench)
    cpu = {label: median([cost.cpu_ms for cost in found]) for label, found in costs.items()}
    rows: list[list[Cell]] = []
    for label, found in costs.items():
        to_ccache = cpu[label] / cpu["ccache"] if "ccache" in cpu else None
        wall = median([cost.wall_ms for cost in found])
        failed = sum(cost.failed for cost in found)
        rows.append([label, cpu[label], cpu[label] / cpu[WITHOUT], to_ccache, wall, failed])
    return Table(
        f"cache: {name}",
        f"CPU of the dev box for each of {len(commands)} files (wrapper with all it starts, plus"
        f" the syncer), -j{PARALLEL}, median of {bench.options.rounds} rounds; ccache with every"
        " object",
        ["way", "CPU ms/file", "x without", "x ccache", "wall ms/file", "failed"],
        rows,
        [bench.note] if bench.note else [],
    )


def _clear(bench: Bench) -> None:
    words = [*wrapper_command(), "cache", "clear"]
    env = ours(bench.cluster)
    subprocess.run(words, env=env, check=True, stdout=subprocess.DEVNULL)


def _settle(bench: Bench) -> None:
    """Wait until all results are kept."""
    status = bench.cluster.syncer.status
    wait_until(lambda: status()["cache"]["waiting"] == 0, "all results are kept")
