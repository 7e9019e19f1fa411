import hashlib
import os
from pathlib import Path

import pytest
import zstandard

from distbuild.mirror.manifest import WITHHELD, Manifest
from distbuild.protocol.blobs import pack
from distbuild.protocol.messages import Blob, Entry, FileEntry
from distbuild.syncer import blobs as blobs_module
from distbuild.syncer.blobs import BlobSource


def digest_of(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def plain(blob: Blob) -> tuple[bytes, int, bytes]:
    return blob.digest, blob.size, zstandard.decompress(blob.data)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    manifest = Manifest()
    batch: dict[str, Entry | None] = {str(tmp_path / "held"): WITHHELD}
    for name in ("a", "b", "same as a"):
        data = name[-1].encode() * 100
        (tmp_path / name).write_bytes(data)
        batch[str(tmp_path / name)] = FileEntry(digest_of(data), 100, 0o444, 0)
    manifest.apply(batch)
    return manifest


A, B = b"a" * 100, b"b" * 100


@pytest.mark.parametrize("data", [b"", b"x", os.urandom(70_000)])
def test_a_blob_is_its_bytes(data: bytes) -> None:
    assert plain(pack(data)) == (digest_of(data), len(data), data)
    assert pack(data, digest_of(data)) == pack(data)


def test_contents_are_found_by_digest_in_any_file(manifest: Manifest, tmp_path: Path) -> None:
    source = BlobSource(manifest)
    assert source.read(digest_of(A)) == A
    (tmp_path / "a").write_bytes(b"changed")
    assert source.read(digest_of(A)) == A
    (tmp_path / "same as a").unlink()
    assert source.read(digest_of(A)) is None
    assert source.read(bytes(32)) is None


def test_batches_close_when_they_are_large_and_leave_out_what_changed(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = BlobSource(manifest)
    wanted = [digest_of(A), bytes(32), digest_of(B)]
    whole = list(source.batches(wanted))
    assert [[plain(b) for b in batch] for batch in whole] == [
        [(digest_of(A), 100, A), (digest_of(B), 100, B)]
    ]
    assert (source.sent, source.sent_bytes) == (2, sum(len(b.data) for b in whole[0]))
    monkeypatch.setattr(blobs_module, "BATCH_BYTES", 1)
    assert [len(batch) for batch in source.batches(wanted)] == [1, 1]
    (tmp_path / "b").write_bytes(b"changed")
    assert [len(batch) for batch in source.batches(wanted)] == [1]
    assert list(source.batches([])) == []
