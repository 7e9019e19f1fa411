"""Named modules of gcc: compiled modules are inputs and outputs of distributed compiles."""

import functools
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.test_modules import first_from, version_of
from tests.support.cluster import Cluster, Done, run_here
from tests.support.cmake import lay_out, outcomes
from tests.support.few_modules import COMPILED, FILES, SOURCES, STEPS, mappers
from tests.support.objects import files_below, kept, left_by
from tests.support.tools import absent, need

pytestmark = pytest.mark.compiler

#: The first gcc with which this is tested.
FIRST_GCC = 12
#: The first gcc that writes a scan's format beside the object, and lists the modules it read.
FIRST_LISTING = 14
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
            data = b"\n".join(b" ".join(sorted(n.split())) if b".c++" in n else n for n in lines)
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


def directory_there(build: Path, _: str) -> None:
    (build / "mods/a.gcm").unlink()
    (build / "mods/a.gcm").mkdir()


def new_base(build: Path, gcc: str) -> None:
    """Another ``base.core`` than that for which ``a`` was made."""
    source = build.parent / "base/base.cc"
    source.write_text(source.read_text().replace("int x;", "long before; int x;"))
    assert run_here(words(gcc, "base"), build).exit_code == 0


WRONG: dict[str, Callable[[Path, str], object]] = {
    "no module": lambda build, gcc: (build / "mods/a.gcm").unlink(),
    "garbage": lambda build, gcc: (build / "mods/a.gcm").write_bytes(b"garbage"),
    "another module": lambda build, gcc: shutil.copy(build / "mods/b.gcm", build / "mods/a.gcm"),
    "a cut one": lambda build, gcc: os.truncate(build / "mods/a.gcm", 900),
    "a directory": directory_there,
    "no module behind": lambda build, gcc: (build / "base.core.gcm").unlink(),
    "garbage behind": lambda build, gcc: (build / "base.core.gcm").write_bytes(b"\x7fELF"),
    "another module behind": new_base,
}


@pytest.mark.in_turn("kind")
@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_with_a_module_is_said_by_the_local_compiler(
    cluster: Cluster, gcc: str, project: Path, kind: str
) -> None:
    build(gcc, project)
    WRONG[kind](project / "build", gcc)
    argv, cwd = words(gcc, "main"), project / "build"
    local = left(lambda: run_here(argv, cwd), project)
    assert local.exit_code != 0
    assert left(lambda: cluster.run(argv, cwd), project) == local


def test_an_interface_with_an_error_leaves_what_it_leaves_locally(
    cluster: Cluster, gcc: str, project: Path
) -> None:
    build(gcc, project)
    (project / "lib/a.cc").write_text(FILES["lib/a.cc"] + "int wrong = nothing;\n")
    argv, cwd = words(gcc, "a"), project / "build"
    local = left(lambda: run_here(argv, cwd), project)
    assert local.exit_code != 0
    assert left(lambda: cluster.run(argv, cwd), project) == local


@pytest.mark.parametrize("wrapped", [False, True])
def test_an_old_compiled_module_is_replaced(
    cluster: Cluster, gcc: str, project: Path, wrapped: bool
) -> None:
    """gcc does not write through its hard links."""
    build(gcc, project)
    os.link(project / "build/mods/a.gcm", project / "kept")
    before = (project / "kept").read_bytes()
    text = FILES["lib/a.cc"] + "export int more();\n"
    (project / "lib/a.cc").write_text(text)
    run = cluster.run if wrapped else run_here
    assert run(words(gcc, "a"), project / "build").exit_code == 0
    assert (project / "kept").read_bytes() == before
    assert (project / "build/mods/a.gcm").read_bytes() != before


def test_what_an_interface_includes_is_mirrored_once_it_is_asked_for(
    cluster: Cluster, gcc: str, project: Path
) -> None:
    """A failure has a text mirrored that was withheld by its name."""
    text = FILES["base/base.cc"].replace("<cfg.h>", '"tables.cpp"\n#include <cfg.h>')
    lay_out(project, {"base/base.cc": text, "base/tables.cpp": "inline int table[3];\n"})
    for _ in range(2):
        found = outcomes(cluster, lambda: assert_same(cluster, gcc, project, "base"))
        assert found == {"done": 1}


@pytest.mark.in_turn("root")
@pytest.mark.parametrize("root", ["/", ".", "..", "mods"])
def test_mappers_with_other_paths(cluster: Cluster, gcc: str, project: Path, root: str) -> None:
    """Absolute paths, and paths below another root."""
    top = str(project / "build") if root == "/" else root
    (project / "build/mods/mods").mkdir()
    for step, names in STEPS.items():
        text = f"$root {top}\n" if root != "/" else ""
        for name in names:
            text += f"{name} {top + '/' if root == '/' else ''}{COMPILED[name]}\n"
        (project / f"build/{step}.modmap").write_text(text)
    (project / "mods").mkdir()
    assert outcomes(cluster, lambda: each_same(cluster, gcc, project)) == {"done": len(STEPS)}


def test_all_modules_in_one_mapper(cluster: Cluster, gcc: str, project: Path) -> None:
    """Also those that a source does not import, and that are not there yet."""
    for step in STEPS:
        text = "".join(f"{name} {path}\n" for name, path in COMPILED.items())
        (project / f"build/{step}.modmap").write_text("$root .\n" + text)
    assert outcomes(cluster, lambda: each_same(cluster, gcc, project)) == {"done": len(STEPS)}


WARNING = {
    "base/base.cc": FILES["base/base.cc"]
    + "export template <class T> bool less(T p) {\n  return p < 3u; // quoted\n}\n",
    "other/b.cc": FILES["other/b.cc"].replace("import a;", "import a;\nimport base.core;")
    + "bool warned = less(-1);\n",
    "build/b.modmap": "$root .\nb mods/b.gcm\na mods/a.gcm\nbase.core base.core.gcm\n",
}


def test_a_message_that_quotes_the_source_of_a_module(
    cluster: Cluster, gcc: str, project: Path
) -> None:
    """gcc opens that source for the message, which no dependency file lists."""
    lay_out(project, WARNING)
    options = f"{OPTIONS} -Wall -Wsign-compare"
    build(gcc, project, "part", "inner", "base", "a", options=options)

    def warned() -> None:
        done = assert_same(cluster, gcc, project, "b", options)
        assert b"// quoted" in done.stderr

    first = outcomes(cluster, warned)
    assert first in ({"done": 1}, {"modules": 1})
    # With the source's directory mirrored it is found there, in its present state.
    assert_same(cluster, gcc, project, "base", options)
    assert outcomes(cluster, warned) == {"done": 1}
    source = project / "base/base.cc"
    source.write_text("// moved\n" + source.read_text())
    done = assert_same(cluster, gcc, project, "b", options)
    assert b"// quoted" not in done.stderr


def test_a_source_of_a_module_that_is_gone(cluster: Cluster, gcc: str, project: Path) -> None:
    build(gcc, project)
    shutil.rmtree(project / "base")
    shutil.rmtree(project / "other")
    found = outcomes(cluster, lambda: assert_same(cluster, gcc, project, "main"))
    assert found == {"done": 1}


@pytest.mark.parametrize("maps_nothing", [False, True])
def test_the_object_cache_keeps_no_compile_with_a_mapper(
    caching: Cluster, gcc: str, project: Path, maps_nothing: bool
) -> None:
    """A compiled module is made with texts that no result lists."""
    build(gcc, project)
    if maps_nothing:
        lay_out(project, {"main.cc": "int main() {}\n", "build/main.modmap": "$root .\n"})
    before = kept(caching)
    for _ in range(2):
        assert_same(caching, gcc, project, "main")
    assert_same(caching, gcc, project, "base")
    after = kept(caching)
    assert after["hits"] == before["hits"]
    assert after["misses"]["not cacheable"] == before["misses"].get("not cacheable", 0) + 3


# --- the standard library ------------------------------------------------------------------------

USES_STD = "import std;\nint main() { std::vector<std::string> v{std::to_string(3)};\n" + (
    '  std::println("{} {}", v.size(), v[0]); }\n'
)


def std_source(gcc: str) -> str:
    """The source of the module ``std`` that belongs to this gcc."""
    argv = [gcc, "-print-file-name=libstdc++.modules.json"]
    listing = Path(os.path.realpath(run_here(argv, Path("/")).stdout.decode().strip()))
    if not listing.is_file():
        pytest.skip(f"{gcc} has no module std")
    modules = json.loads(listing.read_text())["modules"]
    named = next(m["source-path"] for m in modules if m["logical-name"] == "std")
    return str(listing.parent / named)


@pytest.mark.timeout(600)
def test_the_standard_library_is_made_and_imported(
    cluster: Cluster, gcc: str, tmp_path: Path
) -> None:
    source = std_source(gcc)
    files = {"std.modmap": "$root .\nstd std.gcm\n", "use.modmap": "$root .\nstd std.gcm\n"}
    root = lay_out(tmp_path / "std", {**files, "use.cc": USES_STD})
    steps = {"std": source, "use": "use.cc"}

    def compiles() -> None:
        for step, name in steps.items():
            line = f"-std=c++23 -O1 -fmodules-ts -fmodule-mapper={step}.modmap -c -o {step}.o"
            argv = [gcc, *line.split(), name]
            local = left(functools.partial(run_here, argv, root), root)
            ours = cluster.run(argv, root, DIST_BUILD_FALLBACK="0")
            assert ours.stderr == local.stderr
            files = alike(files_below(root))
            assert files.keys() == local.files.keys()
            assert [name for name in files if files[name] != local.files[name]] == []

    assert outcomes(cluster, compiles) == {"done": 2}
    assert run_here([gcc, "use.o", "std.o", "-o", "use"], root).exit_code == 0
    assert run_here(["./use"], root).stdout == b"1 3\n"
