"""The executable that builds call, with a real syncer: the socket, local work, recursion."""

import os
import shutil
import signal
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from tests.support.cluster import EXECUTABLE, Cluster, run_here, wait_until
from tests.support.objects import files_below

ARGV = ["gcc", "-g", "-Wall", "-c", "x.c", "-o", "x.o", "-MMD"]
#: Says when it begins and ends; everything but linking is the real compiler's.
SLOW_LINKER = """#!/bin/sh
case " $* " in *" -c "*|*" -v "*|*" -print"*|*" -E "*) exec {gcc} "$@" ;; esac
echo begin >>{log}
while [ -e {hold} ]; do sleep 0.05; done
echo end >>{log}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    (root / "x.c").write_text('#include "x.h"\nint x = X;\nstatic int unused;\n')
    (root / "x.h").write_text("#define X 1\n")
    return root


@pytest.fixture
def launcher() -> Path:
    if not (EXECUTABLE.parent / "dist_build_client").exists():
        pytest.skip("there is no launcher here, only the Python client")
    return EXECUTABLE


def remote(cluster: Cluster) -> int:
    return int(cluster.jobs()["done"])


def test_called_as_gcc_it_is_gcc_and_distributed(
    cluster: Cluster, project: Path, tmp_path: Path, launcher: Path
) -> None:
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "gcc").symlink_to(launcher)
    path = f"{bin_}:{os.environ['PATH']}"
    done = remote(cluster)
    with_us = subprocess.run(
        ARGV, cwd=project, env=cluster.environment(PATH=path), capture_output=True, check=False
    )
    ours = files_below(project)
    local = run_here(ARGV, project)
    assert (with_us.returncode, with_us.stderr) == (local.exit_code, local.stderr)
    assert ours == files_below(project)
    assert remote(cluster) == done + 1
    linked = ["gcc", "x.o", "-shared", "-o", "x.so"]
    subprocess.run(linked, cwd=project, env=cluster.environment(PATH=path), check=True)
    assert (project / "x.so").exists()


def test_outputs_belong_to_the_builds_group(
    cluster: Cluster, project: Path, launcher: Path
) -> None:
    group = 1234 if os.geteuid() == 0 else os.getegid()  # others may not take any
    done = remote(cluster)
    subprocess.run(
        [launcher, *ARGV], cwd=project, env=cluster.environment(), group=group, check=True
    )
    assert {(project / name).stat().st_gid for name in ("x.o", "x.d")} == {group}
    assert remote(cluster) == done + 1


def test_a_script_of_the_compilers_name_that_calls_us_is_no_loop(
    cluster: Cluster, project: Path, tmp_path: Path, launcher: Path
) -> None:
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    script = bin_ / "gcc"
    script.write_text(f'#!/bin/sh\nexec "{launcher}" gcc "$@"\n')
    script.chmod(0o755)
    path = f"{bin_}:{os.environ['PATH']}"
    for words in (ARGV, ["gcc", "x.o", "-shared", "-o", "x.so"]):
        subprocess.run(
            words, cwd=project, env=cluster.environment(PATH=path), check=True, timeout=600
        )
    assert (project / "x.so").exists()


def test_behind_and_before_ccache_every_compile_is_right(
    cluster: Cluster, project: Path, tmp_path: Path, launcher: Path
) -> None:
    ccache = shutil.which("ccache")
    if ccache is None:
        pytest.skip("ccache is not installed")
    local = run_here(ARGV, project)
    expected = files_below(project)
    for words, extra in (
        (["ccache", *ARGV], {"CCACHE_PREFIX": str(launcher)}),
        ([str(launcher), "ccache", *ARGV], {}),
    ):
        (project / "x.o").unlink()
        done = subprocess.run(
            words,
            cwd=project,
            env=cluster.environment(CCACHE_DIR=str(tmp_path / "cache"), **extra),
            capture_output=True,
            check=False,
            timeout=600,
        )
        assert (done.returncode, done.stderr) == (local.exit_code, local.stderr)
        assert files_below(project) == expected


def test_the_socket_is_the_owners_alone_and_goes_with_the_syncer(
    tmp_path: Path, certs_dir: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Cluster(tmp_path / "own", certs_dir, workers=[{}])
    try:
        own.start()
        path = own.syncer.home / "syncer.sock"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with socket.socket(socket.AF_UNIX) as client:
            monkeypatch.chdir(path.parent)  # the whole path may be too long for an address
            client.connect(path.name)
            client.sendall(b"GET /status HTTP/1.1\r\nHost: syncer\r\nConnection: close\r\n\r\n")
            with client.makefile("rb") as answer:
                assert b'"version"' in answer.read()
        assert own.run(ARGV, project).exit_code == 0
        own.syncer.stop()
        assert not path.exists()
        own.stop()
    finally:
        own.kill()


def test_a_wrapper_in_another_mount_namespace_says_once_that_it_compiles_locally(
    tmp_path: Path, certs_dir: Path, project: Path, launcher: Path
) -> None:
    """With its own compiler: what the syncer finds by that path may be another one."""
    elsewhere = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "-rm"]
    if not shutil.which("unshare") or subprocess.run([*elsewhere, "true"], check=False).returncode:
        pytest.skip("no mount namespaces here")
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "gcc").write_text('#!/bin/sh\ncp "$0" x.o\n')
    (bin_ / "gcc").chmod(0o755)
    script = f"mount --bind {bin_} {tmp_path}/over && exec {launcher} gcc -c x.c"
    own = Cluster(tmp_path / "own", certs_dir, workers=[])
    (tmp_path / "over").mkdir()
    try:
        own.start()
        path = f"{tmp_path}/over:{os.environ['PATH']}"
        said = []
        for _ in range(3):
            done = subprocess.run(
                [*elsewhere, "sh", "-c", script],
                cwd=project,
                env=own.environment(PATH=path),
                capture_output=True,
                check=True,
            )
            said.append(done.stderr.decode())
            assert (project / "x.o").read_bytes() == (bin_ / "gcc").read_bytes()
        assert said[0].startswith("dist_build: compiled locally: other_files")
        assert said[1:] == ["", ""]
        assert own.jobs()["local"] == {"other_files": 3}
        own.stop()
    finally:
        own.kill()


def test_local_work_takes_turns(
    tmp_path: Path, certs_dir: Path, project: Path, launcher: Path
) -> None:
    own = Cluster(tmp_path / "own", certs_dir, workers=[{}], dev={"local_slots": 1})
    log, hold = tmp_path / "log", tmp_path / "hold"
    hold.touch()
    gcc = tmp_path / "bin" / "gcc"
    gcc.parent.mkdir()
    gcc.write_text(SLOW_LINKER.format(gcc=shutil.which("gcc"), log=log, hold=hold))
    gcc.chmod(0o755)
    try:
        own.start()
        link = [str(gcc), "x.o", "-o", "x"]
        first = own.popen(link, project)
        wait_until(lambda: log.exists() and log.read_text(), "the first runs")
        others = [own.popen(link, project) for _ in range(4)]
        wait_until(lambda: own.syncer.status()["local"]["waiting"] == 4, "the others wait")
        others[0].kill()  # waiting, and then one that runs: its turn goes to the next
        first.kill()
        wait_until(lambda: log.read_text().count("begin") == 2, "the next runs")
        hold.unlink()
        for process in (first, *others):
            process.communicate()
        wait_until(lambda: own.syncer.status()["local"]["running"] == 0, "all slots are free")
        assert log.read_text().split() == ["begin", *["begin", "end"] * 3]
        assert own.jobs()["local"] == {"link": 5}
        own.stop()
    finally:
        own.kill()


def test_without_a_syncer_local_work_takes_turns_too(
    cluster: Cluster, project: Path, tmp_path: Path
) -> None:
    """As many at a time as there are cores, here one; what one of them calls runs in its turn."""
    home = tmp_path / "home"
    (home / "state").mkdir(parents=True)
    log, bin_ = tmp_path / "log", tmp_path / "bin"
    bin_.mkdir()
    body = f"echo begin >>{log}\nsleep 0.1\n{{calls}}echo end >>{log}\n"
    for name, calls in (("gcc", f"{EXECUTABLE} {bin_}/clang y.o\n"), ("clang", "")):
        (bin_ / name).write_text("#!/bin/sh\n" + body.format(calls=calls))
        (bin_ / name).chmod(0o755)
    env = cluster.environment(DIST_BUILD_HOME=str(home))
    words = ["taskset", "-c", "0", str(EXECUTABLE), f"{bin_}/gcc", "x.o"]
    running = [subprocess.Popen(words, cwd=project, env=env) for _ in range(4)]
    assert [process.wait() for process in running] == [0] * 4
    assert log.read_text().split() == ["begin", "begin", "end", "end"] * 4


def test_idle_cores_join_in_while_the_farm_is_full(
    tmp_path: Path, certs_dir: Path, project: Path
) -> None:
    body = "\n".join(f"double f{i}(double x) {{ return x * {i}.5 + {i}; }}" for i in range(1000))
    (project / "long.c").write_text(body)
    own = Cluster(tmp_path / "own", certs_dir, workers=[{"num_cores": 1}], dev={"local_slots": 1})
    try:
        own.start()
        names = [f"{n}.o" for n in range(6)]
        running = [own.popen(["gcc", "-O2", "-c", "long.c", "-o", n], project) for n in names]
        for process in running:
            assert process.communicate() == (b"", b"")
            assert process.returncode == 0
        jobs = own.jobs()
        assert jobs["local"].get("farm_full", 0) >= 1
        assert jobs["done"] >= 1
        assert jobs["done"] + jobs["local"]["farm_full"] == len(names)
        assert len({(project / n).read_bytes() for n in names}) == 1
        own.stop()
    finally:
        own.kill()


def test_a_syncer_that_is_killed_leaves_right_objects(
    tmp_path: Path, certs_dir: Path, project: Path
) -> None:
    """Killed while compiles wait for it: each wrapper helps itself."""
    own = Cluster(tmp_path / "own", certs_dir, workers=[{"num_cores": 1}])
    try:
        own.start()
        names = [f"{n}.o" for n in range(4)]
        running = [own.popen(["gcc", "-c", "x.c", "-o", n], project) for n in names]
        own.syncer.kill()
        for process in running:
            process.communicate()
            assert process.returncode == 0
        run_here(["gcc", "-c", "x.c", "-o", "local.o"], project)
        assert {(project / n).read_bytes() for n in names} == {(project / "local.o").read_bytes()}
    finally:
        own.kill()


def test_a_syncer_that_is_started_anew_is_asked_again(
    tmp_path: Path, certs_dir: Path, project: Path, launcher: Path
) -> None:
    """By the launcher itself: all that wait would else become Python processes at once."""
    alone = shutil.copy(launcher, tmp_path / "dist_build.exe")  # without the Python client beside
    own = Cluster(tmp_path / "own", certs_dir, workers=[{}])
    (daemon,) = own.daemons
    try:
        daemon.start()
        wait_until(daemon.answers, "the daemon answers")
        daemon.signal(signal.SIGSTOP)  # a syncer waits a few seconds for a worker, not for Python
        own.syncer.start()
        wait_until(own.syncer.answers, "the syncer answers")
        waiting = [  # for the first worker
            subprocess.Popen(
                [alone, "gcc", "-c", "x.c", "-o", f"{n}.o"],
                cwd=project,
                env=own.environment(),
                stderr=subprocess.PIPE,
            )
            for n in range(3)
        ]
        wait_until(lambda: all(_awaits_answer(p.pid) for p in waiting), "all wait")
        own.syncer.kill()
        daemon.signal(signal.SIGCONT)
        own.syncer.start()
        for process in waiting:
            _, said = process.communicate()
            assert (process.returncode, said) == (0, b"")
        assert remote(own) == len(waiting)
    finally:
        own.kill()


def _awaits_answer(pid: int) -> bool:
    """Whether a launcher sleeps with a connection: there is nothing else that it would wait for."""
    links = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
    is_connected = any(link.startswith("socket:") for link in links)
    return is_connected and "\nState:\tS" in Path(f"/proc/{pid}/status").read_text()


def test_interrupted_while_it_waits_for_its_turn(
    tmp_path: Path, certs_dir: Path, project: Path, launcher: Path
) -> None:
    own = Cluster(tmp_path / "own", certs_dir, workers=[{}], dev={"local_slots": 1})
    sleeper = tmp_path / "gcc"
    sleeper.write_text("#!/bin/sh\nexec sleep 60\n")
    sleeper.chmod(0o755)
    try:
        own.start()
        holder = own.popen([sleeper, "x.o", "-o", "x"], project)
        wait_until(lambda: own.syncer.status()["local"]["running"] == 1, "the first runs")
        waiter = own.popen(["gcc", "y.o", "-o", "y"], project)
        wait_until(lambda: own.syncer.status()["local"]["waiting"] == 1, "the second waits")
        waiter.send_signal(signal.SIGINT)
        waiter.communicate()
        assert waiter.returncode == -signal.SIGINT
        wait_until(lambda: own.syncer.status()["local"]["waiting"] == 0, "it waits no longer")
        holder.kill()
        holder.communicate()
        wait_until(lambda: own.syncer.status()["local"]["running"] == 0, "the slot is free")
        own.stop()
    finally:
        own.kill()
