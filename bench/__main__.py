"""``make bench``: what the dev box pays for each file, ours and the peers', in one run.

Compiles the C files of a real project in turn with the local compiler, through dist_build, through
distcc and through ccache (a second time, so that it answers from its cache); a peer that is not
installed is left out, and said to be. CPU of the wrapper with all that it starts, plus that of the
resident process, in milliseconds a file; the median of the rounds. Prints ratios as well: a machine
is as fast as it is.
"""

import contextlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.support.cluster import Cluster, free_ports, wait_until, wrapper_command
from tests.support.projects import NotFetched, fetch

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 3
JOBS = 2
PROJECT = "lua5.4"
OPTIONS = ["-O2", "-g", "-DLUA_USE_POSIX", "-MD"]


@dataclass(frozen=True)
class Way:
    """One way to compile: words before the compiler, environment, and what runs beside it."""

    name: str
    prefix: Sequence[str]
    env: Mapping[str, str]
    resident: Sequence[int] = ()


@dataclass(frozen=True)
class Cost:
    """Of one file: CPU on the dev box in ms, and wall time of the whole build divided by files."""

    cpu_ms: float
    wall_ms: float


def cpu_of(pids: Sequence[int]) -> float:
    """CPU seconds of these processes and their descendants, ended ones included."""
    total = 0.0
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            for one in [process, *process.children(recursive=True)]:
                times = one.cpu_times()
                total += times.user + times.system
    return total


def build(way: Way, sources: Sequence[Path], out: Path) -> Cost:
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()

    def compile_one(source: Path) -> None:
        words = [
            *way.prefix,
            "gcc",
            *OPTIONS,
            "-c",
            str(source),
            "-o",
            str(out / source.stem) + ".o",
        ]
        subprocess.run(words, env={**os.environ, **way.env}, cwd=source.parent, check=True)

    before, started = os.times(), time.monotonic()
    resident = cpu_of(way.resident)
    with ThreadPoolExecutor(JOBS) as pool:
        list(pool.map(compile_one, sources))
    wall = time.monotonic() - started
    after = os.times()
    client = (
        after.children_user + after.children_system - before.children_user - before.children_system
    )
    cpu = client + cpu_of(way.resident) - resident
    return Cost(1000 * cpu / len(sources), 1000 * wall / len(sources))


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def distcc(root: Path) -> Iterator[Way]:
    """A distccd on loopback; its own CPU is the worker's and not counted."""
    (port,) = free_ports(1)
    (root / "distcc").mkdir()
    words = ["distccd", "--no-detach", "--daemon", f"--port={port}", "--allow=127.0.0.1"]
    daemon = subprocess.Popen(
        [*words, "--jobs=4", "--log-stderr", "--enable-tcp-insecure"], stderr=subprocess.DEVNULL
    )
    wait_until(lambda: answers(port), "distccd answers")
    try:
        hosts = {"DISTCC_HOSTS": f"127.0.0.1:{port}", "DISTCC_FALLBACK": "0"}
        yield Way("distcc", ["distcc"], {**hosts, "DISTCC_DIR": str(root / "distcc")})
    finally:
        daemon.terminate()
        daemon.wait()


def ways(root: Path, cluster: Cluster, stack: contextlib.ExitStack) -> list[Way]:
    assert cluster.syncer.popen is not None
    home = {"DIST_BUILD_HOME": str(cluster.syncer.home), "DIST_BUILD_FALLBACK": "0"}
    found = [
        Way("local gcc", [], {}),
        Way("dist_build", wrapper_command(), home, [cluster.syncer.popen.pid]),
    ]
    if shutil.which("distcc") and shutil.which("distccd"):
        found.append(stack.enter_context(distcc(root)))
    if shutil.which("ccache"):
        found.append(Way("ccache, hit", ["ccache"], {"CCACHE_DIR": str(root / "ccache")}))
    return found


def measure(found: Sequence[Way], sources: Sequence[Path], out: Path) -> dict[str, Cost]:
    """Medians; the rounds go through the ways in turn, so that a slow minute hits them all."""
    rounds: dict[str, list[Cost]] = {way.name: [] for way in found}
    for way in found:
        build(way, sources, out)
    for _ in range(ROUNDS):
        for way in found:
            rounds[way.name].append(build(way, sources, out))
    return {
        name: Cost(
            statistics.median(c.cpu_ms for c in costs), statistics.median(c.wall_ms for c in costs)
        )
        for name, costs in rounds.items()
    }


def show(costs: Mapping[str, Cost], files: int) -> None:
    local = costs["local gcc"]
    print(f"{PROJECT}, {files} files, -j{JOBS}, median of {ROUNDS} rounds, all on this machine")
    print(f"{'':14} {'CPU ms/file':>12} {'x local':>8} {'wall ms/file':>13}")
    for name, cost in costs.items():
        ratio = cost.cpu_ms / local.cpu_ms
        print(f"{name:14} {cost.cpu_ms:12.1f} {ratio:8.2f} {cost.wall_ms:13.1f}")
    for peer in ("distcc", "ccache"):
        if not any(name.startswith(peer) for name in costs):
            print(f"{peer}: not installed, left out")


def within(root: Path, run: Callable[[Path, Cluster], None]) -> None:
    certs = root / "certs"
    script = ROOT / "src" / "certs" / "gen_self_signed_certs.sh"
    subprocess.run([script, certs], check=True, stdout=subprocess.DEVNULL)
    cluster = Cluster(root / "farm", certs)
    try:
        cluster.start()
        run(root, cluster)
    finally:
        cluster.stop()


def compare(root: Path, cluster: Cluster) -> None:
    sources = sorted((fetch(PROJECT, root / "project") / "src").glob("*.c"))
    with contextlib.ExitStack() as stack:
        found = ways(root, cluster, stack)
        show(measure(found, sources, root / "out"), len(sources))


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="dist_build-bench-") as directory:
        try:
            within(Path(directory), compare)
        except NotFetched as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
