"""What a worker lends its compilers never stands before what the dev box has there."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Cluster
from tests.support.objects import assert_same
from tests.support.tools import need


@pytest.fixture
def worker(tmp_path: Path, certs_dir: Path) -> Iterator[Cluster]:
    """A syncer with one worker that has a mirror of its own, not started."""
    need("bwrap")
    made = Cluster(tmp_path / "farm", certs_dir, [{"sandbox": "namespace"}])
    yield made
    made.kill()


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    """A compiler that is installed in a directory of its own, with a header of its own."""
    clang = os.path.realpath(need("clang"))
    kit = tmp_path / "opt" / "kit 1"
    (kit / "bin").mkdir(parents=True)
    shutil.copy(clang, kit / "bin" / "clang-99")
    (kit / "bin" / "clang").symlink_to("clang-99")
    for name in ("include", "src"):
        (kit / name).mkdir()
    (kit / "include" / "kit.h").write_text("#define VERSION 1\n")
    return kit


def test_a_compilers_own_directory_has_the_dev_boxs_headers(
    worker: Cluster, kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker has another version of the kit's headers than the dev box."""
    old = tmp_path / "old"
    shutil.copytree(kit, old, symlinks=True)
    (kit / "include" / "kit.h").write_text("#define VERSION 2\n")
    (kit / "include" / "new.h").touch()
    (kit / "lib" / "more").mkdir(parents=True)
    (kit / "lib" / "more" / "more.h").write_text("#define MORE 2\n")
    (old / "lib" / "more").mkdir(parents=True)
    (old / "lib" / "more" / "more.h").write_text("#define MORE 1\n")
    source = (
        "#include <kit.h>\n#include <more.h>\n#if __has_include(<new.h>)\n"
        "int v = VERSION, m = MORE;\n#endif\n"
    )
    (kit / "src" / "v.c").write_text(source)
    project = tmp_path / "project"
    project.mkdir()
    (project / "v.c").write_text(source)
    monkeypatch.setenv("PATH", f"{kit / 'bin'}:{os.environ['PATH']}")
    worker.daemons[0].prefix = ["bwrap", "--dev-bind", "/", "/", "--bind", str(old), str(kit)]
    worker.start()
    clang = str(kit / "bin" / "clang")
    options = [f"-I{kit}/include", f"-isystem{kit}/lib/more", "-g", "-MD", "-c", "v.c"]
    assert_same(worker, [clang, *options], project)
    inside = ["-Iinclude", "-Ilib/more", "-g", "-MD", "-c", "src/v.c", "-o", "v.o"]
    assert_same(worker, [clang, *inside], kit)
    assert_same(worker, ["clang", *inside], kit)
    # Now the whole of it is mirrored, its programs as well.
    assert_same(worker, [clang, f"-I{kit}", *options], project)
    assert_same(worker, [clang, *options], project)
    assert worker.jobs()["local"] == {}


def _programs(gcc: str) -> list[str]:
    asked = [gcc, "-print-prog-name=cc1"]
    cc1 = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    llvm = os.path.dirname(os.path.realpath(need("clang")))
    libraries = os.path.dirname(os.path.realpath("/lib64/ld-linux-x86-64.so.2"))
    found = [os.path.dirname(cc1), llvm, os.path.dirname(llvm), libraries]
    return [path for path in found if os.path.isdir(path)]


def test_a_search_directory_with_the_compilers_programs_breaks_no_later_compile(
    worker: Cluster, tmp_path: Path, require_tool: Callable[[str], str]
) -> None:
    gcc = require_tool("gcc")
    project = tmp_path / "project"
    project.mkdir()
    (project / "x.c").write_text("#include <stdio.h>\nint x = EOF;\n")
    worker.start()
    for directory in _programs(gcc):
        for compiler in ("gcc", "clang"):
            assert_same(worker, [compiler, f"-I{directory}", "-g", "-c", "x.c"], project)
        for compiler in ("gcc", "g++", "clang", "clang++"):
            assert_same(worker, [compiler, "-g", "-MD", "-c", "x.c"], project)
    assert worker.jobs()["local"] == {}


def test_links_to_many_files_of_the_compilers_directory(
    worker: Cluster, kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them is mirrored by itself; the worker has others, and more beside them."""
    names = [f"part{number}" for number in range(100)]
    old = tmp_path / "old"
    many, farm = kit / "lib" / "many", tmp_path / "project" / "include"
    many.mkdir(parents=True)
    farm.mkdir(parents=True)
    shutil.copytree(kit, old, symlinks=True)
    for name in names:
        (many / f"{name}.h").write_text(f"int {name} = __LINE__ + 1;\n")
        (farm / f"{name}.h").symlink_to(many / f"{name}.h")
    for name in names[::2]:
        (old / "lib" / "many" / f"{name}.h").write_text(f"int {name} = 0;\n")
    (old / "lib" / "many" / "more.h").write_text("#error the worker's\n")
    text = "".join(f"#include <{name}.h>\n" for name in names)
    (tmp_path / "project" / "x.c").write_text(f"{text}#include <more.h>\n")
    (farm / "more.h").write_text("int more;\n")
    monkeypatch.setenv("PATH", f"{kit / 'bin'}:{os.environ['PATH']}")
    worker.daemons[0].prefix = ["bwrap", "--dev-bind", "/", "/", "--bind", str(old), str(kit)]
    worker.start()
    words = [str(kit / "bin" / "clang"), "-Iinclude", "-g", "-MD", "-c", "x.c"]
    assert_same(worker, words, tmp_path / "project")
    (many / "part7.h").write_text("int part7 = 77;\n")
    assert_same(worker, words, tmp_path / "project")
    assert worker.jobs()["local"] == {}
