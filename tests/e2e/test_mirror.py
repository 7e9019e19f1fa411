"""What reaches the workers, how, and what does not have to travel again."""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster import Cluster, run_here, wait_until
from tests.support.objects import assert_same, left_by
from tests.support.tools import need

FILES = 8000
SYSTEM_HEADER = Path("/usr/include/stdio.h")


def make_cluster(root: Path, certs: Path, *args, **more) -> Iterator[Cluster]:
    started = Cluster(root, certs, *args, **more)
    try:
        yield started.start()
        started.stop()
    finally:
        started.kill()


running = contextlib.contextmanager(make_cluster)


def mirror(cluster: Cluster) -> dict[str, Any]:
    return dict(cluster.syncer.status()["mirror"])


def everyone_has(cluster: Cluster, generation: int) -> bool:
    client = cluster.syncer.status()["client"]
    clients = [daemon.status()["clients"].get(client, {}) for daemon in cluster.daemons]
    return all(known.get("generation", 0) >= generation for known in clients)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree of 8,000 headers in 80 directories."""
    root = tmp_path_factory.mktemp("large") / "tree"
    for n in range(FILES):
        directory = root / f"d{n % 80:02d}"
        if n < 80:
            directory.mkdir(parents=True)
        (directory / f"h{n}.h").write_text(f"#pragma once\nenum {{ header_{n} = {n} }};\n")
    return root


@pytest.fixture(scope="module")
def farm(
    tmp_path_factory: pytest.TempPathFactory, certs_dir: Path, tree: Path
) -> Iterator[Cluster]:
    yield from make_cluster(tmp_path_factory.mktemp("farm"), certs_dir, dev={"dirs": [str(tree)]})


def test_dirs_are_on_the_workers_before_any_compile(farm: Cluster) -> None:
    installed = farm.run(["install"], farm.root)
    assert installed.exit_code == 0, installed
    assert mirror(farm)["files"] == FILES
    assert [d["files"] for p in farm.daemons for d in p.status()["clients"].values()] == [FILES] * 2


def test_one_edit_reaches_both_workers_without_a_rescan(farm: Cluster, tree: Path) -> None:
    farm.run(["install"], farm.root)
    before = mirror(farm)
    (tree / "d07" / "h7.h").write_text("#pragma once\nenum { header_7 = -7 };\n")
    wait_until(lambda: mirror(farm)["generation"] > before["generation"], "the edit is seen")
    wait_until(lambda: everyone_has(farm, before["generation"] + 1), "both workers have it")
    after = mirror(farm)
    grown = {k: after[k] - before[k] for k in ("rescans", "listed_directories", "sent_entries")}
    assert grown == {"rescans": 0, "listed_directories": 0, "sent_entries": 2}
    assert after["hashed_bytes"] - before["hashed_bytes"] < 200
    source = tree.parent / "use.c"
    source.write_text('#include "d07/h7.h"\nint seven = header_7;\n')
    assert_same(farm, ["gcc", "-g", f"-I{tree}", "-c", "use.c", "-o", "use.o"], tree.parent)


def test_a_restarted_syncer_sends_and_hashes_nothing_again(
    tmp_path: Path, certs_dir: Path, tree: Path
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "part.c").write_text("int part;\n")
    # As the kernel's headers are on Debian 13: a link to a file that nothing else leads to.
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "linked.h").write_text(f"int linked;\n/* {'x' * 3_000_000} */\n")
    (project / "linked.h").symlink_to(tmp_path / "elsewhere" / "linked.h")
    (project / "again.c").write_text(
        '#include <stdio.h>\n#include "part.c"\n#include "linked.h"\nint again;\n'
    )
    argv = ["gcc", f"-I{tree}", "-c", "again.c", "-o", "again.o"]
    with running(tmp_path / "farm", certs_dir, cold=True) as farm:
        assert_same(farm, argv, project)
        wait_until(lambda: everyone_has(farm, mirror(farm)["generation"]), "the workers agree")
        before = mirror(farm)
        farm.syncer.stop()
        farm.syncer.start()
        wait_until(farm.syncer.answers, "the syncer answers again")
        farm.wait_for_workers()
        assert_same(farm, argv, project)
        after = mirror(farm)
        unsent = {key: after[key] for key in ("sent_blobs", "sent_bytes", "sent_entries")}
        assert unsent == {"sent_blobs": 0, "sent_bytes": 0, "sent_entries": 0}
        assert (after["files"], after["bytes"]) == (before["files"], before["bytes"])
        # Only what changed too lately for its times to prove anything is read again.
        assert after["hashed_bytes"] < before["hashed_bytes"] / 100


def test_clean_removes_the_sandboxes_and_the_next_compile_fills_them(
    farm: Cluster, tree: Path
) -> None:
    cleaned = farm.run(["clean"], farm.root)
    assert cleaned.exit_code == 0, cleaned
    source = tree.parent / "cleaned.c"
    source.write_text('#include "d01/h1.h"\nint one = header_1;\n')
    assert_same(farm, ["gcc", f"-I{tree}", "-c", "cleaned.c", "-o", "cleaned.o"], tree.parent)


@pytest.mark.in_turn("kind")
@pytest.mark.parametrize("kind", ["namespace", "plain"])
def test_a_worker_that_may_not_reuse_its_own_files_gets_them_all(
    tmp_path: Path, certs_dir: Path, kind: str
) -> None:
    if kind == "namespace":
        need("bwrap")
    only = [{"reuse_own_files": False, "sandbox": kind}]
    with running(tmp_path / "farm", certs_dir, only, cold=True) as farm:
        compile_hello(farm, tmp_path)
        assert mirror(farm)["sent_blobs"] > 0


@pytest.mark.in_turn("kind")
@pytest.mark.parametrize("kind", ["plain", "namespace"])
def test_a_worker_with_another_system_header_gives_the_dev_boxs_result(
    tmp_path: Path, certs_dir: Path, require_tool: Callable[[str], str], kind: str
) -> None:
    """The worker sees its own, edited copy of a system header at the header's path."""
    bwrap = require_tool("bwrap")
    edited = tmp_path / "edited.h"
    edited.write_text(SYSTEM_HEADER.read_text() + "\n#error this is the worker's own header\n")
    started = Cluster(tmp_path / "farm", certs_dir, [{"sandbox": kind}], cold=True)
    view = ["--dev-bind", "/", "/", "--ro-bind", str(edited), str(SYSTEM_HEADER)]
    started.daemons[0].prefix = [bwrap, *view]
    try:
        started.start()
        compile_hello(started, tmp_path)
        assert mirror(started)["sent_blobs"] > 0
        started.stop()
    finally:
        started.kill()


def test_a_file_of_the_workers_own_at_an_absolute_path(tmp_path: Path, certs_dir: Path) -> None:
    bwrap = need("bwrap")
    for name, value in (("lib", 1111), ("other", 2222)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "v.h").write_text(f"#define V {value}\n")
    (tmp_path / "other" / "none.h").touch()
    project = tmp_path / "project"
    project.mkdir()
    (project / "lead.h").write_text(f'#include "{tmp_path}/lib/v.h"\n')
    (project / "header.c").write_text('#include "lead.h"\nint v = V;\n')
    (project / "source.c").write_text(f'#include "{tmp_path}/lib/v.h"\nint v = V;\n')
    (project / "asks.c").write_text(
        f'#if __has_include("{tmp_path}/lib/none.h")\nint yes;\n#endif\nint v;\n'
    )
    workers = [{"sandbox": "plain"}, {"sandbox": "namespace"}]
    started = Cluster(tmp_path / "farm", certs_dir, workers)
    view = ["--dev-bind", "/", "/", "--bind", str(tmp_path / "other"), str(tmp_path / "lib")]
    started.daemons[0].prefix = [bwrap, *view]
    try:
        started.start()
        for name in ("source.c", "asks.c", *["header.c"] * 4):
            assert_same(started, ["gcc", "-MD", "-c", name, "-o", "v.o"], project)
        started.stop()
    finally:
        started.kill()


def compile_hello(farm: Cluster, tmp_path: Path) -> None:
    need("g++")
    project = tmp_path / "project"
    project.mkdir()
    (project / "hello.c").write_text("#include <stdio.h>\nint hello(void) { return EOF; }\n")
    (project / "hello.cpp").write_text("#include <iostream>\nvoid hello() { std::cout << 1; }\n")
    assert_same(farm, ["gcc", "-g", "-MD", "-c", "hello.c", "-o", "hello.o"], project)
    assert_same(farm, ["g++", "-g", "-MD", "-c", "hello.cpp", "-o", "hello.o"], project)
    jobs = farm.jobs()
    assert (jobs["done"], jobs["local"]) == (2, {})


def test_a_withheld_source_that_is_included_is_fetched(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "part.c").write_text("int part = 3;\n")
    (tmp_path / "table.txt").write_text("1, 2, 3\n")
    (tmp_path / "whole.c").write_text('#include "part.c"\nint t[] = {\n#include "table.txt"\n};\n')
    before = cluster.jobs()
    assert_same(cluster, ["gcc", "-g", "-MD", "-c", "whole.c", "-o", "whole.o"], tmp_path)
    after = cluster.jobs()
    assert (after["done"] - before["done"], after["local"]) == (1, before["local"])


@pytest.mark.parametrize("name", ["w.h", "sub/w.h"])
@pytest.mark.parametrize("lead", ["x.c", "lead.h"])
def test_what_a_single_file_of_another_directory_includes_is_found_beside_it_first(
    cluster: Cluster, tmp_path: Path, lead: str, name: str
) -> None:
    project = tmp_path / "project"
    for directory, value in (("other/sub", 1), ("inc/sub", 2), ("project", 0)):
        (tmp_path / directory).mkdir(parents=True)
        if value:
            (tmp_path / directory / "../w.h").write_text(f"#define W {value}\n")
            (tmp_path / directory / "w.h").write_text(f"#define W {value}0\n")
    (tmp_path / "other/v.h").write_text(f'#include "{name}"\nint v = W;\n')
    (project / "x.c").write_text('#include "lead.h"\n')
    (project / lead).write_text(f'#include "{tmp_path}/other/v.h"\n')
    for _ in range(2):
        assert_same(cluster, ["gcc", "-c", f"-I{tmp_path}/inc", "x.c", "-o", "x.o"], project)


@pytest.mark.parametrize(("others", "done"), [(["plain"], 0), (["plain", "namespace"], 2)])
def test_a_file_that_includes_an_absolute_path_needs_a_worker_with_namespaces(
    certs_dir: Path, tmp_path: Path, others: list[str], done: int
) -> None:
    if "namespace" in others:
        need("bwrap")
    project = tmp_path / "project"
    project.mkdir()
    (project / "v.h").write_text("int v = 1;\n")
    (project / "lead.h").write_text(f'#include "{project}/v.h"\n')
    (project / "x.c").write_text('#include "lead.h"\n')
    started = Cluster(tmp_path / "farm", certs_dir, [{"sandbox": kind} for kind in others])
    try:
        started.start()
        argv = ["gcc", "-g", "-MD", "-c", "x.c", "-o", "x.o"]
        local = left_by(lambda: run_here(argv, project), project)
        for _ in range(2):
            ours = left_by(lambda: started.run(argv, project), project)
            assert (ours.exit_code, ours.files) == (0, local.files)
        jobs = started.jobs()
        assert (jobs["done"], jobs["local"].get("no_namespace", 0)) == (done, 2 - done)
    finally:
        started.kill()


def test_a_withheld_source_in_a_system_directory_is_fetched_though_no_list_names_it(
    cluster: Cluster, tmp_path: Path
) -> None:
    (tmp_path / "third").mkdir()
    (tmp_path / "third" / "stb.c").write_text("static int stb(void) { return 3; }\n")
    (tmp_path / "main.c").write_text("#include <stb.c>\nint three(void) { return stb(); }\n")
    options = ["-MMD", "-isystem", "third", "-c", "main.c", "-o", "main.o"]
    for compiler in ("gcc", "g++"):
        before = cluster.jobs()
        assert_same(cluster, [compiler, *options], tmp_path)
        after = cluster.jobs()
        assert (after["done"] - before["done"], after["local"]) == (1, before["local"])


def test_a_search_directory_that_was_moved_behind_its_link_keeps_its_place(
    farm: Cluster, tmp_path: Path
) -> None:
    for name, text in (("p/real/inc", "1111"), ("q/second", "2222")):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "x.h").write_text(f"#define V {text}\n")
    (tmp_path / "p" / "cur").symlink_to("real")
    project = tmp_path / "src"
    project.mkdir()
    (project / "a.c").write_text("#include <x.h>\nint v = V;\n")
    argv = ["gcc", "-I../p/cur/inc", "-I../q/second", "-c", "a.c", "-o", "a.o"]
    assert_same(farm, argv, project)
    (tmp_path / "p" / "real").rename(tmp_path / "p" / "real2")
    (tmp_path / "p" / "cur").unlink()
    (tmp_path / "p" / "cur").symlink_to("real2")
    for _ in range(2):
        assert_same(farm, argv, project)
    (tmp_path / "p" / "cur").unlink()
    (tmp_path / "p" / "real2").rename(tmp_path / "p" / "cur")
    for _ in range(2):
        assert_same(farm, argv, project)


def test_an_include_outside_every_search_directory_is_fetched(
    cluster: Cluster, tmp_path: Path
) -> None:
    far = tmp_path / "far" / "away"
    far.mkdir(parents=True)
    (far / "far.h").write_text("int far_away;\n")
    project = tmp_path / "project"
    project.mkdir()
    (project / "x.c").write_text(f'#include "../far/away/far.h"\n#include "{far}/far.h"\n')
    before = cluster.jobs()
    assert_same(cluster, ["gcc", "-g", "-MD", "-c", "x.c", "-o", "x.o"], project)
    after = cluster.jobs()
    assert (after["done"] - before["done"], after["local"]) == (1, before["local"])


def test_what_a_header_has_the_assembler_read_is_brought(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(b"\x01\x02")
    (tmp_path / "embed.h").write_text('__asm__(".global d\\nd: .incbin \\"data.bin\\"");\n')
    (tmp_path / "x.c").write_text('#include "embed.h"\n')
    before = cluster.jobs()
    for content in (b"\x01\x02", b"\x03"):
        (tmp_path / "data.bin").write_bytes(content)
        assert_same(cluster, ["gcc", "-c", "x.c", "-o", "x.o"], tmp_path)
    after = cluster.jobs()
    assert (after["done"] - before["done"], after["local"]) == (2, before["local"])


@pytest.mark.parametrize("words", [["-include", "pre.h", "-c", "y.c"], ["-c", "x.c"]])
def test_a_precompiled_header_is_made_locally_and_used_by_the_workers(
    cluster: Cluster, tmp_path: Path, words: list[str]
) -> None:
    """A header that has changed since shows what was used: gcc goes on with the precompiled one."""
    need("bwrap")
    (tmp_path / "pre.h").write_text("int from_header = 1;\n")
    (tmp_path / "x.c").write_text('#include "pre.h"\nint x;\n')
    (tmp_path / "y.c").write_text("int y;\n")
    assert cluster.run(["gcc", "-g", "pre.h", "-o", "pre.h.gch"], tmp_path).exit_code == 0
    (tmp_path / "pre.h").write_text("#error not precompiled\n")
    before = cluster.jobs()
    argv = ["gcc", "-g", "-Winvalid-pch", "-Werror", "-MD", *words, "-o", "x.o"]
    assert_same(cluster, argv, tmp_path)
    after = cluster.jobs()
    assert (after["done"] - before["done"], after["local"]) == (1, before["local"])


def test_a_precompiled_header_that_was_made_again(cluster: Cluster, tmp_path: Path) -> None:
    need("bwrap")
    (tmp_path / "x.c").write_text('#include "pre.h"\nint x = N;\n')
    for n in range(3):
        (tmp_path / "pre.h").write_text(f"#define N {n}\n")
        assert cluster.run(["gcc", "pre.h", "-o", "pre.h.gch"], tmp_path).exit_code == 0
        assert_same(cluster, ["gcc", "-c", "x.c", "-o", "x.o"], tmp_path)


def test_an_empty_directory_and_parent_steps_count(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "inc").mkdir()
    (tmp_path / "inc" / "x.h").write_text("int x;\n")
    (tmp_path / "x.c").write_text("#include <x.h>\n")
    options = ["-Wmissing-include-dirs", "-Iempty/../inc", "-Iempty", "-Inowhere"]
    assert_same(cluster, ["gcc", "-g", *options, "-MD", "-c", "x.c", "-o", "x.o"], tmp_path)


def test_identical_files_at_two_paths_stay_two_files(cluster: Cluster, tmp_path: Path) -> None:
    """gcc's #pragma once goes by content and time, clang's by inode."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "same.h").write_text("#pragma once\nextern int COUNT;\n")
    shutil.copystat(tmp_path / "a" / "same.h", tmp_path / "b" / "same.h")
    (tmp_path / "x.c").write_text(
        '#define COUNT one\n#include "a/same.h"\n#undef COUNT\n#define COUNT two\n'
        '#include "b/same.h"\nint *p = &one;\n'
    )
    for compiler in ("gcc", "clang"):
        if shutil.which(compiler):
            assert_same(cluster, [compiler, "-g", "-MD", "-c", "x.c", "-o", "x.o"], tmp_path)
