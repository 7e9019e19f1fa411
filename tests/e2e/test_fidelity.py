"""Everything a build sees equals the local compile's: both compilers, both kinds of sandbox."""

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.cluster import Cluster
from tests.support.objects import assert_same

COMMON = ["-Iinclude", "-Wall", "-Wextra"]
#: Options that each compile of ``src/main.c`` or ``src/main.cpp`` is tried with.
LINES = [
    "-O2",
    "-O2 -g -MD",
    "-g3 -MMD -MP -MF deps/out.d",
    "-O1 -g -MD -MT weird$target -MQ quo$ted",
    "-Wp,-MD,deps/wp.d -g",
    '-O2 -DMESSAGE=\\"a\\\'b\\" -UNDEBUG',
    "-isystem sys -g",
    "-isystemsys -iquote quoted -idirafter after -g",
    "-include forced.h -imacros include/macros.h",
    "-S -O2",
    "-S -o build/asm.out -fverbose-asm",
    "-gsplit-dwarf -O2",
    "-save-temps=obj -O2",
    "-save-temps -g",
    "-fstack-usage -O2",
    "-ffile-prefix-map=include=/inc -g",
    "-fdebug-prefix-map=/=/root -g",
    "-fmacro-prefix-map=include/=x -g",
    "-Werror=unused-variable",
    "-DBROKEN",
    "-DMISSING",
    "-fdiagnostics-color=always -DWARN",
    "-fPIC -fvisibility=hidden -pthread -O3 -g1",
    "@options.rsp",
    "-o build/with\\ space.o -g -MD",
    "-o build/ünïcödé.o -g -MD",
]
GCC_ONLY = ["-fdump-tree-original", "-grecord-gcc-switches -g", "-flto -frandom-seed=1"]
CLANG_ONLY = ["-fcolor-diagnostics -DWARN", "-flto -O2", "-Weverything"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("a project") / "with 'odd' $names"
    for name in ("include", "src", "sys", "quoted", "after", "deps", "build"):
        (root / name).mkdir(parents=True)
    (root / "include" / "lib.h").write_text(
        '#pragma once\n#include "macros.h"\n#include <stddef.h>\n#include <string.h>\n'
        "static inline size_t len(const char *s) { return s ? strlen(s) + TEN : 0; }\n"
        "static const char *const lib_file = __FILE__;\n"
    )
    (root / "include" / "macros.h").write_text("#define TEN 10\n")
    (root / "include" / "next.h").write_text("#include_next <next.h>\n")
    (root / "sys" / "next.h").write_text(
        "int unused_in_system_header(int a) { int b; return 0; }\n"
    )
    (root / "forced.h").write_text("static int forced = 1;\n")
    (root / "options.rsp").write_text("-O2 -g '-DMESSAGE=\"from a file\"'\n")
    body = (
        '#include "lib.h"\n#include <stdio.h>\n#if __has_include("next.h") && defined MESSAGE2\n'
        '#include "next.h"\n#endif\n#ifdef MISSING\n#include "not/there.h"\n#endif\n'
        "int broken(void) {\n#ifdef BROKEN\n  return undeclared + 1\n#endif\n  return 0;\n}\n"
        'int warned(int unused) {\n#ifdef WARN\n  int x = "text" == lib_file;\n#endif\n'
        "  return (int)len(__FILE__) + __LINE__;\n}\n"
    )
    (root / "src" / "main.c").write_text(body)
    (root / "src" / "main.cpp").write_text(
        "#include <map>\n#include <string>\n" + body + "std::map<int, std::string> table;\n"
    )
    return root


def compiles(compiler: str, lines: list[str]) -> list[tuple[str, str, str]]:
    source = "src/main.cpp" if compiler.endswith("++") else "src/main.c"
    return [(compiler, source, line) for line in lines]


ALL = [
    *compiles("gcc", LINES + GCC_ONLY),
    *compiles("g++", LINES[:4] + GCC_ONLY),
    *compiles("clang", LINES + CLANG_ONLY),
    *compiles("clang++", LINES[:4] + CLANG_ONLY),
]
#: Every other one is slow: tests/differential has the like of them all.
CASES = [*ALL[::2], *(pytest.param(*case, marks=pytest.mark.slow) for case in ALL[1::2])]


def command(compiler: str, source: str, line: str) -> list[str]:
    options = shlex.split(line)
    mode = [] if "-S" in options else ["-c"]
    output = [] if "-o" in options else ["-o", "build/main" + (".s" if "-S" in options else ".o")]
    return [compiler, *COMMON, *options, *mode, source, *output]


@pytest.mark.compiler
@pytest.mark.in_turn("farm", "line", of=3)
@pytest.mark.parametrize(("compiler", "source", "line"), CASES, ids=lambda v: v.split("/")[-1])
def test_a_compile_equals_the_local_one(
    farm: Cluster,
    project: Path,
    require_tool: Callable[[str], str],
    compiler: str,
    source: str,
    line: str,
) -> None:
    require_tool(compiler)
    kind = next(iter(farm.syncer.status()["workers"].values()))["sandbox"]["mode"]
    before = farm.jobs()
    argv = command(compiler, source, line)
    explained = farm.run(["explain", "--", *argv], project)
    if kind == "plain" and b"no_namespace" in explained.stdout:
        return  # the namespace farm compiles it
    assert_same(farm, argv, project)
    after = farm.jobs()
    # A compiler that gives up over a header lists nothing: the local one has the last word.
    gave_up = after["local"].pop("unproved_failure", 0) - before["local"].pop("unproved_failure", 0)
    assert gave_up == ("-DMISSING" in argv)
    assert (after["done"] - before["done"], after["local"]) == (1 - gave_up, before["local"])
