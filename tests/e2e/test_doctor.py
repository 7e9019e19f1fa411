"""What doctor and status say of workers that seem to be well."""

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from distbuild.worker.tree.store import MIN_FREE_BYTES
from tests.support.cluster import Cluster, Done, wait_until
from tests.support.cut_network import Cable
from tests.support.stand_in import make_stand_in

Begin = Callable[..., Cluster]


@pytest.fixture
def begin(tmp_path: Path, certs_dir: Path) -> Iterator[Begin]:
    """Makes a cluster of one worker; ``configure`` changes it before it starts."""
    made: list[Cluster] = []

    def start(configure: Callable[[Cluster], None] = lambda _: None, **config: Any) -> Cluster:
        cluster = Cluster(tmp_path / "farm", certs_dir, [config], cold=True)
        made.append(cluster)
        configure(cluster)
        for process in cluster.processes():
            process.start()
        for process in cluster.processes():
            wait_until(process.answers, f"{process.name} answers")
        return cluster

    yield start
    for cluster in made:
        for process in cluster.processes():
            if process.popen is not None:
                process.popen.send_signal(signal.SIGCONT)
        cluster.kill()


def doctor(cluster: Cluster, cwd: Path) -> tuple[int, list[str]]:
    """Its exit code, and what it says of workers.

    It says that soon: after ANSWER_S without an answer of the syncer, the last line would be about
    the syncer.
    """
    done = cluster.run(["doctor"], cwd)
    assert done.stderr == b""
    lines = done.stdout.decode().splitlines()
    assert [line for line in lines if not re.match(r"(ok   |warn |FAIL ) [a-z ]+: ", line)] == []
    return done.exit_code, [line for line in lines if " workers: " in line]


def wait_until_well(cluster: Cluster, cwd: Path) -> str:
    """What doctor says of the one worker, once it has compiled a test in time."""
    cluster.wait_for_workers()

    def line() -> str:
        code, said = doctor(cluster, cwd)
        return said[0] if code == 0 and "compiled a test" in said[0] else ""

    return str(wait_until(line, "doctor finds nothing wrong"))


def seen_compiling(cluster: Cluster, cwd: Path) -> tuple[int, list[str]] | None:
    """What doctor says if the worker has compiled its test in time."""
    code, said = doctor(cluster, cwd)
    return (code, said) if code == 0 else None


def rewrite(home: Path, changes: Mapping[str, Any]) -> None:
    path = home / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def fault(cluster: Cluster, cwd: Path) -> str:
    """The one line that doctor says of the one worker, which is of no use."""
    code, [line] = doctor(cluster, cwd)
    assert (code, line[:15]) == (1, "FAIL  workers: "), line
    return line


def test_a_worker_that_is_well_compiles_a_test(begin: Begin, tmp_path: Path) -> None:
    cluster = begin()
    line = wait_until_well(cluster, tmp_path)
    assert re.match(r"ok    workers: 127.0.0.1:\d+: compiled a test in \d\.\d\d s, 2 slots, ", line)
    assert re.search(r", has gcc\b.* \d+\.\d+\.\d+.*, \d+\.\d [kMG]B free$", line), line
    shown = status_table(cluster, tmp_path)
    assert re.search(r"127.0.0.1:\d+ +up +\d+ s ago +2 +0 +\d+ +\d+\.\d GB .*gcc", shown), shown


def test_both_servers_say_in_one_line_where_they_are_and_what_comes_next(begin: Begin) -> None:
    cluster = begin()
    (daemon,) = cluster.daemons
    assert (cluster.syncer.home / "output").read_text() == (
        f"syncer: https://127.0.0.1:{cluster.syncer.port}, home {cluster.syncer.home}, workers:"
        f" 127.0.0.1:{daemon.port}; put dist_build.exe before the compiler (make -j8"
        ' CC="dist_build.exe gcc"); dist_build.exe doctor checks the set-up\n'
    )
    [line] = (daemon.home / "output").read_text().splitlines()
    assert line.startswith(f"daemon: https://127.0.0.1:{daemon.port}, home {daemon.home}, 2 slots,")
    assert f" takes jobs from {cluster.url}; " in line


def test_a_frozen_worker_is_said_to_be_silent(begin: Begin, tmp_path: Path) -> None:
    cluster = begin()
    wait_until_well(cluster, tmp_path)
    freeze(cluster)
    said = fault(cluster, tmp_path)
    assert "does not answer" in said
    assert "Restart daemon.py there" in said
    assert "not answering" in status_table(cluster, tmp_path)


@pytest.mark.in_turn("cut", of=3)
@pytest.mark.parametrize("cut", ["both", "to the worker", "to the syncer"])
def test_a_network_that_is_cut_is_said(begin: Begin, tmp_path: Path, cut: str) -> None:
    cables: list[Cable] = []

    def lead(cluster: Cluster) -> None:
        (daemon,) = cluster.daemons
        cables.append(Cable(daemon.port))
        cables.append(Cable(cluster.syncer.port))
        rewrite(cluster.syncer.home, {"hosts": [f"127.0.0.1:{cables[0].port}"]})
        rewrite(daemon.home, {"syncer": f"https://127.0.0.1:{cables[1].port}"})

    try:
        cluster = begin(lead)
        wait_until_well(cluster, tmp_path)
        cut_off = {"to the worker": cables[:1], "to the syncer": cables[1:], "both": cables}[cut]
        for cable in cut_off:
            cable.cut()
        expected = {
            "to the worker": (0, r"warn  .*: it compiled a test, but .* does not answer \("),
            "to the syncer": (1, r"FAIL  .*: it gave no result of a test compile within \d+ s \("),
            "both": (1, r"FAIL  .*: it accepts a connection and does not answer \("),
        }[cut]
        code, [said] = doctor(cluster, tmp_path)
        if cut == "to the worker" and code != 0:  # its test compile took longer than doctor waits
            code, [said] = wait_until(lambda: seen_compiling(cluster, tmp_path), "it compiles")
        assert (code, bool(re.match(expected[1], said))) == (expected[0], True), said
        assert "is the network cut" in said
    finally:
        for cable in cables:
            cable.__exit__()


def test_a_port_where_nothing_listens_is_said(begin: Begin, tmp_path: Path) -> None:
    cluster = begin()
    cluster.wait_for_workers()
    (daemon,) = cluster.daemons
    daemon.kill()
    said = fault(cluster, tmp_path)
    assert re.search(r"down: 127.0.0.1:\d+: connection refused; .*start daemon.py", said), said


def test_another_cc1_is_said(begin: Begin, tmp_path: Path) -> None:
    """Its gcc has the same version, and is not the same program."""
    fake = tmp_path / "bin" / "gcc"
    fake.parent.mkdir()
    make_stand_in(fake, "/usr/bin/gcc")
    if bwrap := shutil.which("bwrap"):
        (fake.parent / "bwrap").symlink_to(bwrap)

    def mislead(cluster: Cluster) -> None:
        (daemon,) = cluster.daemons
        daemon.prefix = ["env", f"PATH={fake.parent}"]

    cluster = begin(mislead)
    cluster.wait_for_workers()
    doctor(cluster, tmp_path)  # the first of a syncer also asks the compilers what they are
    said = fault(cluster, tmp_path)
    assert "it has none of your compilers: " in said
    assert re.search(r"it has gcc \d+\.\d+\.\d+ \S+ \(of another build\)\. Install the same", said)
    assert "none of yours" in status_table(cluster, tmp_path)


def test_a_full_disk_is_said_and_no_jobs_are_taken(begin: Begin, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256m", "none", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small disk")
    try:

        def move(cluster: Cluster) -> None:
            (daemon,) = cluster.daemons
            shutil.move(daemon.home, disk / "home")
            daemon.home.symlink_to(disk / "home")

        cluster = begin(move)
        wait_until_well(cluster, tmp_path)
        with open(disk / "filler", "wb") as filler:
            filler.write(bytes(shutil.disk_usage(disk).free - MIN_FREE_BYTES // 2))
        (daemon,) = cluster.daemons
        wait_until(lambda: daemon.status()["store"]["is_full"], "it knows that its disk is full")
        wait_until(lambda: is_local(compiled(cluster, tmp_path)), "it takes no more jobs")
        said = fault(cluster, tmp_path)
        assert re.search(r"disk is full \([\d.]+ [kM]?B are free\).*make room there", said), said
        assert re.search(r"127.0.0.1:\d+ +full ", status_table(cluster, tmp_path))
        (disk / "filler").unlink()
        wait_until(lambda: not is_local(compiled(cluster, tmp_path)), "it takes jobs again")
        cluster.stop()
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def freeze(cluster: Cluster) -> None:
    """Stop all processes of the one worker."""
    (daemon,) = cluster.daemons
    assert daemon.popen is not None
    os.killpg(daemon.popen.pid, signal.SIGSTOP)


def status_table(cluster: Cluster, cwd: Path) -> str:
    done = cluster.run(["status"], cwd)
    assert (done.exit_code, done.stderr) == (0, b"")
    return done.stdout.decode()


def compiled(cluster: Cluster, cwd: Path) -> Done:
    (cwd / "x.c").write_text("int x;\n")
    return cluster.run(["gcc", "-c", "x.c"], cwd, DIST_BUILD_VERBOSE="1")


def is_local(done: Done) -> bool:
    assert done.exit_code == 0
    return b"compiled locally: no_worker" in done.stderr
