"""From the wrapper to the daemon and back, under Windows' own Python, with a stand-in cl.exe."""

import json
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.cluster import Done, wait_until
from tests.support.objects import left_by
from tests.support.wine import EXECUTABLE, PYTHON, UCRT, Wine, WineCluster, set_up, windows_path

CL = "/" + set_up().COMPILER
#: The example of the one who asked for this, with an object that does not tell the time.
EXAMPLE = (
    f'"{CL}" /I "/{UCRT}" /I "{CL.partition("/bin/")[0]}/include"'
    ' /c /Fo"build/" /EHsc /Brepro tests/hello.c'
)
pytestmark = pytest.mark.timeout(600)

COFF_AMD64 = b"\x64\x86"


def through(cluster: WineCluster, line: str, project: Path) -> Done:
    """What a command leaves behind the wrapper."""
    wine = cluster.wine
    return left_by(
        lambda: wine.script(f'"{EXECUTABLE}" {line}', project, **cluster.wrapper()),
        project / "build",
    )


def direct(cluster: WineCluster, line: str, project: Path) -> Done:
    """What it leaves without the wrapper; a batch file starts nothing that begins with a slash."""
    line = line.replace(CL, "C:" + CL.replace("/", "\\"), 1)
    return left_by(lambda: cluster.wine.script(line, project), project / "build")


def without_our_word(done: Done) -> bytes:
    """Standard error without the line that says who compiled; and that line is there."""
    lines = done.stderr.splitlines(keepends=True)
    own = [line for line in lines if line.startswith(b"dist_build: compiled by ")]
    assert len(own) == 1, done.stderr.decode()
    return b"".join(line for line in lines if line not in own)


@pytest.mark.parametrize("more", ["", " /showIncludes", " /showIncludes /W4 /O2 /nologo"])
def test_the_users_example_is_what_the_compiler_makes_of_it(
    cluster: WineCluster, project: Path, more: str
) -> None:
    ours, truth = (how(cluster, EXAMPLE + more, project) for how in (through, direct))
    assert without_our_word(ours) == truth.stderr
    assert (ours.exit_code, ours.stdout, ours.files) == (0, truth.stdout, truth.files)
    assert ours.files["hello.obj"].startswith(COFF_AMD64)


def test_an_object_that_names_its_place_is_made_here(cluster: WineCluster, project: Path) -> None:
    (project / "tests" / "hello.c").write_text("const char *name(void) { return __FILE__; }\n")
    before = cluster.jobs()["local"].get("names_its_place", 0)
    source = windows_path(project / "tests" / "hello.c", cluster.wine.drive)
    line = EXAMPLE.replace("tests/hello.c", source)
    ours, truth = (how(cluster, line, project) for how in (through, direct))
    assert (ours.exit_code, ours.stdout, ours.files) == (0, truth.stdout, truth.files)
    assert source.encode() in ours.files["hello.obj"]
    assert cluster.jobs()["local"]["names_its_place"] == before + 1


def test_wrong_programs_fail_as_they_do_without_us(cluster: WineCluster, project: Path) -> None:
    (project / "tests" / "hello.c").write_text('#include "number.h"\nint x = nothing;\n')
    ours, truth = (how(cluster, EXAMPLE, project) for how in (through, direct))
    assert without_our_word(ours) == truth.stderr
    assert (ours.exit_code, ours.stdout, ours.files) == (2, truth.stdout, {})


def test_listed_dependencies_are_the_dev_boxs(cluster: WineCluster, project: Path) -> None:
    line = EXAMPLE + " /nologo /sourceDependencies build\\hello.json"
    ours, truth = (how(cluster, line, project) for how in (through, direct))
    without_our_word(ours)
    assert ours.files == truth.files
    listed = json.loads(ours.files["hello.json"])["Data"]
    assert (
        listed["Source"] == windows_path(project, cluster.wine.drive).lower() + "\\tests\\hello.c"
    )


def test_status_is_read_with_curl(cluster: WineCluster) -> None:
    for process in cluster.processes():
        words = ["curl", "-sk", f"https://127.0.0.1:{process.port}/status"]
        said = json.loads(subprocess.run(words, check=True, capture_output=True).stdout)
        assert said["version"]
    for daemon in cluster.daemons:
        assert daemon.status()["toolchains"][0]["name"] == "cl.exe"


def units(project: Path, count: int) -> list[str]:
    """Commands for many sources that share a header."""
    for n in range(count):
        (project / "tests" / f"unit{n}.c").write_text(
            f'#include "number.h"\nint unit{n}(void) {{ return NUMBER + {n}; }}\n'
        )
    return [f'"{CL}" /nologo /c /Brepro /Fobuild\\ tests\\unit{n}.c' for n in range(count)]


def all_at_once(wine: Wine, lines: Sequence[str], project: Path) -> list[str]:
    """The command that runs others behind the wrapper, four at a time."""
    (project / "lines.json").write_text(json.dumps([f'"{EXECUTABLE}" {line}' for line in lines]))
    script = windows_path(Path(__file__).parent / "inside" / "many.py", wine.drive)
    return [PYTHON, script, "lines.json", "4"]


def many(cluster: WineCluster, lines: Sequence[str], project: Path) -> None:
    """Run commands behind the wrapper."""
    done = cluster.wine.run(all_at_once(cluster.wine, lines, project), project, **cluster.wrapper())
    assert done.exit_code == 0, done.stdout.decode() + done.stderr.decode() + cluster.logs()


def objects(project: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (project / "build").iterdir()}


def test_a_hundred_compiles_and_a_header_that_changes(cluster: WineCluster, project: Path) -> None:
    lines = units(project, 50)
    before = cluster.jobs()
    many(cluster, lines, project)
    first = objects(project)
    (project / "tests" / "number.h").write_text("#define NUMBER 4000\n")
    many(cluster, lines, project)
    second = objects(project)
    assert len(first) == len(second) == 50
    assert not set(first.items()) & set(second.items())
    now = cluster.jobs()
    assert now["done"] - before["done"] == 100
    assert now["local"] == before["local"]
    assert all(daemon.status()["done"] > 0 for daemon in cluster.daemons)
    direct(cluster, f'"{CL}" /nologo /c /Brepro /Fobuild\\ tests\\unit7.c', project)
    assert objects(project)["unit7.obj"] == second["unit7.obj"]


def slow(project: Path) -> str:
    """A command that takes a while: its source becomes millions of tokens."""
    macros = ["#define A0 1+"]
    macros += [f"#define A{n} {f'A{n - 1} ' * 10}" for n in range(1, 8)]
    (project / "tests" / "slow.c").write_text("\n".join([*macros, "enum { X = A7 0 };", ""]))
    return f'"{CL}" /nologo /c /Fobuild\\ tests\\slow.c'


def running(cluster: WineCluster) -> int:
    return sum(daemon.status()["running"] for daemon in cluster.daemons)


def test_the_end_of_the_wrapper_ends_the_compile(cluster: WineCluster, project: Path) -> None:
    wine, line = cluster.wine, slow(project)
    words = [EXECUTABLE, CL, *line.split('" ')[1].split()]
    with wine.popen(words, project, **cluster.wrapper()) as process:
        wait_until(lambda: running(cluster) == 1, f"it runs\n{cluster.logs()}")
        process.kill()
        killed = time.monotonic()
        wait_until(lambda: running(cluster) == 0, "it has ended", 10.0)
    assert time.monotonic() - killed < 5.0
    assert cluster.jobs()["cancelled"] > 0


def test_a_daemon_that_is_killed_is_survived(own_cluster: WineCluster, project: Path) -> None:
    cluster, wine, lines = own_cluster, own_cluster.wine, units(project, 16)
    victim = cluster.daemons[1]
    with wine.popen(all_at_once(wine, lines, project), project, **cluster.wrapper()) as process:
        wait_until(lambda: victim.status()["done"] > 0, "it works", 60.0)
        victim.kill()
        process.communicate(timeout=300)
        assert process.returncode == 0
    assert len(objects(project)) == 16
    assert cluster.jobs()["local"] == {}
