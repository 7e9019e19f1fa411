"""The dashboard in a real browser beside a real farm: each number is what `builds show` says."""

import json
import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import chromium, new_page, watched
from tests.support.cluster import Cluster, wait_until, wrapper_command

pytestmark = pytest.mark.compiler
UNITS = 300
MAKEFILE = """\
OBJECTS := {objects}
all: $(OBJECTS) program.so bad.o
program.so: $(OBJECTS)
\t$(WRAPPER) gcc -shared $^ -o $@
%.o: %.c
\t$(WRAPPER) gcc -fPIC -c $< -o $@
"""


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory, certs_dir: Path) -> Iterator[Cluster]:
    """Three daemons."""
    started = Cluster(tmp_path_factory.mktemp("farm of three"), certs_dir, [{}, {}, {}])
    try:
        yield started.start()
        started.stop()
    finally:
        started.kill()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for n in range(UNITS):
        (tmp_path / f"u{n}.c").write_text(f"int f{n}(void) {{ return {n}; }}\n")
    (tmp_path / "bad.c").write_text("int f(void) { return secret_of_the_source; } // <b>\n")
    objects = " ".join(f"u{n}.o" for n in range(UNITS))
    (tmp_path / "Makefile").write_text(MAKEFILE.format(objects=objects))
    return tmp_path


def link(cluster: Cluster) -> str:
    done = cluster.run(["dashboard"], cluster.root)
    assert done.exit_code == 0, done
    return done.stdout.decode().strip()


def build(cluster: Cluster, project: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        ["make", "-k", "-j12", f"WRAPPER={' '.join(wrapper_command())}"],
        cwd=project,
        env=cluster.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def shown(cluster: Cluster) -> Any:
    return json.loads(cluster.run(["builds", "show", "--json"], cluster.root).stdout)


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"[0-9]+(?:\.[0-9]+)?", text)]


def is_rounded(shown: str, value: float) -> bool:
    """Whether a page shows this number. Browsers round 3.25 up, Python rounds it down."""
    digits = len(shown.partition(".")[2])
    return abs(float(shown) - value) <= 0.5 * 10.0**-digits + 1e-9


def test_each_number_of_a_build_is_that_of_builds_show(farm: Cluster, project: Path) -> None:
    with chromium() as browser:
        page = new_page(browser)
        errors, requests = watched(page), []
        page.on("request", lambda request: requests.append(request.url))
        url = link(farm)
        page.goto(url)
        page.wait_for_selector("#connection.open")
        running = build(farm, project)
        # While it runs, the page shows it by itself.
        commands = page.locator("#commands")
        # A dash, before the first event.
        some = re.compile(r"[1-9][0-9]+")
        wait_until(lambda: some.fullmatch(commands.inner_text()), "the page has some commands")
        assert running.wait() != 0  # bad.c
        wait_until(lambda: commands.inner_text() == str(UNITS + 2), "the page has all commands")
        report = page.locator("#report")
        wait_until(lambda: report.inner_text().startswith(f"{UNITS + 2} "), "the page has a report")
        wait_until(lambda: "0 / 6" in page.locator("#running").inner_text(), "no job runs")
        told = shown(farm)
        check_numbers(page, told)
        check_tables(page, told)
        origin = url[: url.index("/", 7) + 1]
        assert all(each.startswith(origin) for each in requests)
        assert errors == []


def check_numbers(page: Any, told: Any) -> None:
    outcomes = told["outcomes"]
    assert outcomes == {"compiled": UNITS, "failed": 1, "local": 1}
    text = page.locator("#report").inner_text()
    counted = dict(re.findall(r"(compiled|failed|local|hit|cancelled) ([0-9]+)", text))
    assert {name: int(count) for name, count in counted.items()} == outcomes
    [in_s] = re.findall(r"in ([0-9.]+) s:", text)
    [[ran_s, at_once]] = re.findall(r"On workers ([0-9.]+) s of compiling, ([0-9.]+) at", text)
    assert is_rounded(in_s, told["wall_s"])
    assert is_rounded(ran_s, told["ran_s"])
    assert is_rounded(at_once, told["parallelism"])
    assert f"at most {told['most_at_once']} of {told['slots']} slots" in text
    assert (f"Limited by {told['limit']}." in text) == bool(told["limit"])
    assert page.locator("#failed").inner_text() == "1"
    assert numbers(page.locator("#hits").inner_text()) == [0.0]
    assert numbers(page.locator("#local").inner_text()) == [round(100 / (UNITS + 2), 1)]
    assert page.locator("#queue").inner_text() == "0"
    assert f"Build {told['number']}," in page.locator("#title").inner_text()


def check_tables(page: Any, told: Any) -> None:
    jobs = told["jobs_of_it"]
    slowest = sorted(jobs, key=lambda job: -job["ran_s"])[:12]
    rows = page.locator("#slowest tbody tr").all()
    for row, job in zip(rows, slowest, strict=True):
        [time] = re.findall(r"^[0-9.]+", row.locator("td").nth(1).inner_text())
        assert is_rounded(time, job["ran_s"])
    assert page.locator("#reasons tbody td").all_inner_texts()[:2] == ["link", "1"]
    failed = page.locator("#failures tbody tr").inner_text()
    assert "bad.c" in failed
    assert "undeclared (first use in this function)" in failed
    assert "return" not in failed, "no line of the source"
    by_worker = {
        row.locator("td").first.inner_text(): row for row in page.locator("#workers tbody tr").all()
    }
    assert len(by_worker) == 3
    for worker, row in by_worker.items():
        own = [job for job in jobs if job["worker"] == worker and job["outcome"] == "compiled"]
        cells = row.locator("td").all_inner_texts()
        assert int(cells[8]) == len(own)
        mean = sum(job["ran_s"] for job in own) / len(own)
        assert abs(float(cells[9]) - 1000 * mean) <= 1
    listed = page.locator("#builds tbody tr").first.locator("td").all_inner_texts()
    wall = f"{told['wall_s']:.1f} s"
    assert listed[3].startswith(wall)
    assert listed[4:9] == [str(UNITS + 2), str(UNITS), "0", "1", "1"]


def test_a_job_of_the_page_explains_itself(farm: Cluster, project: Path) -> None:
    assert farm.run(["gcc", "-c", "u1.c", "-DX=a b"], project).exit_code == 0
    with chromium() as browser:
        page = new_page(browser)
        page.goto(link(farm))
        page.locator("#slowest button", has_text="u1.c").click()
        line = page.locator("#explain").inner_text()
        job = page.locator("#job").inner_text()
    assert "on the worker" in job
    assert line == f"cd {project} && dist_build.exe explain -- gcc -c u1.c '-DX=a b'"


def test_a_link_opens_one_browser(farm: Cluster) -> None:
    url = link(farm)
    with urllib.request.urlopen(url) as answer:
        assert answer.status == 200
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(url)
    with refused.value as answer:
        assert answer.code == 403
        assert answer.read().endswith(b"run: dist_build.exe dashboard\n")


def test_a_browser_is_opened_with_the_users_environment(farm: Cluster, tmp_path: Path) -> None:
    program = tmp_path / "browser"
    said = tmp_path / "said"
    program.write_text(f'#!/bin/sh\nprintf "%s|%s" "$1" "$LD_LIBRARY_PATH" > "{said}"\n')
    program.chmod(0o755)
    done = farm.run(["dashboard", "--open"], tmp_path, BROWSER=f"{program} %s")
    assert (done.exit_code, done.stdout) == (0, b"")
    opened, _, libraries = said.read_text().partition("|")
    assert opened.startswith("http://127.0.0.1:")
    assert libraries == ""


def test_without_a_browser_the_link_is_printed(farm: Cluster, tmp_path: Path) -> None:
    done = farm.run(["dashboard", "--open"], tmp_path, BROWSER="false %s", PATH="/nowhere")
    assert done.exit_code == 1
    assert done.stdout.splitlines()[-1].startswith(b"http://127.0.0.1:")


def test_without_a_port_there_is_no_dashboard(tmp_path: Path, certs_dir: Path) -> None:
    own = Cluster(tmp_path / "own", certs_dir, [], dev={"dashboard_port": None})
    try:
        own.start()
        done = own.run(["dashboard"], tmp_path)
        assert done.exit_code == 1
        assert b'set "dashboard_port" in config.json' in done.stderr
        own.stop()
    finally:
        own.kill()
