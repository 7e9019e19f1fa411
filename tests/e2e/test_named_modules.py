"""Named modules of clang: compiled modules are inputs and outputs of distributed compiles."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_modules import first_from
from tests.support.cluster import Cluster, run_here
from tests.support.cmake import lay_out, outcomes
from tests.support.objects import files_below, left_by
from tests.support.tools import absent, need

pytestmark = pytest.mark.compiler

#: The first clang that writes a compiled module beside the object.
FIRST_CLANG = 16
FILES = {
    "lib/a.cppm": "module;\n#include <vector>\n#include <cfg.h>\n"
    "export module a;\nexport import :part;\n"
    "export inline int twice(int x) { return CFG * x; }\n"
    "export struct S { std::vector<int> v;\n"
    "  int sum() const { int s = 0; for (int i : v) s += i; return s; } };\n",
    "lib/part.cc": "export module a:part;\nexport inline int three() { return 3; }\n",
    "lib/impl.cpp": "module a;\nint hidden(int x) { return twice(x) + three(); }\n",
    "other/b.cc": "export module b;\nimport a;\n"
    "export int f(int x) { S s{{x, three()}}; return twice(s.sum()); }\n",
    "inc/cfg.h": "#define CFG 2\n",
    "main.cpp": "import b;\nimport a;\nint main() { return f(1) + twice(4); }\n",
    "build/main.modmap": "-fmodule-file=b=b.pcm\n-fmodule-file=a=a.pcm\n"
    "-fmodule-file=a:part=part.pcm\n",
}
PART, A = "-fmodule-file=a:part=part.pcm", "-fmodule-file=a=a.pcm"
#: Each compile after those whose modules it imports.
STEPS = {
    "part": "-x c++-module -fmodule-output=part.pcm -c ../lib/part.cc -o part.o",
    "a": f"-I../inc -fmodule-output=a.pcm {PART} -MD -MF a.d -c ../lib/a.cppm -o a.o",
    "impl": f"{A} {PART} -c ../lib/impl.cpp -o impl.o",
    "b": f"-x c++-module -fmodule-output=b.pcm {A} {PART} -c ../other/b.cc -o b.o -MMD -MF b.d",
    "main": "@main.modmap -c ../main.cpp -o main.o",
}
OPTIONS = "-std=c++20 -O1 -g"
#: So many local runs show each of two results.
BY_CHANCE = 12


@pytest.fixture(scope="module")
def clang() -> str:
    need("bwrap")
    names = ["clang++", *(f"clang++-{version}" for version in range(30, FIRST_CLANG - 1, -1))]
    found = first_from(names, FIRST_CLANG, "-dumpversion")
    if found is None:
        absent(f"clang {FIRST_CLANG} or later is not installed")
    return str(found)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return lay_out(tmp_path / "project", FILES)


def words(clang: str, step: str, options: str = OPTIONS) -> list[str]:
    return [clang, *options.split(), *STEPS[step].split()]


def build(clang: str, project: Path, *steps: str, options: str = OPTIONS) -> None:
    """Make what these steps make, by the local compiler."""
    for step in steps or STEPS:
        done = run_here(words(clang, step, options), project / "build")
        assert done.exit_code == 0, done


def assert_same(cluster: Cluster, clang: str, project: Path, step: str, options: str) -> None:
    """A step leaves through the wrapper what it leaves locally.

    clang 19 itself writes a module that imports another in one of two ways, by chance.
    """
    argv, cwd = words(clang, step, options), project / "build"
    local = left_by(lambda: run_here(argv, cwd), project)
    ours = left_by(lambda: cluster.run(argv, cwd, DIST_BUILD_FALLBACK="0"), project)
    for _ in range(BY_CHANCE):
        if ours == local:
            return
        local = left_by(lambda: run_here(argv, cwd), project)
    raise AssertionError(f"{argv}\n{local}\n{ours}\n{cluster.logs()}"[:10_000])


def each_same(cluster: Cluster, clang: str, project: Path, options: str = OPTIONS) -> None:
    """Each step leaves through the wrapper what it leaves locally."""
    for step in STEPS:
        assert_same(cluster, clang, project, step, options)
        build(clang, project, step, options=options)


@pytest.mark.in_turn("options")
@pytest.mark.parametrize("options", [OPTIONS, "-std=c++20 -O2", "-std=c++20 -g -gsplit-dwarf"])
def test_each_compile_with_modules_is_distributed(
    cluster: Cluster, clang: str, project: Path, options: str
) -> None:
    found = outcomes(cluster, lambda: each_same(cluster, clang, project, options))
    assert found == {"done": len(STEPS)}


def test_a_module_beside_the_object(cluster: Cluster, clang: str, project: Path) -> None:
    """Without a name the compiled module has the object's."""
    argv = [clang, *OPTIONS.split(), "-fmodule-output", "-c", "../lib/part.cppm", "-o", "part.o"]
    (project / "lib/part.cc").rename(project / "lib/part.cppm")
    local = left_by(lambda: run_here(argv, project / "build"), project)
    assert local.files.keys() == {"build/part.o", "build/part.pcm"}
    ours = left_by(lambda: cluster.run(argv, project / "build", DIST_BUILD_FALLBACK="0"), project)
    assert ours == local


def test_a_build_through_the_wrapper_from_nothing(
    cluster: Cluster, clang: str, project: Path
) -> None:
    """Compiled modules that workers made are read by the next compiles."""
    build(clang, project)
    local = files_below(project / "build")
    shutil.rmtree(project / "build")
    lay_out(project, FILES)

    def all_steps() -> None:
        for step in STEPS:
            done = cluster.run(words(clang, step), project / "build", DIST_BUILD_FALLBACK="0")
            assert done.exit_code == 0, done

    assert outcomes(cluster, all_steps) == {"done": len(STEPS)}
    ours = files_below(project / "build")
    assert ours.keys() == local.keys()
    assert [n for n in ours if ours[n] != local[n] and n != "b.pcm"] == []


def edits(project: Path) -> Iterator[str]:
    """Each edit of what a module is made of; yields the first step that has to follow."""
    part = project / "lib/part.cc"
    part.write_text("// moved\n\n" + part.read_text().replace("3", "4"))
    yield "part"
    (project / "inc/cfg.h").write_text("#define CFG 5\n")
    yield "a"
    (project / "lib/a.cppm").write_text(FILES["lib/a.cppm"].replace("int s = 0", "int s = 1"))
    yield "a"
    (project / "other/b.cc").write_text(FILES["other/b.cc"] + "export int g() { return 7; }\n")
    yield "b"


def test_a_touched_interface_reaches_who_imports_it(
    cluster: Cluster, clang: str, project: Path
) -> None:
    build(clang, project)
    for first in edits(project):
        steps = list(STEPS)
        for step in steps[steps.index(first) :]:
            assert_same(cluster, clang, project, step, OPTIONS)
            build(clang, project, step)


@pytest.mark.exhaustive
def test_a_source_that_is_newer_than_its_module(
    cluster: Cluster, clang: str, project: Path
) -> None:
    """The line numbers come from the source as it is now, here as there."""
    build(clang, project)
    for step in STEPS:
        assert_same(cluster, clang, project, step, OPTIONS)
    for name in ("lib/part.cc", "lib/a.cppm", "other/b.cc"):
        path = project / name
        path.write_text("\n// a line more\n\n" + path.read_text())
        for step in ("impl", "main"):
            assert_same(cluster, clang, project, step, OPTIONS)


WRONG = {
    "no module": lambda build: (build / "a.pcm").unlink(),
    "garbage": lambda build: (build / "a.pcm").write_bytes(b"garbage"),
    "another module": lambda build: shutil.copy(build / "part.pcm", build / "a.pcm"),
    "a cut one": lambda build: (build / "a.pcm").write_bytes((build / "a.pcm").read_bytes()[:900]),
    "no source": lambda build: (build.parent / "lib/a.cppm").unlink(),
    "a directory": lambda build: ((build / "a.pcm").unlink(), (build / "a.pcm").mkdir()),
}


@pytest.mark.in_turn("kind")
@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_with_a_module_is_said_by_the_local_compiler(
    cluster: Cluster, clang: str, project: Path, kind: str
) -> None:
    build(clang, project)
    WRONG[kind](project / "build")
    local = run_here(words(clang, "main"), project / "build")
    ours = cluster.run(words(clang, "main"), project / "build")
    assert (ours.exit_code, ours.stdout) == (local.exit_code, local.stdout)
    # Where clang crashes, the stack and the names of its reports differ each time.
    assert local.stderr.splitlines()[0] in ours.stderr.splitlines()
