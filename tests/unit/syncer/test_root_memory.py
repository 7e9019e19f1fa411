from pathlib import Path

import pytest

from distbuild.mirror import search_dirs as memory_module
from distbuild.mirror.search_dirs import FORGET_S, RootMemory

DAY_S = 24 * 3600.0


class Clock:
    now = 1_700_000_000.0

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(memory_module, "time", clock)
    return clock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "roots"


def test_directories_are_remembered_over_a_restart(path: Path, clock: Clock) -> None:
    RootMemory(path).save(["/a", "/caf\udce9", "/ü"], [])
    assert RootMemory(path).load() == ["/a", "/caf\udce9", "/ü"]
    assert not path.with_suffix(".tmp").exists()


def test_what_is_named_anew_is_added(path: Path, clock: Clock) -> None:
    RootMemory(path).save(["/a"], [])
    memory = RootMemory(path)
    memory.load()
    memory.save(["/b"], [])
    assert RootMemory(path).load() == ["/a", "/b"]


def test_what_no_job_named_for_long_is_forgotten(path: Path, clock: Clock) -> None:
    RootMemory(path).save(["/a"], [])
    clock.now += FORGET_S + 1
    memory = RootMemory(path)
    assert memory.load() == []
    memory.save(["/b"], [])
    assert RootMemory(path).load() == ["/b"]


def test_what_is_named_every_day_is_not_forgotten(path: Path, clock: Clock) -> None:
    for _ in range(2 * int(FORGET_S / DAY_S)):
        memory = RootMemory(path)
        memory.load()
        memory.save(["/a"], [])
        clock.now += DAY_S
    assert RootMemory(path).load() == ["/a"]


def test_a_file_is_not_written_without_need(path: Path, clock: Clock) -> None:
    memory = RootMemory(path)
    memory.save(["/a"], [])
    path.unlink()
    clock.now += 30
    memory.save(["/a"], [])
    assert not path.exists()


@pytest.mark.parametrize("data", [b"", b"{}", b"\xc1", b"\x81\xabdirectories\x03", b"\x90"])
def test_a_damaged_memory_is_an_empty_one(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    memory = RootMemory(path)
    assert (memory.load(), memory.files) == ([], [])
    memory.save(["/a"], [])
    assert RootMemory(path).load() == ["/a"]


def test_files_that_were_asked_for_are_remembered(path: Path, clock: Clock) -> None:
    RootMemory(path).save(["/a"], ["/a/x.c", "/a/\udcff.c"])
    memory = RootMemory(path)
    memory.load()
    assert memory.files == ["/a/x.c", "/a/\udcff.c"]
    memory.save(["/a"], [])
    again = RootMemory(path)
    again.load()
    assert again.files == []


def test_without_a_memory_nothing_is_known(path: Path) -> None:
    assert RootMemory(path).load() == []
