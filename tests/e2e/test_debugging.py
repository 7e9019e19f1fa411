"""A debugger finds the sources of what a worker has compiled, at the places of the dev box."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.cluster import Cluster
from tests.support.tools import need

HEADER = """#pragma once
static inline __attribute__((always_inline)) int doubled(int value)
{
    volatile int twice = value * 2;
    return twice;
}
"""
MAIN = """#include "twice.h"
int main(int argc, char **argv)
{
    (void)argv;
    return doubled(argc + 20) == 42 ? 0 : 1;
}
"""


@pytest.mark.compiler
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("options", ["-g -O0", "-g -O2", "-g -gsplit-dwarf -O0"])
def test_gdb_stops_in_a_header_s_inline_function(
    cluster: Cluster, tmp_path: Path, compiler: str, options: str
) -> None:
    need(compiler)
    gdb = need("gdb")
    (tmp_path / "inc").mkdir()
    (tmp_path / "inc/twice.h").write_text(HEADER)
    (tmp_path / "main.c").write_text(MAIN)
    before = cluster.jobs()["done"]
    words = [compiler, *options.split(), "-Iinc", "-c", "main.c", "-o", "main.o"]
    assert cluster.run(words, tmp_path, DIST_BUILD_FALLBACK="0").exit_code == 0
    assert cluster.jobs()["done"] == before + 1
    subprocess.run([compiler, "main.o", "-o", "main"], cwd=tmp_path, check=True)

    commands = ["set confirm off", "break twice.h:4", "info line main", "run", "backtrace", "list"]
    session = [word for command in commands for word in ("-ex", command)]
    # From another directory: what it finds it finds by what the object says.
    said = subprocess.run(
        [gdb, "-nx", "-batch", *session, str(tmp_path / "main")],
        cwd="/",
        env={**os.environ, "DEBUGINFOD_URLS": ""},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    ).stdout

    assert "Breakpoint 1 at" in said
    assert "#0" in said, said
    assert "doubled (value=" in said
    assert "inc/twice.h:4" in said
    assert "volatile int twice = value * 2;" in said
    assert "main.c" in said
