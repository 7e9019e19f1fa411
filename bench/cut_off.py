"""A build on two machines of which one is cut off half way, without notice: no packet arrives there
any more, and no connection is closed.

Both are network namespaces. The compiler only sleeps, and each machine alone has a slot for every
compile at a time, so that what the cut costs is the time in which it is noticed.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.common import ROOT, LoadGenerator, Options, Skipped, farm, median, ours, with_path
from bench.dispatch import Shape
from bench.fake import fake_compiler, sleeping_jobs
from bench.report import Cell, Result, Table
from tests.support.cluster import wrapper_command

#: Of the two machines.
NUMBERS = (1, 2)
#: 480 jobs of 1 s, 8 at a time.
FULL, QUICK = Shape(480, 1.0, 2, 8), Shape(64, 0.5, 2, 8)
RATE = "20mbit"
TOOLS = ("ip", "tc", "nsenter", "unshare")
#: What happens to the second machine.
NOTHING, CUT, KILLED = "nothing", "cut off", "its daemon is killed"


def run(options: Options) -> Result:
    shape = QUICK if options.quick else FULL
    for tool in TOOLS:
        if shutil.which(tool) is None:
            raise Skipped(f"{tool} is not installed")
    walls: dict[str, list[float]] = {NOTHING: [], CUT: [], KILLED: []}
    again: dict[str, int] = {}
    for _ in range(options.rounds):
        for how, some in walls.items():
            said = in_own_network(how, shape)
            some.append(said["wall"])
            again[how] = said["retried"]
    whole = median(walls[NOTHING])
    rows: list[list[Cell]] = [
        [how, median(some), median(some) / whole, again[how]] for how, some in walls.items()
    ]
    table = Table(
        f"{shape.jobs} jobs of {shape.seconds:g} s, -j{shape.slots}, two machines",
        "wall time of a build, by what happens to one machine when half of the jobs are done",
        ["to one machine", "wall s", "of the build without", "jobs compiled again"],
        rows,
        [f"each machine has {shape.slots} slots, and a link of {RATE}/s"],
    )
    return Result([table])


def in_own_network(how: str, shape: Shape) -> dict[str, Any]:
    """One build, by this module as a program of a network and process namespace of its own."""
    words = "unshare -n --pid --fork --mount-proc".split()
    words += [sys.executable, "-m", "bench.cut_off"]
    words += [how, str(shape.jobs), str(shape.seconds), str(shape.slots)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = "".join(done.stderr.strip().splitlines()[-1:])
        if "Operation not permitted" in last:
            raise Skipped(f"network namespaces need root: {last}")
        raise RuntimeError(f"{how}: {last}")
    return dict(json.loads(done.stdout))


# --- in the namespace ---------------------------------------------------------------------------


def build(how: str, shape: Shape, work: Path) -> dict[str, object]:
    """Build once; every object has to be there, and none may be compiled on the dev box."""
    fake = fake_compiler(work / "fake")
    jobs = sleeping_jobs(work / "jobs", shape.jobs, shape.seconds)
    with contextlib.ExitStack() as stack:
        hosts = [stack.enter_context(_host(number)) for number in NUMBERS]
        workers = [{"bind": _there(number), "num_cores": shape.slots} for number in NUMBERS]
        made = farm(work, workers, {"bind": "0.0.0.0"}, path_first=fake)
        cluster = stack.enter_context(made)
        stack.callback(cluster.kill)
        for number, host, daemon in zip(NUMBERS, hosts, cluster.daemons, strict=True):
            config = json.loads((daemon.home / "config.json").read_text())
            config["syncer"] = f"https://{_here(number)}:{cluster.syncer.port}"
            (daemon.home / "config.json").write_text(json.dumps(config))
            daemon.prefix = [*_inside(host), *daemon.prefix]
        cluster.start()
        load = LoadGenerator(work)
        commands = [job.behind(wrapper_command()) for job in jobs]
        environment = {**with_path(fake), **ours(cluster)}
        with load.running(commands, shape.slots, environment) as popen:
            while popen.poll() is None and _objects(work / "jobs") < shape.jobs // 2:
                time.sleep(0.02)
            if how == CUT:
                _run(*_inside(hosts[1]), "ip", "address", "flush", "dev", "cable")
            elif how == KILLED:
                cluster.daemons[1].kill()
            popen.wait()
        done, counts = load.result(), cluster.jobs()
        if done.failed or counts["local"] or _objects(work / "jobs") != shape.jobs:
            raise RuntimeError(f"{done.failed} failed, {counts}: {done.said}")
    return {"wall": done.wall, "retried": counts["retried"]}


def _here(number: int) -> str:
    return f"10.77.{number}.1"


def _there(number: int) -> str:
    return f"10.77.{number}.2"


def _inside(host: int) -> list[str]:
    """Words before a command that is to run on this machine."""
    return ["nsenter", "-t", str(host), "-n"]


def _objects(directory: Path) -> int:
    return sum(name.endswith(".o") for name in os.listdir(directory))


def _run(*words: str) -> None:
    subprocess.run(words, check=True)


@contextlib.contextmanager
def _host(number: int) -> Iterator[int]:
    """Another machine with a cable to this one; the PID of a process there."""
    with subprocess.Popen(["unshare", "-n", "sleep", "infinity"]) as popen:
        try:
            own = os.readlink("/proc/self/ns/net")
            while os.readlink(f"/proc/{popen.pid}/ns/net") == own:
                time.sleep(0.01)
            inside, name = _inside(popen.pid), f"cable{number}"
            peer = ("peer", "name", "cable", "netns", str(popen.pid))
            _run("ip", "link", "add", name, "type", "veth", *peer)
            for words, end, address in (([], name, _here), (inside, "cable", _there)):
                _run(*words, "ip", "address", "add", f"{address(number)}/24", "dev", end)
                for up in ("lo", end):
                    _run(*words, "ip", "link", "set", up, "up")
                limit = ("tbf", "rate", RATE, "burst", "32kb", "latency", "400ms")
                _run(*words, "tc", "qdisc", "add", "dev", end, "root", *limit)
            yield popen.pid
        finally:
            popen.kill()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "work").mkdir()
        wanted = Shape(int(sys.argv[2]), float(sys.argv[3]), len(NUMBERS), int(sys.argv[4]))
        sys.stdout.write(json.dumps(build(sys.argv[1], wanted, Path(directory) / "work")))
