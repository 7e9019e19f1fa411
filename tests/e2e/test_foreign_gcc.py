"""clang finds a gcc elsewhere, and in it the C++ headers: as locally."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.cluster import Cluster
from tests.support.objects import assert_same
from tests.support.tools import need

pytestmark = pytest.mark.compiler

OPTIONS = [("--gcc-toolchain={0}/usr",), ("--sysroot={0}",), ("--sysroot={0}", "-save-temps=obj")]


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A root directory with a gcc that is only its mark, and one C++ header."""
    mark = subprocess.run(
        [need("gcc"), "-print-file-name=crtbegin.o"], capture_output=True, text=True, check=True
    ).stdout.strip()
    version, triple = Path(mark).resolve().parts[-2:-4:-1]
    root = tmp_path / "elsewhere"
    library = root / "usr/lib/gcc" / triple / version
    headers = root / "usr/include/c++" / version
    for directory in (library, headers):
        directory.mkdir(parents=True)
    shutil.copy(mark, library)
    (headers / "vector").write_text("#define FOUND 42\n")
    return root


@pytest.mark.parametrize("options", OPTIONS)
def test_headers_of_a_gcc_elsewhere(
    cluster: Cluster, elsewhere: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    need("bwrap")
    need("clang++")
    project = tmp_path / "p"
    project.mkdir()
    (project / "x.cc").write_text("#include <vector>\nint found = FOUND;\n")
    words = [option.format(elsewhere) for option in options]
    before = cluster.jobs()["done"]
    done = assert_same(cluster, ["clang++", *words, "-c", "x.cc", "-o", "x.o"], project)
    assert (done.exit_code, cluster.jobs()["done"] - before) == (0, 1)
