"""gcc and clang under other names, for other processors, and with ccache before or behind us."""

import functools
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, Done, run_here, wrapper_command
from tests.support.objects import assert_same, files_below, left_by
from tests.support.tools import absent, need

pytestmark = pytest.mark.compiler
Require = Callable[[str], str]

#: A cross compiler may come without a library and its headers.
SOURCE = """#include <stdarg.h>
#include <stddef.h>
#include "own.h"
int printf(const char *, ...);
size_t strlen(const char *);
int f(const char *text) { return printf("%s %d", text, own(strlen(text))); }
"""
#: Assembled for any processor.
ASSEMBLED = '#include "own.h"\n#ifdef OWN\n.data\n.long 7\n#endif\n'
CROSS = [
    "-g -O2 -Wall -c x.c -o x.o",
    "-g -O2 -c x.c -MD",
    "-mcpu=cortex-a53 -O2 -S x.c",
    "-march=armv8.2-a+sve -O3 -g -c x.c -o x.o -MMD",
    "-c x.S -g -o x.o",
    "-c x.c -I absent -DBROKEN",
    "-g -gsplit-dwarf -c x.c",
]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    top = tmp_path / "p"
    top.mkdir()
    (top / "own.h").write_text(
        "#define OWN\n#ifndef __ASSEMBLER__\n#ifdef BROKEN\nint broken\n#endif\n"
        "static inline int own(unsigned long n) { return (int)n + 1; }\n#endif\n"
    )
    (top / "x.c").write_text(SOURCE)
    (top / "x.S").write_text(ASSEMBLED)
    return top


def assert_remote(cluster: Cluster, argv: list[str], project: Path, **env: str) -> None:
    """As locally, and by one job."""
    before = cluster.jobs()
    assert_same(cluster, argv, project, cwd=project, **env)
    after = cluster.jobs()
    assert after["done"] == before["done"] + 1, (after, cluster.logs())


@pytest.mark.in_turn("farm", "line")
@pytest.mark.parametrize("line", CROSS)
def test_a_cross_compiler(farm: Cluster, project: Path, require_tool: Require, line: str) -> None:
    name = Path(require_tool("aarch64-linux-gnu-gcc")).name
    if "-gsplit-dwarf" in line and _mode(farm) == "plain":
        pytest.skip("needs the original paths")
    assert_remote(farm, [name, *line.split()], project)


def _mode(farm: Cluster) -> str:
    (mode,) = {w["sandbox"]["mode"] for w in farm.syncer.status()["workers"].values()}
    return str(mode)


def test_clang_for_another_processor(farm: Cluster, project: Path, require_tool: Require) -> None:
    require_tool("clang")
    require_tool("aarch64-linux-gnu-gcc")
    argv = "clang --target=aarch64-linux-gnu -g -O2 -c x.c -o x.o -MD".split()
    assert_remote(farm, argv, project)


@pytest.mark.parametrize(
    "spelled", ["absolute", "relative", "link", "link in a link", "other name"]
)
@pytest.mark.parametrize("name", ["gcc", "aarch64-linux-gnu-gcc"])
def test_a_compiler_by_a_path_or_a_link(
    cluster: Cluster, project: Path, require_tool: Require, name: str, spelled: str
) -> None:
    program = require_tool(name)
    words = {
        "absolute": program,
        "relative": os.path.relpath(program, project),
        "link": "./" + name,
        "link in a link": f"tools/bin/{name}",
        "other name": "./the-compiler",
    }
    (project / name).symlink_to(program)
    (project / "the-compiler").symlink_to(program)
    (project / "real/bin").mkdir(parents=True)
    (project / "real/bin" / name).symlink_to(project / name)
    (project / "tools").symlink_to("real")
    assert_remote(cluster, [words[spelled], *"-g -O2 -c x.c -o x.o".split()], project)


def test_a_script_that_calls_a_compiler_runs_here(
    farm: Cluster, project: Path, require_tool: Require
) -> None:
    """Which one it calls, and with which options, its environment decides."""
    require_tool("c99")  # a script that calls gcc
    (project / "bin").mkdir()
    (project / "bin" / "gcc").symlink_to(require_tool("clang"))
    path = f"{project / 'bin'}:{os.environ['PATH']}"
    assert_same(farm, ["c99", "-g", "-c", "x.c"], project, PATH=path)
    said = farm.run(["c99", "-c", "x.c"], project, DIST_BUILD_VERBOSE="1").stderr
    assert b"compiled locally: compiler_script: " in said


@pytest.mark.in_turn("farm", "compiler", "words")
@pytest.mark.parametrize("words", ["-c x.c", "-c x.c -MD -MF d", "-S x.c"])
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_an_output_with_as_long_a_name_as_there_can_be(
    farm: Cluster, project: Path, require_tool: Require, compiler: str, words: str
) -> None:
    require_tool(compiler)
    assert_remote(farm, [compiler, *words.split(), "-o", "n" * 253 + ".o"], project)


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_objective_c(farm: Cluster, project: Path, require_tool: Require, compiler: str) -> None:
    require_tool(compiler)
    if compiler == "gcc" and not _has_part("cc1obj"):
        absent("gcc has no Objective-C (gobjc) here")
    (project / "x.m").write_text(
        '#import "own.h"\n#import <stdio.h>\n@interface Thing { int x; } - (int)x; @end\n'
        "@implementation Thing - (int)x { return own(x); } @end\n"
    )
    assert_remote(farm, [compiler, *"-g -O2 -c x.m -o x.o -MD".split()], project)


def _has_part(name: str) -> bool:
    words = ["gcc", f"-print-prog-name={name}"]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    return os.path.isabs(said)


@pytest.mark.parametrize(
    ("name", "source", "text"),
    [
        ("gfortran", "x.f90", "subroutine s(x)\n  integer :: x\n  x = 1\nend subroutine\n"),
        ("gcc", "x.f90", "subroutine s(x)\n  integer :: x\n  x = 1\nend subroutine\n"),
    ],
)
def test_other_languages_are_compiled_here(
    cluster: Cluster, project: Path, require_tool: Require, name: str, source: str, text: str
) -> None:
    require_tool("gfortran")
    (project / source).write_text(text)
    before = cluster.jobs()["local"]
    argv = [name, "-O2", "-c", source, "-o", "x.o"]
    done = cluster.run(argv, project, DIST_BUILD_VERBOSE="1")
    assert (done.exit_code, (project / "x.o").exists()) == (0, True), done.stderr
    reason = "other_language" if name != "gcc" else "unknown_language"
    after = cluster.jobs()["local"]
    assert after == {**before, reason: before.get(reason, 0) + 1}


# --- ccache -------------------------------------------------------------------------------------

CCACHED = "gcc -g -O2 -Wall -MD -c x.c -o x.o".split()
MODES = {
    "as it comes": {},
    "depend": {"CCACHE_DEPEND": "1"},
    "preprocessor": {"CCACHE_NODIRECT": "1"},
    "preprocessed text": {"CCACHE_CPP2": "", "CCACHE_NOCPP2": "1"},
}


@pytest.mark.parametrize("mode", MODES)
def test_ccache_before_us_asks_for_what_it_lacks(
    cluster: Cluster, project: Path, tmp_path: Path, mode: str
) -> None:
    """A miss is one job, a hit none, and either leaves what ccache alone leaves."""
    ccache = need("ccache")
    expected = _with_ccache(ccache, project, tmp_path / "alone", MODES[mode])
    (prefix,) = wrapper_command()
    ours = {**MODES[mode], "CCACHE_PREFIX": prefix, **cluster.environment()}
    ours["DIST_BUILD_FALLBACK"] = "0"
    for jobs in (1, 0):
        before = cluster.jobs()
        assert _with_ccache(ccache, project, tmp_path / "ours", ours) == expected
        after = cluster.jobs()
        assert after["done"] - before["done"] == jobs, (before, after)
    (project / "own.h").write_text(f"// new\n{(project / 'own.h').read_text()}")
    before = cluster.jobs()
    _with_ccache(ccache, project, tmp_path / "ours", ours)
    assert cluster.jobs()["done"] - before["done"] == 1


def _with_ccache(ccache: str, project: Path, store: Path, env: dict[str, str]) -> object:
    """What a compile through ccache leaves."""

    def run() -> Done:
        done = subprocess.run(
            [ccache, *CCACHED],
            cwd=project,
            env={**os.environ, "CCACHE_DIR": str(store), **env},
            capture_output=True,
            check=False,
            timeout=600,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return left_by(run, project)


@pytest.mark.parametrize("how", ["named", "first on PATH"])
def test_ccache_behind_us(cluster: Cluster, project: Path, tmp_path: Path, how: str) -> None:
    """Who names it means it, and it runs here; links to it are passed over."""
    ccache = need("ccache")
    links = tmp_path / "links"
    links.mkdir()
    (links / "gcc").symlink_to(ccache)
    path = f"{links}:{os.environ['PATH']}"
    env = {"CCACHE_DIR": str(tmp_path / "store")}
    argv = ["gcc", *CCACHED[1:]]
    if how == "named":
        local = left_by(lambda: run_here(argv, project), project)
        before = cluster.jobs()
        ours = left_by(lambda: cluster.run(["ccache", *argv], project, **env), project)
        assert ours == local
        after = cluster.jobs()["local"]
        assert after == before["local"] | {
            "not_a_compiler": before["local"].get("not_a_compiler", 0) + 1
        }
    else:
        assert_remote(cluster, argv, project, PATH=path, **env)
    assert files_below(project).keys() == {"own.h", "x.c", "x.S"}


@pytest.mark.parametrize("called", ["bin/clang++", "clang++"])
def test_clang_calls_its_headers_by_where_it_was_found(
    farm: Cluster, project: Path, require_tool: Require, called: str
) -> None:
    """/usr/bin/../lib/gcc of one found in /usr/bin, and /usr/lib/gcc of one behind a link."""
    (project / "bin").mkdir()
    (project / "bin" / "clang++").symlink_to(require_tool("clang++"))
    (project / "b.cpp").write_text("#include <vector>\nstd::vector<int> v;\n")
    path = f"{project / 'bin'}:{os.environ['PATH']}"
    argv = [called, "-MD", "-g", "-c", "b.cpp"]
    for words in (argv, [require_tool("clang++"), *argv[1:]]):
        local = left_by(functools.partial(run_here, words, project, PATH=path), project)
        ours = left_by(functools.partial(farm.run, words, project, PATH=path), project)
        assert ours == local, farm.logs()
    if "/" in called and _mode(farm) == "namespace":
        assert_remote(farm, argv, project)


@pytest.mark.parametrize("sandbox", ["namespace", "bubblewrap"])
def test_a_compiler_below_tmp(
    tmp_path: Path, certs_dir: Path, project: Path, require_tool: Require, sandbox: str
) -> None:
    """Each job has a /tmp of its own, in which it is nevertheless."""
    with tempfile.TemporaryDirectory(dir="/tmp") as kit:
        (Path(kit) / "gcc").symlink_to(os.path.realpath(require_tool("gcc")))
        path = f"PATH={kit}:{os.environ['PATH']}"
        farm = Cluster(tmp_path / "farm", certs_dir, [{"sandbox": sandbox}])
        for process in farm.processes():
            process.prefix = ["env", path]
        try:
            farm.start()
            for compiler in ("gcc", f"{kit}/gcc"):
                argv = [compiler, "-g", "-c", "x.c", "-o", "x.o"]
                assert_remote(farm, argv, project, PATH=path.removeprefix("PATH="))
            farm.stop()
        finally:
            farm.kill()
