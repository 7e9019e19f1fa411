"""Real compilers in both sandboxes: everything equals the local compile."""

import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from distbuild.protocol.messages import FileEntry, InputFile
from distbuild.worker.namespace import NamespaceSandbox
from distbuild.worker.plain import PlainSandbox
from distbuild.worker.runner import Cancellation
from distbuild.worker.sandbox import Sandbox
from tests.unit.worker.devbox import (
    SEARCH_PATH,
    DevBox,
    entry_of,
    local_outcome,
    make_project,
    remote_outcome,
    write,
)

pytestmark = pytest.mark.compiler

#: What both sandboxes can do: (driver, arguments), run in ``build``.
ANYWHERE = [
    ("gcc", "-c ../src/unit.c -I../inc -o unit.o"),
    ("gcc", "-O2 -g -c ../src/unit.c -I../inc -o unit.o -MD -MF unit.d"),
    ("gcc", "-O2 -g3 -c @/src/unit.c -I@/inc -o unit.o -MMD -MP -MT tgt"),
    ("gcc", "-O1 -c ../src/unit.c -isystem ../inc -o unit.o -Wp,-MD,unit.d"),
    ("gcc", "-Wall -c @/src/warn.c -o warn.o"),
    ("gcc", "-c @/src/bad.c -I../inc -o bad.o -MD"),
    ("gcc", "-g -c ../src/asm.S -o asm.o"),
    ("gcc", "-S -O2 ../src/unit.c -I../inc -o unit.s"),
    ("g++", "-O2 -g -Wall -c @/src/unit.cc -I@/inc -o unit.o -MD"),
    ("g++", "-std=c++20 -c ../src/unit.cc -iquote ../inc -I ../inc -o sub.unit.o"),
    ("clang", "-O2 -g -c @/src/unit.c -I@/inc -o unit.o -MD -MF unit.d"),
    ("clang", "-Wall -c ../src/warn.c -o warn.o"),
    ("clang", "-c @/src/bad.c -o bad.o"),
    ("clang++", "-O1 -g -Wall -c ../src/unit.cc -I../inc -o unit.o -MMD"),
]

#: What is only exact at the original paths; in the directory named first.
AT_ORIGINAL_PATHS = [
    ("build", "gcc", "-g -gsplit-dwarf -c ../src/unit.c -I../inc -o unit.o"),
    ("build", "gcc", "-save-temps -g -c ../src/unit.c -I../inc -o unit.o"),
    ("build", "gcc", "-save-temps=obj -c ../src/unit.c -I../inc -o unit.o"),
    ("build", "gcc", "-fstack-usage -c ../src/unit.c -I../inc -o unit.o"),
    ("src", "gcc", "-g -c unit.c -I../inc"),
    ("src", "gcc", "-g -frecord-gcc-switches -c unit.c -I../inc"),
    ("src", "gcc", "-g -c unit.c -I../inc -ffile-prefix-map=..=/x -MD"),
    ("src", "g++", "-g -save-temps -c unit.cc -I../inc -MMD"),
    ("src", "clang", "-g -gsplit-dwarf -c unit.c -I../inc"),
    ("src", "clang", "-g -save-temps -c unit.c -I../inc"),
    ("src", "clang", "-g -grecord-command-line -c unit.c -I../inc"),
    ("src", "clang++", "-g -c unit.cc -I../inc -fdebug-prefix-map=@=/y"),
    (".", "gcc", "-g -c src/unit.c -Iinc -o build/unit.o -MD -MF src/unit.d"),
    (".", "g++", "-c src/unit.cc -Iinc"),
]


def command(driver: str, arguments: str, top: Path) -> list[str]:
    """A command line; ``@`` is the project."""
    return [driver, *(word.replace("@", str(top)) for word in arguments.split(" "))]


def assert_equal_to_local(box: DevBox, sandbox: Sandbox, argv: list[str], cwd: Path) -> None:
    top = cwd if cwd.name == "proj" else cwd.parent
    local = local_outcome(argv, cwd, top)
    result = box.compile(sandbox, argv, cwd)
    assert remote_outcome(result) == local
    assert not result.disturbed
    assert all(read.digest for read in result.inputs)


@pytest.mark.parametrize(("driver", "arguments"), ANYWHERE)
def test_a_compile_gives_the_local_result(
    driver: str,
    arguments: str,
    devbox: DevBox,
    sandbox: Sandbox,
    project: Path,
    require_tool: Callable[[str], str],
) -> None:
    require_tool(driver)
    argv = command(driver, arguments, project)
    assert_equal_to_local(devbox, sandbox, argv, project / "build")


@pytest.mark.parametrize(("directory", "driver", "arguments"), AT_ORIGINAL_PATHS)
def test_original_paths_give_the_local_result(
    directory: str,
    driver: str,
    arguments: str,
    devbox: DevBox,
    namespace_sandbox: NamespaceSandbox,
    project: Path,
    require_tool: Callable[[str], str],
) -> None:
    require_tool(driver)
    argv = command(driver, arguments, project)
    assert_equal_to_local(devbox, namespace_sandbox, argv, project / directory)


def test_a_by_product_of_an_earlier_compile_is_overwritten(
    devbox: DevBox, namespace_sandbox: NamespaceSandbox, project: Path
) -> None:
    write(project / "src/unit.i", "old\n")
    write(project / "src/unit.s", "old\n")
    devbox.mirror(project)
    argv = ["gcc", "-save-temps", "-c", "unit.c", "-I../inc"]
    result = devbox.compile(namespace_sandbox, argv, project / "src")
    local = local_outcome(argv, project / "src", project)
    assert remote_outcome(result) == local
    assert local.files[os.fsencode(project / "src/unit.s")] != b"old\n"


@pytest.fixture(params=["/tmp", "/root", "/opt"])
def elsewhere(request: pytest.FixtureRequest) -> Iterator[Path]:
    if not os.access(request.param, os.W_OK):
        pytest.skip(f"{request.param} is not ours")
    made = Path(tempfile.mkdtemp(dir=request.param, prefix="dist build test"))
    yield made / "proj"
    shutil.rmtree(made)


def test_a_project_may_be_anywhere_and_have_spaces_in_its_path(
    elsewhere: Path, devbox: DevBox, sandbox: Sandbox
) -> None:
    make_project(elsewhere)
    before = dict(devbox.entries)
    devbox.mirror(elsewhere)
    try:
        argv = ["gcc", "-g", "-c", str(elsewhere / "src/unit.c"), "-I../inc", "-MD", "-o", "u.o"]
        assert_equal_to_local(devbox, sandbox, argv, elsewhere / "build")
    finally:
        devbox.roots.discard(os.fsencode(elsewhere))
        devbox.become(before)


def test_the_dev_box_s_system_headers_count_and_not_the_worker_s(
    devbox: DevBox, sandbox: Sandbox, project: Path
) -> None:
    path, before = b"/usr/include/stdio.h", dict(devbox.entries)
    text = Path("/usr/include/stdio.h").read_bytes() + b"\n#define EDITED 12345\n"
    old = devbox.entries[path]
    assert isinstance(old, FileEntry)
    import hashlib

    entry = FileEntry(hashlib.sha256(text).digest(), len(text), old.mode, old.mtime_ns + 5)
    devbox.become({**before, path: entry}, {path: text})
    try:
        write(project / "src/ask.c", "#include <stdio.h>\nint x = EDITED;\n")
        argv = ["gcc", "-S", "-c", str(project / "src/ask.c"), "-o", "ask.s"]
        argv.remove("-c")
        result = devbox.compile(sandbox, argv, project / "build")
    finally:
        devbox.become(before)
    outcome = remote_outcome(result)
    assert outcome.exit_code == 0, outcome.stderr
    assert b"12345" in outcome.files[os.fsencode(project / "build/ask.s")]
    assert InputFile(path, entry.digest) in result.inputs


def test_a_withheld_file_that_is_read_shows_in_the_inputs(
    devbox: DevBox, sandbox: Sandbox, project: Path
) -> None:
    write(project / "src/part.c", "int part;\n")
    write(project / "src/whole.c", '#include "part.c"\n')
    devbox.mirror(project)
    argv = ["gcc", "-c", "../src/whole.c", "-o", "whole.o"]
    result = devbox.compile(sandbox, argv, project / "build")
    assert result.exit_code != 0
    assert InputFile(os.fsencode(project / "src/part.c"), b"") in result.inputs


def test_a_withheld_file_exists_for_has_include(
    devbox: DevBox, sandbox: Sandbox, project: Path
) -> None:
    write(project / "src/part.c", "int part;\n")
    write(project / "src/ask.c", '#if !__has_include("part.c")\n#error no\n#endif\n')
    devbox.mirror(project)
    argv = ["gcc", "-c", "../src/ask.c", "-o", "ask.o"]
    assert devbox.compile(sandbox, argv, project / "build").exit_code == 0


def test_a_change_of_an_input_while_the_compiler_runs_is_reported(
    devbox: DevBox, project: Path
) -> None:
    class Meddler(PlainSandbox):
        def prepare(self, task):
            execution = super().prepare(task)
            write(
                project / "inc/shape.h",
                "#pragma once\n#include <stddef.h>\n#define N\nstruct shape{size_t n;};\n",
            )
            devbox.mirror(project)
            return execution

    argv = ["gcc", "-c", "../src/unit.c", "-I../inc", "-o", "unit.o"]
    result = devbox.compile(Meddler(SEARCH_PATH), argv, project / "build")
    assert result.exit_code == 0
    assert result.disturbed


def test_a_plain_worker_refuses_what_needs_the_original_paths(
    devbox: DevBox, project: Path
) -> None:
    argv = ["gcc", "-gsplit-dwarf", "-g", "-c", "../src/unit.c", "-o", "unit.o"]
    result = devbox.compile(PlainSandbox(SEARCH_PATH), argv, project / "build")
    assert "original paths" in result.error


@pytest.mark.parametrize("option", ["-fplugin=/tmp/evil.so", "-B/tmp", "-specs=/tmp/x", "-wrapper"])
def test_code_from_the_wire_is_never_run(
    option: str, devbox: DevBox, sandbox: Sandbox, project: Path
) -> None:
    import msgspec

    job = devbox.job(["gcc", "-c", "../src/unit.c", "-o", "unit.o"], project / "build")
    job = msgspec.structs.replace(job, argv=[*job.argv, option.encode(), b"/bin/true"])
    cancellation = Cancellation()
    result = devbox.runner(sandbox).run(job, devbox.tree, cancellation)
    cancellation.close()
    assert result is not None
    assert result.error.startswith("refused")


def test_a_cancelled_compile_ends_at_once_and_gives_no_result(
    devbox: DevBox, sandbox: Sandbox, project: Path
) -> None:
    deep = "\n".join(f"#define M{i} M{i - 1} M{i - 1} M{i - 1} M{i - 1}" for i in range(1, 40))
    write(project / "src/endless.c", f"#define M0 int x;\n{deep}\nvoid f(void) {{ M39 }}\n")
    job = devbox.job(["gcc", "-c", "../src/endless.c", "-o", "e.o"], project / "build")
    started = threading.Event()

    class Watched:
        namespaces = sandbox.namespaces

        def prepare(self, task):
            execution = sandbox.prepare(task)
            started.set()
            return execution

    cancellation, results = Cancellation(), []
    runner = devbox.runner(Watched())
    thread = threading.Thread(
        target=lambda: results.append(runner.run(job, devbox.tree, cancellation))
    )
    thread.start()
    assert started.wait(20)
    cancellation.set()
    thread.join(5)
    assert not thread.is_alive()
    cancellation.close()
    assert results == [None]
    assert list(devbox.forest.jobs.iterdir()) == []


def test_job_files_and_directories_are_gone_afterwards(
    devbox: DevBox, sandbox: Sandbox, project: Path
) -> None:
    other = write(project.parent / "other/dir/x.c", "int x;\n")
    argv = ["gcc", "-c", str(other), "-o", "x.o"]
    assert devbox.compile(sandbox, argv, project / "build").exit_code == 0
    real = Path(os.fsdecode(devbox.tree.ground.real(os.fsencode(project.parent))))
    assert sorted(p.name for p in real.iterdir()) == ["proj"]
    assert entry_of(real / "proj/src/unit.c") != entry_of(project / "src/unit.c")
