"""First mirror of a large tree to two workers that share nothing, against rsync; and the second.

The same tree, the same disk, the same number of copies at the same time. Nothing is removed before
all rounds are over: an ext4 without a journal looks at each inode that was freed in the last
minutes before it gives out one, so whoever comes after a removal of 20,000 files pays some seconds
for it.
"""

import contextlib
import subprocess
from pathlib import Path

from bench import peers
from bench.common import Options, cpu_of, end_tree, farm, median, stop, stopwatch, syncer_pid
from bench.headers import make_tree
from bench.report import Cell, Result, Table
from bench.status import Status, asking, synced
from tests.support.cluster import Cluster, wait_until

WORKERS = 2
#: How often the syncer is asked whether its scan is over, and then whether all is (seconds): it has
#: no core to spare meanwhile, and the one who asks takes one as well.
SCAN_POLL_S = 0.05
POLL_S = 0.02


def run(options: Options) -> Result:
    files, size = options.size(10_000, 600), options.size(130_000_000, 8_000_000)
    tree = options.work / "tree"
    make_tree(tree, files, size)
    times: dict[str, list[float]] = {"rsync": [], "first": [], "second": []}
    cpu: dict[str, list[float]] = {"rsync": [], "first": [], "second": []}
    sent: dict[str, list[int]] = {"first": [], "second": []}
    daemon = {"reuse_own_files": False, "num_cores": 1}
    with contextlib.ExitStack() as kept:
        for number in range(options.rounds):
            work = options.work / f"round{number}"
            work.mkdir()
            if not peers.missing("rsync"):
                took, used = _rsync(tree, work)
                times["rsync"].append(took)
                cpu["rsync"].append(used)
            made = farm(work, [daemon] * WORKERS, {"dirs": [str(tree)]})
            cluster = kept.enter_context(made)
            _start_workers(cluster)
            for name in ("first", "second"):
                took, used, status = _start(cluster, files)
                times[name].append(took)
                cpu[name].append(used)
                sent[name].append(status["mirror"]["sent_bytes"])
                stop([cluster.syncer])
            stop(cluster.daemons)
    return Result([_table(options, files, size, times, cpu, sent)])


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


def _rsync(tree: Path, work: Path) -> tuple[float, float]:
    """``rsync -az`` to two directories at the same time; seconds and CPU seconds."""
    copies = [work / f"copy{number}" for number in range(WORKERS)]
    running = []
    with stopwatch() as elapsed:
        words = ["sh", "-c", 'rsync -az "$1/" "$2" & rsync -az "$1/" "$3"; wait; times', "sh"]
        popen = subprocess.Popen([*words, tree, *copies], stdout=subprocess.PIPE, text=True)
        running.append(popen)
        try:
            said, _ = popen.communicate()
        finally:
            end_tree(popen)
    return elapsed[0], sum(map(_seconds, said.split()[2:4]))


def _seconds(text: str) -> float:
    """``1m2.5s``, as the shell's ``times`` writes it."""
    minutes, _, rest = text.rstrip("s").partition("m")
    return 60 * float(minutes) + float(rest)


def _table(
    options: Options,
    files: int,
    size: int,
    times: dict[str, list[float]],
    cpu: dict[str, list[float]],
    sent: dict[str, list[int]],
) -> Table:
    labels = {
        "rsync": f"rsync -az to {WORKERS} directories",
        "first": "dist_build, first start of the syncer",
        "second": "dist_build, second start of the syncer",
    }
    rows: list[list[Cell]] = []
    for name, label in labels.items():
        if times[name]:
            seconds, used = median(times[name]), median(cpu[name])
            ratio = seconds / median(times["rsync"]) if times["rsync"] else None
            megabytes = median(sent[name]) / 1e6 if name in sent else None
            rows.append([label, seconds, ratio, used, megabytes])
    return Table(
        "first sync",
        f"seconds until {WORKERS} workers that take nothing from their own disk have {files:,}"
        f" headers of {size / 1e6:,.0f} MB; from the start of the syncer's process, Python's"
        f" included; median of {options.rounds} rounds, the tree in the page cache",
        ["", "seconds", "x rsync", "CPU s, all processes", "MB of contents sent"],
        rows,
        [note for note in (peers.missing("rsync"),) if note],
    )
