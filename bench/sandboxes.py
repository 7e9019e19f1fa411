"""What a changed header costs the syncer once directories of links have come and gone.

Bazel and its like make a directory of links to sources and headers for each compile, and delete it
afterwards.
"""

import shutil
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import psutil

from bench.common import Command, LoadGenerator, Options, cpu_of, farm, median, ours, syncer_pid
from bench.report import Cell, Result, Table
from tests.support.cluster import Cluster, wait_until, wrapper_command

LINKS = 300
SANDBOXES = 1000
EDITS = 100
#: A changed header is pushed by then, and no two edits are one push (seconds).
PAUSE_S = 0.06
AT_ONCE = 8


class Project:
    """A source and its headers, which the sandboxes link to."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.headers = base / "project" / "include"
        self.headers.mkdir(parents=True)
        for number in range(LINKS - 1):
            (self.headers / f"h{number}.h").write_text(f"int declared{number}(void);\n")
        includes = "".join(f'#include "h{number}.h"\n' for number in range(0, LINKS - 1, 10))
        (base / "project" / "main.c").write_text(f"{includes}int main(void) {{ return 0; }}\n")

    def compile(self) -> Command:
        """A compile in the project itself."""
        words = ["gcc", "-Iinclude", "-c", "main.c", "-o", "main.o"]
        return Command(self.base / "project", words)

    def sandbox(self, number: int) -> Command:
        """Make a sandbox; the compile in it."""
        top = self.base / "sandboxes" / str(number)
        (top / "include").mkdir(parents=True)
        for header in self.headers.iterdir():
            (top / "include" / header.name).symlink_to(header)
        (top / "main.c").symlink_to(self.base / "project" / "main.c")
        return Command(top, ["gcc", "-Iinclude", "-c", "main.c", "-o", "main.o"])


def run(options: Options) -> Result:
    project = Project(options.work)
    load = LoadGenerator(options.work)
    count = options.size(SANDBOXES, 16)
    rows: list[list[Cell]] = []
    with farm(options.work, [{}, {}]) as cluster:
        cluster.start()
        _compile(load, cluster, [project.compile()])
        fresh = _measure(options, cluster, project)
        rows.append(["fresh", fresh[0], 1.0, *fresh[1:]])
        for first in range(0, count, AT_ONCE):
            commands = [project.sandbox(n) for n in range(first, min(first + AT_ONCE, count))]
            _compile(load, cluster, commands)
            for command in commands:
                shutil.rmtree(command.cwd)
        _compile(load, cluster, [project.compile()])
        used = _measure(options, cluster, project)
        rows.append([f"after {count:,} sandboxes", used[0], used[0] / fresh[0], *used[1:]])
    note = f"median of {options.rounds} rounds of {options.size(EDITS, 10)} edits, two workers"
    columns = ["the syncer is", "CPU ms/changed header", "x fresh", "roots", "memory, MiB"]
    title = f"sandboxes: {count:,} directories of {LINKS} links were made and deleted"
    return Result([Table(title, note, columns, rows)])


def _compile(load: LoadGenerator, cluster: Cluster, commands: Sequence[Command]) -> None:
    done = load.run([c.behind(wrapper_command()) for c in commands], AT_ONCE, ours(cluster))
    if done.failed:
        raise RuntimeError(f"a compile failed: {done.said}")


def _measure(options: Options, cluster: Cluster, project: Project) -> list[float]:
    """CPU ms of the syncer for each edit, its roots, and its private memory (MiB)."""
    pid, edits = syncer_pid(cluster), options.size(EDITS, 10)
    costs = []
    for number in range(options.rounds):
        before = cpu_of([pid])
        for edit in range(edits):
            text = f"int declared{edit}(void); /* {number} {time.monotonic_ns()} */\n"
            (project.headers / f"h{edit}.h").write_text(text)
            time.sleep(PAUSE_S)
        generation = cluster.syncer.status()["mirror"]["generation"]
        wait_until(partial(_have, cluster, generation), "the workers have all changes")
        costs.append(1000 * (cpu_of([pid]) - before) / edits)
    memory = psutil.Process(pid).memory_info().rss / 2**20
    return [median(costs), len(cluster.syncer.status()["mirror"]["roots"]), memory]


def _have(cluster: Cluster, generation: int) -> bool:
    workers = cluster.syncer.status()["workers"].values()
    return all(worker["mirrored_generation"] >= generation for worker in workers)
