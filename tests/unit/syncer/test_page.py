"""The page's files: the layout under node, and that the library is what tools/vendor.sh fetched."""

import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from distbuild.syncer.dashboard import PAGE_FILES
from tests.support.tools import need

TOP = Path(__file__).parents[3]


@pytest.mark.program
def test_the_layout_of_the_timeline(tmp_path: Path) -> None:
    node = need("node")
    (tmp_path / "package.json").write_text('{"type": "module"}')
    for source in (PAGE_FILES / "layout.js", TOP / "tests" / "page" / "layout.test.js"):
        shutil.copy(source, tmp_path)
    done = subprocess.run(
        [node, "--test", "layout.test.js"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^# pass [1-9]", done.stdout, re.MULTILINE)


def test_the_library_is_what_was_fetched() -> None:
    lines = (PAGE_FILES / "uPlot.sha256").read_text().splitlines()
    listed = {name: digest for digest, name in map(str.split, lines)}
    assert set(listed) == {"uPlot.js", "uPlot.css"}
    for name, digest in listed.items():
        assert hashlib.sha256((PAGE_FILES / name).read_bytes()).hexdigest() == digest
    version = re.search(r"^VERSION=(\S+)", (TOP / "tools" / "vendor.sh").read_text(), re.MULTILINE)
    assert version is not None
    head = (PAGE_FILES / "uPlot.js").read_text()[:2000]
    assert f"uPlot {version[1]}, from npm" in head
    assert "The MIT License" in head


def test_every_file_of_the_page_is_installed() -> None:
    """The wheel takes the whole directory, and nothing else that is no Python."""
    assert all(path.is_file() for path in PAGE_FILES.iterdir())
    assert '"distbuild.syncer" = ["page/*"]' in (TOP / "pyproject.toml").read_text()
