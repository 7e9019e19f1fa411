import hashlib
import os
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import zstandard

from distbuild.protocol.errors import InfrastructureError, ProtocolError
from distbuild.protocol.messages import Blob, FileEntry
from distbuild.system import disk
from distbuild.worker.tree.store import KEEP_RECENT_S, KEEP_UNUSED_S, Store

CONTENT = b"#define ANSWER 42\n"
DIGEST = hashlib.sha256(CONTENT).digest()
ENTRY = FileEntry(DIGEST, len(CONTENT), 0o644, 1_700_000_000_123_456_789)


def blob(content: bytes, digest: bytes | None = None, size: int | None = None) -> Blob:
    return Blob(
        hashlib.sha256(content).digest() if digest is None else digest,
        len(content) if size is None else size,
        zstandard.compress(content),
    )


def path_of(root: Path, digest: bytes) -> Path:
    return root / digest.hex()[:2] / digest.hex()[2:]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(root: Path) -> Store:
    return Store(root)


def files_below(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


def test_what_is_not_there_is_missing_once_in_order(store: Store) -> None:
    other = bytes(32)
    store.put(blob(CONTENT))
    assert store.missing([other, DIGEST, b"\1" * 32, other]) == [other, b"\1" * 32]


def test_a_blob_is_kept_read_only_under_its_digest(store: Store, root: Path) -> None:
    store.put(blob(CONTENT))
    path = path_of(root, DIGEST)
    assert path.read_bytes() == CONTENT
    assert path.stat().st_mode & 0o777 == 0o444
    assert repr(store) == f"Store(1 files, {len(CONTENT)} bytes)"


@pytest.mark.parametrize(
    "bad",
    [
        blob(CONTENT, digest=bytes(32)),
        blob(CONTENT, size=len(CONTENT) - 1),
        blob(CONTENT, size=len(CONTENT) + 1),
        blob(CONTENT, size=-1),
        blob(CONTENT, size=1 << 60),
        blob(CONTENT, digest=b"short"),
        Blob(DIGEST, len(CONTENT), b"no zstd at all"),
        Blob(DIGEST, len(CONTENT), zstandard.compress(CONTENT)[:-3]),
        Blob(DIGEST, len(CONTENT), zstandard.compress(bytes(50_000_000))),
    ],
    ids=["digest", "long", "short", "negative", "huge", "no digest", "garbage", "cut", "bomb"],
)
def test_a_forged_blob_is_refused_and_leaves_nothing(bad: Blob, store: Store, root: Path) -> None:
    with pytest.raises(ProtocolError):
        store.put(bad)
    assert files_below(root) == []


def test_a_full_disk_is_an_infrastructure_error_and_leaves_nothing(
    store: Store, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.write", full)
    with pytest.raises(InfrastructureError, match="No space left"):
        store.put(blob(CONTENT))
    assert files_below(root) == []


def test_a_damaged_blob_of_an_earlier_process_is_removed(store: Store, root: Path) -> None:
    store.put(blob(CONTENT))
    path = path_of(root, DIGEST)
    path.chmod(0o644)
    path.write_bytes(b"garbage after a crash")
    assert Store(root).missing([DIGEST]) == [DIGEST]
    assert not path.exists()


def test_an_equal_file_of_this_machine_is_taken(store: Store, tmp_path: Path) -> None:
    (tmp_path / "own.h").write_bytes(CONTENT)
    assert store.add_file(os.fsencode(tmp_path / "own.h"), ENTRY)
    assert store.missing([DIGEST]) == []


def test_another_file_of_this_machine_is_not_taken(store: Store, tmp_path: Path) -> None:
    (tmp_path / "own.h").write_bytes(CONTENT.replace(b"42", b"43"))
    assert not store.add_file(os.fsencode(tmp_path / "own.h"), ENTRY)
    assert not store.add_file(os.fsencode(tmp_path / "absent.h"), ENTRY)
    assert store.missing([DIGEST]) == [DIGEST]


def test_a_placed_file_is_a_link_with_the_entry_s_time(store: Store, tmp_path: Path) -> None:
    store.put(blob(CONTENT))
    place = os.fsencode(tmp_path / "a.h")
    assert store.place(ENTRY, place, may_link=True)
    status = os.stat(place)
    assert (status.st_nlink, status.st_mtime_ns) == (2, ENTRY.mtime_ns)
    assert status.st_mode & 0o777 == 0o444


def test_a_second_time_of_the_same_content_is_a_copy(store: Store, tmp_path: Path) -> None:
    store.put(blob(CONTENT))
    first, second = os.fsencode(tmp_path / "a.h"), os.fsencode(tmp_path / "b.h")
    store.place(ENTRY, first, may_link=True)
    later = FileEntry(DIGEST, len(CONTENT), 0o755, ENTRY.mtime_ns + 1)
    assert not store.place(later, second, may_link=True)
    assert os.stat(first).st_mtime_ns == ENTRY.mtime_ns
    status = os.stat(second)
    assert (status.st_mtime_ns, status.st_mode & 0o777) == (later.mtime_ns, 0o555)


def test_a_link_is_not_made_where_none_is_wanted(store: Store, tmp_path: Path) -> None:
    store.put(blob(CONTENT))
    assert not store.place(ENTRY, os.fsencode(tmp_path / "a.h"), may_link=False)
    assert os.stat(tmp_path / "a.h").st_nlink == 1


def test_too_many_links_become_a_copy(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: bytes, destination: bytes) -> None:
        raise OSError(31, "Too many links")

    store.put(blob(CONTENT))
    monkeypatch.setattr("distbuild.system.disk.link", refuse)
    assert not store.place(ENTRY, os.fsencode(tmp_path / "a.h"), may_link=True)
    assert (tmp_path / "a.h").read_bytes() == CONTENT


def test_old_unused_blobs_are_evicted_and_used_ones_stay(root: Path, tmp_path: Path) -> None:
    earlier = Store(root)
    earlier.put(blob(CONTENT))
    earlier.put(blob(b"unused"))
    earlier.place(ENTRY, os.fsencode(tmp_path / "a.h"), may_link=True)
    (root / "ab").mkdir(exist_ok=True)
    (root / "ab/.new-left-over").write_bytes(b"half")
    store = Store(root)
    now = path_of(root, DIGEST).stat().st_ctime
    store.evict(now)
    assert store.status().files == 2
    store.evict(now + KEEP_UNUSED_S + 60)
    assert files_below(root) == [path_of(root, DIGEST)]
    assert store.status().bytes == len(CONTENT)


def test_a_blob_that_is_just_being_written_is_left_alone(store: Store, root: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield CONTENT[:5]
        assert files_below(root) == [path_of(root, DIGEST)]
        assert store.missing([DIGEST]) == [DIGEST]
        store.evict(time.time() + KEEP_UNUSED_S + 60, cap=0)
        yield CONTENT[5:]

    assert store._keep(chunks(), DIGEST, len(CONTENT))
    assert path_of(root, DIGEST).read_bytes() == CONTENT
    assert store.missing([DIGEST]) == []


@pytest.mark.parametrize("fails", [False, True])
def test_two_who_write_the_same_blob_leave_a_whole_one(
    fails: bool, store: Store, root: Path, tmp_path: Path
) -> None:
    place = os.fsencode(tmp_path / "a.h")

    def chunks() -> Iterator[bytes]:
        yield CONTENT[:5]
        store.put(blob(CONTENT))
        assert store.link(ENTRY, place)
        yield b"other" if fails else CONTENT[5:]

    assert store._keep(chunks(), DIGEST, len(CONTENT)) is not fails
    assert Path(os.fsdecode(place)).read_bytes() == CONTENT
    assert store.missing([DIGEST]) == []
    later = FileEntry(DIGEST, len(CONTENT), 0o644, ENTRY.mtime_ns + 1)
    assert not store.link(later, os.fsencode(tmp_path / "b.h"))
    assert os.stat(place).st_mtime_ns == ENTRY.mtime_ns
    assert files_below(root) == [path_of(root, DIGEST)]
    assert path_of(root, DIGEST).read_bytes() == CONTENT


def test_a_second_writer_that_cannot_take_the_place_leaves_nothing(
    store: Store, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(old: bytes, new: bytes) -> None:
        raise OSError(5, "Input/output error")

    def chunks() -> Iterator[bytes]:
        yield CONTENT[:5]
        with monkeypatch.context() as patched:
            patched.setattr("distbuild.system.disk.rename", refused)
            with pytest.raises(InfrastructureError, match="Input/output error"):
                store.put(blob(CONTENT))
        yield CONTENT[5:]

    assert store._keep(chunks(), DIGEST, len(CONTENT))
    assert files_below(root) == [path_of(root, DIGEST)]
    assert path_of(root, DIGEST).read_bytes() == CONTENT


def test_half_a_blob_that_a_crash_has_left_is_replaced(root: Path) -> None:
    left = path_of(root, DIGEST)
    left.parent.mkdir(parents=True)
    left.write_bytes(CONTENT[:5])
    store = Store(root)
    store.evict(0.0)
    store.put(blob(CONTENT))
    assert files_below(root) == [left]
    assert left.read_bytes() == CONTENT


def test_what_a_dead_process_left_under_no_digest_s_name_is_removed(
    store: Store, root: Path
) -> None:
    (root / "ab").mkdir()
    (root / "ab" / ".new-1-1").write_bytes(b"half")
    store.evict(0.0)
    assert files_below(root) == []


def test_a_large_blob_is_kept_and_checked_in_pieces(store: Store, root: Path) -> None:
    content = os.urandom(1 << 20) * 5
    store.put(blob(content))
    assert path_of(root, hashlib.sha256(content).digest()).read_bytes() == content
    with pytest.raises(ProtocolError):
        store.put(blob(content, digest=bytes(32)))


def test_above_the_cap_unused_blobs_go_unless_this_process_needs_them(root: Path) -> None:
    earlier = Store(root)
    earlier.put(blob(CONTENT))
    earlier.put(blob(b"unused"))
    store = Store(root)
    assert store.missing([DIGEST]) == []
    store.evict(path_of(root, DIGEST).stat().st_ctime, cap=0)
    assert files_below(root) == [path_of(root, DIGEST)]


def test_while_running_unused_blobs_go_once_they_are_not_recent(
    store: Store, root: Path, tmp_path: Path
) -> None:
    store.put(blob(CONTENT))
    store.put(blob(b"unused"))
    store.put(blob(b"unlinked"))
    store.place(ENTRY, os.fsencode(tmp_path / "a.h"), may_link=True)
    now = path_of(root, DIGEST).stat().st_ctime
    store.evict(now + KEEP_RECENT_S - 60, cap=0)
    assert store.status().files == 3
    store.evict(now + KEEP_RECENT_S + 60, cap=0)
    assert files_below(root) == [path_of(root, DIGEST)]
    assert (store.status().files, store.status().bytes) == (1, len(CONTENT))
    gone = hashlib.sha256(b"unused").digest()
    assert store.missing([DIGEST, gone]) == [gone]
    store.put(blob(b"unused"))
    assert store.missing([DIGEST, gone]) == []


def wait_for_a_later_ctime(path: Path) -> None:
    """The kernel's clock for files is a coarse one."""
    path.touch()
    first = path.stat().st_ctime_ns
    while path.stat().st_ctime_ns == first:
        path.touch()


def test_the_oldest_unused_blobs_go_until_the_cap_is_met(store: Store, tmp_path: Path) -> None:
    contents = [bytes([number]) * 1000 for number in range(5)]
    for content in contents:
        store.put(blob(content))
        wait_for_a_later_ctime(tmp_path / "clock")
    store.evict(time.time() + KEEP_RECENT_S + 60, cap=2500)
    digests = [hashlib.sha256(content).digest() for content in contents]
    assert store.missing(digests) == digests[:3]


def test_a_blob_that_was_reported_as_present_stays_for_one_eviction(
    store: Store, root: Path
) -> None:
    store.put(blob(CONTENT))
    later = time.time() + KEEP_RECENT_S + 60
    assert store.missing([DIGEST]) == []
    store.evict(later, cap=0)
    assert store.status().files == 1
    store.evict(later, cap=0)
    assert store.status().files == 0


def test_an_eviction_ignores_what_is_no_folder_of_the_store(store: Store, root: Path) -> None:
    store.put(blob(CONTENT))
    (root / ".dist_build_home").write_text("")
    (root / "lost+found").mkdir()
    (root / "lost+found/x").write_text("")
    store.evict(time.time() + KEEP_RECENT_S + 60, cap=0)
    assert store.status().files == 0
    assert (root / ".dist_build_home").exists()
    assert (root / "lost+found/x").exists()


def test_a_blob_that_vanishes_during_an_eviction_is_no_error(
    store: Store, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(blob(CONTENT))
    store.put(blob(b"other"))
    listdir = disk.listdir

    def listed(path: bytes) -> list[bytes]:
        names: list[bytes] = listdir(path)
        path_of(root, DIGEST).unlink(missing_ok=True)
        return names

    monkeypatch.setattr(disk, "listdir", listed)
    store.evict(time.time() + KEEP_RECENT_S + 60, cap=0)
    assert files_below(root) == []


def test_blobs_that_are_stored_during_an_eviction_are_counted(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(blob(CONTENT))
    listdir, late = disk.listdir, iter([b"late"])

    def listed(path: bytes) -> list[bytes]:
        names: list[bytes] = listdir(path)
        for content in late:
            store.put(blob(content))
        return names

    monkeypatch.setattr(disk, "listdir", listed)
    store.evict(0.0)
    assert (store.status().files, store.status().bytes) == (2, len(CONTENT) + 4)


def test_a_blob_that_has_gone_bad_since_is_removed(store: Store, root: Path) -> None:
    store.put(blob(CONTENT))
    assert store.recheck(DIGEST)
    path_of(root, DIGEST).chmod(0o644)
    path_of(root, DIGEST).write_bytes(b"#define ANSWER 43\n")
    assert store.missing([DIGEST]) == []  # verified once, and not looked at again
    assert not store.recheck(DIGEST)
    assert store.missing([DIGEST]) == [DIGEST]


def test_of_what_was_not_listed_the_disk_is_not_asked(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store(root).put(blob(CONTENT))
    store = Store(root)
    store.evict(0.0)
    kept, other = hashlib.sha256(b"kept").digest(), bytes(32)
    store.put(blob(b"kept"))
    asked: list[bytes] = []

    def exists(path: bytes) -> bool:
        asked.append(path)
        return True

    monkeypatch.setattr("distbuild.system.disk.exists", exists)
    assert store.missing([other, kept, DIGEST]) == [other]
    assert {Path(os.fsdecode(path)) for path in asked} == {path_of(root, DIGEST)}


def test_what_was_listed_and_is_gone_is_missing(root: Path) -> None:
    Store(root).put(blob(CONTENT))
    store = Store(root)
    store.evict(0.0)
    path_of(root, DIGEST).unlink()
    assert store.missing([DIGEST]) == [DIGEST]
    store.put(blob(CONTENT))
    assert store.missing([DIGEST]) == []


def test_blobs_that_are_removed_behind_our_back_are_missing_once_one_was_wanted(
    store: Store, root: Path, tmp_path: Path
) -> None:
    store.put(blob(CONTENT))
    store.put(blob(b"other"))
    other = hashlib.sha256(b"other").digest()
    for digest in (DIGEST, other):
        path_of(root, digest).unlink()
    with pytest.raises(FileNotFoundError):
        store.link(ENTRY, os.fsencode(tmp_path / "a.h"))
    assert store.missing([DIGEST, other]) == [DIGEST, other]


def test_many_that_keep_the_same_at_once(store: Store, root: Path, tmp_path: Path) -> None:
    contents = [f"#define N{n}\n".encode() * 300 for n in range(60)]
    entries = []
    for number, content in enumerate(contents):
        (tmp_path / f"{number}.h").write_bytes(content)
        digest = hashlib.sha256(content).digest()
        entries.append(FileEntry(digest, len(content), 0o444, number))
    # A part of what a crash has left.
    leftover = path_of(root, entries[0].digest)
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"#de")

    def keep(order: int) -> list[bytes]:
        bad = []
        turned = list(enumerate(entries))
        random.Random(order).shuffle(turned)
        for number, entry in turned:
            if order % 2:
                good = store.add_file(os.fsencode(tmp_path / f"{number}.h"), entry)
            else:
                store.put(blob(contents[number]))
                good = True
            if not good or path_of(root, entry.digest).read_bytes() != contents[number]:
                bad.append(entry.digest)
        return bad

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(keep, range(8))) == [[]] * 8
    assert len(files_below(root)) == len(contents)
    assert store.status().files == len(contents)
    assert store.missing(entry.digest for entry in entries) == []
