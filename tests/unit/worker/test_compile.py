"""Real compilers in both sandboxes: everything equals the local compile."""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from distbuild.protocol.codec import unpack_inputs
from distbuild.protocol.messages import FileEntry, InputFile, ResultRequest, Terminal, Window
from distbuild.worker.compilers import InstalledDriver
from distbuild.worker.process.here import Cancellation
from distbuild.worker.sandbox.base import CompilerResult, Execution, Sandbox, SandboxTask, Written
from distbuild.worker.sandbox.namespace import NamespaceSandbox
from distbuild.worker.sandbox.plain import PlainSandbox
from tests.support.screen import Screen
from tests.unit.worker.devbox import (
    SEARCH_PATH,
    DevBox,
    Outcome,
    entry_of,
    local_outcome,
    make_project,
    remote_outcome,
    write,
)
from tests.unit.worker.fakes import finished

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


#: gcc's name with its version, as Debian has it.
VERSIONED = os.path.basename(os.path.realpath("/usr/bin/gcc")).removeprefix("x86_64-linux-gnu-")


def command(driver: str, arguments: str, top: Path) -> list[str]:
    """A command line; ``@`` is the project."""
    return [driver, *(word.replace("@", str(top)) for word in arguments.split(" "))]


def assert_equal_to_local(box: DevBox, sandbox: Sandbox, argv: list[str], cwd: Path) -> None:
    top = cwd if cwd.name == "proj" else cwd.parent
    local = local_outcome(argv, cwd, top)
    result = box.compile(sandbox, argv, cwd)
    assert remote_outcome(result) == local
    assert not result.disturbed
    assert all(read.digest for read in inputs_of(result))


@pytest.mark.in_turn("sandbox", "driver")
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


def inputs_of(result: ResultRequest) -> list[InputFile]:
    """What the compiler read."""
    return unpack_inputs(result.packed_inputs) if result.packed_inputs else []


def test_an_input_that_no_dependency_file_names_is_told_too(
    devbox: DevBox,
    namespace_sandbox: NamespaceSandbox,
    project: Path,
    require_tool: Callable[[str], str],
) -> None:
    require_tool("clang")
    profile = write(project / "build/samples", "main:10:1\n 1: 1\n")
    devbox.mirror(project)
    argv = ["clang", "-O1", "-fprofile-sample-use=../build/samples", "-c", "unit.c", "-I../inc"]
    result = devbox.compile(namespace_sandbox, argv, project / "src")
    assert result.exit_code == 0
    digest = hashlib.sha256(profile.read_bytes()).digest()
    assert InputFile(os.fsencode(profile), digest) in inputs_of(result)


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


@pytest.mark.parametrize(
    "options",
    [
        "-aux-info p.h",
        "-dumpbase foo.c -dumpbase-ext .c -save-temps -o unit.o",
        "-dumpbase foo -save-temps -o unit.o",
        "-dumpdir pre- -save-temps -o unit.o",
        "-dumpdir ../build/pre- -save-temps -o unit.o",
        "-MD -MF p.h",
    ],
)
def test_a_second_compile_overwrites_what_the_first_left(
    options: str, devbox: DevBox, namespace_sandbox: NamespaceSandbox, project: Path
) -> None:
    argv = command("gcc", f"-c unit.c -I../inc {options}", project)
    subprocess.run(argv, cwd=project / "src", check=True)
    devbox.mirror(project)
    result = devbox.compile(namespace_sandbox, argv, project / "src")
    local = local_outcome(argv, project / "src", project)
    assert remote_outcome(result) == local
    assert len(local.files) > 1


def test_an_output_beside_the_mirror_may_be_named_by_way_of_its_parent(
    devbox: DevBox, sandbox: Sandbox, project: Path
) -> None:
    (project.parent / "obj/deep").mkdir(parents=True)
    argv = command("gcc", "-c unit.c -I../inc -o ../../obj/deep/unit.o -MD", project)
    result = devbox.compile(sandbox, argv, project / "src")
    assert remote_outcome(result) == local_outcome(argv, project / "src", project.parent)


@pytest.mark.parametrize("driver", ["gcc", "clang"])
@pytest.mark.parametrize("options", ["-MD -MF dep.h -o use.o", "-o dep.h"])
def test_an_output_may_be_read_before_it_is_written(
    options: str,
    driver: str,
    devbox: DevBox,
    namespace_sandbox: NamespaceSandbox,
    project: Path,
    require_tool: Callable[[str], str],
) -> None:
    require_tool(driver)
    header = write(project / "src/dep.h", "#define DEP 7\n")
    write(project / "src/use.c", '#include "dep.h"\nint x = DEP;\n')
    devbox.mirror(project)
    argv = command(driver, f"-c use.c {options}", project)
    result = devbox.compile(namespace_sandbox, argv, project / "src")
    local = local_outcome(argv, project / "src", project)
    assert not header.exists()  # overwritten, so taken for an output
    assert remote_outcome(result) == local
    assert local.exit_code == 0


@pytest.mark.in_turn("sandbox", "spelled")
@pytest.mark.parametrize("spelled", ["/{P}/src", "{P}//src/.", "{P}/src/", "{P}/link/../src"])
def test_a_working_directory_may_be_spelled_in_any_way(
    spelled: str, devbox: DevBox, sandbox: Sandbox, project: Path
) -> None:
    write(project / "other/dir/empty.h", "")
    (project / "link").symlink_to("other")
    devbox.mirror(project)
    cwd = spelled.replace("{P}", str(project))
    argv = ["gcc", "-g", "-c", "unit.c", "-I../inc", "-o", "../build/unit.o", "-MD"]
    local = local_outcome(argv, project / "src", project)
    job = devbox.job(argv, project / "src")
    job = msgspec.structs.replace(job, cwd=os.fsencode(cwd))
    cancellation = Cancellation()
    result = finished(devbox.runner(sandbox).run(job, devbox.tree, cancellation), cancellation)
    cancellation.close()
    assert result is not None
    outcome = remote_outcome(result)
    assert (outcome.exit_code, outcome.stderr) == (0, b"")
    assert outcome.files.keys() == local.files.keys()
    assert os.fsencode(cwd) in outcome.files[os.fsencode(project / "build/unit.o")]
    assert all(read.digest for read in inputs_of(result))


def test_a_working_directory_that_the_tree_does_not_lead_to_is_said(
    devbox: DevBox, sandbox: Sandbox, project: Path
) -> None:
    job = devbox.job(["gcc", "-c", "unit.c", "-o", "unit.o"], project / "src")
    job = msgspec.structs.replace(job, cwd=os.fsencode(project) + b"/no_such/../src")
    cancellation = Cancellation()
    result = finished(devbox.runner(sandbox).run(job, devbox.tree, cancellation), cancellation)
    cancellation.close()
    assert result is not None
    assert "does not lead" in result.error


def test_an_input_that_was_spoilt_on_the_worker_is_reported_without_a_digest(
    devbox: DevBox, sandbox: Sandbox, project: Path
) -> None:
    header = os.fsencode(project / "src/local.h")
    real = Path(os.fsdecode(devbox.tree.ground.real(header)))
    real.unlink()
    real.write_text("#define LOCAL 0\n")
    argv = ["gcc", "-c", "../src/unit.c", "-I../inc", "-o", "unit.o"]
    result = devbox.compile(sandbox, argv, project / "build")
    assert InputFile(header, b"") in inputs_of(result)
    result = devbox.compile(sandbox, argv, project / "build")
    assert all(read.digest for read in inputs_of(result))
    assert real.read_text() == (project / "src/local.h").read_text()


@pytest.fixture(params=["/tmp", "/root", "/opt", "/dev/shm"])
def elsewhere(request: pytest.FixtureRequest) -> Iterator[Path]:
    if not os.access(request.param, os.W_OK):
        pytest.skip(f"{request.param} is not ours")
    made = Path(tempfile.mkdtemp(dir=request.param, prefix="dist build test"))
    yield made / "proj"
    shutil.rmtree(made)


@pytest.mark.in_turn("sandbox", "driver", "name")
@pytest.mark.parametrize("driver", ["gcc", "clang"])
@pytest.mark.parametrize("name", ["a b.h", "a\tb.h", "a$b#c:d.h"])
def test_an_input_with_an_odd_name_is_recognised(
    name: str,
    driver: str,
    devbox: DevBox,
    sandbox: Sandbox,
    project: Path,
    require_tool: Callable[[str], str],
) -> None:
    require_tool(driver)
    write(project / "src" / name, "int odd;\n")
    write(project / "src/odd.c", f'#include "{name}"\n')
    devbox.mirror(project)
    argv = [driver, "-c", "../src/odd.c", "-o", "odd.o", "-MD"]
    assert_equal_to_local(devbox, sandbox, argv, project / "build")


@pytest.mark.in_turn("sandbox", "elsewhere")
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
    assert InputFile(path, entry.digest) in inputs_of(result)


def test_a_withheld_file_that_is_read_shows_in_the_inputs(
    devbox: DevBox, sandbox: Sandbox, project: Path
) -> None:
    write(project / "src/part.c", "int part;\n")
    write(project / "src/whole.c", '#include "part.c"\n')
    devbox.mirror(project)
    argv = ["gcc", "-c", "../src/whole.c", "-o", "whole.o"]
    result = devbox.compile(sandbox, argv, project / "build")
    assert result.exit_code != 0
    assert InputFile(os.fsencode(project / "src/part.c"), b"") in inputs_of(result)


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


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_a_failed_compile_that_lists_its_inputs_is_disturbed_by_these_alone(
    devbox: DevBox, project: Path, compiler: str
) -> None:
    class Meddler(PlainSandbox):
        changes = ""

        def prepare(self, task):
            execution = super().prepare(task)
            write(project / "inc" / self.changes, "#pragma once\n")
            devbox.mirror(project)
            return execution

    write(project / "src/wrong.c", '#include "shape.h"\nint wrong = undeclared;\n')
    devbox.mirror(project)
    sandbox = Meddler(SEARCH_PATH)
    for changes, disturbs in (("other.h", False), ("shape.h", True)):
        sandbox.changes = changes
        argv = [compiler, "-c", "../src/wrong.c", "-I../inc", "-o", "wrong.o"]
        result = devbox.compile(sandbox, argv, project / "build")
        assert (result.exit_code, result.disturbed) == (1, disturbs)


def test_a_plain_worker_refuses_what_needs_the_original_paths(
    devbox: DevBox, project: Path
) -> None:
    argv = ["gcc", "-gsplit-dwarf", "-g", "-c", "../src/unit.c", "-o", "unit.o"]
    result = devbox.compile(PlainSandbox(SEARCH_PATH), argv, project / "build")
    assert "original paths" in result.error


@pytest.mark.parametrize("driver", ["gcc", "clang"])
@pytest.mark.parametrize("options", [(), ("-MMD",)])
@pytest.mark.parametrize(
    "text",
    [
        '#include "{top}/inc/shape.h"\n',
        '#define SHAPE "{top}/inc/shape.h"\n#include SHAPE\n',
        '#include "{top}/inc/wrong.h"\n',
        '#include "{climb}{top}/inc/shape.h"\n',
    ],
)
def test_a_plain_worker_refuses_what_read_its_own_files(
    driver: str,
    options: tuple[str, ...],
    text: str,
    devbox: DevBox,
    project: Path,
    require_tool: Callable[[str], str],
) -> None:
    require_tool(driver)
    write(project / "inc/wrong.h", "#error wrong\n")
    climb = "../" * 40
    write(project / "inc/lead.h", text.replace("{top}", str(project)).replace("{climb}", climb))
    write(project / "src/led.c", '#include "../inc/lead.h"\nint led;\n')
    devbox.mirror(project)
    argv = [driver, *options, "-c", "../src/led.c", "-o", "led.o"]
    result = devbox.compile(PlainSandbox(SEARCH_PATH), argv, project / "build")
    assert "outside the mirror" in result.error
    assert result.outside


def test_a_line_directive_with_an_absolute_path_is_no_file_that_was_read(
    devbox: DevBox, sandbox: Sandbox, project: Path
) -> None:
    write(project / "src/line.c", '#line 3 "/of/gen.y"\nint f(void) { int unused; return 1; }\n')
    argv = ["gcc", "-Wall", "-g", "-c", "../src/line.c", "-o", "line.o"]
    assert_equal_to_local(devbox, sandbox, argv, project / "build")


def test_temporary_files_are_in_the_job_s_directory(devbox: DevBox, project: Path) -> None:
    """There they go with it, however the compiler ends."""
    write(project / "src/wrong.c", 'asm("no_such_instruction");\n')
    argv = ["gcc", "-c", "../src/wrong.c", "-o", "wrong.o"]
    result = devbox.compile(PlainSandbox(SEARCH_PATH), argv, project / "build")
    assert (result.exit_code, result.error) == (1, "")
    assert result.stderr.startswith(os.fsencode(devbox.trees.jobs))
    assert b"Assembler messages" in result.stderr


@pytest.mark.parametrize("option", ["-fplugin=/tmp/evil.so", "-B/tmp", "-specs=/tmp/x", "-wrapper"])
def test_code_from_the_wire_is_never_run(
    option: str, devbox: DevBox, sandbox: Sandbox, project: Path
) -> None:
    job = devbox.job(["gcc", "-c", "../src/unit.c", "-o", "unit.o"], project / "build")
    job = msgspec.structs.replace(job, argv=[*job.argv, option.encode(), b"/bin/true"])
    cancellation = Cancellation()
    result = finished(devbox.runner(sandbox).run(job, devbox.tree, cancellation), cancellation)
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
        target=lambda: results.append(
            finished(runner.run(job, devbox.tree, cancellation), cancellation)
        )
    )
    thread.start()
    assert started.wait(20)
    cancellation.set()
    thread.join(5)
    assert not thread.is_alive()
    cancellation.close()
    assert results == [None]
    assert [path for path in devbox.trees.jobs.rglob("*") if not path.is_dir()] == []


def test_job_files_and_directories_are_gone_afterwards(
    devbox: DevBox, sandbox: Sandbox, project: Path
) -> None:
    other = write(project.parent / "other/dir/x.c", "int x;\n")
    argv = ["gcc", "-c", str(other), "-o", "x.o"]
    assert devbox.compile(sandbox, argv, project / "build").exit_code == 0
    real = Path(os.fsdecode(devbox.tree.ground.real(os.fsencode(project.parent))))
    assert sorted(p.name for p in real.iterdir()) == ["proj"]
    assert entry_of(real / "proj/src/unit.c") != entry_of(project / "src/unit.c")


def test_search_directories_among_the_worker_s_libraries_work(
    devbox: DevBox, namespace_sandbox: NamespaceSandbox, project: Path
) -> None:
    """-I/usr/lib/x86_64-linux-gnu: what cc1 is linked with stays there; a directory is added."""
    library = os.path.dirname(os.path.realpath("/usr/lib/x86_64-linux-gnu/libc.so.6"))
    before, roots = dict(devbox.entries), set(devbox.roots)
    text = b"#define FROM_LIBRARY 1\n"
    entry = FileEntry(hashlib.sha256(text).digest(), len(text), 0o644, 7)
    top = os.fsencode(library)
    paths = [top + b"/dist_build_test.h", top + b"/dist-build-0.0/include/deep.h"]
    devbox.roots |= {top, os.path.dirname(paths[1])}
    devbox.become(before | dict.fromkeys(paths, entry), dict.fromkeys(paths, text))
    try:
        write(
            project / "src/lib.c",
            "#include <dist_build_test.h>\n#include <deep.h>\nint x = FROM_LIBRARY;\n",
        )
        options = [f"-I{library}", f"-I{library}/dist-build-0.0/include", "-o", "lib.o"]
        argv = ["gcc", "-c", "../src/lib.c", *options]
        result = devbox.compile(namespace_sandbox, argv, project / "build")
    finally:
        devbox.roots = roots
        devbox.become(before)
    assert (result.error, result.stderr, result.exit_code) == ("", b"", 0)
    assert {InputFile(path, entry.digest) for path in paths} <= set(inputs_of(result))


def test_a_worker_without_an_include_directory_of_its_own_shows_the_dev_box_s(
    devbox: DevBox, namespace_sandbox: NamespaceSandbox, project: Path
) -> None:
    before, roots = dict(devbox.entries), set(devbox.roots)
    text = b"#define ANSWER 42\n"
    entry = FileEntry(hashlib.sha256(text).digest(), len(text), 0o644, 7)
    path = b"/usr/dist-build-test/include/answer.h"
    devbox.roots.add(os.path.dirname(path))
    devbox.become(before | {path: entry}, {path: text})
    try:
        write(project / "src/ask.c", "#include <answer.h>\nint x = ANSWER;\n")
        argv = ["gcc", "-c", "../src/ask.c", "-I/usr/dist-build-test/include", "-o", "a.o"]
        result = devbox.compile(namespace_sandbox, argv, project / "build")
    finally:
        devbox.roots = roots
        devbox.become(before)
    assert (result.error, result.stderr, result.exit_code) == ("", b"", 0)


def test_nothing_of_the_worker_but_its_system_is_seen(
    devbox: DevBox, namespace_sandbox: NamespaceSandbox, project: Path, tmp_path: Path
) -> None:
    secret = write(tmp_path / "secret.h", "#define SECRET 1\n")
    names = [str(secret), "/etc/passwd", "/root/.bashrc", "/proc/1/environ"]
    probes = "".join(f'#if __has_include("{name}")\n#error {name}\n#endif\n' for name in names[:3])
    write(project / "src/spy.c", probes)
    argv = ["gcc", "-c", "../src/spy.c", "-o", "spy.o"]
    result = devbox.compile(namespace_sandbox, argv, project / "build")
    assert (result.error, result.stderr, result.exit_code) == ("", b"", 0)


@pytest.mark.parametrize("driver", ["gcc", "clang"])
def test_diagnostics_are_those_of_the_developer_s_terminal(
    driver: str,
    devbox: DevBox,
    sandbox: Sandbox,
    project: Path,
    require_tool: Callable[[str], str],
) -> None:
    require_tool(driver)
    argv = [driver, "-g", "-Wall", "-c", "../src/warn.c", "-o", "warn.o"]
    env = {"TERM": "xterm-256color"}
    here = {"PATH": SEARCH_PATH, "PWD": str(project / "build"), **env}
    local = Screen((50, 24)).run(argv, project / "build", here)
    job = devbox.job(argv, project / "build", env)
    job = msgspec.structs.replace(job, terminal=Terminal(Window(50, 24), Window(50, 24)))
    cancellation = Cancellation()
    result = finished(devbox.runner(sandbox).run(job, devbox.tree, cancellation), cancellation)
    cancellation.close()
    assert result is not None
    assert b"\x1b[" in result.stderr
    assert result.stderr == local.stderr.replace(b"\r\n", b"\n")
    written = remote_outcome(result).files[os.fsencode(project / "build/warn.o")]
    assert written == (project / "build/warn.o").read_bytes()


def test_an_output_may_go_to_the_directory_of_temporary_files(
    devbox: DevBox, namespace_sandbox: NamespaceSandbox, project: Path
) -> None:
    name = tempfile.gettempdir() + f"/dist_build_test_{os.getpid()}.o"
    argv = ["gcc", "-g", "-c", "../src/unit.c", "-I../inc", "-o", name]
    subprocess.run(argv, cwd=project / "build", check=True)
    local = Path(name).read_bytes()
    os.unlink(name)
    result = devbox.compile(namespace_sandbox, argv, project / "build")
    assert remote_outcome(result).files == {os.fsencode(name): local}


@pytest.mark.parametrize(
    "name", ["/usr/bin/gcc", "/usr/bin/cc", VERSIONED, os.path.realpath("/usr/bin/clang")]
)
def test_the_compiler_may_be_named_in_any_way(
    name: str, devbox: DevBox, sandbox: Sandbox, project: Path, require_tool: Callable[[str], str]
) -> None:
    require_tool(name)
    argv = [name, "-Wall", "-c", "../src/warn.c", "-o", "warn.o"]
    assert_equal_to_local(devbox, sandbox, argv, project / "build")


def test_a_symlinked_working_directory_keeps_its_name(
    devbox: DevBox, namespace_sandbox: NamespaceSandbox, project: Path
) -> None:
    (project / "link").symlink_to("src")
    devbox.mirror(project)
    argv = ["gcc", "-g", "-c", "unit.c", "-I../inc", "-o", "../build/unit.o"]
    local = local_outcome(argv, project / "link", project)
    result = devbox.compile(namespace_sandbox, argv, project / "link")
    assert remote_outcome(result) == local
    assert os.fsencode(project / "link") in local.files[os.fsencode(project / "build/unit.o")]


def test_many_jobs_at_once_give_the_same_as_one(
    devbox: DevBox, sandbox: Sandbox, project: Path
) -> None:
    argv = ["gcc", "-g", "-c", "../src/unit.c", "-I../inc", "-o", "unit.o", "-MD"]
    local = local_outcome(argv, project / "build", project)
    job, runner = devbox.job(argv, project / "build"), devbox.runner(sandbox)

    def one(_: int) -> Outcome:
        cancellation = Cancellation()
        try:
            result = finished(runner.run(job, devbox.tree, cancellation), cancellation)
        finally:
            cancellation.close()
        assert result is not None
        return remote_outcome(result)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(one, range(12))) == [local] * 12


@pytest.mark.in_turn("sandbox", "driver", "text")
@pytest.mark.parametrize("driver", ["gcc", "clang"])
@pytest.mark.parametrize("text", ["out of memory", "cc1: No space left on device", '"as: /x"'])
def test_an_error_that_speaks_of_trouble_is_a_verdict(
    text: str,
    driver: str,
    devbox: DevBox,
    sandbox: Sandbox,
    project: Path,
    require_tool: Callable[[str], str],
) -> None:
    require_tool(driver)
    write(project / "src/says.c", f"#error {text}\n")
    argv = [driver, "-c", "../src/says.c", "-o", "says.o"]
    assert_equal_to_local(devbox, sandbox, argv, project / "build")


@pytest.mark.usefixtures("namespace_sandbox")
def test_a_killed_compiler_is_no_verdict(
    devbox: DevBox, project: Path, require_tool: Callable[[str], str]
) -> None:
    """The driver turns the death of its cc1 into an exit code of 1."""
    argv = ["gcc", "-c", "../src/unit.c", "-I../inc", "-o", "unit.o"]
    job = devbox.job(argv, project / "build")

    class Starved(NamespaceSandbox):
        def prepare(self, task: SandboxTask) -> Execution:
            execution = super().prepare(task)
            words = execution.argv
            at = words.index(b"--")
            script = b'ulimit -v 20000; exec "$@"'
            words[at + 1 : at + 1] = [b"/bin/sh", b"-c", script, b"sh"]
            return execution

    cancellation = Cancellation()
    runner = devbox.runner(Starved(require_tool("bwrap"), SEARCH_PATH))
    result = finished(runner.run(job, devbox.tree, cancellation), cancellation)
    cancellation.close()
    assert result is not None
    assert result.error == "internal compiler error"
    assert result.crashed


def test_a_sandbox_that_fails_is_no_verdict(devbox: DevBox, project: Path) -> None:
    argv = ["gcc", "-c", "../src/unit.c", "-I../inc", "-o", "unit.o"]
    result = devbox.compile(NamespaceSandbox("/bin/false", SEARCH_PATH), argv, project / "build")
    assert result.error.startswith("sandbox failed")


def test_what_a_replaced_compiler_left_is_no_verdict(
    devbox: DevBox, sandbox: Sandbox, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one may have come after the worker had said which it has."""
    argv = ["gcc", "-c", "../src/unit.c", "-I../inc", "-o", "unit.o"]
    find = devbox.compilers.find

    def older(identity: str, name: str) -> InstalledDriver | None:
        found = find(identity, name)
        assert found is not None
        states = (None, *found.identity.states[1:])
        return InstalledDriver(found.path, msgspec.structs.replace(found.identity, states=states))

    monkeypatch.setattr(devbox.compilers, "find", older)
    result = devbox.compile(sandbox, argv, project / "build")
    assert result.error.endswith("was replaced by another compiler")
    monkeypatch.undo()
    assert devbox.compile(sandbox, argv, project / "build").error == ""


def test_a_job_directory_is_used_again_only_after_a_clean_end(
    devbox: DevBox, sandbox: Sandbox, project: Path
) -> None:
    used: list[bytes] = []

    class Watched:
        namespaces = sandbox.namespaces

        def prepare(self, task):
            assert [p for p in Path(os.fsdecode(task.directory)).rglob("*") if p.is_file()] == []
            used.append(task.directory)
            return sandbox.prepare(task)

    runner = devbox.runner(Watched())
    for source in ("unit", "unit", "bad", "unit", "unit"):
        argv = ["gcc", "-c", f"../src/{source}.c", "-I../inc", "-o", "o.o", "-MD"]
        cancellation = Cancellation()
        job = devbox.job(argv, project / "build")
        result = finished(runner.run(job, devbox.tree, cancellation), cancellation)
        cancellation.close()
        assert result is not None
        assert (result.error, result.exit_code) == ("", int(source == "bad"))
    first, second, third, fourth, fifth = used
    assert first == second == third
    assert third != fourth == fifth
    assert not os.path.exists(first)


class Wrapped:
    """A sandbox whose answers are changed."""

    def __init__(
        self, sandbox: Sandbox, change: Callable[[CompilerResult], CompilerResult]
    ) -> None:
        self.namespaces = sandbox.namespaces
        self._sandbox, self._change = sandbox, change

    def prepare(self, task):
        execution = self._sandbox.prepare(task)
        change = self._change

        class Changed:
            argv, cwd, env = execution.argv, execution.cwd, execution.env
            reach = execution.reach

            is_of_task = execution.is_of_task

            def answer(self, completed, opened=()):
                return change(execution.answer(completed, opened))

        return Changed()


def _with(*names: str, size: int = 0) -> Callable[[CompilerResult], CompilerResult]:
    """More files beside the object, one of them of some size."""

    def change(answer: CompilerResult) -> CompilerResult:
        [made] = answer.written
        place = made.path.rpartition(b"/")[0]
        files = [Written(place + b"/" + os.fsencode(name), 0o644, bytes(size)) for name in names]
        return msgspec.structs.replace(answer, written=(made, *files))

    return change


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (_with("unit.py"), "wrote .*/build/unit.py, which its command does not say"),
        (_with("../x"), "which its command does not say"),
        (_with("unit.d", size=70_000_000), "wrote 7.* bytes, packed in"),
        (lambda answer: msgspec.structs.replace(answer, exit_code=256), "ended with 256"),
        (lambda answer: msgspec.structs.replace(answer, exit_code=-9), "ended with -9"),
        (lambda answer: msgspec.structs.replace(answer, stderr=bytes(2**26 + 1)), "too much"),
    ],
)
def test_what_the_syncer_would_not_take_is_no_verdict(
    devbox: DevBox,
    sandbox: Sandbox,
    project: Path,
    change: Callable[[CompilerResult], CompilerResult],
    error: str,
) -> None:
    """A compiler newer than our tables, say; the worker is not to look like a hostile one."""
    argv = ["gcc", "-c", "../src/unit.c", "-I../inc", "-o", "unit.o"]
    if "packed" in error:
        argv += ["-MD", "-MF", "unit.d", "-MT", "x"]

        def without_old(
            answer: CompilerResult, change: Callable[[CompilerResult], CompilerResult] = change
        ) -> CompilerResult:
            kept = tuple(file for file in answer.written if file.path.endswith(b".o"))
            return change(msgspec.structs.replace(answer, written=kept))

        change = without_old
    result = devbox.compile(Wrapped(sandbox, change), argv, project / "build")
    assert re.search(error, result.error), result.error
