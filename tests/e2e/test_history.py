"""The history of builds with a real syncer and worker: each number is what the build did."""

import itertools
import json
import os
import pty
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster import Cluster, wait_until, wrapper_command

UNITS = 6
MAKEFILE = """\
OBJECTS := {objects}
all: program
program: $(OBJECTS)
\t$(WRAPPER) gcc $^ -o $@
%.o: %.c
\t$(WRAPPER) gcc -O1 -c $< -o $@
clean:
\trm -f *.o program
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "my project"
    root.mkdir()
    for n in range(UNITS):
        (root / f"u{n}.c").write_text(f'#include "x.h"\nint f{n}(void) {{ return X; }}\n')
    (root / "main.c").write_text("int main(void) { return 0; }\n")
    (root / "x.h").write_text("#define X 1\n")
    objects = " ".join(f"u{n}.o" for n in range(UNITS)) + " main.o"
    (root / "Makefile").write_text(MAKEFILE.format(objects=objects))
    return root


def make(cluster: Cluster, project: Path, *words: str, **env: str) -> None:
    """make as a terminal starts it: in a session of its own."""
    wrapper = f"WRAPPER={' '.join(wrapper_command())}"
    subprocess.run(
        ["make", "-j4", wrapper, *words],
        cwd=project,
        env=cluster.environment(**env),
        check=True,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


def shown(cluster: Cluster, *words: str) -> Any:
    done = cluster.run([*words, "--json"], cluster.root)
    assert done.exit_code == 0, done
    return json.loads(done.stdout)


def test_a_build_is_recorded_as_it_was(cluster: Cluster, project: Path) -> None:
    make(cluster, project)
    build = shown(cluster, "builds", "show")
    assert build["number"] == shown(cluster, "builds")[0]["number"]
    assert build["outcomes"] == {"compiled": UNITS + 1, "local": 1}
    assert build["reasons"] == {"link": 1}
    assert (build["jobs"], build["is_open"]) == (UNITS + 2, True)
    jobs = build["jobs_of_it"]
    compiled = [job for job in jobs if job["outcome"] == "compiled"]
    sources = {str(project / f"u{n}.c") for n in range(UNITS)} | {str(project / "main.c")}
    assert {job["source"] for job in compiled} == sources
    assert {job["worker"] for job in compiled} <= {f"127.0.0.1:{d.port}" for d in cluster.daemons}
    for job in compiled:
        assert job["cwd"] == str(project)
        assert job["command"] == f"gcc -O1 -c {Path(job['source']).name} -o {_object(job)}"
        assert (
            0 < job["ran_s"] <= job["phases"]["on the worker"] <= job["took_s"] <= build["wall_s"]
        )
        assert 0 < job["cpu_s"] <= build["wall_s"]
        assert job["memory_bytes"] == 0  # less than the worker's own is not known
    (link,) = (job for job in jobs if job["outcome"] == "local")
    assert link["took_s"] > 0
    assert (link["cpu_s"], link["memory_bytes"]) == (0, 0)
    assert build["began"] == pytest.approx(min(job["began"] for job in jobs), abs=0.1)
    assert 1 <= build["most_at_once"] <= 4
    text = cluster.run(["builds", "show", str(build["number"])], project).stdout.decode()
    assert f"{UNITS + 2} commands: compiled {UNITS + 1}, local 1" in text
    assert "  local 1  link: " in text


def _object(job: dict[str, Any]) -> str:
    return Path(job["source"]).with_suffix(".o").name


def test_failures_and_cancelled_commands_are_recorded(cluster: Cluster, project: Path) -> None:
    (project / "bad.c").write_text("int x = y;\n")
    (project / "long.c").write_text(
        "\n".join(f"double f{i}(double x) {{ return x * {i}.5 + {i}; }}" for i in range(3000))
    )
    name = {"DIST_BUILD_BUILD": "night é"}
    assert cluster.run(["gcc", "-c", "bad.c"], project, **name).exit_code == 1
    leaving = cluster.popen(["gcc", "-O2", "-c", "long.c"], project, **name)
    wait_until(lambda: cluster.jobs()["running"] > 0, "a job runs")
    leaving.send_signal(signal.SIGKILL)
    leaving.communicate()

    def outcomes() -> dict[str, int]:
        return dict(shown(cluster, "builds")[0]["outcomes"])

    wait_until(lambda: outcomes().get("cancelled"), "it is recorded")
    assert outcomes() == {"failed": 1, "cancelled": 1}
    text = cluster.run(["builds"], project).stdout.decode().splitlines()[1]
    assert text.endswith("  night é")
    shown_text = cluster.run(["builds", "show"], project).stdout.decode()
    assert f"  failed, exit code 1: {project}/bad.c\n" in shown_text


def test_builds_of_two_sessions_and_names_are_apart(cluster: Cluster, project: Path) -> None:
    make(cluster, project, "u0.o", "u1.o")
    first = shown(cluster, "builds")[0]["number"]
    make(cluster, project, "u2.o", DIST_BUILD_BUILD="other")
    make(cluster, project, "u3.o", DIST_BUILD_BUILD="other")
    make(cluster, project, "u4.o")
    builds = shown(cluster, "builds")[:3]
    assert [build["number"] for build in builds] == [first + 2, first + 1, first]
    assert [build["jobs"] for build in builds] == [1, 2, 2]
    assert [build["name"] for build in builds] == ["", "other", ""]
    text = cluster.run(["builds", "compare", str(first), str(first + 1)], project).stdout.decode()
    assert text.splitlines()[0].split() == ["build", str(first), "build", str(first + 1)]


def test_a_name_need_not_be_utf8(cluster: Cluster, project: Path) -> None:
    for name in ("n\udcff", "plain"):
        assert cluster.run(["gcc", "-c", "u0.c"], project, DIST_BUILD_BUILD=name).exit_code == 0
    assert [build["name"] for build in shown(cluster, "builds")[:2]] == ["plain", "n\ufffd"]


@pytest.mark.in_turn("number")
@pytest.mark.parametrize("number", ["0x1", "²", "9" * 5000, "-1", "999999999"])
def test_a_number_that_is_none_is_an_error_in_one_line(cluster: Cluster, number: str) -> None:
    for words in (
        ["builds", "show", number],
        ["trace", number],
        ["builds", "compare", "1", number],
    ):
        done = cluster.run(words, cluster.root)
        assert done.exit_code in (1, 2)
        assert len(done.stderr.splitlines()) == 1, done


def test_the_trace_has_each_job_in_a_slot_of_its_worker(cluster: Cluster, project: Path) -> None:
    make(cluster, project)
    done = cluster.run(["trace"], project)
    workers = {
        job["source"]: job["worker"] for job in shown(cluster, "builds", "show")["jobs_of_it"]
    }
    events = json.loads(done.stdout)["traceEvents"]
    names = {e["pid"]: e["args"]["name"] for e in events if e["ph"] == "M"}
    jobs = [e for e in events if e["ph"] == "X"]
    assert sorted(e["name"] for e in jobs if e["cat"] == "compiled") == sorted(
        ["main.c", *(f"u{n}.c" for n in range(UNITS))]
    )
    rows: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for event in jobs:
        row = rows.setdefault((event["pid"], event["tid"]), [])
        row.append((event["ts"], event["ts"] + event["dur"]))
        if event["cat"] == "compiled":
            assert names[event["pid"]] == workers[event["args"]["source"]]
    for spans in rows.values():
        spans.sort()
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))


def test_without_a_history_there_is_no_file(tmp_path: Path, certs_dir: Path, project: Path) -> None:
    own = Cluster(tmp_path / "own", certs_dir, [{}], dev={"history_bytes": 0})
    try:
        own.start()
        assert own.run(["gcc", "-c", "u0.c"], project).exit_code == 0
        assert shown(own, "builds") == []
        done = own.run(["builds", "show"], project)
        assert done.exit_code == 1
        assert b"there is no build yet" in done.stderr
        assert not os.path.exists(own.syncer.home / "state" / "history.sqlite")
        own.stop()
    finally:
        own.kill()


def test_top_shows_the_present_build(cluster: Cluster, project: Path) -> None:
    make(cluster, project, DIST_BUILD_BUILD="seen by top")
    done = cluster.run(["top"], project)
    assert done.exit_code == 0
    text = done.stdout.decode()
    builds, _, _ = text.partition("\n\n")
    assert any(line.endswith("  seen by top") for line in builds.splitlines())
    assert f"127.0.0.1:{cluster.daemons[0].port}" in text
    assert "\x1b" not in text


def test_top_on_a_terminal_leaves_it_as_it_was(cluster: Cluster, project: Path) -> None:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [*wrapper_command(), "top"],
        env=cluster.environment(TERM="xterm"),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    os.close(slave)
    text = b""
    try:
        while b"workers" not in text:
            text += os.read(master, 65536)
        process.send_signal(signal.SIGINT)
        while not text.endswith(b"\x1b[?1049l"):
            text += os.read(master, 65536)
        assert process.wait() == 0
    finally:
        process.kill()
        process.wait()
        os.close(master)
    assert text.startswith(b"\x1b[?1049h")
    assert b"Traceback" not in text
