"""The object cache with a real syncer and worker: every hit is what the local compiler gives."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

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


NAMES = ("a.h", "b.h", "sub/a.h", "sub/b.h")
PLACES = ("src", "d1", "d2", "d3")


def _text(random_: random.Random) -> str:
    other = random_.choice(NAMES)
    return (
        random_.choice(
            [
                f"int v{{n}} = {random_.randrange(3)};\n",
                f'#include "{other}"\n',
                f"#include <{other}>\n",
                f'#if __has_include("{other}")\nint w{{n}};\n#endif\n',
                f"#ifdef D\n#include <{other}>\n#endif\n",
            ]
        ).format(n=random_.randrange(100))
        + "#pragma once\n"
    )


def _switch(place: Path, other: Path) -> None:
    """Make a search directory, remove it, link it to another one, or rename it."""
    if place.is_symlink():
        place.unlink()
    elif not place.exists() and other.is_dir() and not other.is_symlink():
        place.symlink_to(other.name)
    elif not place.exists():
        place.mkdir()
    elif not other.exists() and not other.is_symlink():
        place.rename(other)
    else:
        shutil.rmtree(place)


def _switch_below(place: Path, other: Path) -> None:
    """Make a subdirectory of a search directory a link, or remove the link."""
    below = place / "sub"
    if below.is_symlink():
        below.unlink()
    elif place.is_dir() and not below.exists():
        below.symlink_to(f"../{other.name}")


def _edit(root: Path, random_: random.Random) -> None:
    """One random change of the tree."""
    place, other = (root / random_.choice(PLACES) for _ in range(2))
    kind = random_.randrange(10)
    if kind < 5 and place.is_dir() and not (place / "sub").is_symlink():
        write(place / random_.choice(NAMES), _text(random_))
    elif kind < 7:
        (place / random_.choice(NAMES)).unlink(missing_ok=True)
    elif kind == 7 and root / "src" not in (place, other):
        _switch(place, other)
    elif kind > 7:
        _switch_below(place, other)


def walk(cluster: Cluster, root: Path, seed: int, steps: int) -> int:
    """Edit and build at random; returns the number of hits. Each result is the local one."""
    random_ = random.Random(seed)
    for place in PLACES:
        (root / place).mkdir(parents=True)
    for name in NAMES:
        write(root / "d3" / name, _text(random_))
    sources = [f'#include "{name}"\n#include <{name}>\nint x;\n' for name in NAMES]
    before = hits(cluster)
    for step in range(steps):
        for _ in range(random_.randrange(3)):
            _edit(root, random_)
        if random_.random() < 0.2:
            write(root / "src/x.c", random_.choice(sources))
        elif step == 0:
            write(root / "src/x.c", sources[0])
        order = random_.sample(PLACES[1:], 3) if random_.random() < 0.3 else PLACES[1:]
        argv = ["gcc", *(f"-I{place}" for place in order), "-c", "src/x.c", "-o", "x.o", "-MD"]
        argv += ["-DD"] if random_.random() < 0.2 else []
        local, ours = outcomes(cluster, argv, root)
        assert ours == local, f"seed {seed}, step {step}: {argv}\n{local}\n{ours}"
    return hits(cluster) - before


def test_random_edits_and_builds(caching: Cluster, tmp_path: Path) -> None:
    assert sum(walk(caching, tmp_path / str(seed), seed, 60) for seed in range(3)) > 10


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_random_edits_and_builds(caching: Cluster, tmp_path: Path) -> None:
    assert sum(walk(caching, tmp_path / str(seed), seed, 100) for seed in range(100, 200)) > 500


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
