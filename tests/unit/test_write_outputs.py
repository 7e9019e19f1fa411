import errno
import os
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from distbuild.protocol.codec import pack, pack_output
from distbuild.protocol.errors import InfrastructureError
from distbuild.protocol.messages import MAX_BLOB_BYTES, Blob, OutputFile
from distbuild.write_outputs import Rights, write_outputs
from tests.support.tools import absent

RIGHTS = Rights(0o022)


def output(path: Path, data: bytes = b"object", mode: int = 0o644) -> OutputFile:
    return OutputFile(os.fsencode(path), mode, pack(data))


def listing(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
@pytest.mark.parametrize("mode", [0o644, 0o755, 0o600, 0o4755, -1])
def test_modes_are_those_of_the_builds_umask(tmp_path: Path, umask: int, mode: int) -> None:
    write_outputs([output(tmp_path / "x", mode=mode)], [], Rights(umask))
    assert (tmp_path / "x").stat().st_mode & 0o7777 == 0o666 & ~umask


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_where_a_directory_says_the_rights_no_umask_counts(tmp_path: Path, umask: int) -> None:
    # Everything for user, owner's group, another group and mask, and to read for others.
    entries = [(1, 7, -1), (4, 7, -1), (8, 7, 1234), (16, 7, -1), (32, 5, -1)]
    acl = b"".join(struct.pack("<HHi", *entry) for entry in entries)
    try:
        os.setxattr(tmp_path, "system.posix_acl_default", struct.pack("<I", 2) + acl)
    except OSError:
        absent("no access control lists here")
    mask = os.umask(umask)
    try:
        (tmp_path / "compilers").touch()
    finally:
        os.umask(mask)
    write_outputs([output(tmp_path / "ours")], [], Rights(umask))
    name = "system.posix_acl_access"
    rights = [(path.stat().st_mode, os.getxattr(path, name)) for path in tmp_path.iterdir()]
    assert rights[0] == rights[1]


def test_files_are_replaced_and_removed(tmp_path: Path) -> None:
    old = tmp_path / "x.o"
    old.write_bytes(b"old")
    (tmp_path / "y.o").write_bytes(b"left by an earlier run")
    with old.open("rb") as still_open:
        write_outputs(
            [output(old), output(tmp_path / "caf\udce9.d", b"")],
            [os.fsencode(tmp_path / "y.o"), os.fsencode(tmp_path / "none")],
            RIGHTS,
        )
        assert still_open.read() == b"old"
    assert listing(tmp_path) == {"x.o": b"object", "caf\udce9.d": b""}


def damaged(blob: Blob) -> Blob:
    return Blob(blob.digest, blob.size, blob.data[:-1])


def other_content(blob: Blob) -> Blob:
    return Blob(blob.digest, blob.size, pack(b"OBJECT").data)


def too_small(blob: Blob) -> Blob:
    return Blob(blob.digest, blob.size - 1, blob.data)


def too_large(blob: Blob) -> Blob:
    return Blob(blob.digest, MAX_BLOB_BYTES + 1, blob.data)


@pytest.mark.parametrize("harm", [damaged, other_content, too_small, too_large])
def test_a_damaged_output_is_refused_and_nothing_is_left(
    tmp_path: Path, harm: Callable[[Blob], Blob]
) -> None:
    (tmp_path / "x.o").write_bytes(b"old")
    bad = OutputFile(os.fsencode(tmp_path / "x.d"), 0o644, harm(pack(b"object")))
    with pytest.raises(InfrastructureError, match=r"x\.d: "):
        write_outputs([output(tmp_path / "x.o"), bad], [], RIGHTS)
    assert listing(tmp_path) == {"x.o": b"old"}


def test_a_missing_directory_leaves_nothing(tmp_path: Path) -> None:
    outputs = [output(tmp_path / "x.o"), output(tmp_path / "none/x.d")]
    with pytest.raises(InfrastructureError, match="No such file"):
        write_outputs(outputs, [], RIGHTS)
    assert listing(tmp_path) == {}


def test_a_directory_in_an_outputs_place_leaves_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/full").touch()
    outputs = [output(tmp_path / "d"), output(tmp_path / "x.o")]
    with pytest.raises(InfrastructureError):
        write_outputs(outputs, [], RIGHTS)
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_what_cannot_be_removed_breaks_no_build(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    write_outputs([], [os.fsencode(tmp_path / "d")], RIGHTS)
    assert (tmp_path / "d").is_dir()


@pytest.fixture(params=["without a name", "under a temporary name"])
def _either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not every file system has files without a name."""
    real = os.open

    def without(path: bytes, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "no")
        return real(path, flags, mode)

    if request.param == "under a temporary name":
        monkeypatch.setattr("distbuild.write_outputs.os.open", without)


@pytest.mark.usefixtures("_either_way")
def test_either_way_files_come_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    (tmp_path / "old.o").write_bytes(b"old")
    write_outputs([output(tmp_path / "new.o"), output(tmp_path / "old.o")], [], Rights(0o027))
    assert listing(tmp_path) == {"new.o": b"object", "old.o": b"object"}
    modes = {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {0o640}


@pytest.mark.usefixtures("_either_way")
@pytest.mark.parametrize("mode", [0o600, 0o755, 0o644])
@pytest.mark.parametrize("is_linked", [False, True])
def test_what_compilers_write_into_stays_the_file_that_it_is(
    tmp_path: Path, mode: int, is_linked: bool
) -> None:
    paths = [tmp_path / "x.o", tmp_path / "x.d", tmp_path / "new.d"]
    for path in paths[:2]:
        path.write_bytes(b"old and longer")
        path.chmod(mode)
        if is_linked:
            os.link(path, path.with_suffix(path.suffix + "2"))
    write_outputs(list(map(output, paths)), [], RIGHTS, [os.fsencode(path) for path in paths[1:]])
    other = {"x.o2": b"old and longer", "x.d2": b"object"} if is_linked else {}
    assert listing(tmp_path) == {**{path.name: b"object" for path in paths}, **other}
    assert [path.stat().st_mode & 0o777 for path in paths] == [0o644, mode, 0o644]


@pytest.mark.usefixtures("_either_way")
def test_either_way_a_full_disk_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, written = os.write, []

    def full(handle: int, data: bytes) -> int:
        written.append(data)
        if len(written) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(handle, data)

    (tmp_path / "x.o").write_bytes(b"old")
    monkeypatch.setattr("distbuild.write_outputs.os.write", full)
    with pytest.raises(InfrastructureError, match="No space left"):
        write_outputs([output(tmp_path / "x.o"), output(tmp_path / "x.d")], [], RIGHTS)
    assert listing(tmp_path) == {"x.o": b"old"}


def test_an_output_with_a_checksum_is_held_against_it(tmp_path: Path) -> None:
    good = pack_output(b"object" * 1000)
    write_outputs([OutputFile(os.fsencode(tmp_path / "x.o"), 0o644, good)], [], RIGHTS)
    assert (tmp_path / "x.o").read_bytes() == b"object" * 1000
    for at in range(len(good.data)):
        data = bytearray(good.data)
        data[at] ^= 1
        bad = Blob(good.digest, good.size, bytes(data))
        with pytest.raises(InfrastructureError):
            write_outputs([OutputFile(os.fsencode(tmp_path / "x.o"), 0o644, bad)], [], RIGHTS)
    assert (tmp_path / "x.o").read_bytes() == b"object" * 1000


def test_many_may_write_the_same_file_at_the_same_time(tmp_path: Path) -> None:
    path = tmp_path / "same.o"
    texts = [bytes([n]) * 1000 for n in range(8)]

    def write(text: bytes) -> None:
        for _ in range(200):
            write_outputs([output(path, text)], [], RIGHTS)

    with ThreadPoolExecutor(len(texts)) as pool:
        for done in [pool.submit(write, text) for text in texts]:
            done.result()
    assert path.read_bytes() in texts
    assert listing(tmp_path).keys() == {"same.o"}


@pytest.mark.parametrize(("mode", "is_ours"), [(0o755, False), (0o2755, True)])
def test_the_group_is_the_builds_or_the_directorys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, is_ours: bool
) -> None:
    given: list[tuple[int, int]] = []
    monkeypatch.setattr("distbuild.write_outputs.os.fchown", lambda _, *owner: given.append(owner))
    tmp_path.chmod(mode)
    other = os.getegid() + 1
    write_outputs([output(tmp_path / "x.o")], [], Rights(0o022, other))
    assert given == ([] if is_ours else [(-1, other)])
    write_outputs([output(tmp_path / "x.o")], [], Rights(0o022, os.getegid()))
    assert given == ([] if is_ours else [(-1, other)])
