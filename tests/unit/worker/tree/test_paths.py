import pytest

from distbuild.mirror.manifest import DIRECTORY, WITHHELD
from distbuild.protocol.errors import ProtocolError
from distbuild.protocol.messages import Entry, FileEntry, SymlinkEntry
from distbuild.worker.tree.paths import (
    Behind,
    check_client,
    check_entry,
    check_path,
    fits,
    is_within,
    parents,
    rerooted_target,
)


@pytest.mark.parametrize("path", [b"/a", b"/a/b c", b"/\xff/..x", b"/" + b"n" * 255])
def test_an_absolute_plain_path_is_accepted(path: bytes) -> None:
    assert check_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        b"",
        b"/",
        b"a",
        b"a/b",
        b"/a/",
        b"//a",
        b"/a//b",
        b"/a/./b",
        b"/a/../b",
        b"/..",
        b"/a\0b",
    ],
)
def test_a_path_that_might_leave_the_tree_is_refused(path: bytes) -> None:
    with pytest.raises(ProtocolError):
        check_path(path)


@pytest.mark.parametrize(
    ("path", "entry", "there"),
    [
        (b"/a", WITHHELD, True),
        (b"/" + b"n" * 255, WITHHELD, True),
        (b"/" + b"n" * 256, WITHHELD, False),
        ((b"/" + b"n" * 19) * 204, WITHHELD, True),
        (b"/n" * 401, WITHHELD, False),
        (b"/n" * 2046, WITHHELD, False),
        (b"/d" * 100 + b"/l", SymlinkEntry(b"/" + b"x/" * 1990), False),
    ],
)
def test_what_is_too_long_for_this_system_does_not_fit(path, entry, there) -> None:
    assert fits(check_path(path), entry, b"/sandbox") is there


def test_the_root_can_only_be_a_directory() -> None:
    check_entry(b"/", DIRECTORY)
    with pytest.raises(ProtocolError):
        check_entry(b"/", SymlinkEntry(b"/etc"))


@pytest.mark.parametrize("client", ["", ".", "..", ".trash", "a/b", "a\n", "é", "x" * 101, "a~b"])
def test_a_client_that_is_no_directory_name_is_refused(client: str) -> None:
    with pytest.raises(ProtocolError):
        check_client(client)


def test_a_usual_client_is_accepted() -> None:
    assert check_client("box-1.example_A") == "box-1.example_A"


@pytest.mark.parametrize(
    "entry",
    [
        FileEntry(b"short", 1, 0o644, 0),
        FileEntry(bytes(32), -1, 0o644, 0),
        FileEntry(bytes(32), 1 << 40, 0o644, 0),
        SymlinkEntry(b""),
        SymlinkEntry(b"a\0b"),
        SymlinkEntry(b"a" * 5000),
    ],
)
def test_an_entry_that_no_disk_can_hold_is_refused(entry: FileEntry | SymlinkEntry) -> None:
    with pytest.raises(ProtocolError):
        check_entry(b"/a", entry)


@pytest.mark.parametrize(
    ("path", "target", "expected"),
    [
        (b"/a/l", b"x", b"x"),
        (b"/a/l", b"../x", b"../x"),
        (b"/a/l", b"../../../x", b"../x"),
        (b"/a/l", b"b/../../../x", b"b/../../x"),
        (b"/a/b/l", b"/x/y", b"../../x/y"),
        (b"/l", b"/x", b"x"),
        (b"/a/l", b"/", b".."),
        (b"/l", b"/", b"."),
        (b"/a/l", b"/../../etc", b"../etc"),
        (b"/l", b"..", b"."),
    ],
)
def test_a_link_stays_in_the_tree(path: bytes, target: bytes, expected: bytes) -> None:
    assert rerooted_target(path, target) == expected


def test_what_is_behind_a_file_or_a_link_is_not_its_own_at_any_depth() -> None:
    deep = b"/d" + b"/x" * 5000
    entries: dict[bytes, Entry] = {b"/d": DIRECTORY, b"/l": SymlinkEntry(b"d"), b"/w": WITHHELD}
    behind = Behind(entries)
    asked = [b"/", b"/a", b"/d/a", b"/l", b"/l/a/b", b"/l/a", b"/w/a", deep, b"/l" + deep]
    assert [behind(path) for path in asked] == [
        *(False, False, False, False, True, True, True, False, True)
    ]


def test_parents_are_named_nearest_first() -> None:
    assert list(parents(b"/a/b/c")) == [b"/a/b", b"/a"]


def test_a_path_is_within_its_directories_only() -> None:
    assert is_within(b"/a/b", b"/a")
    assert is_within(b"/a", b"/a")
    assert is_within(b"/a", b"/")
    assert not is_within(b"/ab", b"/a")
