"""The cache of file digests, apart from its use by the scanner (test_scan)."""

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO, cast

import pytest

from distbuild.mirror.digest_cache import COARSE_RACY_NS, RACY_NS, DigestCache, Known
from distbuild.system import disk

OLD_NS = 1_000_000_000 * 10**9


Aged = Callable[[Path, int], None]


@pytest.fixture
def aged(monkeypatch: pytest.MonkeyPatch) -> Aged:
    """Sets the clock so many ns after the last change of a file."""

    def set_clock(file: Path, age_ns: int) -> None:
        now = file.stat().st_ctime_ns + age_ns
        monkeypatch.setattr("distbuild.mirror.digest_cache.time.time_ns", lambda: now)

    return set_clock


def known(number: int) -> Known:
    return Known((number, 0, 0, 0), b"", binary=False)


def test_a_digest_is_cached_until_the_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aged: Aged
) -> None:
    file = tmp_path / "cc1"
    file.write_bytes(b"one")
    aged(file, RACY_NS + 1)
    reads: list[str] = []

    def open_to_read(path: str) -> BinaryIO:
        reads.append(path)
        return open(path, "rb")

    monkeypatch.setattr(disk, "open_to_read", open_to_read)
    cache = DigestCache()
    assert [cache.of(str(file)) for _ in range(3)] == [hashlib.sha256(b"one").digest()] * 3
    assert cache.of(os.fsencode(file)) == cache.of(str(file), file.stat())
    assert len(reads) == 1
    os.utime(file, ns=(OLD_NS, OLD_NS))
    cache.of(str(file))
    assert len(reads) == 2


@pytest.mark.parametrize(("age_ns", "unsaved"), [(0, 0), (RACY_NS, 0), (RACY_NS + 1, 1)])
def test_a_file_that_may_change_with_the_same_times_is_not_cached(
    tmp_path: Path, aged: Aged, age_ns: int, unsaved: int
) -> None:
    file = tmp_path / "cc1"
    file.write_bytes(b"one")
    aged(file, age_ns)
    cache = DigestCache()
    cache.of(str(file))
    assert cache.unsaved == unsaved


@pytest.mark.parametrize(
    ("age_ns", "unsaved"), [(RACY_NS + 1, 0), (COARSE_RACY_NS, 0), (COARSE_RACY_NS + 1, 1)]
)
def test_times_of_whole_seconds_may_be_those_of_a_coarse_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age_ns: int, unsaved: int
) -> None:
    file = tmp_path / "x.h"
    file.write_bytes(b"one")
    second = int(file.stat().st_ctime) + 1
    status = SimpleNamespace(
        st_size=3, st_ino=1, st_mtime_ns=second * 10**9, st_ctime_ns=second * 10**9
    )
    monkeypatch.setattr(
        "distbuild.mirror.digest_cache.time.time_ns", lambda: second * 10**9 + age_ns
    )
    cache = DigestCache()
    cache.of(str(file), cast("os.stat_result", status))
    assert cache.unsaved == unsaved


def test_a_missing_file_has_no_digest(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        DigestCache().of(str(tmp_path / "none"))


def test_the_oldest_digests_are_dropped_from_a_full_cache() -> None:
    cache = DigestCache(most=10)
    for number in range(100):
        cache.put(f"/{number}", known(number))
        assert sum(1 for _ in cache.states()) <= 10
    assert cache.get("/99", (99, 0, 0, 0)) == known(99)
    assert cache.get("/0", (0, 0, 0, 0)) is None


def test_a_name_that_is_no_utf8_is_kept_between_runs(tmp_path: Path, aged: Aged) -> None:
    program, memory = tmp_path / "gcc\udcff", tmp_path / "state" / "programs"
    program.write_bytes(b"x")
    aged(program, RACY_NS + 1)
    for unsaved in (1, 0):
        cache = DigestCache(memory)
        assert cache.of(str(program)) == hashlib.sha256(b"x").digest()
        assert cache.unsaved == unsaved
        cache.save()
    assert [path.name for path in memory.parent.iterdir()] == ["programs"]


def test_a_cache_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    memory = tmp_path / "state" / "programs"
    memory.mkdir(parents=True)
    cache = DigestCache(memory)
    cache.put("/gcc", known(1))
    with pytest.raises(OSError, match="programs"):
        cache.save()
    assert [path.name for path in memory.parent.iterdir()] == ["programs"]


def test_threads_share_a_cache(tmp_path: Path) -> None:
    cache = DigestCache(tmp_path / "digests", most=50)

    def work(first: int) -> None:
        for number in range(first, first + 2000):
            cache.put(f"/{number}", known(number))
            cache.forget([f"/{number - 1}"])
            if first == 0 and number % 100 == 0:
                cache.save()

    with ThreadPoolExecutor() as threads:
        assert list(threads.map(work, (0, 1000, 5000))) == [None] * 3
