import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import zstandard

from distbuild.mirror.manifest import WITHHELD, Manifest
from distbuild.protocol import blobs as packing_module
from distbuild.protocol.blobs import Packer, pack
from distbuild.protocol.messages import Blob, Digest, Entry, FileEntry
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


class Slow(BlobSource):
    """Counts what is read, and reads nothing before it is let."""

    def __init__(self, manifest: Manifest) -> None:
        super().__init__(manifest)
        self.may_read = threading.Event()
        self.reads: list[bytes] = []

    def read(self, digest: Digest) -> bytes | None:
        self.reads.append(digest)
        self.may_read.wait(10)
        return super().read(digest)


def test_a_content_that_several_workers_want_is_packed_once(manifest: Manifest) -> None:
    source = Slow(manifest)
    wanted = [digest_of(A), digest_of(B)]
    with source.sending(), ThreadPoolExecutor(4) as pool:
        orders = [wanted, wanted[::-1], [*wanted, *wanted], [bytes(32), *wanted]]
        asked = [pool.submit(source.batch, order) for order in orders]
        source.may_read.set()
        batches = [[plain(blob) for blob in one.result()] for one in asked]
        a, b = (digest_of(A), 100, A), (digest_of(B), 100, B)
        assert batches == [[a, b], [b, a], [a, b], [a, b]]
    assert sorted(source.reads) == sorted([*wanted, bytes(32)])
    source.batch(wanted)
    assert len(source.reads) == 5, "nothing is kept when nobody sends"


def test_what_is_kept_for_others_is_bounded(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blobs_module, "KEEP_BYTES", 30)
    source = Slow(manifest)
    source.may_read.set()
    with source.sending():
        for digest in (digest_of(A), digest_of(B), digest_of(B), digest_of(A)):
            source.batch([digest])
    assert source.reads == [digest_of(A), digest_of(B), digest_of(A)]


def test_what_was_just_hashed_is_not_read_again(manifest: Manifest, tmp_path: Path) -> None:
    source = Slow(manifest)
    source.may_read.set()
    new = b"new" * 50
    (tmp_path / "new").write_bytes(new)
    source.ahead.found(str(tmp_path / "new"), FileEntry(digest_of(new), 150, 0o444, 0))
    source.hashed(digest_of(new), new)
    with source.sending():
        assert [plain(b) for b in source.batch([digest_of(new)])] == [(digest_of(new), 150, new)]
        assert source.reads == [digest_of(new)], "nobody was sending when it was hashed"
    source.begin()
    source.hashed(digest_of(new), new)
    assert source.size_of(digest_of(new)) == 150
    source.scanned()
    for _ in range(2):
        assert [plain(b) for b in source.batch([digest_of(new)])] == [(digest_of(new), 150, new)]
    assert source.reads == [digest_of(new)]
    source.end()
    assert source.batch([digest_of(new)]) == [], "what the scan had found is forgotten"


def test_what_was_hashed_is_kept_up_to_a_bound(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blobs_module, "KEEP_BYTES", 10)
    source = Slow(manifest)
    source.may_read.set()
    with source.sending():
        for data in (A, B):
            source.hashed(digest_of(data), data)
        source.batch([digest_of(A), digest_of(B)])
    assert source.reads == [digest_of(B)]


def test_who_hashes_packs_what_no_sender_has_packed(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blobs_module, "RAW_BYTES", 150)
    monkeypatch.setattr(blobs_module, "RAW_GROUP_BYTES", 50)
    source = Slow(manifest)
    source.may_read.set()
    with source.sending():
        for data in (A, B, A):
            source.hashed(digest_of(data), data)
        assert (list(source._kept), list(source._raw)) == ([digest_of(A)], [digest_of(B)])
        blobs = source.batch([digest_of(B), digest_of(A)])
    assert [plain(blob)[2] for blob in blobs] == [B, A]
    assert source.reads == []
    assert (source._kept_bytes, source._raw_bytes, source._busy) == (0, 0, {})


@pytest.mark.parametrize("at_once", [False, True])
def test_many_contents_are_packed_as_each_alone(
    at_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing_module, "_MANY_AT_ONCE", at_once)
    packer = Packer(1)
    contents = {digest_of(data): data for data in (A, b"", B, b"x", os.urandom(70_000))}
    packed = packer.pack_all(contents)
    assert packed == {digest: packer.pack(data, digest) for digest, data in contents.items()}
    assert packer.pack_all({}) == {}
