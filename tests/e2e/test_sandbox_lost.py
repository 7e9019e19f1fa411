"""A sandbox that somebody removes on a worker is made anew, without a start of the daemon."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Cluster
from tests.support.objects import assert_same


@pytest.fixture
def worker(tmp_path: Path, certs_dir: Path) -> Iterator[Cluster]:
    """A syncer with one worker."""
    made = Cluster(tmp_path / "farm", certs_dir, [{}])
    yield made.start()
    made.kill()


@pytest.mark.in_turn("lost")
@pytest.mark.parametrize("lost", ["sandbox", "sandbox/.jobs", "store"])
def test_a_sandbox_that_was_removed_is_made_anew(
    worker: Cluster, tmp_path: Path, lost: str
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "x.c").write_text('#include <stdio.h>\n#include "x.h"\nint x = X;\n')
    (project / "x.h").write_text("#define X 1\n")
    argv = ["gcc", "-g", "-MD", "-c", "x.c"]
    assert_same(worker, argv, project)
    shutil.rmtree(worker.daemons[0].home / lost)
    for text in ("2", "3", "4"):
        (project / "x.h").write_text(f"#define X {text}\n")
        assert_same(worker, argv, project)
    assert worker.jobs()["local"] == {}
