"""Which outputs keep the old file, held against the installed compilers."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from distbuild.command.model import CompileCommand
from distbuild.command.parse import parse
from distbuild.command.side_effects import is_rewritten
from tests.support.tools import name_dump, need

LINES = {
    "gcc": [
        ("-c a.c -MD -fstack-usage --coverage", "a.o a.d a.su a.gcno"),
        ("-c a.c -g -gsplit-dwarf -save-temps", "a.o a.dwo a.i a.s"),
        ("-S a.c -o x.o -Wp,-MD,a.s", "x.o a.s"),
        ("-c b.s -fdump-tree-original", "b.o"),
        ("-c a.c -aux-info a.p -fdump-tree-original", "a.p DUMP"),
        ("-c a.c -O2 -fsave-optimization-record", "a.o a.c.opt-record.json.gz"),
    ],
    "clang": [
        ("-c a.c -MD -fstack-usage --coverage", "a.o a.d a.su a.gcno"),
        ("-c a.c -g -gsplit-dwarf -save-temps", "a.o a.dwo a.i a.bc a.s"),
        ("-c a.c -save-temps -fno-integrated-as", "a.o a.i"),
        ("-c a.c -fno-integrated-as -MD", "a.o a.d"),
        ("-S a.c -MD -MF x.bc", "a.s x.bc"),
        ("-S a.c -emit-llvm -o a.ll", "a.ll"),
        ("-c b.s", "b.o"),
        ("-c b.S -MD", "b.o b.d"),
        ("-c b.s -no-integrated-as", "b.o"),
        ("-c b.i", "b.o"),
        ("-c a.c -fno-temp-file -MJ a.j -serialize-diagnostics a.dia", "a.o a.j a.dia"),
        ("-c a.c -O2 -fsave-optimization-record -ftime-trace", "a.o a.opt.yaml a.json"),
    ],
}


@pytest.mark.compiler
@pytest.mark.parametrize("old", ["old", ""], ids=["full", "empty"])
@pytest.mark.parametrize(
    ("compiler", "line", "names"), [(c, *row) for c, rows in LINES.items() for row in rows]
)
def test_the_compiler_keeps_the_old_file(
    tmp_path: Path, compiler: str, line: str, names: str, old: str
) -> None:
    need(compiler)
    (tmp_path / "a.c").write_text("int g; int f(int a) { return a > g ? a : g; }\n")
    for name, text in (("b.s", ".globl x\n"), ("b.S", ".globl x\n"), ("b.i", "int b;\n")):
        (tmp_path / name).write_text(text)
    paths = [tmp_path / name for name in name_dump(names).split()]
    for path in paths:
        path.write_text(old)
        os.link(path, tmp_path / f"{path.name}, again")
    subprocess.run([compiler, *shlex.split(line)], cwd=tmp_path, check=True)

    command = parse([compiler, *shlex.split(line)], str(tmp_path), lambda _: None)
    assert isinstance(command, CompileCommand)
    assert all(path.read_bytes() != old.encode() for path in paths)
    kept = {path.name for path in paths if path.stat().st_nlink > 1}
    # clang 19 makes the compilation database anew, which nobody links.
    told = {path.name for path in paths if is_rewritten(command, str(path), empty=not old)}
    assert kept - {"a.j"} == told - {"a.j"}
