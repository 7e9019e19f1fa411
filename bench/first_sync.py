"""First mirror of a large tree to two workers that share nothing, against rsync; and the second.

The same tree, the same disk, the same number of copies at the same time. Nothing is removed before
all rounds are over: an ext4 without a journal looks at each inode that was freed in the last
minutes before it gives out one, so the run after a removal of 20,000 files takes some seconds
for it.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench import peers, rsync
from bench.common import Options, cpu_of, farm, median, stop, stopwatch, syncer_pid
from bench.headers import make_tree
from bench.report import Cell, Result, Table
from bench.status import Status, asking, synced
from tests.support.cluster import Cluster, wait_until

WORKERS = 2
#: The rows of the table.
LOCAL, SSH, FIRST, SECOND = "local", "ssh", "first", "second"
#: How often the syncer is asked whether its scan is over, and then whether all is (seconds): it has
#: no core to spare meanwhile, and the one who asks takes one as well.
SCAN_POLL_S = 0.05
POLL_S = 0.02


@dataclass
class Runs:
    """What one row of the table is made of: seconds, CPU seconds, bytes sent (None: not known)."""

    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)


def run(options: Options) -> Result:
    files, size = options.size(10_000, 600), options.size(130_000_000, 8_000_000)
    tree = options.work / "tree"
    make_tree(tree, files, size)
    rows = {name: Runs() for name in (LOCAL, SSH, FIRST, SECOND)}
    daemon = {"reuse_own_files": False, "num_cores": 1}
    with contextlib.ExitStack() as kept:
        ways, notes = _peers(options, kept)
        for number in range(options.rounds):
            work = options.work / f"round{number}"
            work.mkdir()
            for name, transport in ways.items():
                copies = [work / f"{name}{copy}" for copy in range(WORKERS)]
                took, used = rsync.copy(transport, tree, copies)
                rows[name].seconds.append(took)
                rows[name].cpu.append(used)
            made = farm(work, [daemon] * WORKERS, {"dirs": [str(tree)]})
            cluster = kept.enter_context(made)
            _start_workers(cluster)
            for name in (FIRST, SECOND):
                took, used, status = _start(cluster, files)
                rows[name].seconds.append(took)
                rows[name].cpu.append(used)
                rows[name].sent.append(status["mirror"]["sent_bytes"])
                stop([cluster.syncer])
            stop(cluster.daemons)
    return Result([_table(options, files, size, rows, notes)])


def _peers(
    options: Options, kept: contextlib.ExitStack
) -> tuple[Mapping[str, rsync.Transport], Sequence[str]]:
    """The ways of rsync by row, and why others are left out."""
    if note := peers.missing("rsync"):
        return {}, [note]
    ssh = kept.enter_context(rsync.over_ssh(options.work / "ssh"))
    if isinstance(ssh, str):
        return {LOCAL: rsync.LOCAL}, [ssh]
    return {LOCAL: rsync.LOCAL, SSH: ssh}, []


def _start_workers(cluster: Cluster) -> None:
    for process in cluster.daemons:
        process.start()
    for process in cluster.daemons:
        wait_until(process.answers, f"{process.name} answers")


def _start(cluster: Cluster, files: int) -> tuple[float, float, Status]:
    """Start the syncer; seconds until all workers have everything, and the CPU of all of them."""
    pids = [process.popen.pid for process in cluster.daemons if process.popen is not None]
    before = cpu_of(pids)
    with stopwatch() as elapsed, asking(cluster.syncer) as client:
        cluster.syncer.start()
        scanned = "the tree is scanned"
        client.wait_for(lambda s: s["mirror"]["files"] >= files, scanned, pause_s=SCAN_POLL_S)
        status = client.wait_for(
            lambda s: synced(s, WORKERS), f"{WORKERS} workers have the tree", pause_s=POLL_S
        )
    return elapsed[0], cpu_of([*pids, syncer_pid(cluster)]) - before, status


def _table(
    options: Options,
    files: int,
    size: int,
    rows: Mapping[str, Runs],
    notes: Sequence[str],
) -> Table:
    labels = {
        LOCAL: f"{rsync.LOCAL.name}, to {WORKERS} directories, through pipes",
        SSH: f"rsync -az over ssh on loopback, to {WORKERS} directories",
        FIRST: "dist_build over TLS on loopback, first start of the syncer",
        SECOND: "dist_build, second start of the syncer",
    }
    cells: list[list[Cell]] = []
    for name, runs in rows.items():
        if runs.seconds:
            seconds = median(runs.seconds)
            ratios: list[Cell] = [
                seconds / median(rows[peer].seconds) if rows[peer].seconds else None
                for peer in (LOCAL, SSH)
            ]
            sent = median(runs.sent) / 1e6 if runs.sent else None
            cells.append([labels[name], seconds, *ratios, median(runs.cpu), sent])
    return Table(
        "first sync",
        f"seconds until {WORKERS} workers that take nothing from their own disk have {files:,}"
        f" headers of {size / 1e6:,.0f} MB; from the start of the syncer's process, Python's"
        f" included; median of {options.rounds} rounds, the tree in the page cache",
        ["", "seconds", "x rsync", "x over ssh", "CPU s, all processes", "MB of contents sent"],
        cells,
        notes,
    )
