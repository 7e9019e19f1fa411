"""The first build of a project on workers that never saw it: nothing is to end on the dev box."""

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Cluster
from tests.support.objects import assert_same

COMPILES = 24


@pytest.fixture
def fresh(tmp_path: Path, certs_dir: Path) -> Iterator[Cluster]:
    """Two workers that know nothing yet."""
    started = Cluster(tmp_path / "farm", certs_dir, cold=True)
    try:
        yield started.start()
        started.stop()
    finally:
        started.kill()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    made = tmp_path / "project"
    made.mkdir()
    return made


def compile_at_once(farm: Cluster, project: Path, names: list[str]) -> list[bytes]:
    """What the compiles said that did not end well; nothing may fall back."""
    words = [["gcc", "-MD", "-c", name, "-o", f"{name}.o"] for name in names]
    running = [farm.popen(argv, project, DIST_BUILD_FALLBACK="0") for argv in words]
    ended = [(process, *process.communicate()) for process in running]
    return [stderr for process, _, stderr in ended if process.returncode != 0]


def test_compiles_at_once_that_include_the_same_withheld_sources(
    fresh: Cluster, project: Path
) -> None:
    names = [f"u{n}.c" for n in range(COMPILES)]
    for n in range(COMPILES // 3):
        (project / f"shared{n}.c").write_text(f"static int shared{n} = {n};\n")
    for n, name in enumerate(names):
        (project / name).write_text(f'#include "shared{n // 3}.c"\nint *u{n} = &shared{n // 3};\n')
    assert compile_at_once(fresh, project, names) == []
    assert fresh.jobs()["local"] == {}


@pytest.mark.exhaustive
def test_a_long_chain_of_withheld_sources(fresh: Cluster, project: Path) -> None:
    for n in range(12):
        (project / f"t{n}.c").write_text(f'#include "t{n + 1}.c"\nint t{n};\n')
    (project / "t12.c").write_text("int last;\n")
    (project / "whole.c").write_text('#include "t0.c"\n')
    assert compile_at_once(fresh, project, ["whole.c"]) == []
    assert fresh.jobs()["local"] == {}
    assert_same(fresh, ["gcc", "-g", "-MD", "-c", "whole.c", "-o", "whole.o"], project)


def test_a_directory_that_changes_all_the_time(
    tmp_path: Path, project: Path, certs_dir: Path
) -> None:
    """What was offered to a worker is another file, or gone, once the worker asks for it."""
    for n in range(2000):
        (project / f"h{n}.h").write_text(f"int h{n};\n" * 100)
    (project / "log").write_text("begin\n")
    (project / "x.c").write_text('#include "h0.h"\n')
    only = [{"reuse_own_files": False}]
    started = Cluster(tmp_path / "farm", certs_dir, only, cold=True)
    over = threading.Event()

    def disturb() -> None:
        for n in itertools.count():
            if over.is_set():
                return
            (project / "log").write_text(f"{n}\n")
            (project / f"new{n}.h").write_text(f"int new{n};\n")
            (project / f"new{n - 20}.h").unlink(missing_ok=True)
            over.wait(0.0005)

    writer = threading.Thread(target=disturb)
    writer.start()
    try:
        started.start()
        for name in ("first.o", "second.o"):
            done = started.run(["gcc", "-c", "x.c", "-o", name], project, DIST_BUILD_FALLBACK="0")
            assert (done.exit_code, done.stderr) == (0, b""), started.logs()
        started.stop()
    finally:
        over.set()
        writer.join()
        started.kill()
