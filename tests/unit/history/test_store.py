"""The history's file: what is read is what was recorded, also after a restart; bounds hold."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from distbuild.history.builds import PAUSE_S, JobRecord, Outcome
from distbuild.history.store import MAX_AGE_S, History

Open = Callable[..., History]


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def opened(tmp_path: Path, clock: Clock) -> Iterator[Open]:
    made: list[History] = []

    def open_(max_bytes: int = 10**9) -> History:
        made.append(History(tmp_path / "history.sqlite", max_bytes, lambda: 5, clock))
        return made[-1]

    yield open_
    for history in made:
        history.stop()


def record(clock: Clock, **other: object) -> JobRecord:
    usual: dict[str, object] = {
        "command": b"gcc\0-c\0a b.c",
        "cwd": b"/p",
        "source": b"/p/a b.c",
        "outcome": Outcome.COMPILED,
        "reason": "",
        "worker": "w:1",
        "exit_code": 0,
        "began": clock.now,
        "took_s": 2.0,
        "phases": {"on the worker": 1.5},
        "ran_s": 1.0,
        "rounds": 1,
    }
    return JobRecord(**(usual | other))  # type: ignore[arg-type]


def add(history: History, clock: Clock, session: int = 1, name: str = "", **other: object) -> int:
    job = history.begin(session, name)
    history.end(job, record(clock, **other))
    return job.build


def test_what_was_recorded_is_there_also_after_a_restart(opened: Open, clock: Clock) -> None:
    history = opened()
    assert add(history, clock) == 1
    clock.now += 3
    local: dict[str, Any] = {
        "outcome": Outcome.LOCAL,
        "reason": "link",
        "source": b"",
        "ran_s": 0.0,
    }
    assert add(history, clock, **local) == 1
    assert add(history, clock, name="n", source=b"/p/\xff.c") == 2
    history.stop()
    again = opened()
    second, first = again.builds(10)
    assert (first["number"], first["outcomes"]) == (1, {"compiled": 1, "local": 1})
    assert (first["reasons"], first["jobs"], first["slots"]) == ({"link": 1}, 2, 5)
    assert (first["began"], first["wall_s"], first["is_open"]) == (1_000_000.0, 5.0, False)
    assert (second["number"], second["name"]) == (2, "n")
    build = again.build(1)
    assert build is not None
    job = build["jobs_of_it"][0]
    assert (job["command"], job["source"]) == ("gcc -c 'a b.c'", "/p/a b.c")
    assert (job["phases"], job["ran_s"], job["took_s"]) == ({"on the worker": 1.5}, 1.0, 2.0)
    latest = again.build(0)
    assert latest is not None
    assert latest["number"] == 2
    assert latest["jobs_of_it"][0]["source"] == "/p/\ufffd.c"
    assert again.build(3) is None
    assert add(again, clock) == 3


def test_the_slowest_show_what_their_source_usually_took(opened: Open, clock: Clock) -> None:
    history = opened()
    for ran in (1.0, 5.0, 2.0, 9.0):
        add(history, clock, ran_s=ran)
        clock.now += PAUSE_S + 3
    build = history.build(4)
    assert build is not None
    assert build["jobs_of_it"][0]["usual_s"] == 2.0
    first = history.build(1)
    assert first is not None
    assert "usual_s" not in first["jobs_of_it"][0]


def test_old_builds_are_forgotten(opened: Open, clock: Clock) -> None:
    history = opened()
    add(history, clock)
    clock.now += MAX_AGE_S + 10
    add(history, clock)
    assert [build["number"] for build in history.builds(10)] == [2]
    assert history.build(1) is None


def test_the_oldest_go_when_the_file_is_too_large(
    opened: Open, clock: Clock, tmp_path: Path
) -> None:
    history = opened(max_bytes=300_000)
    for _ in range(20):
        for _ in range(50):
            add(history, clock, command=os.urandom(1000))
        clock.now += PAUSE_S + 3
        history.builds(1)
    numbers = [build["number"] for build in history.builds(100)]
    assert numbers[0] == 20
    assert 1 <= len(numbers) < 10
    assert (tmp_path / "history.sqlite").stat().st_size < 1_000_000


def test_an_open_build_is_kept_however_large(opened: Open, clock: Clock) -> None:
    history = opened(max_bytes=1000)
    for _ in range(50):
        add(history, clock, command=os.urandom(1000))
    assert [build["jobs"] for build in history.builds(10)] == [50]


@pytest.mark.parametrize("content", [b"no database" * 1000, b""])
def test_a_damaged_file_is_replaced(
    opened: Open, clock: Clock, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "history.sqlite").write_bytes(content)
    history = opened()
    add(history, clock)
    assert len(history.builds(10)) == 1


def test_a_file_of_another_version_is_replaced(opened: Open, clock: Clock, tmp_path: Path) -> None:
    history = opened()
    add(history, clock)
    history.stop()
    db = sqlite3.connect(tmp_path / "history.sqlite")
    db.execute("PRAGMA user_version = 99")
    db.close()
    assert opened().builds(10) == []


def test_a_clock_that_goes_back_loses_no_job(opened: Open, clock: Clock) -> None:
    history = opened()
    add(history, clock)
    clock.now += PAUSE_S + 3
    assert not history.builds(10)[0]["is_open"]
    clock.now -= 1000
    for _ in range(2):
        add(history, clock)
    assert sum(build["jobs"] for build in history.builds(10)) == 3


def test_a_file_that_proves_damaged_is_replaced(opened: Open, clock: Clock) -> None:
    history = opened()
    number = add(history, clock)
    assert history.build(number) is not None
    history._db.execute("UPDATE jobs SET record = x'00'")
    assert history.build(number) is None
    clock.now += PAUSE_S + 3
    assert history.build(add(history, clock)) is not None


def test_an_error_of_the_file_fails_no_job(
    opened: Open, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    history = opened()
    history._db.execute("DROP TABLE jobs")
    for _ in range(3):
        add(history, clock)
        assert history.builds(10) == []
    assert [r.getMessage() for r in caplog.records if "not recorded" in r.getMessage()] != []


def test_jobs_are_read_from_a_job_on(opened: Open, clock: Clock) -> None:
    history = opened()
    add(history, clock, source=b"/a.c")
    add(history, clock, name="other", source=b"/o.c")
    first = history.jobs_after(1, 0)
    assert [job["source"] for job in first] == ["/a.c"]
    assert "command" not in first[0]
    add(history, clock, source=b"/b.c", detail="why", inputs=7, missed="new", messages=b"no")
    [second] = history.jobs_after(1, first[-1]["row"])
    assert second["source"] == "/b.c"
    assert history.jobs_after(1, second["row"]) == []
    job = history.job(second["row"])
    assert job is not None
    assert (job["command"], job["detail"], job["inputs"]) == ("gcc -c 'a b.c'", "why", 7)
    assert (job["missed"], job["messages"]) == ("new", "no")
    assert history.job(10**6) is None


def test_an_earlier_build_suggests_how_many_commands_come(opened: Open, clock: Clock) -> None:
    history = opened()
    for source in (b"/a.c", b"/b.c", b"/c.c"):
        add(history, clock, source=source)
    clock.now += PAUSE_S + 3
    add(history, clock, source=b"")
    add(history, clock, source=b"/b.c")
    clock.now += PAUSE_S + 3
    add(history, clock, source=b"/new.c")
    assert [build["number"] for build in history.builds(3)] == [3, 2, 1]
    assert [history.commands_before(number) for number in (1, 2, 3)] == [0, 3, 0]


def test_each_begin_and_end_is_reported(opened: Open, clock: Clock) -> None:
    history, seen = opened(), []
    history.on_change = lambda: seen.append(1)
    job = history.begin(1, "")
    assert len(seen) == 1
    history.end(job, record(clock))
    assert len(seen) == 2


def test_a_record_of_an_earlier_version_is_read(opened: Open, clock: Clock) -> None:
    encoded = msgspec.msgpack.decode(msgspec.msgpack.encode(record(clock)))
    for added in ("detail", "inputs", "missed", "messages"):
        del encoded[added]
    assert msgspec.convert(encoded, JobRecord) == record(clock)
