"""Options that name files: their inputs travel, their outputs come back, as locally."""

import shlex
import subprocess
from pathlib import Path

import pytest

from tests.support.cluster import Cluster
from tests.support.objects import assert_same, files_below
from tests.support.tools import need

pytestmark = pytest.mark.compiler

SOURCE = """#include "h.h"
#include <string.h>
static int square(int a) { return a * a * H; }
int add(int a, const int *b) { int s = 0; for (int i = 0; i < a; i++) s += b[i] * H; return s; }
int run(int a, char *b) { if (a > 3) strcpy(b, __FILE__); return square(a) + add(a, &a); }
"""
PROFILE = ":ir\nadd\n146835398518\n2\n20\n1\n"
SAMPLES = "run:1000:10\n 1: 10\nadd:5000:100\n 1: 900\n"
INLINED = (
    "run:5000:100\n 0: 100\n 0.1: 100\n 0: 50 strcpy:50\n"
    " 0: square:900\n  0: 900\n 0: add:5000\n  0: 5000\n"
)

OUTPUTS = {
    "gcc": [
        "-O3 -fopt-info",
        "-O3 -fopt-info-vec-all=out/vec.txt",
        "-O3 -fopt-info-inline=inline.txt",
        "-fdump-tree-original=out/tree",
        "-fdump-tree-original=stderr",
        "-fdump-tree-original -fdump-tree-gimple",
        "-fdump-go-spec=out/types.go",
        "-O1 -frandom-seed=1 -fdump-final-insns=out/insns",
        "-fcallgraph-info=su,da",
        "-aux-info=out/protos",
        "-O1 --dumpdir out/ -fstack-usage",
        "-fdiagnostics-format=json -Wall -Wextra -Wconversion",
        "-Xassembler --noexecstack -Wa,-mtune=generic64,-I,out,-Iout,--defsym,x=1",
        "-Xpreprocessor -DEXTRA -Wp,-DMORE=2,-UEXTRA",
    ],
    "clang": [
        "-MJ out/part.json",
        "-MJ part.json -MD -g",
        "-O2 -foptimization-record-file=out/record.yaml",
        "-O2 -fsave-optimization-record",
        "-flto=thin -O2 -fthin-link-bitcode=out/thin.bc",
        "-serialize-diagnostics out/x.dia -Wall",
        "-fcoverage-mapping -fprofile-instr-generate=x.profraw",
        "-O2 -fcs-profile-generate=dir",
        "-fembed-bitcode",
        "-O2 -Rpass=inline",
        "-Xassembler --noexecstack -Wa,-Iout",
        "-Xpreprocessor -DEXTRA",
        "-O2 -Xclang -mllvm -Xclang -inline-threshold=1 -mllvm -unroll-count=2",
        "-Xclang -target-feature -Xclang +sse4.2 -Xclang -debug-info-kind=constructor",
    ],
}
INPUTS = [
    "-fxray-instrument -fxray-always-instrument=in/functions",
    "-fxray-instrument -fxray-never-instrument= in/functions",
    "-fxray-instrument -fxray-attr-list=in/attributes",
    "-fprofile-instr-generate -fprofile-list=in/list",
    "-fsanitize=address -fsanitize-ignorelist=in/list",
    "-fsanitize-coverage=func,trace-pc -fsanitize-coverage-allowlist=in/list",
    "-fbasic-block-sections=list=in/blocks -O2",
    "-O2 -g -fprofile-sample-use=in/samples",
    "-O2 -g -fauto-profile=in/samples",
    "-O2 -fprofile-instr-use=in/x.profdata",
    "-O2 -fprofile-use=in/x.profdata",
]
LONG = [
    "--include-directory=more --define-macro EXTRA=1 --undefine-macro=EXTRA --optimize --warn-all",
    "--include-directory-after more --include=forced.h --imacros forced.h --debug -O2",
    "--write-user-dependencies --all-warnings --extra-warnings --no-standard-libraries",
    "--language=c --write-dependencies -MF out/dep --pedantic",
    "--language c++ --std=c++17 --trace-includes",
]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "a project"
    files = {
        "x.c": SOURCE,
        "h.h": "#define H 3\n",
        "forced.h": "#define FORCED 1\n",
        "more/m.h": "",
        "in/functions": "fun:add\n",
        "in/attributes": "[always]\nfun:run\n",
        "in/list": "fun:add\nsrc:*other*\n",
        "in/blocks": "!add\n!!1\n!run\n!!0\n",
        "in/samples": SAMPLES,
        "in/text": PROFILE,
        "out/old": "",
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def command(compiler: str, line: str) -> list[str]:
    return [compiler, *shlex.split(line), "-c", "x.c", "-o", "out/x.o"]


def assert_remote(cluster: Cluster, argv: list[str], project: Path) -> dict[str, bytes]:
    """Distributed, and equal; what it wrote."""
    before = cluster.jobs()
    files = assert_same(cluster, argv, project).files
    after = cluster.jobs()
    assert (after["done"] - before["done"], after["local"]) == (1, before["local"])
    return files


@pytest.mark.parametrize(
    ("compiler", "line"), [(name, line) for name, lines in OUTPUTS.items() for line in lines]
)
def test_outputs_come_back(cluster: Cluster, project: Path, compiler: str, line: str) -> None:
    need("bwrap")
    need(compiler)
    assert_remote(cluster, command(compiler, line), project)


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("line", LONG)
def test_long_spellings(cluster: Cluster, project: Path, compiler: str, line: str) -> None:
    need("bwrap")
    need(compiler)
    assert_remote(cluster, command(compiler, line), project)


def make_profile(project: Path) -> None:
    tool = need("llvm-profdata")
    words = [tool, "merge", "-o", "in/x.profdata", "in/text"]
    subprocess.run(words, cwd=project, check=True, capture_output=True)


@pytest.mark.parametrize("line", INPUTS)
def test_inputs_travel(cluster: Cluster, project: Path, line: str) -> None:
    need("bwrap")
    need("clang")
    if "profdata" in line:
        make_profile(project)
    assert_remote(cluster, command("clang", line), project)


@pytest.mark.parametrize("line", ["-fprofile-use=in/none", "-fprofile-use=in", "-fprofile-use"])
def test_a_profile_that_is_no_file_is_left_to_the_compiler(
    cluster: Cluster, project: Path, line: str
) -> None:
    need("clang")
    assert_same(cluster, command("clang", line), project)


@pytest.mark.parametrize(
    ("name", "line", "text"),
    [
        ("samples", "-O2 -g -fprofile-sample-use=in/samples", INLINED),
        ("list", "-fprofile-instr-generate -fprofile-list=in/list", "fun:run\n"),
        ("blocks", "-O2 -fbasic-block-sections=list=in/blocks", "!run\n!!0\n"),
        (
            "list",
            "-fsanitize-coverage=func,trace-pc -fsanitize-coverage-allowlist=in/list",
            "src:*\nfun:add\n",
        ),
    ],
)
def test_a_changed_input_is_compiled_with(
    cluster: Cluster, project: Path, name: str, line: str, text: str
) -> None:
    need("bwrap")
    need("clang")
    first = assert_remote(cluster, command("clang", line), project)
    (project / "in" / name).write_text(text)
    assert first != assert_remote(cluster, command("clang", line), project)


def test_a_coverage_note_is_where_it_was_asked(cluster: Cluster, project: Path) -> None:
    need("bwrap")
    argv = command("gcc", "--coverage -fprofile-note=out/note")
    done = cluster.run(argv, project, DIST_BUILD_FALLBACK="0")
    assert done.exit_code == 0
    assert {"out/note", "out/x.o"} < files_below(project).keys()  # each holds the time


@pytest.mark.parametrize("value", ["h.h", "../a project/more", "more/new", "new.txt", "h.h,1"])
def test_an_unknown_option_that_may_name_a_file_is_left_to_the_compiler(
    cluster: Cluster, project: Path, value: str
) -> None:
    argv = command("gcc", f"-fno-such-option='{value}'")
    before = cluster.jobs()["local"].get("names_a_file", 0)
    assert_same(cluster, argv, project)
    assert cluster.jobs()["local"]["names_a_file"] == before + 1


def test_an_unknown_option_with_a_word_is_not(cluster: Cluster, project: Path) -> None:
    assert_remote(cluster, command("gcc", "-Wno-such-option=3 -mno-such=word"), project)
