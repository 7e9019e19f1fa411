"""What the benchmarks share: a farm on loopback, CPU of process trees, a load generator.

Whatever is started here is ended and removed by its context manager, also after an interrupt.
"""

import contextlib
import os
import shutil
import signal
import statistics
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.support.cluster import Cluster, Process

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = Path(__file__).resolve().parent / "programs"
LOAD_TIMEOUT_S = 1800.0


class Skipped(Exception):
    """A benchmark, or a part of one, cannot be run here; the message says why."""


@dataclass(frozen=True)
class Options:
    """How to measure. ``work`` is a directory that is the benchmark's own, removed afterwards."""

    work: Path
    quick: bool = False
    rounds: int = 3
    #: The daemons' ``sandbox`` where the compiler only sleeps.
    sandbox: str = "plain"

    def size(self, full: int, quick: int) -> int:
        """A number of things: ``full``, or ``quick`` in a quick run."""
        return quick if self.quick else full


@dataclass(frozen=True)
class Command:
    """Words to be run in a directory."""

    cwd: Path
    words: Sequence[str]

    def behind(self, prefix: Sequence[str]) -> "Command":
        """The same with words before it."""
        return Command(self.cwd, [*prefix, *self.words])

    def object(self) -> Path:
        """What it writes, named by -o."""
        return self.cwd / self.words[list(self.words).index("-o") + 1]


@dataclass(frozen=True)
class Load:
    """A finished load: times in seconds since its start, in the order of the ends."""

    wall: float
    #: CPU seconds of all commands and what they started and waited for.
    cpu: float
    ends: Sequence[float]
    failed: int
    #: What the commands said, for a failed one's sake.
    said: str = field(default="", compare=False)


def median(values: Sequence[float]) -> float:
    return float(statistics.median(values))


def cpu_of(pids: Sequence[int]) -> float:
    """CPU seconds of these processes and their descendants, ended and waited-for ones included."""
    total = 0.0
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            for one in [process, *process.children(recursive=True)]:
                with contextlib.suppress(psutil.Error):
                    total += sum(one.cpu_times()[:4])
    return total


def end_tree(popen: "subprocess.Popen[Any]") -> None:
    """Terminate a process with its descendants, kill what stays, and wait."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(popen.pid)
        tree = [process, *process.children(recursive=True)]
        for how in (psutil.Process.terminate, psutil.Process.kill):
            for one in tree:
                with contextlib.suppress(psutil.Error):
                    how(one)
            if not psutil.wait_procs(tree, timeout=3.0)[1]:
                break
    popen.wait()


# --- programs in C ------------------------------------------------------------------------------


def compiled(name: str, out: Path, *options: str) -> Path:
    """One of ``programs/*.c``, compiled to ``out``; Skipped where there is no compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise Skipped("there is no C compiler")
    out.parent.mkdir(parents=True, exist_ok=True)
    source = PROGRAMS / f"{name}.c"
    subprocess.run([compiler, "-O2", "-std=gnu11", *options, "-o", out, source], check=True)
    return out


class LoadGenerator:
    """Runs commands in parallel at next to no cost of its own; see ``programs/load.c``."""

    def __init__(self, work: Path) -> None:
        self._program = compiled("load", work / "load" / "load")
        self._list, self._log, self._said = (work / "load" / n for n in ("list", "log", "said"))

    def run(
        self, commands: Sequence[Command], parallel: int, env: Mapping[str, str] | None = None
    ) -> Load:
        """All commands, so many at a time."""
        with self.running(commands, parallel, env) as popen:
            if popen.wait(LOAD_TIMEOUT_S) != 0:
                raise RuntimeError(f"load generator: {self._said.read_text(errors='replace')}")
        return self.result()

    @contextlib.contextmanager
    def running(
        self, commands: Sequence[Command], parallel: int, env: Mapping[str, str] | None = None
    ) -> "Iterator[subprocess.Popen[bytes]]":
        """The generator at work; when it has ended, ``result`` has the outcome."""
        self._list.write_bytes(
            b"".join(
                b"\0".join(os.fsencode(w) for w in (str(c.cwd), *c.words)) + b"\0\0"
                for c in commands
            )
        )
        with open(self._said, "wb") as said:
            popen = subprocess.Popen(
                [self._program, str(parallel), self._list, self._log],
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        try:
            yield popen
        finally:
            end_tree(popen)

    def result(self) -> Load:
        """What the last run's log says."""
        return parse_log(self._log.read_text(), self._said.read_text(errors="replace")[:2000])


def parse_log(text: str, said: str = "") -> Load:
    """The outcome behind a log of ``programs/load.c``; ValueError if the run was not finished."""
    *lines, last = text.splitlines() or [""]
    mark, *seconds = last.split()[:3] or [""]
    if mark != "CPU" or len(seconds) != 2:
        raise ValueError("the load generator did not finish")
    rows = [line.split() for line in lines]
    ends = [float(end) for _, end, _ in rows]
    failed = sum(status != "0" for _, _, status in rows)
    return Load(max(ends, default=0.0), sum(map(float, seconds)), ends, failed, said)


# --- a farm -------------------------------------------------------------------------------------


def make_certs(directory: Path) -> Path:
    """A CA and both roles' certificates for one benchmark."""
    script = ROOT / "src" / "certs" / "gen_self_signed_certs.sh"
    subprocess.run([script, directory], check=True, stdout=subprocess.DEVNULL)
    return directory


@contextlib.contextmanager
def farm(
    work: Path,
    workers: Sequence[Mapping[str, Any]],
    dev: Mapping[str, Any] | None = None,
    *,
    path_first: Path | None = None,
) -> Iterator[Cluster]:
    """A syncer and daemons, not started; ``path_first`` is put before their PATH."""
    certs = work / "certs"
    made = certs if certs.exists() else make_certs(certs)
    cluster = Cluster(work / "farm", made, workers, dev, cold=True)
    if path_first is not None:
        for process in cluster.processes():
            process.prefix = ["env", f"PATH={with_path(path_first)['PATH']}"]
    try:
        yield cluster
    finally:
        stop(cluster.processes())
        shutil.rmtree(work / "farm", ignore_errors=True)


def stop(processes: Sequence[Process]) -> None:
    """End them all at the same time; what does not end is killed."""
    started = [process for process in processes if process.popen is not None]
    for process in started:
        process.terminate()
    for process in started:
        with contextlib.suppress(AssertionError):
            process.wait()


def with_path(directory: Path) -> dict[str, str]:
    return {"PATH": f"{directory}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}


def ours(cluster: Cluster) -> dict[str, str]:
    """The environment of a wrapper; a failure of the farm is a failure of the command."""
    return {"DIST_BUILD_HOME": str(cluster.syncer.home), "DIST_BUILD_FALLBACK": "0"}


def syncer_pid(cluster: Cluster) -> int:
    assert cluster.syncer.popen is not None
    return cluster.syncer.popen.pid


def local_jobs(cluster: Cluster) -> int:
    """How many commands the syncer has handed back to be compiled on the dev box."""
    return sum(cluster.jobs()["local"].values())


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Have Ctrl-C and SIGTERM unwind the stack, once, so that everything is stopped and removed."""
    numbers = (signal.SIGINT, signal.SIGTERM)

    def end(number: int, frame: object) -> None:
        for one in numbers:
            signal.signal(one, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def stopwatch() -> Iterator[list[float]]:
    """A list that has the elapsed seconds once the block has ended."""
    elapsed: list[float] = []
    started = time.monotonic()
    yield elapsed
    elapsed.append(time.monotonic() - started)
