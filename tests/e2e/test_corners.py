"""Where a mirror of directories is not enough, or a command is odd: still the local result."""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, Done, run_here, running, wrapper_command
from tests.support.objects import assert_same, left_by
from tests.support.tools import absent, name_dump, need

ARGV = ["gcc", "-g", "-MD", "-c", "a.c", "-o", "a.o"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "p"
    root.mkdir()
    (root / "a.c").write_text("int a;\n")
    return root


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory, certs_dir: Path) -> Iterator[Cluster]:
    """More workers without namespaces than with them."""
    need("bwrap")
    workers = [{"sandbox": kind} for kind in ("plain", "plain", "namespace")]
    with running(Cluster(tmp_path_factory.mktemp("mixed"), certs_dir, workers)) as started:
        yield started


@pytest.fixture(scope="module")
def all_mirrored(tmp_path_factory: pytest.TempPathFactory, certs_dir: Path) -> Iterator[Cluster]:
    """A farm for search directories such as / and /usr: once mirrored, each further namespace
    has hundreds of mounts, which takes longer than most compiles."""
    started = Cluster(tmp_path_factory.mktemp("all mirrored"), certs_dir, [{"num_cores": 4}])
    with running(started):
        yield started


def write(root: Path, **files: str) -> None:
    """Files by name: "__" stands for a slash, "_h" and "_c" for the suffix."""
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_h", ".h").replace("_c", ".c")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def assert_remote(cluster: Cluster, argv: list[str], project: Path, **more) -> None:
    before = cluster.jobs()
    assert_same(cluster, argv, project, **more)
    after = cluster.jobs()
    assert (after["done"] - before["done"], after["local"]) == (1, before["local"])


@pytest.mark.parametrize(
    ("compiler", "option", "name"),
    [
        ("gcc", "-save-temps", "a.s"),
        ("gcc", "-save-temps=obj", "a.i"),
        ("gcc", "-fstack-usage", "a.su"),
        ("gcc", "-gsplit-dwarf", "a.dwo"),
        ("gcc", "-fdump-tree-original", "DUMP"),
        ("clang", "-save-temps", "a.i"),
        ("clang", "--coverage", "a.gcno"),
        ("clang", "-gsplit-dwarf", "a.dwo"),
    ],
)
def test_a_link_where_a_by_product_goes(
    cluster: Cluster, project: Path, compiler: str, option: str, name: str
) -> None:
    need(compiler)
    write(project, a_c="int f(int a) { return a + 1; }\n", there="")
    (project / name_dump(name)).symlink_to("there")
    argv = [compiler, "-g", option, "-c", "a.c", "-o", "a.o"]
    written = assert_same(cluster, argv, project).files
    # clang writes temporary files and renames them, but for what its assembler and profiler write.
    assert "there" in written or name == "a.i"


@pytest.mark.parametrize("text", ["old", ""], ids=["full", "empty"])
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_old_outputs_keep_what_the_compiler_leaves_them(
    cluster: Cluster, project: Path, compiler: str, text: str
) -> None:
    need("bwrap")  # for the by-products
    need(compiler)
    write(project, a_c="int f(int a) { return a + 1; }\n")
    argv = [compiler, *"-g -gsplit-dwarf -fstack-usage -MD -c a.c -o a.o".split()]

    def left(run: Callable[[list[str], Path], Done]) -> dict[str, tuple[int, int, bytes]]:
        for name in ("a.o", "a.d", "a.su", "a.dwo"):
            for old in (project / name, project / f"{name}, again"):
                old.unlink(missing_ok=True)
            (project / name).write_text(text)
            (project / name).chmod(0o600)
            os.link(project / name, project / f"{name}, again")
        assert run(argv, project).exit_code == 0
        return {
            path.name: (path.stat().st_mode, path.stat().st_nlink, path.read_bytes())
            for path in project.iterdir()
        }

    before = cluster.jobs()["done"]
    assert left(cluster.run) == left(run_here)
    assert cluster.jobs()["done"] == before + 1


def test_a_name_with_a_newline_is_left_to_the_compiler(cluster: Cluster, project: Path) -> None:
    write(project, a_c='#include "h.h"\n', h_h="")
    odd = project / "a\nb"
    shutil.copytree(project, odd)
    shutil.copy(project / "a.c", project / "a\nb.c")
    before = cluster.jobs()
    for argv in (["-c", "a\nb.c", "-MD"], ["-c", "-Ia\nb", "a.c"]):
        assert_same(cluster, ["gcc", *argv], project)
    assert_same(cluster, ["gcc", "-c", "a.c", "-MD"], odd)
    after = cluster.jobs()
    assert after["local"]["special_input"] - before["local"].get("special_input", 0) == 3
    assert after["retried"] == before["retried"]


def test_a_device_among_the_inputs_is_left_to_the_compiler(cluster: Cluster, project: Path) -> None:
    for option in ("-include", "-imacros"):
        assert_same(cluster, ["gcc", option, "/dev/null", "-c", "a.c", "-o", "a.o"], project)
    roots = cluster.syncer.status()["mirror"]["roots"]
    of_system = [root for root in roots if root.startswith(("/proc", "/dev", "/sys"))]
    assert not [root for root in of_system if not project.is_relative_to(root)]
    assert_remote(cluster, ARGV, project)


@pytest.mark.parametrize("words", ["-include <(echo int z;)", "-imacros <(echo)", "@<(echo -g)"])
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_a_file_that_only_the_compiler_has_open(
    cluster: Cluster, project: Path, compiler: str, words: str
) -> None:
    need(compiler)
    line = ["bash", "-c", f'exec "$@" -c a.c -o a.o {words}', "bash"]
    local = left_by(lambda: run_here([*line, compiler], project), project)
    env = cluster.environment(DIST_BUILD_FALLBACK="0")
    wrapped = [*line, *wrapper_command(), compiler]
    assert left_by(lambda: run_here(wrapped, project, **env), project) == local


def test_a_compile_in_the_root_directory(all_mirrored: Cluster, project: Path) -> None:
    need("bwrap")  # such a command needs the original paths
    source, output = project / "a.c", project / "a.o"
    argv = ["gcc", "-I/", "-g", "-c", str(source)[1:], "-o", str(output)]
    assert_same(all_mirrored, argv, project, cwd=Path("/"))
    assert_remote(all_mirrored, ARGV, project)


def test_a_directory_replaced_by_a_link(cluster: Cluster, tmp_path: Path) -> None:
    for n, name in enumerate(("t1", "t2")):
        write(
            tmp_path / "w" / name, inc__v_h=f"#define V {n}\n", a_c="#include <v.h>\nint v = V;\n"
        )
    first = tmp_path / "w" / "t1"
    argv = ["gcc", "-Iinc", "-c", "a.c", "-o", "a.o"]
    assert_remote(cluster, argv, first)
    shutil.rmtree(first)
    first.symlink_to("t2")
    assert_remote(cluster, argv, first)


def test_a_file_from_the_far_future(cluster: Cluster, project: Path) -> None:
    write(project, a_c='#include "h.h"\nint a = H;\n', h_h="#define H 1\n")
    os.utime(project / "h.h", (10413792000, 10413792000))
    assert_remote(cluster, ARGV, project)


@pytest.mark.parametrize(
    "text",
    [
        '#if __has_include("../cfg/l.h")\nint yes;\n#endif\n',
        '#include "../cfg/l.h"\n',
        '#include "../top.h"\n',
        '#include "up.h"\n',
        '#if __has_include("{root}/cfg/l.h")\nint yes;\n#endif\n',
        '#if __has_include("node_modules/n.h")\nint yes;\n#endif\n',
        '#if __has_include("made.o") && __has_include("x.tmp")\nint yes;\n#endif\n',
    ],
)
def test_what_lies_outside_the_mirrored_directories(
    cluster: Cluster, tmp_path: Path, text: str
) -> None:
    root = tmp_path / "w"
    write(root, cfg__l_h="int right;\n", lib__cfg__l_h="int wrong;\n", lib__inc__x_h="", top_h="")
    write(root, src__up_h='#include "../cfg/l.h"\n', src__node_modules__n_h="")
    write(root, src__a_c=text.replace("{root}", str(root)), build__x_h="")
    (root / "src" / "made.o").touch()
    (root / "src" / "x.tmp").touch()
    argv = ["gcc", "-g", "-MD", "-I../lib/inc", "-c", "../src/a.c", "-o", "a.o"]
    assert_remote(cluster, argv, root / "build")
    (root / "cfg" / "l.h").unlink()
    assert_same(cluster, argv, root / "build")


@pytest.mark.parametrize("in_header", [False, True])
@pytest.mark.parametrize("age", [-100, 100])
def test_a_dependency_on_a_file_that_is_not_mirrored(
    cluster: Cluster, project: Path, in_header: bool, age: int
) -> None:
    """gcc warns if the named file is newer."""
    pragma = '#pragma GCC dependency "later.c" made from it\n'
    (project / "later.c").write_text("int later;\n")
    (project / "asks.h").write_text(pragma if in_header else "int nothing;\n")
    (project / "x.c").write_text('#include "asks.h"\n' + ("" if in_header else pragma))
    now = time.time()
    for name, moment in (("asks.h", now), ("x.c", now), ("later.c", now + age)):
        os.utime(project / name, (moment, moment))
    argv = ["gcc", "-c", "x.c", "-o", "x.o"]
    assert_same(cluster, argv, project)
    assert_remote(cluster, argv, project)


@pytest.mark.in_turn("compiler", "how", of=3)
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize(
    ("how", "option"),
    [
        ("option", '-DCFG="{root}/cfg/l.h"'),
        ("option", '-DCFG="../cfg/l.h"'),
        ("option", "-DPLAIN={root}/cfg/l.h"),
        ("header", ""),
        ("wrapped", ""),
    ],
)
def test_has_include_of_what_a_macro_names(
    cluster: Cluster, tmp_path: Path, compiler: str, how: str, option: str
) -> None:
    if "{root}" in option:
        need("bwrap")
    root = tmp_path / "w"
    ask = "#if __has_include(CFG)\n#include CFG\n#else\nint wrong;\n#endif\n"
    write(root, cfg__l_h="int right;\n", src__a_c='#include "ask.h"\nint a;\n')
    strings = "#define S_(x) #x\n#define S(x) S_(x)\n"
    before = {
        "option": f"#ifdef PLAIN\n{strings}#define CFG S(PLAIN)\n#endif\n",
        "header": '#define CFG "../cfg/l.h"\n',
        "wrapped": '#define HAS(x) __has_include(x)\n#define CFG "../cfg/l.h"\n',
    }[how]
    asks = ask.replace("__has_include", "HAS") if how == "wrapped" else ask
    write(root, src__ask_h=before + asks)
    options = [option.replace("{root}", str(root))] if option else []
    argv = [compiler, "-g", "-MD", *options, "-c", "a.c", "-o", "a.o"]
    assert_remote(cluster, argv, root / "src")
    write(root, src__a_c=before + ask + "int b;\n")
    assert_remote(cluster, argv, root / "src")
    (root / "cfg" / "l.h").unlink()
    assert_same(cluster, argv, root / "src")
    write(root, cfg__l_h="int right_again;\n")
    assert_remote(cluster, argv, root / "src")


def test_has_include_below_a_directory_that_is_mirrored_in_part(
    all_mirrored: Cluster, tmp_path: Path
) -> None:
    """``-I/`` is as wide as directories get; whatever is below it may be asked for."""
    root = tmp_path / "w"
    name = f"{root}/far/l.h".lstrip("/")
    text = f"#if __has_include(<{name}>)\n#include <{name}>\n#endif\nint a;\n"
    write(root, far__l_h="int right;\n", src__a_c=text, src__b_c='#include "h.h"\n', src__h_h=text)
    for source in ("a.c", "b.c"):
        argv = ["gcc", "-g", "-MD", "-I/", "-c", source, "-o", "o.o"]
        assert_remote(all_mirrored, argv, root / "src")
    (root / "far" / "l.h").unlink()
    assert_same(all_mirrored, argv, root / "src")


@pytest.mark.in_turn("compiler", "text", of=3)
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize(
    "text",
    [
        '#if __has_include("../../cfg/l.h")\n#include "../../cfg/l.h"\n'
        '#else\n#include "nowhere.h"\n#endif\n',
        '#if !__has_include("../../cfg/l.h")\n#error none\n#endif\n',
        '#if __has_include("x.tmp")\nint yes;\n#else\n#include "nowhere.h"\n#endif\n',
    ],
)
def test_a_compile_that_gave_up_over_has_include_is_no_verdict(
    cluster: Cluster, tmp_path: Path, compiler: str, text: str
) -> None:
    root = tmp_path / "w" / "p"
    write(root.parent, cfg__l_h="int cfg;\n")
    write(root, src__a_c='#include "a.h"\n', inc__a_h=text)
    (root / "inc" / "x.tmp").touch()
    argv = [compiler, "-g", "-Wfatal-errors", "-Iinc", "-c", "src/a.c", "-o", "a.o"]
    assert_remote(cluster, argv, root)


@pytest.mark.parametrize(
    "argv",
    [
        ["gcc", "-c", "-include", "b.h", "src/a.c", "-o", "a.o"],
        ["gcc", "-c", "-Iinc", "src/x.c", "-o", "a.o"],
        ["gcc", "-c", "-Ia", "-Ib", "src/next.c", "-o", "a.o"],
        ["gcc", "-c", "-Wfatal-errors", "src/line.c", "-o", "a.o"],
        ["clang", "-c", "-include", "b.h", "src/a.c", "-o", "a.o"],
    ],
)
def test_a_file_that_is_where_nobody_looks_is_missing(
    cluster: Cluster, project: Path, argv: list[str]
) -> None:
    """What the local compiler says, and not a word more."""
    write(project, src__a_c="int a;\n", src__b_h="int b;\n", src__x_c='#include "x.h"\n')
    write(project, inc__x_h='#include "b.h"\n', src__next_c="#include <s.h>\n")
    write(project, a__s_h="#include_next <s.h>\n", b__s_h="#include_next <s.h>\n")
    write(project, src__line_c='#line 1 "h.h"\nint a = b;\n', h_h='#include "x.h"\n')
    assert_same(cluster, argv, project)


@pytest.mark.parametrize(("compiler", "reason"), [("gcc", ""), ("clang", "hard_links")])
@pytest.mark.parametrize("how", ["#pragma once\nint z = 1;\n", "int z;\n"])
def test_headers_that_are_one_file(
    cluster: Cluster, project: Path, compiler: str, reason: str, how: str
) -> None:
    write(project, a_h=how, m_c='#include "a.h"\n#import "b.h"\n')
    os.link(project / "a.h", project / "b.h")
    before = cluster.jobs()["local"]
    assert_same(cluster, [compiler, "-g", "-w", "-c", "m.c", "-o", "m.o"], project)
    after = cluster.jobs()["local"]
    assert {r for r in after if after[r] != before.get(r)} == ({reason} if reason else set())
    write(project, one_c='#include "a.h"\n')
    assert_remote(cluster, [compiler, "-g", "-c", "one.c", "-o", "m.o"], project)


@pytest.mark.parametrize("wide", ["/usr", "/usr/lib", "/usr/share", "/usr/bin", "/etc", "/tmp"])
def test_a_wide_search_directory_of_the_system(
    all_mirrored: Cluster, project: Path, wide: str
) -> None:
    write(project, a_c="#include <stdio.h>\nint a = EOF;\n")
    assert_remote(all_mirrored, ["gcc", f"-I{wide}", *ARGV[1:]], project)


@pytest.mark.parametrize(
    "text",
    [
        'asm(".include \\"m.s\\"");\n',
        'asm(".INCBIN \\"m.s\\"");\n',
        'asm(".IncBin \\"m.s\\"");\n',
        '#include "in.h"\n',
    ],
)
def test_files_that_the_assembler_reads(cluster: Cluster, project: Path, text: str) -> None:
    write(project, a_c=text, in_h='asm(".include \\"m.s\\"");\n')
    (project / "m.s").write_text(".globl m\nm: .long 7\n")
    assert_same(cluster, ["gcc", "-c", "a.c", "-o", "a.o"], project)


def test_a_precompiled_header_in_another_search_directory(cluster: Cluster, project: Path) -> None:
    write(project, p__pch_h="int pre;\n", s__pch_h="int plain;\n", a_c='#include "pch.h"\nint a;\n')
    words = ["gcc", "-g", "p/pch.h", "-o", "p/pch.h.gch"]
    subprocess.run(words, cwd=project, check=True)
    (project / "p" / "pch.h").unlink()
    assert_same(cluster, ["gcc", "-g", "-Ip", "-Is", "-c", "a.c", "-o", "a.o"], project)


@pytest.mark.parametrize("option", ["-gdwarf-2", "-gdwarf-4", "-g"])
def test_an_absolute_source_in_an_old_line_table(
    mixed: Cluster, project: Path, option: str
) -> None:
    argv = ["gcc", option, "-c", f"{project}/a.c", "-o", "a.o"]
    assert_remote(mixed, argv, project)


@pytest.mark.parametrize("place", ["", "quoted/", "inc/"])
def test_a_header_with_the_name_of_the_implicit_one(
    mixed: Cluster, project: Path, place: str
) -> None:
    write(project, quoted__a_h="", inc__a_h="")
    (project / place / "stdc-predef.h").write_text("int own;\n")
    argv = ["gcc", "-iquote", "quoted", "-Iinc", *ARGV[1:]]
    assert_remote(mixed, argv, project)


@contextlib.contextmanager
def mounted(*words: str) -> Iterator[None]:
    done = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        absent(f"mount: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", words[-1]], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_something_mounted_below_a_search_directory(cluster: Cluster, project: Path) -> None:
    write(project, inc__sub__h_h="#define H 1\n", other__h_h="#define H 2\n")
    write(project, a_c="#include <sub/h.h>\nint h = H;\n")
    argv = ["gcc", "-Iinc", "-c", "a.c", "-o", "a.o"]
    assert_remote(cluster, argv, project)
    with mounted("--bind", str(project / "other"), str(project / "inc" / "sub")):
        assert_remote(cluster, argv, project)
    assert_remote(cluster, argv, project)


def test_a_compiler_named_by_the_path_of_a_wrapper(cluster: Cluster, project: Path) -> None:
    need("ccache")
    (project / "gcc").symlink_to(shutil.which("ccache") or "")
    done = cluster.run([str(project / "gcc"), *ARGV[1:]], project, DIST_BUILD_FALLBACK="0")
    assert (done.exit_code, (project / "a.o").exists()) == (0, True)


def test_clang_that_refuses_its_command_keeps_old_outputs(cluster: Cluster, project: Path) -> None:
    need("clang")
    (project / "a.o").write_text("old")
    assert_same(cluster, ["clang", "-fbogus", "-c", "a.c", "-o", "a.o"], project)
    assert (project / "a.o").read_text() == "old"


@pytest.mark.in_turn("output")
@pytest.mark.parametrize("output", ["lnk/o.o", "build/../lnk/../build/o.o", "build//o.o"])
def test_a_dependency_file_of_a_failed_compile(
    cluster: Cluster, project: Path, output: str
) -> None:
    need("clang")
    write(project, a_c='#include "h.h"\nint a = ;\n', h_h="", build__o_h="")
    (project / "lnk").symlink_to("build")
    argv = ["clang", "-MMD", "-c", "a.c", "-o", output]
    assert "build/o.d" in assert_same(cluster, argv, project).files
    (project / "build" / "o.d").write_text("old")
    (project / "build" / "o.o").write_text("old")
    assert_same(cluster, argv, project)


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_a_header_that_only_quotes_would_find(
    cluster: Cluster, project: Path, compiler: str
) -> None:
    need(compiler)
    write(project, a_c="#include <beside.h>\n", beside_h="", b_c="#include <q.h>\n", quoted__q_h="")
    assert_same(cluster, [compiler, "-iquote", "quoted", "-c", "a.c"], project)
    assert_same(cluster, [compiler, "-iquote", "quoted", "-c", "b.c"], project)
    assert_remote(cluster, [compiler, "-iquote", "quoted", "-I.", "-c", "a.c"], project)
    assert_remote(cluster, [compiler, "-iquote", "quoted", "-c", "b.c"], project, CPATH="quoted")


@pytest.mark.in_turn("closed", of=3)
@pytest.mark.parametrize("closed", [">&- 2>&-", "2>&-", ">&-"])
def test_closed_descriptors(cluster: Cluster, project: Path, closed: str) -> None:
    words = " ".join(f"'{word}'" for word in [*wrapper_command(), *ARGV])
    done = subprocess.run(
        ["sh", "-c", f"{words} {closed}"], cwd=project, env=cluster.environment(), check=False
    )
    assert done.returncode == 0
    assert (project / "a.o").exists()
