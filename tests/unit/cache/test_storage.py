"""The file that keeps cached results: its bound, its damage, and sudden ends."""

import contextlib
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from distbuild.cache.storage import VERSION, Storage, stamp_of

SRC = Path(__file__).parents[3] / "src"
LARGE = 10**9


def body_of(storage: Storage, key: bytes, number: int) -> bytes | None:
    """A result's body, by its description as it is found."""
    stamps = {stored.number: stamp_of(stored.about) for stored in storage.find(key)}
    return storage.body(key, number, stamps.get(number, b""))


def test_a_number_of_another_file_is_not_taken_for_a_result(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "objects", LARGE)
    number = storage.add(b"key", b"first", b"1")
    storage.renew()
    assert storage.add(b"key", b"second", b"2") == number
    assert storage.body(b"key", number, stamp_of(b"first")) is None
    assert storage.body(b"key", number, stamp_of(b"second")) == b"2"
    storage.close()


def test_a_result_is_found_again_also_in_a_new_process(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "objects", LARGE)
    with storage.batch():
        first = storage.add(b"key", b"first", b"1" * 100)
        second = storage.add(b"key", b"second", b"2" * 100)
    for is_new in (False, True):
        known = Storage(tmp_path / "objects", LARGE) if is_new else storage
        assert [s.about for s in known.find(b"key")] == [b"second", b"first"]
        assert body_of(known, b"key", first) == b"1" * 100
        assert body_of(known, b"key", second) == b"2" * 100
        assert known.find(b"other") == []
        assert body_of(known, b"other", first) is None
        assert known.counts()["results"] == 2
        assert known.counts()["bytes"] == 211
        known.close()


def test_what_was_not_used_for_the_longest_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    storage = Storage(tmp_path / "objects", 10_000)
    numbers = []
    for n in range(20):
        now[0] += 1
        numbers.append(storage.add(b"%d" % n, b"", b"x" * 480))
    now[0] += 1
    assert body_of(storage, b"0", numbers[0]) is not None
    assert storage.add(b"new", b"", b"x" * 480)
    assert body_of(storage, b"0", numbers[0]) is not None
    assert body_of(storage, b"1", numbers[1]) is None
    assert storage.counts()["bytes"] <= 10_000
    assert storage.evicted == 2
    assert storage.add(b"large", b"", b"x" * 600) == 0
    storage.close()


def test_a_file_of_another_version_is_replaced(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "objects", LARGE)
    storage.add(b"key", b"", b"body")
    storage.close()
    with sqlite3.connect(tmp_path / "objects") as db:
        db.execute(f"PRAGMA user_version = {VERSION + 1}")
    db.close()
    storage = Storage(tmp_path / "objects", LARGE)
    assert storage.find(b"key") == []
    assert storage.add(b"key", b"", b"body")
    storage.close()


def test_a_file_that_is_no_database_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "objects").write_bytes(b"no database" * 1000)
    storage = Storage(tmp_path / "objects", LARGE)
    assert storage.damaged == 1
    number = storage.add(b"key", b"", b"body")
    assert body_of(storage, b"key", number) == b"body"
    storage.close()


def test_everything_can_be_removed(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "objects", LARGE)
    number = storage.add(b"key", b"", b"body")
    storage.clear()
    assert (storage.find(b"key"), body_of(storage, b"key", number)) == ([], None)
    assert storage.counts()["bytes"] == 0
    storage.close()


def test_a_file_without_its_version_is_replaced(tmp_path: Path) -> None:
    """As after a crash while the tables were made."""
    Storage(tmp_path / "objects", LARGE).close()
    with sqlite3.connect(tmp_path / "objects") as db:
        db.execute("PRAGMA user_version = 0")
    db.close()
    storage = Storage(tmp_path / "objects", LARGE)
    assert storage.damaged == 1
    assert storage.add(b"key", b"", b"body")
    storage.close()


def test_a_flipped_bit_in_the_header_keeps_no_syncer_from_starting(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "whole", LARGE)
    number = storage.add(b"key", b"about", b"body")
    storage.close()
    whole = (tmp_path / "whole").read_bytes()
    for at in range(100):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << at % 8
        (tmp_path / "objects").write_bytes(damaged)
        storage = Storage(tmp_path / "objects", LARGE)
        with contextlib.suppress(sqlite3.Error):
            assert body_of(storage, b"key", number) in (None, b"body")
        storage.close()


def test_no_flipped_byte_gives_another_body(tmp_path: Path) -> None:
    bodies = {b"%d" % n: random.Random(n).randbytes(3000) for n in range(20)}
    storage = Storage(tmp_path / "whole", LARGE)
    for key, body in bodies.items():
        storage.add(key, b"about " + key, body)
    storage.close()
    whole = (tmp_path / "whole").read_bytes()
    seen = 0
    for at in range(100, len(whole), len(whole) // 150):
        damaged = bytearray(whole)
        damaged[at] ^= 0xFF
        (tmp_path / "objects").write_bytes(damaged)
        storage = Storage(tmp_path / "objects", LARGE)
        try:
            for key, body in bodies.items():
                for stored in storage.find(key):
                    found = body_of(storage, key, stored.number)
                    assert found in (None, body)
                    seen += found is None or stored.about != b"about " + key
        except (sqlite3.DatabaseError, ValueError, TypeError):
            storage.renew()
            assert storage.add(b"0", b"", b"body")
        storage.close()
    assert seen


FILL = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(SRC)!r})
from distbuild.cache.storage import Storage
storage = Storage(Path(sys.argv[1]), 10**9)
print(flush=True)
n = int(sys.argv[2])
while True:
    with storage.batch():
        for _ in range(3):
            storage.add(b"%d" % n, b"about", b"%d " % n * 2000)
            n += 1
"""


def test_a_killed_process_leaves_right_results(tmp_path: Path) -> None:
    path = tmp_path / "objects"
    for n in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", FILL, path, str(n * 10**6)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.03 * (n + 1))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    storage = Storage(path, LARGE)
    assert storage.damaged == 0
    assert storage.counts()["results"] > 0
    for n in range(5):
        for key in (b"%d" % (n * 10**6 + i) for i in range(300)):
            for stored in storage.find(key):
                assert body_of(storage, key, stored.number) == (key + b" ") * 2000
    storage.close()


def test_a_full_disk_is_an_error_and_later_none(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "objects", LARGE)
    storage._db.execute("PRAGMA max_page_count = 20")
    with pytest.raises(sqlite3.OperationalError), storage.batch():
        storage.add(b"large", b"", b"x" * 500_000)
    storage._db.execute("PRAGMA max_page_count = 20000")
    with storage.batch():
        number = storage.add(b"key", b"", b"body")
    assert body_of(storage, b"key", number) == b"body"
    storage.close()
