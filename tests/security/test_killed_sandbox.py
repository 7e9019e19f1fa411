"""Killing any process of a running compile leaves no process, mount or file, and no wrong build."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.cluster import Cluster, Process, wait_until
from tests.support.sandboxes import entering
from tests.support.tools import need

#: Seconds of work for the compiler's parser, without large files.
SLOW = "".join(f"#define N{n + 1} N{n} N{n}\n" for n in range(17))
SLOW = f"#define N0 1,2,3,4,\n{SLOW}int a[] = {{ N17 }};\n"
VICTIMS = ("daemon", "outer", "first", "compiler")
#: The daemon and the compiler; then the others and more of the same.
SEEDS = [0, 3, *(pytest.param(n, marks=pytest.mark.exhaustive) for n in (1, 2, *range(4, 24)))]


@pytest.fixture
def farm(tmp_path: Path, certs_dir: Path) -> Iterator[Cluster]:
    need("bwrap")
    entering()
    made = Cluster(tmp_path / "farm", certs_dir, [{"sandbox": "namespace"}] * 2)
    try:
        yield made.start()
        made.stop()
    finally:
        made.kill()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With ``expected.o``, the local compiler's object."""
    made = tmp_path_factory.mktemp("project")
    (made / "slow.c").write_text(SLOW)
    subprocess.run(["gcc", "-c", "slow.c"], cwd=made, check=True)
    shutil.move(made / "slow.o", made / "expected.o")
    return made


def processes_of(daemon: psutil.Process) -> list[psutil.Process]:
    """A job's processes, outer ones first; perhaps not all of them yet."""
    found = []
    with contextlib.suppress(psutil.Error):  # they end meanwhile
        children = [one for one in daemon.children() if "enter-" in " ".join(one.cmdline()[:1])]
        while children:
            found.append(children[0])
            children = children[0].children()
    return found


def chosen(victim: str, daemon: psutil.Process) -> psutil.Process | None:
    """The victim, if there is one yet."""
    if victim == "daemon":
        return daemon
    found = processes_of(daemon)
    at = {"outer": 0, "first": 1, "compiler": -1}[victim]
    return found[at] if len(found) > max(at, 2) else None


def strangers(home: Path, daemon: int) -> list[str]:
    """Command lines of processes that belong to a daemon, or see its directories as mounts."""
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            mounts = Path(f"/proc/{process.pid}/mountinfo").read_text()
        except (psutil.Error, OSError):
            continue
        if process.pid != daemon and (str(home) in mounts or "/enter-" in " ".join(words[:1])):
            found.append(" ".join(words)[:200])
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_left_of_a_compile_that_was_killed(
    farm: Cluster, project: Path, seed: int
) -> None:
    chance = random.Random(seed)
    mounts = Path("/proc/self/mountinfo").read_text()
    (project / "slow.o").unlink(missing_ok=True)
    with farm.popen(["gcc", "-c", "slow.c"], project) as build:
        worker = wait_until(lambda: busy(farm), "the compile has begun")
        daemon = psutil.Process(worker.popen.pid)
        time.sleep(chance.uniform(0, 0.4))
        victim = chosen(VICTIMS[seed % len(VICTIMS)], daemon)
        if victim is not None:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(victim.pid, signal.SIGKILL)
        assert build.wait(120) == 0
    assert (project / "slow.o").read_bytes() == (project / "expected.o").read_bytes()
    if victim == daemon:
        worker.popen.wait()
        wait_until(lambda: not strangers(worker.home, 0), "its processes have ended")
        worker.start()
        wait_until(worker.answers, "it is up again")
    pid = worker.popen.pid
    wait_until(lambda: not strangers(worker.home, pid), "its processes have ended")
    jobs = worker.home / "sandbox" / ".jobs"
    wait_until(lambda: not any(map(_holds_files, jobs.iterdir())), "its files are removed")
    assert Path("/proc/self/mountinfo").read_text() == mounts


def busy(farm: Cluster) -> Process | None:
    """The daemon that runs a compile."""
    for worker in farm.daemons:
        if worker.popen is not None and processes_of(psutil.Process(worker.popen.pid)):
            return worker
    return None


def _holds_files(directory: Path) -> bool:
    return any(path.is_file() for path in directory.rglob("*"))
