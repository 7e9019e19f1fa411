import hashlib
from pathlib import Path

from distbuild.compiler.files import FileDigests


def test_a_name_that_is_no_utf8_is_remembered_too(tmp_path: Path) -> None:
    program = tmp_path / "gcc\udcff"
    program.write_bytes(b"x")
    for _ in range(2):
        digests = FileDigests(tmp_path / "state" / "programs")
        assert digests.of(str(program)) == hashlib.sha256(b"x").digest()
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["programs"]


def test_a_memory_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "gcc").write_bytes(b"x")
    (tmp_path / "state" / "programs").mkdir(parents=True)
    digests = FileDigests(tmp_path / "state" / "programs")
    assert digests.of(str(tmp_path / "gcc")) == hashlib.sha256(b"x").digest()
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["programs"]
