"""Where the real drivers put dependency files, and how they write them."""

import itertools
import subprocess
from pathlib import Path

import pytest

from distbuild.command.dependency_file import parse_dependency_file
from distbuild.command.model import CompileCommand
from distbuild.command.parse import parse
from tests.unit.command.mirrored import Mirrored

pytestmark = pytest.mark.compiler

COMMANDS = (
    "-c -MD x.c",
    "-c -MMD x.c -o dir/y.o",
    "-c -MD x.c -o foo",
    "-c -MD x.c -o a.b.o",
    "-c -MD x.c -o dir/y.",
    "-c -MD x.c -o dir/.o",
    "-c -MD x.c -o .hidden",
    "-c -MD x.c -o ./dir//y.o",
    "-c -MD x.c -o dir.d/y",
    "-c -MD dir/x.c",
    "-c -MD a.b.c",
    "-c -MD -xc noext",
    "-c -MD -MF p.d x.c -o dir/y.o",
    "-c -MD -MFp.d x.c",
    "-c -MMD -MD -MF p.d -MF q.d x.c -o dir/y.o",
    "-c -MD x.c --output=dir/y.o",
    "-S -MD x.c",
    "-S -MD x.c -o dir/y.s",
    "-c -Wp,-MD,q.dep x.c -o dir/y.o",
    "-c -Wp,-MMD,dir/q.dep x.c",
    "-c -Wp,-MD,q.dep -Wp,-MD,r.dep x.c",
)
GCC_ONLY = (
    "-c -MD -dumpdir dump/ x.c -o dir/y.o",
    "-c -MD -dumpbase b.c -dumpbase-ext .c x.c -o dir/y.o",
)
#: Lengths around the column limits, and every character that Make or a shell could take amiss.
NAMES = [
    *("h" * length + ".h" for length in (*range(1, 40, 3), 60, 70, 71, 72, 73, 74, 75, 76, 120)),
    "space d.h", "two  spaces.h", "do$$llar$.h", "ha#sh.h", "co:lon.h", "é.h", "(paren).h", "a,b.h",
    "semi;colon.h", "per%cent.h", "st*r.h", "tilde~.h", "equals=.h", "quote'.h", "at@.h",
]  # fmt: skip
TARGETS: tuple[list[str], ...] = (
    [],
    ["-MT", "t" * 40, "-MT", "u" * 40, "-MQ", "v w$" * 12],
    ["-MQ", "x" * 69],
)


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory) -> Mirrored:
    made = Mirrored(tmp_path_factory.mktemp("dependencies"))
    for base in (made.project, Path(f"{made.tree}{made.project}")):
        for name in NAMES:
            (base / "app" / name).touch()
        lines = [f'#include "{name}"\n' for name in NAMES]
        (base / "app" / "relative.c").write_text("".join(lines))
    return made


@pytest.mark.parametrize(
    ("driver", "line"),
    [*itertools.product(("gcc", "clang"), COMMANDS), *(("gcc", line) for line in GCC_ONLY)],
)
def test_outputs_are_where_the_command_says(tmp_path, require_tool, driver, line):
    for directory in ("dir", "dir.d", "dump"):
        (tmp_path / directory).mkdir()
    for name in ("x.c", "a.b.c", "noext", "dir/x.c"):
        (tmp_path / name).write_text("int f(void);\n")
    before = set(tmp_path.rglob("*"))
    command = parse([require_tool(driver), *line.split()], str(tmp_path), lambda _: None)
    assert isinstance(command, CompileCommand)
    assert command.dependencies is not None

    subprocess.run(command.argv(), cwd=tmp_path, check=True, capture_output=True)

    written = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert written == {tmp_path / command.output, tmp_path / command.dependencies.path}
    system = b"stdc-predef.h" in (tmp_path / command.dependencies.path).read_bytes()
    assert system == (command.dependencies.system and driver == "gcc")
    assert {str(path.parent) for path in written} <= set(command.output_dirs)


@pytest.mark.parametrize("targets", TARGETS, ids=len)
@pytest.mark.parametrize("directory", ["", "{P}/app/"])
@pytest.mark.parametrize("driver", ["gcc", "clang"])
def test_unmapped_dependency_files_break_lines_as_the_compiler_does(
    mirrored, require_tool, driver, directory, targets
):
    source = directory.replace("{P}", str(mirrored.project)) + "relative.c"
    include = f"-I{mirrored.project}/first"
    argv = [require_tool(driver), "-c", source, include, "-MD", "-MP", "-o", "o.o", *targets]
    command = mirrored.parsed(argv)

    local = mirrored.local(command, {})

    assert mirrored.remote(command, {}) == local
    assert local.dependencies is not None
    listed = parse_dependency_file(local.dependencies, command.family)
    implicit = ["/usr/include/stdc-predef.h"] if driver == "gcc" else []
    base = directory.replace("{P}", str(mirrored.project))
    assert listed == [source, *implicit, *(base + name for name in NAMES)]
