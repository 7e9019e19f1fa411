"""Jobs over their whole life: cancelled, lost, drained; and what the user is told of it."""

import contextlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.cluster import SRC, Cluster, Done, run_here, wait_until, wrapper_command
from tests.support.objects import assert_same, files_below
from tests.support.stand_in import make_stand_in

#: A second's compile, which tests stop where it has to last.
LONG = "\n".join(f"double f{i}(double x) {{ return x * {i}.5 + {i}; }}" for i in range(1500))
#: Told by its name from what other test runs on this machine compile.
LONG_NAME = f"long{os.getpid()}.c"
#: Between two looks at all processes, which take long where there are many.
LOOK_S = 0.1
LONG_ARGV = ["gcc", "-O2", "-c", LONG_NAME, "-o", "long.o"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    (root / "x.c").write_text('#include "x.h"\nint x = X;\n')
    (root / "x.h").write_text("#define X 1\n")
    (root / LONG_NAME).write_text(LONG)
    return root


ARGV = ["gcc", "-g", "-c", "x.c", "-o", "x.o"]


def one_line(done: Done) -> str:
    """The one line that we say on stderr."""
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 1, done
    assert lines[0].startswith("dist_build: "), done
    return lines[0]


def running_compilers() -> list[int]:
    """The processes that compile the long source."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = process.read_bytes()
            if LONG_NAME.encode() in words and b"cc1" in words:
                found.append(int(process.parent.name))
    return found


def signal_compilers(number: int) -> list[int]:
    """Send a signal to all of them; SIGSTOP has a compile last, SIGCONT has it end."""
    found = running_compilers()
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    return found


def wait_until_one_is_stopped() -> list[int]:
    return list(
        wait_until(lambda: signal_compilers(signal.SIGSTOP), "the compiler runs", pause=LOOK_S)
    )


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_the_wrappers_death_frees_the_slot_and_kills_the_compiler(
    cluster: Cluster, project: Path, how: signal.Signals
) -> None:
    cancelled = cluster.jobs()["cancelled"]
    with cluster.popen(LONG_ARGV, project) as process:
        wait_until_one_is_stopped()
        process.send_signal(how)
        assert process.wait() == -how
    wait_until(lambda: not cluster.jobs()["running"], "the slot is free")
    wait_until(lambda: not running_compilers(), "the compiler is gone", pause=LOOK_S)
    assert cluster.jobs()["cancelled"] == cancelled + 1
    assert "long.o" not in files_below(project)
    assert_same(cluster, ARGV, project)


def test_a_killed_worker_costs_a_second_compile_and_no_error(
    tmp_path: Path, certs_dir: Path, project: Path
) -> None:
    started = Cluster(tmp_path / "farm", certs_dir)
    try:
        started.start()
        with started.popen(LONG_ARGV, project, DIST_BUILD_FALLBACK="0") as process:
            stopped = wait_until_one_is_stopped()
            (victim,) = (d for d in started.daemons if d.status()["running"])
            victim.kill()
            for pid in stopped:  # without bubblewrap a compiler outlives its worker
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            assert process.wait() == 0, process.stderr.read()
        ours = files_below(project)
        run_here(LONG_ARGV, project)
        assert files_below(project) == ours
        assert started.jobs()["retried"] == 1
        victim.start()
        started.wait_for_workers()
        assert_same(started, ARGV, project)
        started.stop()
    finally:
        started.kill()


def test_a_compiler_that_hangs_is_killed_and_tried_elsewhere_once(
    tmp_path: Path, certs_dir: Path, project: Path
) -> None:
    started = Cluster(tmp_path / "farm", certs_dir, dev={"job_timeout_s": 1})
    try:
        started.start()
        with started.popen(LONG_ARGV, project, DIST_BUILD_FALLBACK="0") as process:
            while process.poll() is None:
                signal_compilers(signal.SIGSTOP)
                time.sleep(LOOK_S)
            _, err = process.communicate()
            assert process.returncode == 103
        assert re.search(rb"not compiled: leases_lost: \S+ took longer than 1 s\n", err), err
        assert started.jobs()["retried"] == 1
        wait_until(lambda: not running_compilers(), "the compilers are gone", pause=LOOK_S)
        wait_until(
            lambda: [daemon.status()["cancelled"] for daemon in started.daemons] == [1, 1],
            "both have given it up",
        )
        started.stop()
    finally:
        started.kill()


def test_a_stopped_worker_finishes_what_runs_and_takes_no_more(
    tmp_path: Path, certs_dir: Path, project: Path
) -> None:
    started = Cluster(tmp_path / "farm", certs_dir, [{"num_cores": 1}])
    try:
        started.start()
        (daemon,) = started.daemons
        with started.popen(LONG_ARGV, project, DIST_BUILD_FALLBACK="0") as process:
            wait_until_one_is_stopped()
            daemon.terminate()
            after = started.run(ARGV, project)
            assert "no_worker" in one_line(after)
            signal_compilers(signal.SIGCONT)
            assert process.wait() == 0, process.stderr.read()
        assert daemon.wait() == 0
        assert started.jobs()["done"] == 1
        started.stop()
    finally:
        started.kill()


def test_a_stopped_syncer_leaves_the_compile_to_the_wrapper(
    tmp_path: Path, certs_dir: Path, project: Path
) -> None:
    started = Cluster(tmp_path / "farm", certs_dir)
    try:
        started.start()
        with started.popen(LONG_ARGV, project) as process:
            wait_until_one_is_stopped()
            assert started.syncer.stop() == 0
            assert process.wait() == 0
            assert b"syncer_stopping" in process.stderr.read()
            signal_compilers(signal.SIGCONT)
        done = started.run(ARGV, project)
        assert "no syncer at" in one_line(done)
        assert (project / "x.o").exists()
        forbidden = started.run(ARGV, project, DIST_BUILD_FALLBACK="0")
        assert forbidden.exit_code == 103
        assert "no syncer at" in one_line(forbidden)
        started.stop()
    finally:
        started.kill()


def test_no_worker_means_a_local_compile_with_its_reason(
    tmp_path: Path, certs_dir: Path, project: Path
) -> None:
    started = Cluster(tmp_path / "farm", certs_dir, [])
    try:
        started.start()
        done = started.run(ARGV, project)
        assert (done.exit_code, "no_worker" in one_line(done)) == (0, True)
        assert started.jobs()["local"] == {"no_worker": 1}
        started.stop()
    finally:
        started.kill()


def test_a_worker_without_the_compiler_is_not_asked(
    tmp_path: Path, certs_dir: Path, project: Path
) -> None:
    """The dev box has a compiler that is the worker's but for one byte of its specs."""
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    fake = bin_dir / "gcc"
    make_stand_in(fake, "/usr/bin/gcc")
    started = Cluster(tmp_path / "farm", certs_dir)
    try:
        started.start()
        path = f"{bin_dir}:{os.environ['PATH']}"
        done = started.run(ARGV, project, PATH=path)
        assert (done.exit_code, "no_toolchain" in one_line(done)) == (0, True)
        started.stop()
    finally:
        started.kill()


@pytest.mark.parametrize(
    "argv",
    [
        ["gcc", "-c", "absent.c"],
        ["gcc", "-c", "x.c", "-o", "no/such/dir/x.o"],
        ["gcc", "-c", "x.c", "-o", "x.h/x.o"],
        ["gcc"],
        ["gcc", "-c"],
        ["gcc", "--no-such-option", "-c", "x.c"],
        ["gcc", "-c", "x.c", "-fno-such-option"],
        ["gcc", "-c", "."],
        ["gcc", "-c", "x.c", "x.c"],
        ["gcc", "-E", "x.c"],
        ["gcc", "-M", "x.c"],
        ["gcc", "-c", "x.c", "-I", "gone"],
    ],
    ids=" ".join,
)
def test_bad_input_gets_the_compilers_own_answer(
    cluster: Cluster, project: Path, argv: list[str]
) -> None:
    assert_same(cluster, argv, project)


def test_an_unwritable_output_gets_the_compilers_own_answer(
    cluster: Cluster, project: Path
) -> None:
    (project / "x.o").mkdir()
    assert_same(cluster, ["gcc", "-c", "x.c", "-o", "x.o"], project)


def test_outputs_have_the_mode_bits_of_the_builds_umask(cluster: Cluster, project: Path) -> None:
    before = os.umask(0o077)
    try:
        assert cluster.run(ARGV, project).exit_code == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE((project / "x.o").stat().st_mode) == 0o600


def test_a_link_and_a_run_through_the_wrapper(cluster: Cluster, project: Path) -> None:
    (project / "main.c").write_text("int main(void) { return 7; }\n")
    linked = cluster.run(["gcc", "main.c", "-o", "main"], project)
    assert linked == Done(0, b"", b"")
    assert run_here(["./main"], project).exit_code == 7


def test_verbose_says_what_was_done(cluster: Cluster, project: Path) -> None:
    done = cluster.run(ARGV, project, DIST_BUILD_VERBOSE="1")
    assert "compiled by" in one_line(done)
    linked = cluster.run(["gcc", "x.o", "-shared", "-o", "x.so"], project, DIST_BUILD_VERBOSE="1")
    assert "compiled locally: link" in one_line(linked)


@pytest.mark.parametrize("kind", ["launcher", "client"])
def test_the_phases_of_a_job_add_up_to_no_more_than_its_time(
    cluster: Cluster, project: Path, kind: str
) -> None:
    env = {**cluster.environment(), "DIST_BUILD_VERBOSE": "2"}
    command = wrapper_command() if kind == "launcher" else [sys.executable, SRC / "dist_build.py"]
    done = run_here([*command, *ARGV], project, **env)
    number = r"(\d+\.\d)"
    line = re.fullmatch(
        rf"dist_build: compiled by \S+: understood {number}, prepared {number}, queued {number},"
        rf" on the worker {number} \(ran {number}\), verified {number}, total {number} ms",
        one_line(done),
    )
    assert line is not None, done
    understood, prepared, queued, remote, ran, verified, total = map(float, line.groups())
    assert 0 < ran <= remote
    # Each is rounded to a tenth.
    assert understood + prepared + queued + remote + verified <= total + 0.5
    linked = run_here([*command, "gcc", "x.o", "-shared", "-o", "x.so"], project, **env)
    assert "compiled locally: link" in one_line(linked)


def test_a_wrapper_with_another_home_than_the_syncer_is_refused(
    cluster: Cluster, project: Path, tmp_path: Path
) -> None:
    home = tmp_path / "stranger"
    shutil.copytree(cluster.syncer.home / "certs", home / "certs")
    shutil.copy(cluster.syncer.home / "config.json", home)
    done = cluster.run(ARGV, project, DIST_BUILD_HOME=str(home))
    assert (done.exit_code, "answers 403" in one_line(done)) == (0, True)


def test_a_missing_config_is_one_line_and_a_local_compile(
    cluster: Cluster, project: Path, tmp_path: Path
) -> None:
    done = cluster.run(ARGV, project, DIST_BUILD_HOME=str(tmp_path / "nowhere"))
    assert (done.exit_code, "config.json: no such file" in one_line(done)) == (0, True)


def test_one_worker_serves_two_developers_in_turn(
    tmp_path: Path, certs_dir: Path, project: Path
) -> None:
    first = Cluster(tmp_path / "first", certs_dir, [{"num_cores": 1}])
    (daemon,) = first.daemons
    hosts = {"hosts": [f"127.0.0.1:{daemon.port}"]}
    second = Cluster(tmp_path / "second", certs_dir, [], dev=hosts)
    config = json.loads((daemon.home / "config.json").read_text())
    config["syncer"] = [first.url, second.url]
    (daemon.home / "config.json").write_text(json.dumps(config))
    try:
        second.syncer.start()
        first.start()
        second.wait_for_workers(1)
        units = [f"unit{n}.c" for n in range(6)]
        for n, unit in enumerate(units):
            (project / unit).write_text(f'#include "x.h"\nint unit{n} = X;\n')
        running = []
        for cluster in (first, second):
            for unit in units:
                argv = ["gcc", "-c", unit, "-o", f"{cluster.root.name}-{unit}.o"]
                running.append(cluster.popen(argv, project, DIST_BUILD_FALLBACK="0"))
        for process in running:
            _, stderr = process.communicate()
            assert (process.returncode, stderr) == (0, b"")
        assert [c.jobs()["done"] for c in (first, second)] == [6, 6]
        assert sorted(daemon.status()["clients"]) == sorted(
            c.syncer.status()["client"] for c in (first, second)
        )
        second.stop()
        assert_same(first, ARGV, project)
        first.stop()
    finally:
        first.kill()
        second.kill()


def test_a_second_syncer_with_the_same_home_is_refused(cluster: Cluster) -> None:
    home = cluster.syncer.home
    words = [sys.executable, str(SRC / "syncer.py"), "--home", str(home)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=600)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "another syncer runs with this home" in done.stderr


def test_doctor_of_the_built_program_says_what_is_wrong(cluster: Cluster, tmp_path: Path) -> None:
    done = cluster.run(["doctor"], tmp_path)
    lines = done.stdout.decode().splitlines()
    assert (done.exit_code, done.stderr) == (0, b""), done
    assert [line.split(":")[0] for line in lines if not line.startswith("warn")] == [
        "ok    configuration",
        "ok    certificates",
        *(["ok    change notification"] if any("ok    change" in line for line in lines) else []),
        "ok    syncer",
        *["ok    workers"] * len(cluster.daemons),
    ]
    home = tmp_path / "home"
    shutil.copytree(cluster.syncer.home / "certs", home / "certs")
    shutil.copy(cluster.syncer.home / "config.json", home)
    done = cluster.run(["doctor"], tmp_path, DIST_BUILD_HOME=str(home))
    assert done.exit_code == 1
    assert "the socket in the syncer's home" in done.stdout.decode().splitlines()[-1]
