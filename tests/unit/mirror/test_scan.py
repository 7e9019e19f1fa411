import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from distbuild.mirror import includes, policy
from distbuild.mirror.digest_cache import RACY_NS, DigestCache, rules_of, stat_key
from distbuild.mirror.manifest import DIRECTORY, WITHHELD
from distbuild.mirror.scan import Scanner
from distbuild.protocol.messages import Entry, FileEntry, SymlinkEntry
from distbuild.protocol.names import HOME_MARKER
from distbuild.system import disk

LIMIT = 1000
OLD_NS = 1_600_000_000_000_000_000
NOBODY = 65534


@pytest.fixture
def base(tmp_path: Path) -> Path:
    root = Path(os.path.realpath(tmp_path)) / "tree"
    root.mkdir()
    return root


@pytest.fixture
def scanner() -> Scanner:
    return Scanner(DigestCache(None), LIMIT)


@pytest.fixture
def long_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock stands far after every time stamp: no file counts as changed just now."""
    monkeypatch.setattr("distbuild.mirror.digest_cache.time.time_ns", lambda: 2**62)


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """Permissions count, also when the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def file_entry(path: Path) -> FileEntry:
    data, status = path.read_bytes(), path.stat()
    mode = 0o444 | (0o111 if status.st_mode & 0o111 else 0)
    digest = hashlib.sha256(data).digest()
    return FileEntry(digest, len(data), mode, status.st_mtime_ns)


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def scan(scanner: Scanner, base: Path, limit: int = 1000) -> dict[str, Entry]:
    entries = scanner.tree(str(base), lambda directory: None, limit).entries
    return {os.path.relpath(path, base): entry for path, entry in entries.items()}


def test_a_tree_is_what_is_on_disk(base: Path, scanner: Scanner) -> None:
    header = write(base / "a/x.h", b"int x;\n")
    script = write(base / "run", b"#!/bin/sh\n")
    script.chmod(0o755)
    reads = write(base / "blob.inc", b'.incbin "logo"\n')
    odd = write(base / "caf\udce9 $:<>.h", b"")
    write(base / "a/x.c", b"int x;\n")
    nothing = write(base / "a/nothing.bin", b"")
    write(base / "a/x.o", b"\x7fELF")
    write(base / "tool", b"\x7fELF\x02\x01\x01\0")
    write(base / "big.h", b"/" * (LIMIT + 1))
    write(base / ".git/config", b"")
    write(base / "home" / HOME_MARKER, b"")
    write(base / "home/x.h", b"")
    (base / "empty").mkdir()
    (base / "link.h").symlink_to("a/x.h")
    (base / "gone.h").symlink_to("nowhere")
    (base / "loop").symlink_to("loop")
    (base / "up").symlink_to("..")
    os.mkfifo(base / "fifo.h")
    os.mknod(base / "socket.h", stat.S_IFSOCK | 0o600)
    found = scan(scanner, base)
    assert found == {
        ".": DIRECTORY,
        "a": DIRECTORY,
        "a/x.h": file_entry(header),
        "a/x.c": WITHHELD,
        "a/nothing.bin": file_entry(nothing),
        "run": file_entry(script),
        "blob.inc": file_entry(reads),
        odd.name: file_entry(odd),
        "tool": WITHHELD,
        "big.h": WITHHELD,
        ".git": DIRECTORY,
        "home": DIRECTORY,
        "empty": DIRECTORY,
        "link.h": SymlinkEntry(b"a/x.h"),
        "gone.h": SymlinkEntry(b"nowhere"),
        "loop": SymlinkEntry(b"loop"),
        "up": SymlinkEntry(b".."),
    }


def test_a_wanted_file_is_mirrored_whatever_its_name_and_size(base: Path, scanner: Scanner) -> None:
    files = [
        write(base / "x.c", b"int x;\n"),
        write(base / "x.o", b"\x7fELF"),
        write(base / "big.h", b"/" * (LIMIT + 1)),
    ]
    scanner.wanted.update(map(str, files))
    assert scan(scanner, base) == {".": DIRECTORY} | {f.name: file_entry(f) for f in files}


def test_directories_are_entered_before_they_are_listed(base: Path, scanner: Scanner) -> None:
    (base / "a").mkdir()

    def enter(directory: str) -> None:
        write(Path(directory) / "late.h", b"")

    found = scanner.tree(str(base), enter, 100).entries
    assert {f"{base}/late.h", f"{base}/a/late.h"} <= found.keys()


def test_a_scan_stops_at_its_limit(base: Path, scanner: Scanner) -> None:
    for n in range(5):
        write(base / f"d{n}/x.h", b"")
    assert not scanner.tree(str(base), lambda d: None, 11).truncated
    assert scanner.tree(str(base), lambda d: None, 4).truncated


@pytest.mark.usefixtures("unprivileged")
def test_an_unreadable_file_keeps_its_name(scanner: Scanner) -> None:
    assert isinstance(scanner.entry("/etc/shadow"), type(WITHHELD))


@pytest.mark.parametrize("path", ["/nowhere/x.h", "/dev/null", "/etc/passwd/x.h"])
def test_what_is_not_there_or_no_file_is_nothing(scanner: Scanner, path: str) -> None:
    assert scanner.entry(path) is None


@pytest.mark.usefixtures("long_ago")
def test_digests_survive_a_restart(base: Path, tmp_path: Path) -> None:
    write(base / "x.h", b"12345")
    write(base / "caf\udce9.h", b"12345")
    write(base / "forgotten.h", b"12345")
    memory = tmp_path / "digests"
    cache = DigestCache(memory)
    first = Scanner(cache, LIMIT)
    expected = scan(first, base)
    assert first.hashed_bytes == 15
    cache.save(lambda path: "forgotten" not in path)
    again = Scanner(DigestCache(memory), LIMIT)
    assert scan(again, base) == expected
    assert again.hashed_bytes == 5


@pytest.mark.usefixtures("long_ago")
def test_what_other_rules_have_found_is_looked_for_again(base: Path, tmp_path: Path) -> None:
    """An upgraded syncer reads the same text in another way."""
    write(base / "x.h", b"12345")
    memory = tmp_path / "digests"
    cache = DigestCache(memory, b"old")
    scan(Scanner(cache, LIMIT), base)
    cache.save(lambda path: True)
    for rules, hashed in ((b"old", 0), (b"new", 5)):
        again = Scanner(DigestCache(memory, rules), LIMIT)
        scan(again, base)
        assert again.hashed_bytes == hashed


def test_rules_are_their_modules_texts() -> None:
    assert rules_of(policy) == rules_of(policy)
    assert len({rules_of(policy), rules_of(includes), rules_of(policy, includes)}) == 3


@pytest.mark.parametrize("damage", [b"", b"\xc1garbage", b"\x81\xa1x\x01"])
def test_a_damaged_memory_is_an_empty_one(tmp_path: Path, base: Path, damage: bytes) -> None:
    memory = tmp_path / "digests"
    memory.write_bytes(damage)
    write(base / "x.h", b"12345")
    scanner = Scanner(DigestCache(memory), LIMIT)
    scan(scanner, base)
    assert scanner.hashed_bytes == 5


@pytest.mark.usefixtures("long_ago")
def test_a_memory_with_one_wrong_bit_is_an_empty_one(base: Path, tmp_path: Path) -> None:
    """Most of them leave it well-formed: a file would get another one's digest."""
    path = write(base / "x.h", b"12345")
    memory = tmp_path / "digests"
    cache = DigestCache(memory)
    scan(Scanner(cache, LIMIT), base)
    cache.save(lambda path: True)
    data = memory.read_bytes()
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        memory.write_bytes(damaged)
        assert DigestCache(memory).get(str(path), stat_key(path.stat())) is None


@pytest.mark.usefixtures("long_ago")
@pytest.mark.parametrize("how", ["edit", "touch", "replace", "restore times"])
def test_a_file_in_another_state_is_hashed_again(base: Path, scanner: Scanner, how: str) -> None:
    path = write(base / "x.h", b"12345")
    os.utime(path, ns=(OLD_NS, OLD_NS))
    scan(scanner, base)
    scan(scanner, base)
    assert scanner.hashed_bytes == 5
    if how == "edit":
        path.write_bytes(b"54321")
    elif how == "touch":
        os.utime(path, ns=(OLD_NS, OLD_NS + 1))
    elif how == "replace":
        write(base / "new", b"54321").rename(path)
        os.utime(path, ns=(OLD_NS, OLD_NS))
    else:
        before = path.stat().st_ctime_ns
        while path.stat().st_ctime_ns == before:
            path.write_bytes(b"54321")
            os.utime(path, ns=(OLD_NS, OLD_NS))
    assert scan(scanner, base)["x.h"] == file_entry(path)
    assert scanner.hashed_bytes == 10


@pytest.mark.parametrize(("age_ns", "hashed"), [(0, 10), (RACY_NS, 10), (RACY_NS + 1, 5)])
def test_a_file_changed_just_now_is_hashed_again(
    base: Path, scanner: Scanner, monkeypatch: pytest.MonkeyPatch, age_ns: int, hashed: int
) -> None:
    path = write(base / "x.h", b"12345")
    now = path.stat().st_ctime_ns + age_ns
    monkeypatch.setattr("distbuild.mirror.digest_cache.time.time_ns", lambda: now)
    scan(scanner, base)
    scan(scanner, base)
    assert scanner.hashed_bytes == hashed


@pytest.mark.usefixtures("long_ago")
def test_nothing_is_written_while_nothing_changed(base: Path, tmp_path: Path) -> None:
    write(base / "x.h", b"")
    memory = tmp_path / "digests"
    cache = DigestCache(memory)
    scan(Scanner(cache, LIMIT), base)
    cache.save(lambda path: True)
    memory.unlink()
    cache.save(lambda path: True)
    assert not memory.exists()


@pytest.mark.usefixtures("long_ago")
def test_a_forgotten_digest_is_computed_again(base: Path) -> None:
    path = str(write(base / "x.h", b"12345"))
    cache = DigestCache(None)
    scanner = Scanner(cache, LIMIT)
    for _ in range(2):
        scanner.entry(path)
    scanner.forget([path, "/nowhere"])
    scanner.entry(path)
    assert scanner.hashed_bytes == 10


@pytest.mark.parametrize("may_enter", [True, False])
def test_a_directory_is_closed_only_if_nothing_in_it_may_be_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, may_enter: bool
) -> None:
    """Another user's mount in it is no reason."""

    class Denied:
        name = "x.h"

        def stat(self, *, follow_symlinks: bool) -> os.stat_result:
            raise PermissionError(errno.EACCES, "Permission denied")

    scanner = Scanner(DigestCache(None), 1000)
    monkeypatch.setattr(disk, "scandir", lambda _: contextlib.nullcontext([Denied()]))
    monkeypatch.setattr(disk, "access", lambda *_: may_enter)
    assert scanner.children(str(tmp_path)) == {}
    assert scanner.closed == (set() if may_enter else {str(tmp_path)})


def test_twins_are_files_with_two_names_here(base: Path, scanner: Scanner) -> None:
    for name in ("a.h", "b.h", "alone.h"):
        (base / name).write_text(name)
    os.link(base / "a.h", base / "again.h")
    os.link(base / "b.h", base.parent / "elsewhere.h")
    scanner.children(str(base))
    inode = (base / "a.h").stat().st_ino
    assert scanner.twins() == {f"{base}/a.h": inode, f"{base}/again.h": inode}
    (base / "again.h").unlink()
    assert scanner.written_elsewhere() == [f"{base}/a.h"]
    assert scanner.twins() == {}
