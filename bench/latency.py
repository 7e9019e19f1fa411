"""From a header's change to ten workers that have it, and to an object compiled with it."""

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from bench.common import Options, farm, median
from bench.report import Cell, Result, Table
from bench.status import POLL_S, StatusClient, asking, counted, generation, synced
from tests.support.cluster import Cluster

SETTLE_S = 0.3
_SOURCE = "int x = SUBJECT;\n"


def run(options: Options) -> Result:
    workers = options.size(10, 3)
    headers = options.work / "headers"
    headers.mkdir()
    (headers / "subject.h").write_text("#define SUBJECT 1\n")
    daemon = {"num_cores": 1, "sandbox": options.sandbox}
    dev = {"dirs": [str(headers)]}
    with (
        farm(options.work, [daemon] * workers, dev) as cluster,
        asking(cluster.start().syncer) as status,
    ):
        compile_once(cluster, options.work, 1)
        status.wait_for(lambda s: synced(s, workers), "the first mirror")
        changes = _changes(options, headers, status, workers)
        return Result(
            [changes, _usable(options, headers, cluster), _burst(options, status, workers)]
        )


def compile_once(cluster: Cluster, work: Path, value: int) -> float:
    """Compile something that includes the header; returns ms; RuntimeError if it is stale."""
    project = work / "project"
    project.mkdir(exist_ok=True)
    (project / "x.c").write_text('#include "subject.h"\n' + _SOURCE)
    include = f"-I{work / 'headers'}"
    words = ["gcc", "-S", include, "x.c", "-o", "x.s"]
    started = time.monotonic()
    done = cluster.run(words, project, DIST_BUILD_FALLBACK="0")
    elapsed = 1000 * (time.monotonic() - started)
    if done.exit_code != 0:
        raise RuntimeError(done.stderr.decode(errors="replace"))
    if f"\t{value}\n" not in (project / "x.s").read_text():
        raise RuntimeError("compiled with the header's old text")
    return elapsed


def _row(name: str, values: Sequence[float]) -> list[Cell]:
    return [name, median(values), min(values), max(values), len(values)]


def _changes(options: Options, headers: Path, status: StatusClient, workers: int) -> Table:
    """One header written, the others left alone."""
    values = []
    for number in range(options.size(30, 5)):
        before = generation(status.get())
        started = time.monotonic()
        (headers / "subject.h").write_text(f"#define SUBJECT {2 + number}\n")
        status.wait_for(
            lambda s, g=before: generation(s) > g and synced(s, workers),  # type: ignore[misc]
            "the change is everywhere",
        )
        values.append(1000 * (time.monotonic() - started))
        time.sleep(SETTLE_S)
    return Table(
        "latency: one header",
        f"ms from the write of a header until all {workers} workers have it, as the syncer's"
        f" /status says, which is asked every {1000 * POLL_S:.0f} ms",
        ["", "median ms", "least", "most", "writes"],
        [_row(f"on {workers} workers", values)],
    )


def _usable(options: Options, headers: Path, cluster: Cluster) -> Table:
    """A compile right after the write, beside one without a write; and without the farm."""
    fresh, quiet, here = [], [], []
    for number in range(options.size(20, 3)):
        value = 1000 + number
        (headers / "subject.h").write_text(f"#define SUBJECT {value}\n")
        fresh.append(compile_once(cluster, options.work, value))
        time.sleep(SETTLE_S)
        quiet.append(compile_once(cluster, options.work, value))
        started = time.monotonic()
        words = ["gcc", "-S", f"-I{headers}", "x.c", "-o", "x.s"]
        subprocess.run(words, cwd=options.work / "project", check=True)
        here.append(1000 * (time.monotonic() - started))
    return Table(
        "latency: a compile right after the change",
        "wall ms of one small compile that includes the header; each had the header's new text",
        ["", "median ms", "least", "most", "compiles"],
        [
            _row("started right after the write", fresh),
            _row("started later", quiet),
            _row("local compile", here),
        ],
    )


def _burst(options: Options, status: StatusClient, workers: int) -> Table:
    """Many headers at once, as a generator writes them."""
    count, generated = options.size(500, 50), options.work / "headers" / "generated"
    generated.mkdir()
    status.wait_for(lambda s: synced(s, workers), "quiet")
    rows: list[list[Cell]] = []
    for number in range(options.rounds):
        before = status.get()
        started = time.monotonic()
        for index in range(count):
            (generated / f"g{index:03}.h").write_text(f"#define G{index} {number}\n" * 20)
        written = 1000 * (time.monotonic() - started)
        last = f"{generated}/last{number}.h"
        Path(last).write_text("#define LAST\n")
        files = int(before["mirror"]["files"]) + (count if number == 0 else 0) + 1
        after = status.wait_for(
            lambda s, f=files: s["mirror"]["files"] >= f and synced(s, workers),  # type: ignore[misc]
            "the burst is everywhere",
        )
        took = 1000 * (time.monotonic() - started)
        batches = generation(after) - generation(before)
        had, has = counted(before, "pushes"), counted(after, "pushes")
        pushes = None if had is None or has is None else (has - had) / workers
        sent = after["mirror"]["sent_entries"] - before["mirror"]["sent_entries"]
        rows.append([f"burst {number + 1}", written, took, batches, pushes, sent / workers])
    columns = ["", "writing ms", "on all workers ms", "batches", "pushes/worker", "entries/worker"]
    measured = (
        f"{count + 1} headers written at once: ms until {workers} workers have them all, batches"
        " (generations) that they were seen in, pushes and entries sent to a worker"
    )
    return Table("latency: a burst of headers", measured, columns, rows)
