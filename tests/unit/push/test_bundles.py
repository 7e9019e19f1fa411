import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import zstandard

from distbuild.mirror.manifest import WITHHELD, Manifest
from distbuild.protocol.codec import bundle, pack
from distbuild.protocol.errors import ProtocolError
from distbuild.protocol.messages import Bundle, Digest, Entry, FileEntry
from distbuild.push.bundles import BlobSource, BundleLimits
from distbuild.worker.tree.blob_file import contents_of

A, B = b"a" * 100, b"b" * 100


def digest_of(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def plain(bundles: list[Bundle]) -> list[bytes]:
    """What a worker would keep, in the order in which it comes."""
    found = []
    for one in bundles:
        for digest, size, chunks in contents_of(one):
            content = b"".join(chunks)
            assert (digest, size) == (digest_of(content), len(content))
            found.append(content)
    return found


def brought(source: BlobSource, *contents: bytes) -> list[bytes]:
    """What can be had of these."""
    requests = source.requests([digest_of(content) for content in contents])
    return plain([one for request in requests for one in source.bundles(request)])


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


@pytest.mark.parametrize("data", [b"", b"x", os.urandom(70_000)])
def test_a_blob_is_its_bytes(data: bytes) -> None:
    blob = pack(data)
    assert (blob.digest, blob.size, zstandard.decompress(blob.data)) == (
        digest_of(data),
        len(data),
        data,
    )
    assert pack(data, digest_of(data)) == blob


@pytest.mark.parametrize(
    "contents", [[], [b""], [b"x"], [A, b"", B, os.urandom(70_000)], [b"", b"large" * 1_000_000]]
)
def test_a_bundle_is_its_contents(contents: list[bytes]) -> None:
    assert plain([bundle({digest_of(c): c for c in contents})]) == contents


def test_contents_are_found_by_digest_in_any_file(manifest: Manifest, tmp_path: Path) -> None:
    source = BlobSource(manifest)
    assert source.read(digest_of(A)) == A
    (tmp_path / "a").write_bytes(b"changed")
    assert source.read(digest_of(A)) == A
    (tmp_path / "same as a").unlink()
    assert source.read(digest_of(A)) is None
    assert source.read(bytes(32)) is None


def test_batches_close_when_they_are_large_and_leave_out_what_changed(
    manifest: Manifest, tmp_path: Path
) -> None:
    source = BlobSource(manifest)
    wanted = [digest_of(A), bytes(32), digest_of(B)]
    whole = list(source.batches(wanted))
    assert [plain(batch) for batch in whole] == [[A, B]]
    assert (source.sent, source.sent_bytes) == (2, sum(len(b.data) for b in whole[0]))
    source = BlobSource(manifest, BundleLimits(group_bytes=50))
    assert [[plain([b]) for b in batch] for batch in source.batches(wanted)] == [[[A], [B]]]
    source = BlobSource(manifest, BundleLimits(group_bytes=50, request_bytes=1))
    assert [len(batch) for batch in source.batches(wanted)] == [1, 1]
    (tmp_path / "b").write_bytes(b"changed")
    assert [len(batch) for batch in source.batches(wanted)] == [1]
    assert list(source.batches([])) == []


def test_what_is_large_travels_alone(manifest: Manifest, tmp_path: Path) -> None:
    large = b"large" * 3_000_000
    (tmp_path / "large").write_bytes(large)
    entry = FileEntry(digest_of(large), len(large), 0o444, 0)
    manifest.apply({str(tmp_path / "large"): entry})
    source = BlobSource(manifest)
    wanted = [digest_of(A), digest_of(large), digest_of(B)]
    bundles = [one for batch in source.batches(wanted) for one in batch]
    assert sorted(len(one.digests) for one in bundles) == [1, 2]
    assert sorted(plain(bundles)) == [A, B, large]


class Slow(BlobSource):
    """Counts what is read, and reads nothing before it is let."""

    def __init__(self, manifest: Manifest, limits: BundleLimits | None = None) -> None:
        super().__init__(manifest, limits)
        self.may_read = threading.Event()
        self.reads: list[bytes] = []

    def read(self, digest: Digest) -> bytes | None:
        self.reads.append(digest)
        self.may_read.wait(10)
        return super().read(digest)


def test_contents_that_several_workers_want_are_packed_once(manifest: Manifest) -> None:
    source = Slow(manifest)
    wanted = [digest_of(A), digest_of(B)]
    with source.sending(), ThreadPoolExecutor(4) as pool:
        orders = [wanted, wanted[::-1], [*wanted, *wanted], [*wanted, bytes(32)]]
        asked = [list(source.requests(order)) for order in orders]
        packed = [pool.submit(source.bundles, [g for r in one for g in r]) for one in asked]
        source.may_read.set()
        assert [plain(one.result()) for one in packed] == [[A, B]] * 4
    assert sorted(source.reads) == sorted([*wanted, bytes(32)])
    brought(source, A, B)
    assert len(source.reads) == 5, "nothing is kept when nobody sends"


def test_a_part_of_what_was_packed_is_packed_alone(manifest: Manifest) -> None:
    source = Slow(manifest)
    source.may_read.set()
    with source.sending():
        assert brought(source, A, B) == [A, B]
        assert brought(source, B) == [B]
        assert brought(source, B) == [B]
    assert source.reads == [digest_of(A), digest_of(B), digest_of(B)]


def test_what_is_kept_for_others_is_bounded(manifest: Manifest) -> None:
    source = Slow(manifest, BundleLimits(packed_bytes=30))
    source.may_read.set()
    with source.sending():
        for content in (A, B, B, A):
            brought(source, content)
        assert source._groups.packed_bytes <= 30
    assert source.reads == [digest_of(A), digest_of(B), digest_of(A)]


def test_what_was_just_hashed_is_not_read_again(manifest: Manifest, tmp_path: Path) -> None:
    source = Slow(manifest, BundleLimits(largest_recent_bytes=0))
    source.may_read.set()
    new = b"new" * 50
    (tmp_path / "new").write_bytes(new)
    source.ahead.found(str(tmp_path / "new"), FileEntry(digest_of(new), 150, 0o444, 0))
    source.hashed(digest_of(new), new)
    with source.sending():
        assert brought(source, new) == [new]
        assert source.reads == [digest_of(new)], "nobody was sending when it was hashed"
    source.begin()
    source.hashed(digest_of(new), new)
    assert source.size_of(digest_of(new)) == 150
    source.scanned()
    for _ in range(2):
        assert brought(source, new) == [new]
    assert source.reads == [digest_of(new)]
    source.end()
    assert brought(source, new) == [], "what the scan had found is forgotten"


def test_what_is_hashed_is_sent_in_whole_groups_while_the_scan_goes_on(manifest: Manifest) -> None:
    source = Slow(manifest, BundleLimits(group_bytes=150))
    source.may_read.set()
    a, b, other = digest_of(A), digest_of(B), bytes(32)
    source.begin()
    source.hashed(a, A)
    assert source.ripe([a, other]) == ([other], [a])
    source.hashed(b, B)
    assert source.ripe([a]) == ([], [a])
    assert source.ripe([a, b]) == ([a, b], [])
    assert brought(source, A, B) == [A, B]
    source.hashed(digest_of(b"c"), b"c")
    assert source.ripe([digest_of(b"c")]) == ([], [digest_of(b"c")])
    source.scanned()
    assert source.ripe([a, digest_of(b"c")]) == ([a, digest_of(b"c")], [])
    assert brought(source, b"c") == [b"c"]
    assert source.reads == []


def test_what_was_hashed_is_kept_up_to_a_bound(manifest: Manifest) -> None:
    source = Slow(manifest, BundleLimits(packed_bytes=10, group_bytes=50))
    source.may_read.set()
    with source.sending():
        for data in (A, B):
            source.hashed(digest_of(data), data)
        assert brought(source, A, B) == [A, B]
    assert source.reads == [digest_of(B)]


def test_who_hashes_packs_what_no_sender_has_packed(manifest: Manifest) -> None:
    source = Slow(manifest, BundleLimits(raw_bytes=150, group_bytes=50))
    source.may_read.set()
    with source.sending():
        for data in (A, B, A):
            source.hashed(digest_of(data), data)
        groups = source._groups
        assert (len(groups._packed), len(groups._raw), groups.raw_bytes) == (1, 1, 100)
        assert brought(source, B, A) == [B, A]
        assert (len(groups._packed), len(groups._raw), groups.raw_bytes) == (2, 0, 0)
    assert source.reads == []


@pytest.mark.parametrize(
    "bad",
    [
        Bundle([digest_of(A)], [], zstandard.compress(A)),
        Bundle([digest_of(A), digest_of(B)], [100, 99], zstandard.compress(A + B)),
        Bundle([digest_of(A), digest_of(B)], [201, -1], zstandard.compress(A + B)),
        Bundle([digest_of(A), b"short"], [100, 100], zstandard.compress(A + B)),
        Bundle([digest_of(A), digest_of(B)], [100, 100], b"no zstd at all"),
        Bundle([digest_of(A), digest_of(B)], [100, 100], zstandard.compress(A + B)[:-3]),
        Bundle([digest_of(A), digest_of(B)], [100, 1 << 28], zstandard.compress(bytes(1 << 26))),
        Bundle([digest_of(A), digest_of(B)], [100, 100], zstandard.compress(bytes(1 << 26))),
    ],
    ids=["sizes", "short", "negative", "no digest", "garbage", "cut", "large", "bomb"],
)
def test_a_forged_bundle_is_refused(bad: Bundle) -> None:
    with pytest.raises(ProtocolError):
        list(contents_of(bad))


def test_a_file_that_was_away_for_a_moment_is_sent_once_it_is_back(
    manifest: Manifest, tmp_path: Path
) -> None:
    source = BlobSource(manifest)
    with source.sending():
        (tmp_path / "b").rename(tmp_path / "away")
        assert brought(source, A, B) == [A]
        (tmp_path / "away").rename(tmp_path / "b")
        assert brought(source, A, B) == [A, B]
        assert brought(source, B) == [B]


def test_what_was_hashed_a_moment_ago_can_be_had_though_its_file_is_another_one(
    manifest: Manifest, tmp_path: Path
) -> None:
    source = BlobSource(manifest)
    source.hashed(digest_of(B), B)
    (tmp_path / "b").write_bytes(b"changed")
    assert brought(source, B) == [B]
    manifest.apply({str(tmp_path / "b"): None})
    assert brought(source, A, B) == [A, B]


def test_no_more_is_kept_of_what_was_hashed_than_the_last(manifest: Manifest) -> None:
    source = BlobSource(manifest, BundleLimits(recent_bytes=10, largest_recent_bytes=4))
    for content in (b"1111", b"2222", b"2222", b"large", b"333"):
        source.hashed(digest_of(content), content)
    kept = [c for c in (b"1111", b"2222", b"large", b"333") if source.read(digest_of(c))]
    assert kept == [b"2222", b"333"]
