"""The object cache with a real syncer and worker: every hit is what the local compiler gives."""

import contextlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from distbuild.cache.storage import _checksum
from distbuild.protocol.codec import pack_output
from distbuild.protocol.messages import ResultRequest
from tests.support.cluster import Cluster, run_here, wait_until
from tests.support.objects import kept, outcomes
from tests.support.tools import need

ARGV = ["gcc", "-g", "-Wall", "-c", "src/x.c", "-Iearly", "-Iinc", "-Ilate", "-o", "x.o", "-MD"]

CACHE = {"cache_bytes": 10**9}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    write(root / "src/x.c", '#include "x.h"\nint x = X;\nstatic int unused;\n')
    write(root / "inc/x.h", "#define X 1\n")
    for name in ("early", "late"):
        (root / name).mkdir()
    return root


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def hits(cluster: Cluster) -> int:
    return int(kept(cluster)["hits"])


def compiled(cluster: Cluster, argv: list[str], cwd: Path, **env: str) -> int:
    """Compile as the local compiler does; returns the number of hits that this took."""
    before = hits(cluster)
    local, ours = outcomes(cluster, argv, cwd, **env)
    assert ours == local, cluster.logs()
    return hits(cluster) - before


def test_the_second_compile_is_a_hit_also_after_a_restart(
    tmp_path: Path, certs_dir: Path, project: Path
) -> None:
    own = Cluster(tmp_path / "own", certs_dir, [{}], dev=CACHE)
    try:
        own.start()
        assert [compiled(own, ARGV, project) for _ in range(3)] == [0, 1, 1]
        own.syncer.stop()
        own.syncer.start()
        wait_until(own.syncer.answers, "the syncer answers")
        own.wait_for_workers()
        assert compiled(own, ARGV, project) == 1
        write(project / "inc/x.h", "#define X 2\n")
        assert [compiled(own, ARGV, project) for _ in range(2)] == [0, 1]
        write(project / "inc/x.h", "#define X 1\n")
        assert compiled(own, ARGV, project) == 1
    finally:
        own.kill()


def earlier(root: Path) -> None:
    write(root / "early/x.h", "#define X 2\n")


def later(root: Path) -> None:
    write(root / "late/x.h", "#define X 2\n")


def beside(root: Path) -> None:
    write(root / "src/x.h", "#define X 2\n")


def edited(root: Path) -> None:
    write(root / "inc/x.h", "#define X 2\n")


def touched(root: Path) -> None:
    os.utime(root / "inc/x.h", (1, 1))


def deleted(root: Path) -> None:
    (root / "inc/x.h").unlink()


def renamed(root: Path) -> None:
    (root / "early").rmdir()
    write(root / "other/x.h", "#define X 2\n")
    (root / "other").rename(root / "early")


def precompiled(root: Path) -> None:
    assert run_here(["gcc", "-g", "-Wall", "-x", "c-header", "inc/x.h"], root).exit_code == 0


def unrelated(root: Path) -> None:
    write(root / "early/y.h", "#define Y 2\n")


@pytest.mark.parametrize(
    ("edit", "is_hit"),
    [
        (earlier, False),
        (later, False),  # a hit would be right: the sum of candidates does not know the order
        (beside, False),
        (edited, False),
        (touched, True),
        (deleted, False),
        (renamed, False),
        (precompiled, False),
        (unrelated, True),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_hit_is_right_after(
    caching: Cluster, project: Path, edit: Callable[[Path], None], is_hit: bool
) -> None:
    compiled(caching, ARGV, project)
    assert compiled(caching, ARGV, project) == 1
    edit(project)
    assert compiled(caching, ARGV, project) == int(is_hit)
    compiled(caching, ARGV, project)


def test_system_headers_count_after_the_project_was_elsewhere(
    caching: Cluster, project: Path
) -> None:
    """No list has them. While the project is away, another one is compiled."""
    write(project / "inc/x.h", "#include <z.h>\n")
    write(project / "inc/z.h", "#define X 1\n")
    other = project.parent / "other"
    write(other / "y.c", "int y;\n")
    argv = ["gcc", "-c", "x.c", "-isystem", "../inc", "-o", "x.o", "-MMD"]
    compiled(caching, argv, project / "src")
    project.rename(project.parent / "away")
    compiled(caching, ["gcc", "-c", "y.c", "-o", "y.o"], other)
    (project.parent / "away").rename(project)
    compiled(caching, [*argv, "-O1"], project / "src")
    assert compiled(caching, [*argv, "-O1"], project / "src") == 1
    write(project / "inc/z.h", "#define X 2\n")
    assert compiled(caching, [*argv, "-O1"], project / "src") == 0


def test_a_name_that_is_tested_counts(caching: Cluster, project: Path) -> None:
    text = '#if __has_include("early.h")\nint early;\n#else\nint late;\n#endif\n'
    write(project / "inc/x.h", text + "#define X 1\n")
    for _ in range(2):
        compiled(caching, ARGV, project)
    write(project / "late/early.h", "")
    assert compiled(caching, ARGV, project) == 0
    (project / "late/early.h").unlink()
    assert compiled(caching, ARGV, project) == 1


def test_a_directory_that_comes_to_exist_counts(caching: Cluster, project: Path) -> None:
    (project / "early").rmdir()
    for _ in range(2):
        compiled(caching, ARGV, project)
    write(project / "early/x.h", "#define X 2\n")
    assert compiled(caching, ARGV, project) == 0


@pytest.mark.parametrize("is_outside", [False, True])
def test_a_switched_link_counts(caching: Cluster, project: Path, is_outside: bool) -> None:
    place = project.parent / "versions" if is_outside else project / "versions"
    for version in ("1", "2"):
        write(place / version / "sub/w.h", f"#define W {version}\n")
        write(place / version / "sub/none.h", "")
    (project / "current").symlink_to(place / "1")
    write(project / "inc/x.h", "#include <w.h>\n#define X W\n")
    argv = [*ARGV, "-Icurrent/sub"]
    for _ in range(2):
        compiled(caching, argv, project)
    (project / "current").unlink()
    (project / "current").symlink_to(place / "2")
    assert compiled(caching, argv, project) == 0
    (project / "current").unlink()
    (project / "current").symlink_to(place / "1")
    compiled(caching, argv, project)


def test_a_link_inside_a_search_directory_counts(caching: Cluster, project: Path) -> None:
    for version in ("1", "2"):
        write(project.parent / "versions" / version / "w.h", f"#define W {version}\n")
    write(project / "late/sub/w.h", "#define W 0\n")
    write(project / "inc/x.h", "#include <sub/w.h>\n#define X W\n")
    for _ in range(2):
        compiled(caching, ARGV, project)
    (project / "early/sub").symlink_to(project.parent / "versions/1")
    assert compiled(caching, ARGV, project) == 0
    compiled(caching, ARGV, project)
    (project.parent / "versions/1/w.h").unlink()
    assert compiled(caching, ARGV, project) == 0
    write(project.parent / "versions/1/w.h", "#define W 3\n")
    assert compiled(caching, ARGV, project) == 0


def test_the_environment_and_the_options_count(caching: Cluster, project: Path) -> None:
    write(project / "more/x.h", "#define X 7\n")
    for _ in range(2):
        compiled(caching, ARGV, project)
    assert compiled(caching, ARGV, project, CPATH=str(project / "more")) == 0
    assert compiled(caching, [*ARGV, "-O2"], project) == 0
    assert compiled(caching, [*ARGV, "-DA=1"], project) == 0
    assert compiled(caching, ARGV, project, CPATH=str(project / "more")) == 1


@pytest.mark.parametrize(
    "text",
    [
        "char when[] = __DATE__ __TIME__;\n",
        "char when[] = __TIMESTAMP__;\n",
        "#define NAME(x) #x\n#include NAME(y.h)\n",
        '#pragma GCC dependency "y.h"\n',
        '__asm__(".incbin \\"inc/y.h\\"");\n',
    ],
)
def test_what_depends_on_more_than_files_is_not_cached(
    caching: Cluster, project: Path, text: str
) -> None:
    write(project / "inc/y.h", "/* nothing */\n")
    write(project / "src/x.c", text)
    before = hits(caching)
    for _ in range(3):
        assert caching.run(ARGV, project).exit_code == 0
    assert hits(caching) == before


def test_a_macro_may_name_an_include(caching: Cluster, project: Path) -> None:
    write(project / "inc/y.h", "int y = 1;\n")
    write(project / "src/x.c", '#define NAME "y.h"\n#include NAME\n')
    compiled(caching, ARGV, project)
    assert compiled(caching, ARGV, project) == 1
    write(project / "early/y.h", "int y = 2;\n")
    assert compiled(caching, ARGV, project) == 0
    assert compiled(caching, ["gcc", "-DNAME=<y.h>", *ARGV[1:]], project) == 0


def test_a_build_may_do_without(caching: Cluster, project: Path) -> None:
    for _ in range(2):
        compiled(caching, ARGV, project)
    assert compiled(caching, ARGV, project, DIST_BUILD_CACHE="0") == 0
    assert compiled(caching, ARGV, project, DIST_BUILD_CACHE="1") == 1


def test_the_cache_is_shown_and_emptied(caching: Cluster, project: Path) -> None:
    for _ in range(2):
        compiled(caching, ARGV, project)
    shown = caching.run(["cache"], project).stdout.decode()
    assert shown.startswith("cache   ")
    assert "never compiled" in shown
    assert shown.splitlines()[0] in caching.run(["status"], project).stdout.decode()
    assert " 0 results  0 B of 1.0 GB" in caching.run(["cache", "clear"], project).stdout.decode()
    assert compiled(caching, ARGV, project) == 0
    assert compiled(caching, ARGV, project) == 1


def test_explain_says_why_a_compile_is_no_hit(caching: Cluster, project: Path) -> None:
    def told() -> str:
        return caching.run(["explain", "--", *ARGV], project).stdout.decode()

    assert "object cache: miss: never compiled here\n" in told()
    compiled(caching, ARGV, project)
    kept(caching)
    assert "object cache: hit\n" in told()
    edited(project)
    assert f"object cache: miss: {project}/inc/x.h changed, " in told()
    deleted(project)
    assert f"object cache: miss: {project}/inc/x.h is gone\n" in told()
    write(project / "inc/x.h", "#define X 1\n")
    earlier(project)
    assert "object cache: miss: an include may find another file\n" in told()


def test_a_failure_is_not_cached(caching: Cluster, project: Path) -> None:
    write(project / "src/x.c", "#error no\n")
    assert [compiled(caching, ARGV, project) for _ in range(3)] == [0, 0, 0]


def test_another_output_directory_behind_a_link_is_no_hit_into_the_old_one(
    caching: Cluster, project: Path
) -> None:
    for name in ("one", "two"):
        (project / name).mkdir()
    argv = ["gcc", "-c", "src/x.c", "-Iinc", "-o", "out/x.o"]
    (project / "out").symlink_to("one")
    for _ in range(2):
        caching.run(argv, project)
    before = (project / "one/x.o").stat().st_mtime_ns
    (project / "out").unlink()
    (project / "out").symlink_to("two")
    assert caching.run(argv, project).exit_code == 0
    assert (project / "two/x.o").read_bytes() == (project / "one/x.o").read_bytes()
    assert (project / "one/x.o").stat().st_mtime_ns == before


def test_without_a_cache_nothing_is_kept(tmp_path: Path, certs_dir: Path, project: Path) -> None:
    need("gcc")
    own = Cluster(tmp_path / "own", certs_dir, [{}], dev={"cache_bytes": 0})
    try:
        own.start()
        for _ in range(2):
            assert own.run(ARGV, project).exit_code == 0
        assert own.syncer.status()["cache"] is None
        assert own.jobs()["done"] == 2
        assert not (own.syncer.home / "state/objects.sqlite").exists()
    finally:
        own.kill()


def test_one_in_so_many_hits_is_compared_with_a_compile(
    tmp_path: Path, certs_dir: Path, project: Path
) -> None:
    own = Cluster(tmp_path / "own", certs_dir, [{}], dev={**CACHE, "verify_hits": 2})
    try:
        own.start()
        assert [compiled(own, ARGV, project) for _ in range(5)] == [0, 1, 1, 1, 1]
        counts = own.syncer.status()["cache"]
        assert (counts["checked"], counts["wrong"]) == (2, 0)
        assert own.syncer.status()["jobs"]["done"] == 5
        assert sum(daemon.status()["done"] for daemon in own.daemons) == 3
        shown = own.run(["cache"], project)
        assert b"  compared with a compile 2  wrong 0\n" in shown.stdout, shown
        own.stop()
    finally:
        own.kill()


def test_a_hit_that_is_wrong_is_shown_forgotten_and_not_used(
    tmp_path: Path, certs_dir: Path, project: Path
) -> None:
    own = Cluster(tmp_path / "own", certs_dir, [{}], dev={**CACHE, "verify_hits": 1})
    try:
        own.start()
        compiled(own, ARGV, project)
        own.syncer.stop()
        falsify(own.syncer.home / "state/objects.sqlite")
        own.syncer.start()
        wait_until(own.syncer.answers, "the syncer answers")
        own.wait_for_workers()
        assert compiled(own, ARGV, project) == 1
        counts = own.syncer.status()["cache"]
        assert (counts["checked"], counts["wrong"]) == (1, 1)
        assert "a hit was not what the compiler gives now: " in own.logs()
        assert [compiled(own, ARGV, project) for _ in range(2)] == [0, 1]
        assert own.syncer.status()["cache"]["wrong"] == 1
        own.stop()
    finally:
        own.kill()


def falsify(path: Path) -> None:
    """Replace the outputs of all results, as a fault of the cache would."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        rows = db.execute("SELECT number, key, about, body FROM results JOIN bodies USING (number)")
        for number, key, about, body in rows.fetchall():
            result = msgspec.msgpack.decode(body, type=ResultRequest)
            outputs = [
                msgspec.structs.replace(file, blob=pack_output(b"wrong")) for file in result.outputs
            ]
            wrong = msgspec.msgpack.encode(msgspec.structs.replace(result, outputs=outputs))
            checked = _checksum(key, about, wrong)
            db.execute("UPDATE bodies SET body = ? WHERE number = ?", (wrong, number))
            db.execute("UPDATE results SET checked = ? WHERE number = ?", (checked, number))


def test_a_copy_that_gcc_takes_for_the_same_header_counts(caching: Cluster, project: Path) -> None:
    """``#pragma once`` compares contents and times, and lists only the first of two copies."""
    for name in ("inc/x.h", "inc/copy.h"):
        write(project / name, "#pragma once\nenum { X };\n")
        os.utime(project / name, (1, 1))
    write(project / "src/x.c", '#include "x.h"\n#include "copy.h"\n')
    for _ in range(2):
        compiled(caching, ARGV, project)
    os.utime(project / "inc/copy.h", (2, 2))
    compiled(caching, ARGV, project)


@pytest.mark.parametrize("include", ["<far/deep.h>", '"deep.h"'])
def test_headers_that_are_links_to_files_elsewhere(
    caching: Cluster, project: Path, tmp_path: Path, include: str
) -> None:
    """As Debian 13 has them in asm/. One that looks beside itself for another is not kept: gcc does
    so beside the link, and what it names there could come to be."""
    away, far = tmp_path / "away", project / "inc/far"
    write(away / "x.h", f"#include {include}\n#define X DEEP\n")
    write(away / "deep.h", "#define DEEP 1\n")
    far.mkdir()
    for name in ("x.h", "deep.h"):
        (far / name).symlink_to(away / name)
    write(project / "src/x.c", "#include <far/x.h>\nint x = X;\n")
    is_kept = int(include.startswith("<"))
    assert [compiled(caching, ARGV, project) for _ in range(2)] == [0, is_kept]
    write(away / "deep.h", "#define DEEP 2\n")
    assert [compiled(caching, ARGV, project) for _ in range(2)] == [0, is_kept]
    (far / "deep.h").unlink()
    write(far / "deep.h", "#define DEEP 3\n")
    assert compiled(caching, ARGV, project) == 0
    write(project / "early/far/deep.h", "#define DEEP 4\n")
    assert compiled(caching, ARGV, project) == 0
