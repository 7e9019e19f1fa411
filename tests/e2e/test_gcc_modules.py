"""Named modules of gcc: compiled modules are inputs and outputs of distributed compiles."""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.test_modules import first_from, scanning, version_of
from tests.support import many_modules
from tests.support.cluster import Cluster, Done, run_here
from tests.support.cmake import BESIDE, brought_up_to_date, built, lay_out, outcomes
from tests.support.objects import files_below, left_by
from tests.support.tools import absent, need

pytestmark = pytest.mark.compiler

#: The first gcc with which this is tested.
FIRST_GCC = 12
#: The first gcc that writes a scan's format beside the object, and lists the modules it read.
FIRST_LISTING = 14
FILES = {
    "lib/part.cc": "export module a:part;\nexport inline int three() { return 3; }\n",
    "lib/inner.cc": "module a:inner;\nimport :part;\nint four() { return three() + 1; }\n",
    "base/base.cc": "module;\n#include <cfg.h>\n"
    "export module base.core;\nexport struct S { int x; int get() const { return CFG * x; } };\n"
    "export template <class T> T add(T p, T q) { return p + q; }\n",
    "lib/a.cc": "module;\n#include <cfg.h>\n"
    "export module a;\nexport import :part;\nimport :inner;\nimport base.core;\n"
    "export inline int twice(int x) { S s{x}; return add(s.get(), CFG); }\n"
    "export int far(int x);\n",
    "lib/impl.cc": "module a;\nimport :inner;\n"
    "int far(int x) { return four() + twice(x) + three(); }\n",
    "other/b.cc": "export module b;\nimport a;\n"
    "export int f(int x) { return twice(x) + three(); }\n",
    "inc/cfg.h": "#define CFG 2\n",
    "main.cc": "import b;\nimport a;\nint main() { return f(1) + twice(4) + far(2); }\n",
}
SOURCES = {
    "part": "../lib/part.cc",
    "inner": "../lib/inner.cc",
    "base": "../base/base.cc",
    "a": "../lib/a.cc",
    "impl": "../lib/impl.cc",
    "b": "../other/b.cc",
    "main": "../main.cc",
}
COMPILED = {
    "a": "mods/a.gcm",
    "a:part": "mods/a-part.gcm",
    "a:inner": "mods/a-inner.gcm",
    "base.core": "base.core.gcm",
    "b": "mods/b.gcm",
}
#: Each compile after those whose modules it imports: what its mapper maps. As in CMake's, the
#: modules that only others import are missing.
STEPS = {
    "part": ["a:part"],
    "inner": ["a:inner", "a:part"],
    "base": ["base.core"],
    "a": ["a", "a:part", "a:inner", "base.core"],
    "impl": ["a:inner", "a"],
    "b": ["b", "a"],
    "main": ["b", "a"],
}
OPTIONS = "-std=c++20 -O1 -g"
#: gcc writes the time of day into a compiled module, unless SOURCE_DATE_EPOCH is set.
TIMES = re.compile(rb"(buildtime|localtime): [^\0]*")


@pytest.fixture(scope="module")
def gcc() -> str:
    need("bwrap")
    names = ["g++", *(f"g++-{version}" for version in range(20, FIRST_GCC - 1, -1))]
    found = first_from(names, FIRST_GCC, "-dumpversion")
    if found is None:
        absent(f"gcc {FIRST_GCC} or later is not installed")
    return str(found)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return lay_out(tmp_path / "project", {**FILES, **mappers()})


def mappers() -> dict[str, str]:
    return {
        f"build/{step}.modmap": "$root .\n" + "".join(f"{n} {COMPILED[n]}\n" for n in names)
        for step, names in STEPS.items()
    } | {"build/mods/.keep": ""}


def words(gcc: str, step: str, options: str = OPTIONS) -> list[str]:
    lists = version_of(gcc, "-dumpversion") >= (FIRST_LISTING,)
    line = f"{options} -I../inc -MD -MT {step}.o -MF {step}.d -fmodules-ts"
    line += f" -fmodule-mapper={step}.modmap" + (" -MD -fdeps-format=p1689r5" if lists else "")
    return [gcc, *line.split(), "-x", "c++", "-o", f"{step}.o", "-c", SOURCES[step]]


def alike(files: dict[str, bytes]) -> dict[str, bytes]:
    """The files without what differs between two local runs: the times in compiled modules, and the
    order of what a source imports in scans, and in the rules of a gcc that lists no modules."""
    found = {}
    for name, data in files.items():
        if name.endswith(".gcm"):
            data = TIMES.sub(rb"\1", data)
        elif name.endswith(".d"):
            lines = data.splitlines()
            data = b"\n".join(b" ".join(sorted(n.split())) if b".c++m" in n else n for n in lines)
        elif name.endswith(".ddi"):
            data = b"\n".join(sorted(data.splitlines()))
        found[name] = data
    return found


def left(run: Callable[[], Done], project: Path) -> Done:
    """What a run printed, and all files after it, which are put back."""
    files: dict[str, bytes] = {}

    def ran() -> Done:
        done = run()
        files.update(files_below(project))
        return done

    done = left_by(ran, project)
    done.files = alike(files)
    return done


def build(gcc: str, project: Path, *steps: str, options: str = OPTIONS) -> None:
    """Make what these steps make, by the local compiler."""
    for step in steps or STEPS:
        done = run_here(words(gcc, step, options), project / "build")
        assert done.exit_code == 0, done


def assert_same(
    cluster: Cluster, gcc: str, project: Path, step: str, options: str = OPTIONS
) -> Done:
    """A step leaves through the wrapper what it leaves locally."""
    argv, cwd = words(gcc, step, options), project / "build"
    local = left(lambda: run_here(argv, cwd), project)
    ours = left(lambda: cluster.run(argv, cwd, DIST_BUILD_FALLBACK="0"), project)
    differing = [
        n for n in {**ours.files, **local.files} if ours.files.get(n) != local.files.get(n)
    ]
    assert differing == [], f"{argv}\n{cluster.logs()}"
    assert ours == local, f"{argv}\n{local.stderr!r}\n{ours.stderr!r}\n{cluster.logs()}"
    return local


def each_same(cluster: Cluster, gcc: str, project: Path, options: str = OPTIONS) -> None:
    """Each step leaves through the wrapper what it leaves locally."""
    for step in STEPS:
        assert_same(cluster, gcc, project, step, options)
        build(gcc, project, step, options=options)


@pytest.mark.in_turn("options")
@pytest.mark.parametrize(
    "options", [OPTIONS, "-std=c++20 -O2", "-std=c++20 -g -gsplit-dwarf -Wall"]
)
def test_each_compile_with_modules_is_distributed(
    cluster: Cluster, gcc: str, project: Path, options: str
) -> None:
    found = outcomes(cluster, lambda: each_same(cluster, gcc, project, options))
    assert found == {"done": len(STEPS)}


def test_a_build_through_the_wrapper_from_nothing(
    cluster: Cluster, gcc: str, project: Path
) -> None:
    """Compiled modules that workers made are read by the next compiles."""
    build(gcc, project)
    local = files_below(project / "build")
    shutil.rmtree(project / "build")
    lay_out(project, mappers())

    def all_steps() -> None:
        for step in STEPS:
            done = cluster.run(words(gcc, step), project / "build", DIST_BUILD_FALLBACK="0")
            assert done.exit_code == 0, done

    assert outcomes(cluster, all_steps) == {"done": len(STEPS)}
    assert alike(files_below(project / "build")) == alike(local)


def edits(project: Path) -> Iterator[str]:
    """Each edit of what a module is made of; yields the first step that has to follow."""
    part = project / "lib/part.cc"
    part.write_text("// moved\n\n" + part.read_text().replace("3", "4"))
    yield "part"
    (project / "inc/cfg.h").write_text("#define CFG 5\n")
    yield "base"
    base = project / "base/base.cc"
    base.write_text(base.read_text().replace("int x;", "long before; int x;"))
    yield "base"
    (project / "other/b.cc").write_text(FILES["other/b.cc"] + "export int g() { return 7; }\n")
    yield "b"


def test_a_touched_interface_reaches_who_imports_it(
    cluster: Cluster, gcc: str, project: Path
) -> None:
    build(gcc, project)
    for first in edits(project):
        steps = list(STEPS)
        for step in steps[steps.index(first) :]:
            assert_same(cluster, gcc, project, step)
            build(gcc, project, step)


# --- builds by CMake -----------------------------------------------------------------------------

#: An edit of the project, and the sources that have to be compiled then.
EDITS = {
    "an interface": (
        ("mid/geo_point.cpp", "int x = 0, y = 0;", "int x = 0, y = 0, z = 1;"),
        {
            *("mid/geo_point.cpp", "mid/geo_shape.cpp", "mid/geo_detail.cpp", "mid/geo.cpp"),
            *("mid/geo_impl.cpp", "mid/engine.cpp", "mid/engine_impl.cpp", "mid/facade.cpp"),
            *("tool/main.cpp", "tool/other.cpp"),
        },
    ),
    "an implementation": (
        ("mid/geo_impl.cpp", "return 0;", "return 5;"),
        {"mid/geo_impl.cpp"},
    ),
}


def compiled(files: dict[str, bytes], before: dict[str, bytes]) -> set[str]:
    """The sources whose objects differ."""
    changed = (name for name in files if name.endswith(".o") and files[name] != before[name])
    return {re.sub(r"CMakeFiles/[^/]*\.dir/|\.o$", "", name) for name in changed}


@pytest.mark.timeout(900)
@pytest.mark.in_turn("kind")
@pytest.mark.parametrize("kind", EDITS)
def test_a_cmake_build_of_many_modules_is_distributed(
    cluster: Cluster, tmp_path: Path, kind: str
) -> None:
    compiler = scanning("gcc")
    need("bwrap")
    root = lay_out(tmp_path / "many", many_modules.FILES)
    local = built(cluster, root, compiler, wrapped=False)
    ours: dict[str, bytes] = {}
    found = outcomes(cluster, lambda: ours.update(built(cluster, root, compiler, wrapped=True)))
    assert alike(ours) == alike(local)
    assert {n: found[n] for n in found if n not in BESIDE} == {"done": len(many_modules.SOURCES)}
    assert run_here([str(root / "build/tool")], root).stdout.decode() == many_modules.SAYS

    edit, sources = EDITS[kind]
    lay_out(root, {edit[0]: many_modules.edited(*edit)[edit[0]]})
    later: dict[str, bytes] = {}
    found = outcomes(cluster, lambda: later.update(brought_up_to_date(cluster, root)))
    assert alike(later) == alike(built(cluster, root, compiler, wrapped=False))
    assert {n: found[n] for n in found if n not in BESIDE} == {"done": len(sources)}
    assert compiled(later, ours) <= sources
