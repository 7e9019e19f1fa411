import hashlib
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from distbuild.mirror.manifest import DIRECTORY, WITHHELD, Summary
from distbuild.protocol.codec import pack
from distbuild.protocol.errors import InfrastructureError, ProtocolError
from distbuild.protocol.messages import (
    Change,
    Changes,
    ChangesReply,
    Entry,
    FileEntry,
    JobFile,
    SymlinkEntry,
)
from distbuild.protocol.names import client_label
from distbuild.worker.tree.on_disk import WITHHELD_TEXT
from distbuild.worker.tree.store import OwnFiles, Store
from distbuild.worker.tree.tree import Tree
from distbuild.worker.tree.trees import Trees

Entries = dict[bytes, Entry]


def content_entry(content: bytes, mtime_ns: int = 1_000_000_000) -> FileEntry:
    return FileEntry(hashlib.sha256(content).digest(), len(content), 0o644, mtime_ns)


A, B = content_entry(b"a\n"), content_entry(b"b\n")


def summary_of(entries: Entries) -> bytes:
    summary = Summary()
    for path, entry in entries.items():
        summary.add(path, entry)
    return summary.digest()


def full(entries: Entries, target: int = 1, epoch: str = "e") -> Changes:
    listing = [Change(path, entry) for path, entry in entries.items()]
    return Changes("c", epoch, 0, target, summary_of(entries), listing)


def delta(old: Entries, new: Entries, base: int, target: int) -> Changes:
    paths = [p for p in old | new if old.get(p) != new.get(p)]
    listing = [Change(path, new.get(path)) for path in paths]
    return Changes("c", "e", base, target, summary_of(new), listing)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "store")
    for content in (b"a\n", b"b\n"):
        made.put(pack(content, hashlib.sha256(content).digest()))
    return made


@pytest.fixture
def tree(tmp_path: Path, store: Store) -> Tree:
    return Tree(os.fsencode(tmp_path / "trees/c"), store, OwnFiles(store, enabled=False))


def text(tree: Tree, path: bytes) -> bytes:
    return Path(os.fsdecode(tree.ground.real(path))).read_bytes()


def job_file(path: bytes, content: bytes) -> JobFile:
    entry = content_entry(content)
    return JobFile(path, entry, pack(content, entry.digest))


# --- generations --------------------------------------------------------------------------------


def test_a_full_listing_is_applied(tree: Tree) -> None:
    assert tree.apply(full({b"/d": DIRECTORY, b"/d/a.h": A}, 7)) == ChangesReply("applied", 7)
    assert text(tree, b"/d/a.h") == b"a\n"
    assert repr(tree) == "Tree(epoch='e', generation=7, 2)"


def test_where_a_tree_is_can_be_asked_while_it_changes(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that waited for a large listing would not ask for work, and count as down."""
    assert tree.apply(full({b"/i/a.h": A})).state == "applied"
    begun, go_on = threading.Event(), threading.Event()
    put = tree.ground.put

    def slow(path: bytes, entry: Entry) -> None:
        begun.set()
        go_on.wait(10)
        put(path, entry)

    monkeypatch.setattr(tree.ground, "put", slow)
    changing = threading.Thread(target=tree.apply, args=[full({b"/i/a.h": B}, target=2)])
    changing.start()
    assert begun.wait(10)
    during = tree.position(), tree.status().generation
    still = changing.is_alive()
    go_on.set()
    changing.join()
    assert (during, still) == ((("e", 1, summary_of({b"/i/a.h": A})), 1), True)
    assert tree.position() == ("e", 2, summary_of({b"/i/a.h": B}))


def test_an_offer_of_what_is_there_only_changes_the_generation(tree: Tree) -> None:
    entries: Entries = {b"/a.h": A}
    tree.apply(full(entries, 7))
    offer = Changes("c", "new", 0, 2, summary_of(entries))
    assert tree.apply(offer) == ChangesReply("applied", 2)
    assert tree.position() == ("new", 2, summary_of(entries))


def test_an_offer_of_something_else_needs_a_full_listing(tree: Tree) -> None:
    offer = Changes("c", "e", 0, 2, summary_of({b"/a.h": A}))
    assert tree.apply(offer) == ChangesReply("need_full")


@pytest.mark.parametrize(("epoch", "base"), [("other", 1), ("e", 2)])
def test_changes_of_another_base_need_a_full_listing(tree: Tree, epoch: str, base: int) -> None:
    tree.apply(full({b"/a.h": A}, 1))
    changes = Changes("c", epoch, base, base + 1, summary_of({}), [Change(b"/a.h")])
    assert tree.apply(changes) == ChangesReply("need_full")
    assert text(tree, b"/a.h") == b"a\n"


def test_changes_that_overlap_with_what_is_there_are_applied(tree: Tree) -> None:
    first: Entries = {b"/a.h": A}
    second: Entries = {b"/a.h": B}
    third: Entries = {b"/a.h": B, b"/b.h": A}
    tree.apply(full(first, 1))
    tree.apply(delta(first, second, 1, 2))
    assert tree.apply(delta(first, third, 1, 3)) == ChangesReply("applied", 3)
    assert text(tree, b"/b.h") == b"a\n"


def test_changes_from_the_past_change_nothing(tree: Tree) -> None:
    tree.apply(full({b"/a.h": A}, 5))
    assert tree.apply(full({b"/a.h": B}, 3)) == ChangesReply("applied", 5)
    assert text(tree, b"/a.h") == b"a\n"


def test_a_delta_that_does_not_lead_to_its_summary_needs_a_full_listing(tree: Tree) -> None:
    tree.apply(full({b"/a.h": A}, 1))
    changes = Changes("c", "e", 1, 2, bytes(32), [Change(b"/a.h", B)])
    assert tree.apply(changes) == ChangesReply("need_full")
    assert text(tree, b"/a.h") == b"a\n"


def test_a_listing_that_is_not_its_summary_is_refused(tree: Tree) -> None:
    with pytest.raises(ProtocolError):
        tree.apply(Changes("c", "e", 0, 2, bytes(31) + b"x", [Change(b"/a.h", A)]))


# --- blobs --------------------------------------------------------------------------------------


def test_missing_blobs_are_asked_for_and_nothing_is_changed(tree: Tree, store: Store) -> None:
    new = content_entry(b"new\n")
    tree.apply(full({b"/a.h": A}, 1))
    changes = delta({b"/a.h": A}, {b"/a.h": B, b"/n.h": new}, 1, 2)
    assert tree.apply(changes) == ChangesReply("need_blobs", 1, [new.digest])
    assert text(tree, b"/a.h") == b"a\n"
    store.put(pack(b"new\n", new.digest))
    assert tree.apply(changes) == ChangesReply("applied", 2)
    assert text(tree, b"/n.h") == b"new\n"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own.h"
    path.write_bytes(b"own\n")
    path.chmod(0o644)
    return path


def own_listing(own: Path) -> Changes:
    return full({os.fsencode(own): content_entry(b"own\n")})


def test_the_worker_s_own_file_is_used(tmp_path: Path, store: Store, own: Path) -> None:
    tree = Tree(os.fsencode(tmp_path / "t"), store, OwnFiles(store))
    assert tree.apply(own_listing(own)).state == "applied"


def test_the_worker_s_own_file_is_not_used_where_that_is_switched_off(
    tree: Tree, own: Path
) -> None:
    assert tree.apply(own_listing(own)).state == "need_blobs"


@pytest.mark.parametrize("change", [lambda p: p.write_bytes(b"owm\n"), lambda p: p.chmod(0o600)])
def test_a_different_or_private_file_of_the_worker_is_not_used(
    change, tmp_path: Path, store: Store, own: Path
) -> None:
    change(own)
    tree = Tree(os.fsencode(tmp_path / "t"), store, OwnFiles(store))
    assert tree.apply(own_listing(own)).state == "need_blobs"


# --- what is on disk ----------------------------------------------------------------------------


def test_two_names_of_one_content_are_two_files(tree: Tree) -> None:
    tree.apply(full({b"/a.h": A, b"/b.h": A}))
    first, second = (os.stat(tree.ground.real(path)) for path in (b"/a.h", b"/b.h"))
    assert first.st_ino != second.st_ino
    assert {first.st_mtime_ns, second.st_mtime_ns} == {A.mtime_ns}


def test_a_file_keeps_its_link_when_it_moves(tree: Tree) -> None:
    tree.apply(full({b"/a.h": A}))
    tree.apply(delta({b"/a.h": A}, {b"/b.h": A}, 1, 2))
    assert os.stat(tree.ground.real(b"/b.h")).st_nlink == 2


def test_a_directory_goes_with_all_that_is_in_it(tree: Tree) -> None:
    tree.apply(full({b"/d": DIRECTORY, b"/d/e": DIRECTORY, b"/d/e/a.h": A}))
    changes = Changes("c", "e", 1, 2, summary_of({}), [Change(b"/d")])
    assert tree.apply(changes).state == "applied"
    assert os.listdir(tree.ground.root) == []


def test_a_directory_that_is_no_entry_any_more_stays_above_others(tree: Tree) -> None:
    tree.apply(full({b"/d": DIRECTORY, b"/d/e/a.h": A}, 1))
    tree.apply(full({b"/d/e/a.h": A}, 2))
    assert text(tree, b"/d/e/a.h") == b"a\n"


@pytest.mark.parametrize("new", [A, SymlinkEntry(b"x"), WITHHELD])
def test_a_directory_becomes_something_else(tree: Tree, new: Entry) -> None:
    tree.apply(full({b"/d": DIRECTORY, b"/d/a.h": B}))
    changes = Changes("c", "e", 1, 2, summary_of({b"/d": new}), [Change(b"/d", new)])
    assert tree.apply(changes).state == "applied"
    assert not tree.ground.is_directory(b"/d")


def test_directories_that_only_held_a_removed_file_go_with_it(tree: Tree) -> None:
    tree.apply(full({b"/x/y/a.h": A}))
    tree.apply(delta({b"/x/y/a.h": A}, {}, 1, 2))
    assert os.listdir(tree.ground.root) == []


@pytest.mark.parametrize("above", [SymlinkEntry(b"/etc"), A, WITHHELD])
def test_nothing_is_written_through_what_is_no_directory(tree: Tree, above: Entry) -> None:
    """The entry is known but not on disk, until what is above it is a directory."""
    odd: Entries = {b"/l": above, b"/l/a.h": A, b"/b.h": B}
    assert tree.apply(full(odd)).state == "applied"
    assert sorted(os.listdir(tree.ground.root)) == [b"b.h", b"l"]
    assert (tree.digest_at(b"/l/a.h"), tree.lookup("/l/a.h")) == (b"", None)
    good: Entries = {**odd, b"/l": DIRECTORY}
    assert tree.apply(delta(odd, good, 1, 2)).state == "applied"
    assert text(tree, b"/l/a.h") == b"a\n"
    assert tree.digest_at(b"/l/a.h") == A.digest
    both = [Change(b"/l", above), Change(b"/l/a.h", A)]
    assert tree.apply(Changes("c", "e", 2, 3, summary_of(odd), both)).state == "applied"
    assert not tree.ground.is_directory(b"/l")
    assert tree.apply(delta(odd, {b"/b.h": B}, 3, 4)).state == "applied"
    assert os.listdir(tree.ground.root) == [b"b.h"]


LONG = b"/" + b"/".join([b"n" * 250] * 17)


@pytest.mark.parametrize("entry", [A, DIRECTORY, WITHHELD, SymlinkEntry(b"/x")])
@pytest.mark.parametrize("path", [LONG, b"/" + b"n" * 256])
def test_a_path_too_long_for_this_machine_is_left_out(
    tree: Tree, path: bytes, entry: Entry
) -> None:
    entries: Entries = {path: entry, b"/b.h": B}
    assert tree.apply(full(entries)).state == "applied"
    assert os.listdir(tree.ground.root) == [b"b.h"]
    assert tree.digest_at(path) == b""
    assert tree.apply(delta(entries, {b"/b.h": B}, 1, 2)).state == "applied"


def test_the_root_itself_may_be_an_entry(tree: Tree) -> None:
    entries: Entries = {b"/": DIRECTORY, b"/d": DIRECTORY, b"/d/a.h": A}
    changes = msgspec.structs.replace(full(entries), roots=[b"/"])
    assert tree.apply(changes).state == "applied"
    without: Entries = {b"/d": DIRECTORY, b"/d/a.h": B}
    assert tree.apply(delta(entries, {**without, b"/": DIRECTORY}, 1, 2)).state == "applied"
    assert text(tree, b"/d/a.h") == b"b\n"
    gone = Changes("c", "e", 2, 3, summary_of({}), [Change(b"/")])
    assert tree.apply(gone).state == "applied"
    assert os.listdir(tree.ground.root) == []


def test_a_file_from_a_far_year_is_taken(tree: Tree) -> None:
    year_2300 = FileEntry(A.digest, A.size, 0o644, 10_413_792_000 * 10**9)
    assert tree.apply(full({b"/a.h": year_2300})).state == "applied"
    assert tree.digest_at(b"/a.h") == A.digest


@pytest.mark.parametrize("mtime_ns", [2**100, -(2**100)])
def test_a_time_that_no_disk_knows_is_taken_as_near_as_can_be(tree: Tree, mtime_ns: int) -> None:
    """Not by way of a summary: MessagePack, which it hashes, ends at 64 bits."""
    tree.ground.put(b"/a.h", FileEntry(A.digest, A.size, 0o644, mtime_ns))
    assert text(tree, b"/a.h") == b"a\n"


# --- what was changed behind its back -----------------------------------------------------------


def spoil(tree: Tree, path: bytes) -> None:
    """Change a byte of the blob itself, by way of its link."""
    real = tree.ground.real(path)
    os.chmod(real, 0o644)
    with open(real, "r+b") as file:
        file.write(b"X")


def test_an_input_whose_file_was_replaced_is_put_again_and_said(tree: Tree) -> None:
    tree.apply(full({b"/a.h": A}))
    revision = tree.revision()
    os.unlink(tree.ground.real(b"/a.h"))
    Path(os.fsdecode(tree.ground.real(b"/a.h"))).write_bytes(b"x\n")
    assert tree.digest_at(b"/a.h") == b""
    assert text(tree, b"/a.h") == b"a\n"
    assert tree.digest_at(b"/a.h") == A.digest
    assert tree.is_changed_since(revision, [b"/a.h"])


def test_an_input_that_is_gone_is_put_again_and_said(tree: Tree) -> None:
    tree.apply(full({b"/d": DIRECTORY, b"/d/a.h": A}))
    os.unlink(tree.ground.real(b"/d/a.h"))
    assert tree.digest_at(b"/d/a.h") == b""
    assert text(tree, b"/d/a.h") == b"a\n"


LISTED: Entries = {
    b"/d": DIRECTORY,
    b"/d/e": DIRECTORY,
    b"/d/a.h": A,
    b"/b.h": B,
    b"/l.h": SymlinkEntry(b"d/a.h"),
    b"/w.o": WITHHELD,
}


def on_disk(tree: Tree) -> dict[str, str]:
    """Kind of each name below the tree's root, with a file's text or a link's target."""
    root = Path(os.fsdecode(tree.ground.root))
    return {
        str(path.relative_to(root)): f"-> {path.readlink()}"
        if path.is_symlink()
        else "directory"
        if path.is_dir()
        else path.read_text()
        for path in root.rglob("*")
    }


@pytest.mark.parametrize("lost", [["d/a.h"], ["d"], ["d/e"], ["l.h"], ["w.o"], ["d", "b.h", "l.h"]])
def test_after_a_failure_all_that_was_lost_is_put_again(tree: Tree, lost: list[str]) -> None:
    tree.apply(full(LISTED))
    whole, revision = on_disk(tree), tree.revision()
    for name in lost:
        path = Path(os.fsdecode(tree.ground.root)) / name
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    assert on_disk(tree) != whole
    assert tree.has_lost_files(revision)
    assert on_disk(tree) == whole


@pytest.mark.parametrize("name", ["d/a.h", "d/e", "l.h", "w.o"])
def test_after_a_failure_what_took_an_entry_s_place_is_replaced(tree: Tree, name: str) -> None:
    tree.apply(full(LISTED))
    whole, revision = on_disk(tree), tree.revision()
    path = Path(os.fsdecode(tree.ground.root)) / name
    if path.is_dir():
        path.rmdir()
        path.write_text("other")
    else:
        path.unlink()
        path.mkdir()
    assert tree.has_lost_files(revision)
    assert on_disk(tree) == whole


def test_after_a_failure_a_whole_tree_is_not_touched(tree: Tree) -> None:
    tree.apply(full(LISTED))
    revision = tree.revision()
    assert not tree.has_lost_files(revision)
    assert tree.revision() == revision


def test_a_failure_during_the_repair_of_another_one_counts_too(tree: Tree) -> None:
    tree.apply(full(LISTED))
    revision = tree.revision()
    os.unlink(tree.ground.real(b"/b.h"))
    assert tree.has_lost_files(revision)
    assert tree.has_lost_files(revision)  # this compile had begun before the repair


def test_after_many_failures_it_does_not_look_all_the_time(tmp_path: Path, store: Store) -> None:
    own_files = OwnFiles(store, enabled=False)
    tree = Tree(os.fsencode(tmp_path / "trees/c"), store, own_files, looking_share=1e-9)
    tree.apply(full(LISTED))
    assert not tree.has_lost_files(tree.revision())
    os.unlink(tree.ground.real(b"/b.h"))
    assert not tree.has_lost_files(tree.revision())


def test_after_a_failure_a_job_s_own_file_stays(tree: Tree) -> None:
    tree.apply(full(LISTED))
    with tree.holds.holding([job_file(b"/w.o", b"other\n")], []):
        assert not tree.has_lost_files(tree.revision())
        assert text(tree, b"/w.o") == b"other\n"


def test_a_lost_file_that_is_a_job_s_own_source_is_put_again(tree: Tree) -> None:
    tree.apply(full(LISTED))
    os.unlink(tree.ground.real(b"/d/a.h"))
    with tree.holds.holding([job_file(b"/d/a.h", b"a\n")], []):
        assert text(tree, b"/d/a.h") == b"a\n"
    assert text(tree, b"/d/a.h") == b"a\n"


def test_after_a_disk_error_during_the_repair_the_tree_is_sent_again(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.apply(full(LISTED))
    revision = tree.revision()
    os.unlink(tree.ground.real(b"/b.h"))

    def fails(path: bytes, entry: Entry) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(tree.ground, "put", fails)
        with pytest.raises(InfrastructureError):
            tree.has_lost_files(revision)
    assert tree.position()[0] == ""
    assert tree.apply(full(LISTED)).state == "applied"


def test_a_lost_file_with_a_spoilt_blob_is_asked_for_again(tree: Tree) -> None:
    tree.apply(full(LISTED))
    revision = tree.revision()
    spoil(tree, b"/b.h")
    os.unlink(tree.ground.real(b"/b.h"))
    assert tree.has_lost_files(revision)
    assert tree.position()[0] == ""
    assert tree.apply(full(LISTED)).missing == [B.digest]


def test_a_spoilt_blob_is_asked_for_again(tree: Tree, store: Store) -> None:
    entries: Entries = {b"/a.h": A, b"/b.h": B}
    tree.apply(full(entries))
    spoil(tree, b"/a.h")
    assert tree.digest_at(b"/a.h") == b""
    assert tree.position()[0] == ""
    assert tree.apply(full(entries)).missing == [A.digest]
    store.put(pack(b"a\n", A.digest))
    assert tree.apply(full(entries)).state == "applied"
    assert text(tree, b"/a.h") == b"a\n"
    assert tree.digest_at(b"/a.h") == A.digest
    assert tree.status().files == 2


def test_a_content_changed_under_its_old_time_is_noticed(tree: Tree) -> None:
    tree.apply(full({b"/a.h": A}))
    spoil(tree, b"/a.h")
    os.chmod(tree.ground.real(b"/a.h"), 0o444)
    os.utime(tree.ground.real(b"/a.h"), ns=(A.mtime_ns, A.mtime_ns))
    assert tree.digest_at(b"/a.h") == b""


def test_another_link_to_a_blob_changes_nothing(tree: Tree, tmp_path: Path) -> None:
    tree.apply(full({b"/a.h": A}))
    os.link(tree.ground.real(b"/a.h"), tmp_path / "link")
    assert tree.digest_at(b"/a.h") == A.digest


@pytest.mark.parametrize("path", [b"/../x", b"x", b"/a//b", b"/a\0"])
def test_a_path_outside_the_tree_is_refused(tree: Tree, path: bytes) -> None:
    with pytest.raises(ProtocolError):
        tree.apply(full({path: A}))
    with pytest.raises(ProtocolError), tree.holds.holding([job_file(path, b"a\n")], []):
        pass


def test_a_root_outside_the_tree_is_refused_and_nothing_is_changed(tree: Tree) -> None:
    listing = full({b"/a.h": A})
    forged = msgspec.structs.replace(listing, roots=[b"/a/../.."])
    with pytest.raises(ProtocolError):
        tree.apply(forged)
    assert os.listdir(tree.ground.root) == []


def test_links_are_followed_as_on_the_dev_box(tree: Tree) -> None:
    tree.apply(full({b"/x/l": SymlinkEntry(b"/y"), b"/y/a.h": A, b"/y": DIRECTORY}))
    assert text(tree, b"/x/l/a.h") == b"a\n"
    assert tree.resolve("/x/l/../x/l/a.h") == "/y/a.h"
    assert tree.digest_at(b"/y/a.h") == A.digest


def test_a_disk_that_fails_leaves_an_empty_tree_that_asks_for_all(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.apply(full({b"/a.h": A}))
    revision = tree.revision()

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    changes = delta({b"/a.h": A}, {b"/a.h": B}, 1, 2)
    with monkeypatch.context() as patch:
        patch.setattr("distbuild.system.disk.rename", full_disk)
        with pytest.raises(InfrastructureError, match="No space left"):
            tree.apply(changes)
    assert tree.apply(changes) == ChangesReply("need_full")
    assert os.listdir(tree.ground.root) == []
    assert tree.is_changed_since(revision, [])


def test_what_changed_since_a_revision_is_known_by_path(tree: Tree) -> None:
    tree.apply(full({b"/a.h": A, b"/b.h": B}))
    revision = tree.revision()
    assert not tree.is_changed_since(revision, [b"/a.h", b"/b.h"])
    tree.apply(delta({b"/a.h": A, b"/b.h": B}, {b"/b.h": B}, 1, 2))
    assert tree.is_changed_since(revision, [b"/a.h"])
    assert not tree.is_changed_since(revision, [b"/b.h"])


def test_changes_that_are_here_already_are_no_change(tree: Tree) -> None:
    """A push and a lease bring the same ones; a failing compile between them is not disturbed."""
    entries: Entries = {b"/a.h": A, b"/b.h": B}
    tree.apply(full(entries))
    revision = tree.revision()
    assert tree.apply(full(entries)) == ChangesReply("applied", 1)
    assert tree.apply(delta({b"/a.h": A}, entries, 1, 2)) == ChangesReply("applied", 2)
    assert tree.revision() == revision


# --- running jobs -------------------------------------------------------------------------------


def test_a_job_s_file_is_there_for_its_time_only(tree: Tree) -> None:
    tree.apply(full({b"/d": DIRECTORY}))
    with tree.holds.holding([job_file(b"/d/x.c", b"int x;\n")], [b"/d/build/deep"]):
        assert text(tree, b"/d/x.c") == b"int x;\n"
        assert tree.ground.is_directory(b"/d/build/deep")
        assert tree.digest_at(b"/d/x.c") == hashlib.sha256(b"int x;\n").digest()
    assert os.listdir(tree.ground.real(b"/d")) == []
    assert tree.digest_at(b"/d/x.c") == b""


def test_a_withheld_name_gets_its_placeholder_back(tree: Tree) -> None:
    tree.apply(full({b"/x.c": WITHHELD}))
    with tree.holds.holding([job_file(b"/x.c", b"int x;\n")], []):
        assert text(tree, b"/x.c") == b"int x;\n"
    assert text(tree, b"/x.c") == WITHHELD_TEXT


def test_two_jobs_share_a_file_until_the_last_ends(tree: Tree) -> None:
    file = job_file(b"/x.c", b"int x;\n")
    with tree.holds.holding([file], []):
        with tree.holds.holding([file], []):
            pass
        assert text(tree, b"/x.c") == b"int x;\n"
    assert os.listdir(tree.ground.root) == []


def test_a_job_waits_for_another_one_s_file_at_its_path(tree: Tree) -> None:
    seen: list[bytes] = []

    def second() -> None:
        with tree.holds.holding([job_file(b"/x.c", b"int y;\n")], []):
            seen.append(text(tree, b"/x.c"))

    thread = threading.Thread(target=second)
    with tree.holds.holding([job_file(b"/x.c", b"int x;\n")], []):
        thread.start()
        thread.join(0.1)
        assert thread.is_alive()
        assert text(tree, b"/x.c") == b"int x;\n"
    thread.join(5)
    assert seen == [b"int y;\n"]


def test_changes_meanwhile_do_not_touch_a_running_job_s_file(tree: Tree) -> None:
    tree.apply(full({b"/x.c": WITHHELD}))
    with tree.holds.holding([job_file(b"/x.c", b"int x;\n")], []):
        assert tree.apply(delta({b"/x.c": WITHHELD}, {b"/x.c": A}, 1, 2)).state == "applied"
        assert text(tree, b"/x.c") == b"int x;\n"
    assert text(tree, b"/x.c") == b"a\n"


def test_a_directory_may_go_under_a_running_job(tree: Tree) -> None:
    tree.apply(full({b"/d": DIRECTORY}))
    with tree.holds.holding([job_file(b"/d/x.c", b"int x;\n")], [b"/d/b"]):
        assert tree.apply(delta({b"/d": DIRECTORY}, {}, 1, 2)).state == "applied"
    assert os.listdir(tree.ground.root) == []


def test_a_job_s_file_lands_behind_the_links_of_its_directory(tree: Tree) -> None:
    tree.apply(full({b"/l": SymlinkEntry(b"d"), b"/d": DIRECTORY}))
    with tree.holds.holding([job_file(b"/l/x.c", b"int x;\n")], []):
        assert text(tree, b"/d/x.c") == b"int x;\n"
        assert tree.digest_at(b"/d/x.c") != b""


def test_a_job_s_file_with_another_content_is_refused(tree: Tree) -> None:
    forged = JobFile(b"/x.c", A, pack(b"b\n", B.digest))
    with pytest.raises(ProtocolError), tree.holds.holding([forged], []):
        pass


# --- the forest ---------------------------------------------------------------------------------


ONE, TWO = client_label("one"), client_label("two")


@pytest.fixture
def trees(tmp_path: Path, store: Store) -> Iterator[Trees]:
    made = Trees(tmp_path / "sandbox", store, OwnFiles(store, enabled=False))
    made.set_aside_old()
    yield made
    made.delete_old()


def test_each_client_has_a_tree_of_its_own(trees: Trees, tmp_path: Path) -> None:
    trees.tree("one").apply(full({b"/a.h": A}))
    trees.tree("two").apply(full({b"/a.h": B}))
    assert (tmp_path / "sandbox" / ONE / "a.h").read_bytes() == b"a\n"
    assert (tmp_path / "sandbox" / TWO / "a.h").read_bytes() == b"b\n"
    assert {name: status.files for name, status in trees.status().items()} == {ONE: 1, TWO: 1}


def test_a_forest_that_cannot_be_healed_is_no_error_of_the_jobs(
    trees: Trees, tmp_path: Path
) -> None:
    """Whoever asks for it has a result to deliver."""
    trees.tree("one").apply(full({b"/a.h": A}))
    root = tmp_path / "sandbox"
    shutil.rmtree(root)
    root.write_text("in its place")
    trees.heal()
    root.unlink()
    trees.heal()
    assert trees.jobs.is_dir()
    trees.tree("one").apply(full({b"/a.h": A}))
    assert (root / ONE / "a.h").read_bytes() == b"a\n"


def test_the_files_of_clients_that_are_gone_are_removed(trees: Trees) -> None:
    for client in ("a", "b"):
        assert trees.tree(client).apply(full({b"/a.h": A})).state == "applied"
    trees.clear_unused(3600.0)
    assert trees.status()[client_label("a")].files == 1
    trees._named["a"] -= 3601.0
    trees.clear_unused(3600.0)
    assert trees.status()[client_label("a")].files == 0
    assert trees.status()[client_label("b")].files == 1
    assert trees.tree("a").apply(delta({}, {b"/a.h": A}, 1, 2)).state == "need_full"
    assert trees.tree("a").apply(full({b"/a.h": A})).state == "applied"
    trees.clear_unused(3600.0)
    assert trees.status()[client_label("a")].files == 1


def test_cleaning_removes_a_client_s_tree_only(trees: Trees, tmp_path: Path) -> None:
    trees.tree("one").apply(full({b"/a.h": A}))
    trees.tree("two").apply(full({b"/a.h": B}))
    trees.clean("one")
    assert list((tmp_path / "sandbox" / ONE).iterdir()) == []
    assert (tmp_path / "sandbox" / TWO / "a.h").exists()
    assert trees.tree("one").apply(full({b"/a.h": A}, 2)).state == "applied"


def test_trees_of_an_earlier_process_are_removed(
    trees: Trees, tmp_path: Path, store: Store
) -> None:
    trees.tree("one").apply(full({b"/d/a.h": A}))
    again = Trees(tmp_path / "sandbox", store, OwnFiles(store, enabled=False))
    again.set_aside_old()
    again.delete_old()
    assert [path.name for path in (tmp_path / "sandbox").iterdir()] == [".jobs"]
