"""What listens at a configured worker's port may say anything of itself: it is shown, no more."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from distbuild.protocol.messages import is_worker_name, worker_label
from tests.support.cluster import SRC, Cluster, free_ports, run_here, wait_until
from tests.support.hostile_worker import HostilePort, said

ARGV = ["gcc", "-c", "a.c", "-o", "a.o"]
FORGED = "w\r\nDist-Build: local\r\nDist-Build-Silent: 1\r\nDist-Build-Program: 9\r\nX: "


@pytest.fixture(scope="module")
def port() -> int:
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def watching(
    tmp_path_factory: pytest.TempPathFactory, certs_dir: Path, port: int
) -> Iterator[Cluster]:
    """A syncer that expects a worker at ``port``."""
    hosts = {"hosts": [f"localhost:{port}"]}
    started = Cluster(tmp_path_factory.mktemp("watching"), certs_dir, [], hosts)
    try:
        started.syncer.start()
        wait_until(started.syncer.answers, "it answers")
        yield started
        started.stop()
    finally:
        started.kill()


def status(**fields: Any) -> bytes:
    return said(json.dumps({"name": "w:1", "clients": {}, "num_cores": 2, **fields}).encode())


STATUSES = {
    "a name with a header": status(name=FORGED),
    "a name with a NUL": status(name="a\0"),
    "a long name": status(name="a" * 100_000),
    "a name that is none": status(name={"a": 1}),
    "a state of its own": status(state="up\x1b[2J", error="\x1b]0;evil\x07", refused_why="x"),
    "words for a terminal": status(num_cores="\x1b[2J\r\n", running=["\n"], done={"\x9b": 1}),
    "fields of the syncer's": status(check={"error": ""}, refused_results=1, refused_why="x"),
    "no JSON": said(b"\xff\xfe"),
    "a list": said(b"[]"),
    "very deep": said(b"[" * 100_000),
    "more than a status has": status(name="w:1", more="x" * 2**20),
    "an endless one": said(b"", length=10**12 - 1),
    "an error of many lines": said(b"\x1b[2J\r\nDist-Build: done\n" * 1000, "500 \x1b[2J"),
    "no HTTP": b"\r\n\r\n",
}


@pytest.mark.in_turn("name")
@pytest.mark.parametrize("name", STATUSES)
def test_what_a_port_says_is_shown_and_no_more(
    watching: Cluster, certs_dir: Path, port: int, project: Path, name: str
) -> None:
    assert run_here(ARGV, project).exit_code == 0
    expected = (project / "a.o").read_bytes()
    with HostilePort(certs_dir, port, {"/status": STATUSES[name]}) as hostile:
        watching.syncer.status()
        wait_until(lambda: "/status" in hostile.asked, "it is asked")
        done = watching.run(ARGV, project, DIST_BUILD_VERBOSE="1")
        client = [sys.executable, str(SRC / "dist_build.py"), "status"]
        shown = run_here(client, project, DIST_BUILD_HOME=str(watching.syncer.home))
        [worker] = watching.syncer.status()["workers"].values()
    assert (done.exit_code, (project / "a.o").read_bytes()) == (0, expected)
    assert done.stderr.startswith(b"dist_build: compiled locally: no_worker")
    assert shown.exit_code == 0
    assert [line for line in shown.stdout.decode().split("\n") if not line.isprintable()] == []
    assert worker["state"] in ("down", "not asking for work")
    assert worker["error"].isprintable()
    assert not {"check", "refused_results", "refused_why"} & worker.keys()


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("build1", "build1:8443"),
        ("build-1.example.org", "build-1.example.org:8443"),
        ("größe", "gr--e:8443"),
        ("a b\r\n\0", "a-b---:8443"),
        ("x" * 400, "x" * 255 + ":8443"),
        ("", ":8443"),
    ],
)
def test_a_host_s_name_becomes_a_worker_s(host: str, name: str) -> None:
    assert worker_label(host, 8443) == name
    assert is_worker_name(name)
