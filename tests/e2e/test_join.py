"""A dev box set up by command, and workers that join it: they compile until they are removed."""

import contextlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.cluster import STOP_S, free_ports, run_here, wait_until
from tests.support.joining import JoinedFarm, code_in
from tests.support.tools import need

pytestmark = pytest.mark.compiler


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JoinedFarm]:
    """A dev box with one worker, build1."""
    made = JoinedFarm(tmp_path_factory.mktemp("joined"))
    try:
        made.serve()
        made.join("build1")
        wait_until(lambda: made.states() == {"build1": "up"}, "build1 is up")
        yield made
        made.stop()
    finally:
        made.kill()


def test_setup_makes_what_is_missing_and_says_what_comes_next(farm: JoinedFarm) -> None:
    home = farm.syncer.home
    assert f"made: {home / 'certs'}" in farm.said
    assert f"made: {home / 'config.json'}" in farm.said
    assert "syncer.py" in farm.said
    assert code_in(farm.said)
    # No token that several workers would share.
    assert not (home / "certs" / "worker").exists()
    for name in ("join_codes.json", "ca/ca.key", "dev/key.pem"):
        assert stat.S_IMODE((home / "certs" / name).stat().st_mode) == 0o600


def test_setup_again_keeps_everything(farm: JoinedFarm) -> None:
    certificate = (farm.syncer.home / "certs/dev/cert.pem").read_bytes()
    said = farm.client("setup", "--no-service", "--address", "127.0.0.1").stdout.decode()
    assert f"kept: {farm.syncer.home / 'certs/dev'}" in said
    assert f"kept: {farm.syncer.home / 'config.json'}" in said
    assert (farm.syncer.home / "certs/dev/cert.pem").read_bytes() == certificate


def test_a_joined_worker_compiles_the_same_bytes(farm: JoinedFarm, tmp_path: Path) -> None:
    need("gcc")
    (tmp_path / "a.h").write_text("#define A 1\n")
    (tmp_path / "a.c").write_text('#include <stdio.h>\n#include "a.h"\nint a = A;\n')
    done = farm.run(["gcc", "-g", "-c", "a.c"], tmp_path, DIST_BUILD_VERBOSE="1")
    assert (done.exit_code, done.stderr) == (0, b"dist_build: compiled by build1\n")
    there = (tmp_path / "a.o").read_bytes()
    assert run_here(["gcc", "-g", "-c", "a.c"], tmp_path).exit_code == 0
    assert (tmp_path / "a.o").read_bytes() == there


def test_the_mirror_is_pushed_to_the_address_from_which_a_worker_asks(farm: JoinedFarm) -> None:
    (build1,) = farm.daemons
    worker = farm.syncer.status()["workers"]["build1"]
    wait_until(
        lambda: farm.syncer.status()["workers"]["build1"]["pushes"] > 0, "the mirror is pushed"
    )
    assert worker["num_cores"] == 2
    listed = farm.client("workers").stdout.decode()
    assert listed.startswith(f"build1  127.0.0.1:{build1.port}  asked for work ")


def test_its_files_are_its_own(farm: JoinedFarm) -> None:
    (build1,) = farm.daemons
    for path in (build1.home / "certs" / "worker").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    mine = (build1.home / "certs/worker/token").read_bytes().strip()
    own = farm.syncer.home / "certs"
    known = b"".join(path.read_bytes() for path in own.rglob("*") if path.is_file())
    assert mine not in known
    assert json.loads((build1.home / "config.json").read_text())["syncer"] == farm.url


@pytest.fixture
def pulling(tmp_path: Path) -> Iterator[JoinedFarm]:
    """A dev box with one worker that listens on no port, pulling."""
    made = JoinedFarm(tmp_path)
    try:
        made.serve()
        made.join("pulling", "--port", "0")
        wait_until(lambda: made.states() == {"pulling": "up"}, "pulling is up")
        yield made
        made.stop()
    finally:
        made.kill()


def test_a_worker_that_listens_nowhere_compiles_until_it_is_removed(
    pulling: JoinedFarm, tmp_path: Path
) -> None:
    need("gcc")
    (worker,) = pulling.daemons
    assert "listens on no port" in worker.output()
    assert "pulling  listens on no port  asked" in pulling.client("workers").stdout.decode()
    (tmp_path / "b.h").write_text("#define B 2\n")
    (tmp_path / "b.c").write_text('#include "b.h"\nint b = B;\n')
    done = pulling.run(["gcc", "-c", "b.c"], tmp_path, DIST_BUILD_VERBOSE="1")
    assert done.stderr == b"dist_build: compiled by pulling\n"

    removed = pulling.client("workers", "remove", "pulling")
    assert removed.exit_code == 0, removed.stderr
    # Its long poll has ended, too: no job reaches it any more.
    assert pulling.states() == {}
    done = pulling.run(["gcc", "-c", "b.c"], tmp_path, DIST_BUILD_VERBOSE="1")
    assert b"compiled locally: no_worker" in done.stderr
    why = "answers 401: a worker token is needed; a removed worker has to join again"
    wait_until(lambda: why in worker.output(), "the worker says why")
    again = pulling.client("workers", "remove", "pulling")
    assert again.exit_code == 1
    assert b"no worker of this name has joined; see dist_build.exe workers" in again.stderr


def test_a_worker_joins_again_and_is_known_after_a_restart(
    pulling: JoinedFarm, tmp_path: Path
) -> None:
    (worker,) = pulling.daemons
    worker.stop()
    pulling.daemons.clear()
    refused = pulling.daemon("pulling", pulling.invite())
    assert refused.exit_code == 1
    assert b"this home is a worker already; start it, or add --force" in refused.stderr
    taken = pulling.daemon("pulling", pulling.invite(), "--force")
    assert taken.exit_code == 1
    assert b"a worker named pulling has joined already; on the dev box: " in taken.stderr
    assert pulling.client("workers", "remove", "pulling").exit_code == 0
    pulling.join("pulling", "--force")
    wait_until(lambda: pulling.states().get("pulling") == "up", "pulling is up again")
    pulling.syncer.stop()
    pulling.serve()
    wait_until(lambda: pulling.states().get("pulling") == "up", "pulling is up after a restart")


def test_undo_leaves_what_it_did_not_make(tmp_path: Path) -> None:
    farm = JoinedFarm(tmp_path)
    (port,) = free_ports(1)
    home = farm.syncer.home
    (home / "notes.txt").write_text("mine\n")
    (home / "config.json").write_text(json.dumps({"syncer": f"https://localhost:{port}"}))
    farm.syncer.port = port
    farm.serve()
    try:
        running = farm.client("setup", "--undo")
        assert running.exit_code == 2
        assert b"a syncer runs with this home; stop it first" in running.stderr
        assert (home / "certs" / "dev").exists()
        farm.stop()
    finally:
        farm.kill()
    (home / "output").unlink()
    done = farm.client("setup", "--undo")
    assert done.exit_code == 0, done.stderr
    assert sorted(os.listdir(home)) == ["config.json", "notes.txt"]
    assert b"config.json: it was edited since" in done.stdout
    assert farm.client("setup", "--undo").exit_code == 1


def test_undo_restores_a_machine_without_a_home(tmp_path: Path) -> None:
    farm = JoinedFarm(tmp_path)
    assert farm.client("setup", "--undo").exit_code == 0
    assert os.listdir(tmp_path) == []


def syncers(farm: JoinedFarm) -> list[psutil.Process]:
    """The processes that serve this dev box."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            if str(farm.syncer.home) in words and any(w.endswith("syncer.py") for w in words):
                found.append(process)
    return found


def end(processes: list[psutil.Process]) -> None:
    for process in processes:
        process.terminate()
    _, left = psutil.wait_procs(processes, STOP_S)
    for process in left:
        process.kill()


def test_compiles_start_one_syncer_if_setup_was_asked_for_that(tmp_path: Path) -> None:
    need("gcc")
    farm = JoinedFarm(tmp_path, None, "--autostart")
    assert "a compile starts the syncer if none runs" in farm.said
    try:
        (tmp_path / "a.c").write_text("int a;\n")
        running = [farm.popen(["gcc", "-c", "a.c", "-o", f"{n}.o"], tmp_path) for n in range(4)]
        ended = [process.communicate() for process in running]
        assert [process.returncode for process in running] == [0] * 4
        # Each was submitted; without a worker they ran here.
        assert not any(b"no syncer" in stderr for _, stderr in ended)
        assert len(syncers(farm)) == 1
        assert sum(farm.jobs()["local"].values()) == 4, (ended, farm.jobs())
    finally:
        end(syncers(farm))
    assert farm.client("setup", "--undo").exit_code == 0
    assert not farm.syncer.home.exists()


def test_a_syncer_that_cannot_start_is_not_started_for_each_compile(tmp_path: Path) -> None:
    need("gcc")
    farm = JoinedFarm(tmp_path, None, "--autostart")
    command = json.dumps(["sh", "-c", f"echo x >> {tmp_path}/started"])
    (farm.syncer.home / "autostart.json").write_text(command)
    (tmp_path / "a.c").write_text("int a;\n")
    for _ in range(3):
        assert farm.run(["gcc", "-c", "a.c"], tmp_path).exit_code == 0
    assert (tmp_path / "started").read_text() == "x\n"
