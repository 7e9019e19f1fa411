"""What the confinement of a compiler costs a worker: a farm whose compiler only sleeps, single
starts of a program that ends at once, and a real project.

Much of a namespace's price is paid by the kernel after the compiler's end, and is charged to no
process: so the machine's busy time is measured too.
"""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psutil

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
    with_path,
)
from bench.corpora import commands_of
from bench.dispatch import Shape
from bench.fake import fake_compiler, sleeping_jobs
from bench.report import Cell, Result, Table
from distbuild.worker.process import spawn
from distbuild.worker.process.limits import REPORT
from distbuild.worker.sandbox import enter, prepared
from distbuild.worker.sandbox.view import base_plan
from tests.support.cluster import Cluster, wrapper_command

#: The kernel frees namespaces some moments after their last process (seconds).
SETTLED_S = 0.5
#: Of the farm that compiles a project.
SLOTS = 2
FULL, QUICK = Shape(1000, 1.0, 2, 100), Shape(60, 1.0, 2, 10)
#: Values of the daemons' "sandbox", and what they are.
WAYS = {
    "plain": "none but Landlock: paths are rewritten",
    "bubblewrap": "a namespace made for each job",
    "namespace": "a namespace for many jobs, entered by each",
}


@dataclass(frozen=True)
class Run:
    """Wall seconds of a load; CPU seconds of daemons with compilers, and of the machine."""

    wall: float
    daemons: float
    machine: float


def run(options: Options) -> Result:
    shape = QUICK if options.quick else FULL
    fake = fake_compiler(options.work / "fake")
    load = LoadGenerator(options.work)
    jobs = sleeping_jobs(options.work / "jobs", shape.jobs, shape.seconds)
    runs: dict[str, list[Run]] = {name: [] for name in WAYS}
    path = with_path(fake)
    for number in range(options.rounds):
        for name in WAYS:
            daemon = {"num_cores": shape.slots, "sandbox": name}
            work = options.work / f"{name}{number}"
            work.mkdir()
            with farm(work, [daemon] * shape.daemons, path_first=fake) as cluster:
                cluster.start()
                for count in (shape.daemons, shape.jobs):  # the first ones warm it up
                    done = _once(load, cluster, jobs[:count], shape, path)
                if local_jobs(cluster):
                    raise RuntimeError(f"compiled here: {cluster.jobs()['local']}")
                runs[name].append(done)
    return Result([_table(shape, runs), _starts(options), _compiles(options, load)])


def _once(
    load: LoadGenerator,
    cluster: Cluster,
    jobs: Sequence[Command],
    shape: Shape,
    path: Mapping[str, str],
) -> Run:
    pids = [process.popen.pid for process in cluster.daemons if process.popen is not None]
    before, busy = cpu_of(pids), _busy()
    prefix = wrapper_command()
    done = load.run([job.behind(prefix) for job in jobs], shape.parallel, {**path, **ours(cluster)})
    return Run(done.wall, cpu_of(pids) - before, _busy() - busy)


def _busy() -> float:
    """Seconds for which processors of this machine were busy since it started."""
    times = psutil.cpu_times()
    return float(times.user + times.system + times.softirq + times.irq)


def _table(shape: Shape, runs: Mapping[str, list[Run]]) -> Table:
    plain = runs["plain"]
    rows: list[list[Cell]] = []
    for name, made in runs.items():
        wall, machine = median([r.wall for r in made]), median([r.machine for r in made])
        rows.append(
            [
                f"{name}: {WAYS[name]}",
                wall,
                wall / median([r.wall for r in plain]),
                1000 * median([r.daemons for r in made]) / shape.jobs,
                1000 * machine / shape.jobs,
                1000 * (machine - median([r.machine for r in plain])) / shape.jobs,
            ]
        )
    return Table(
        f"confinement: {shape}",
        f"median of {len(plain)} rounds on warm farms; the compiler only sleeps; load, syncer and"
        " daemons share this machine",
        ["sandbox", "wall s", "x plain", "worker CPU ms/job", "machine ms/job", "over plain"],
        rows,
        [],
    )


# --- single starts ------------------------------------------------------------------------------


def _starts(options: Options) -> Table:
    """Starts one after the other; the mounts are those that every job has, without a tree."""
    count = options.size(400, 20)
    bwrap, program = shutil.which("bwrap"), enter.program([enter.SOURCE.parent], os.environ["PATH"])
    if bwrap is None or program is None:
        raise Skipped("there is no bubblewrap, or no C compiler")
    plan = base_plan()
    plan.special(b"/.dist_build", "dir")
    for name in (b"/usr/include", b"/usr/lib/gcc", b"/usr/local/include"):
        plan.bind(name, name)
    mounts = plan.arguments()
    namespace = prepared.make(os.fsencode(bwrap), mounts)
    changes = [*enter.one(b"proc", b"/proc"), *enter.one(b"tmpfs", b"/tmp")]
    words = [os.fsencode(bwrap), *prepared.CONFINED, *mounts, b"--", b"/bin/true"]
    few = [b"--unshare-user", b"--unshare-pid", b"--die-with-parent"]
    entered = enter.arguments(
        os.fsencode(program), namespace.descriptors, spawn.limits(), changes, [b"/bin/true"]
    )
    ways = {
        "no confinement": [b"/bin/true"],
        "bubblewrap": words,
        "bubblewrap without namespaces for network, IPC and host name": [
            words[0], *few, *mounts, b"--", b"/bin/true"
        ],
        "bubblewrap with one mount": [
            words[0], *prepared.CONFINED, b"--ro-bind", b"/", b"/", b"--", b"/bin/true"
        ],
        "entering a prepared namespace": [b"1" if w == REPORT else w for w in entered],
    }  # fmt: skip
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for way, argv in ways.items():
            runs[way].append(_started(argv, count))
    rows: list[list[Cell]] = [
        [name, *(1000 * median(list(values)) / count for values in zip(*made, strict=True))]
        for name, made in runs.items()
    ]
    return Table(
        f"confinement: {count} starts of a program that ends at once",
        f"median of {options.rounds} rounds, one start after the other",
        ["way", "ms a start", "machine ms a start"],
        rows,
        [],
    )


def _started(argv: Sequence[bytes], count: int) -> tuple[float, float]:
    """Wall seconds of so many starts, and busy seconds of the machine until the kernel is done."""
    began, busy = time.monotonic(), _busy()
    for _ in range(count):
        subprocess.run(argv, stdout=subprocess.DEVNULL, check=True, close_fds=False)
    wall = time.monotonic() - began
    time.sleep(SETTLED_S)
    return wall, _busy() - busy


# --- a real project -----------------------------------------------------------------------------


def _compiles(options: Options, load: LoadGenerator) -> Table:
    """CPU of one worker with its compilers, against that of the compilers without it."""
    commands = commands_of("lua", options.work)
    cpu: dict[str, list[float]] = {"local": []}
    with contextlib.ExitStack() as stack:
        farms: dict[str, Cluster] = {}
        # bubblewrap does not wait for its compilers, so their CPU is charged to no worker.
        for name in ("plain", "namespace"):
            work = options.work / f"lua-{name}"
            work.mkdir()
            made = farm(work, [{"num_cores": SLOTS, "sandbox": name}])
            farms[name] = stack.enter_context(made).start()
            load.run([one.behind(wrapper_command()) for one in commands], SLOTS, ours(farms[name]))
        for _ in range(options.rounds):
            cpu["local"].append(load.run(commands, SLOTS).cpu)
            for name, cluster in farms.items():
                shape = Shape(len(commands), 0.0, 1, SLOTS)
                cpu.setdefault(name, []).append(_once(load, cluster, commands, shape, {}).daemons)
        if any(map(local_jobs, farms.values())):
            raise RuntimeError("some files of lua are compiled here")
    rows: list[list[Cell]] = [
        [name, median(values), median(values) / median(cpu["local"])]
        for name, values in cpu.items()
    ]
    return Table(
        f"confinement: {len(commands)} files of Lua on {SLOTS} slots",
        f"median of {options.rounds} rounds on warm farms; CPU seconds of the compilers, and of the"
        " daemon with its compilers",
        ["way", "CPU s", "x local"],
        rows,
        [],
    )
