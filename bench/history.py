"""What it costs the dev box to record each command in the history of builds."""

import contextlib

from bench.common import Options, Skipped, farm, ours, syncer_pid
from bench.corpora import commands_of
from bench.cost import PARALLEL, Bench
from bench.peers import Way
from bench.report import Cell, Result, Table
from tests.support.cluster import wrapper_command

WITHOUT, WITH = "without a history", "with a history"
PROJECT = "lua"
#: Records are written some seconds after their commands.
REST_S = 6.0


def run(options: Options) -> Result:
    """A farm with and one without, in turn."""
    with contextlib.ExitStack() as stack:
        ways, clusters = [], []
        for name, settings in ((WITHOUT, {"history_bytes": 0}), (WITH, {})):
            work = options.work / name.replace(" ", "_")
            cluster = stack.enter_context(farm(work, [{}], settings)).start()
            ways.append(Way(name, wrapper_command(), ours(cluster), [syncer_pid(cluster)]))
            clusters.append(cluster)
        bench = Bench(options, clusters[0], ways, "")
        try:
            commands = commands_of(PROJECT, options.work)[: options.size(10**6, 6)]
        except Skipped as error:
            return Result([Table("history", str(error), [""], [])])
        costs = bench.compare(ways, commands, REST_S)
    rows: list[list[Cell]] = [
        [name, cost.cpu_ms, cost.cpu_ms / costs[WITHOUT].cpu_ms, cost.failed]
        for name, cost in costs.items()
    ]
    about = (
        f"CPU of the dev box for each of the {len(commands)} files of {PROJECT} (wrapper with all"
        f" it starts, plus the syncer), -j{PARALLEL}, median of {options.rounds} rounds"
    )
    return Result([Table("history", about, ["way", "CPU ms/file", "x without", "failed"], rows)])
