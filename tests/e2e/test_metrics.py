"""The metrics of a real syncer and worker, and the series that the shipped files use."""

import re
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.cluster import SRC, Cluster
from tests.support.tools import need

MONITORING = SRC.parent / "docs" / "monitoring"
#: What Prometheus adds to a histogram's name.
SUFFIX = re.compile("_(bucket|sum|count)$")


def scrape(port: int) -> str:
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    with urllib.request.urlopen(f"https://127.0.0.1:{port}/metrics", context=trusting) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return str(answer.read().decode())


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory, certs_dir: Path) -> Iterator[Cluster]:
    """A syncer with a cache, and one worker."""
    root, config = tmp_path_factory.mktemp("metrics"), {"cache_bytes": 100_000_000}
    started = Cluster(root, certs_dir, [{}], config)
    try:
        yield started.start()
        started.stop()
    finally:
        started.kill()


@pytest.fixture(scope="module")
def texts(farm: Cluster, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What both say after a compile that succeeds, one that fails, and a local command."""
    work = tmp_path_factory.mktemp("project")
    (work / "a.c").write_text("int a;\n")
    (work / "bad.c").write_text("int\n")
    for words in (["a.c", "-c"], ["bad.c", "-c"], ["--version"]):
        farm.run(["gcc", *words], work)
    return [scrape(farm.syncer.port), scrape(farm.daemons[0].port)]


def test_metrics_are_what_the_jobs_did(texts: list[str]) -> None:
    values = {
        (sample.name, *sample.labels.values()): sample.value
        for text in texts
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert values["dist_build_jobs_total", "compiled"] == 1
    assert values["dist_build_jobs_total", "failed"] == 1
    assert values["dist_build_jobs_total", "local"] == 1
    assert values["dist_build_job_seconds_count", "in_all"] == 3
    assert values["dist_build_job_seconds_count", "on_the_worker"] == 2
    assert values["dist_build_job_seconds_count", "compiler"] == 2
    assert values["dist_build_workers", "up"] >= 1
    assert values["dist_build_daemon_jobs_total", "done"] >= 2
    assert values["dist_build_slots",] >= values["dist_build_daemon_slots",] > 0


def test_promtool_finds_nothing_wrong(texts: list[str]) -> None:
    promtool = need("promtool")
    for text in texts:
        done = subprocess.run(
            [promtool, "check", "metrics"], input=text, text=True, capture_output=True, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    rules = str(MONITORING / "alerts.yml")
    done = subprocess.run(
        [promtool, "check", "rules", rules], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["grafana.json", "alerts.yml"])
def test_every_series_of_the_shipped_files_exists(texts: list[str], name: str) -> None:
    used = set(re.findall(r"\bdist_build_\w+", (MONITORING / name).read_text("utf-8")))
    there = {
        sample.name
        for text in texts
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    # Without a value yet: nothing was a miss, compared or refused.
    typed = {line.split()[2] for text in texts for line in text.splitlines() if "# TYPE" in line}
    assert used
    assert {one for one in used if one not in there and SUFFIX.sub("", one) not in typed} == set()
