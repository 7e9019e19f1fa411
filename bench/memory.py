"""What waiting costs: private memory of each wrapper of hundreds, and the syncer's answers."""

import threading
import time
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path

import psutil

from bench.common import LoadGenerator, Options, farm, local_jobs, median, ours, with_path
from bench.fake import fake_compiler, sleeping_jobs
from bench.report import Result, Table
from bench.status import StatusClient
from tests.support.cluster import Process, wait_until, wrapper_command

ASK_EVERY_S = 0.1
SETTLE_S = 0.4


class Asking:
    """Asks ``/status`` again and again over new connections; keeps how long each answer took."""

    def __init__(self, process: Process) -> None:
        self.took_ms: list[float] = []
        self.failed = 0
        self._client = StatusClient(process)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Asking":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(ASK_EVERY_S):
            started = time.monotonic()
            try:
                self._client.get()
            except (OSError, HTTPException):
                self.failed += 1
            else:
                self.took_ms.append(1000 * (time.monotonic() - started))
            self._client.close()


def private_kib(pid: int) -> int:
    """Memory that a process shares with no other, KiB; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    wanted = ("Private_Clean:", "Private_Dirty:")
    return sum(int(line.split()[1]) for line in lines if line.startswith(wanted))


def run(options: Options) -> Result:
    count, slots = options.size(500, 20), options.size(50, 5)
    seconds = 2.0
    fake = fake_compiler(options.work / "fake")
    jobs = sleeping_jobs(options.work / "jobs", count, seconds)
    load = LoadGenerator(options.work)
    daemon = {"num_cores": slots, "sandbox": options.sandbox}
    with farm(options.work, [daemon] * 2, path_first=fake) as cluster:
        cluster.start()
        env = {**with_path(fake), **ours(cluster)}
        commands = [job.behind(wrapper_command()) for job in jobs]
        load.run(commands[:2], 2, env)
        with (
            Asking(cluster.syncer) as asking,
            load.running(commands, count, env) as generator,
        ):
            sizes = _sizes(generator.pid, count)
            generator.wait()
        done, here = load.result(), local_jobs(cluster)
    return Result([_table(count, 2 * slots, sizes, asking, [done.failed, here])])


def _sizes(pid: int, count: int) -> list[int]:
    """KiB of each wrapper, at most, once nearly all wait; the first may have ended by then."""
    children = psutil.Process(pid).children
    started = wait_until(lambda: len(found := children()) >= count * 0.9 and found, "all wait", 120)
    most = dict.fromkeys((process.pid for process in started), 0)
    for _ in range(3):
        most = {pid: max(kib, private_kib(pid)) for pid, kib in most.items()}
        time.sleep(SETTLE_S)
    return [kib for kib in most.values() if kib]


def _table(
    count: int, slots: int, sizes: Sequence[int], asking: Asking, counts: Sequence[int]
) -> Table:
    failed, here = counts
    return Table(
        "memory of waiting wrappers",
        f"{count} wrappers started at once for {slots} slots whose compiler sleeps: private memory"
        " of each (Private_Clean and Private_Dirty of smaps_rollup) and how soon the syncer answers"
        " /status over new connections until the last job is done",
        ["", "median", "most"],
        [
            [
                f"private memory of {len(sizes)} wrappers, MiB",
                median(sizes) / 1024,
                max(sizes) / 1024,
            ],
            [
                f"/status, ms ({len(asking.took_ms)} times)",
                median(asking.took_ms),
                max(asking.took_ms),
            ],
            ["/status not answered", None, asking.failed],
            ["failed compiles", None, failed],
            ["compiled here", None, here],
        ],
    )
