"""The watcher for Windows, with a kernel made of a queue; runs on every system."""

import queue
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distbuild.mirror.directory_changes import WOKEN, Completion
from distbuild.mirror.inotify import InotifyWatcher
from distbuild.mirror.watching import FileWatcher, NoWatcher, is_prompt, watcher_maker
from distbuild.mirror.windows_watch import (
    ADDED,
    MODIFIED,
    REMOVED,
    RENAMED_FROM,
    RENAMED_TO,
    WindowsWatcher,
    notifications,
)


def packed(*events: tuple[int, str]) -> bytes:
    """Events as ReadDirectoryChangesW has them: each begins at a multiple of four."""
    data = b""
    for number, (action, name) in enumerate(events):
        body = name.encode("utf-16-le", "surrogatepass")
        length = -(-(12 + len(body)) // 4) * 4
        step = 0 if number == len(events) - 1 else length
        data += (struct.pack("<III", step, action, len(body)) + body).ljust(length, b"\0")
    return data


class FakeChanges:
    """Tells what a test puts into it; refuses the directories in ``refused``."""

    def __init__(self) -> None:
        self.queue: queue.SimpleQueue[Completion] = queue.SimpleQueue()
        self.opened: dict[int, tuple[str, bool]] = {}
        self.refused: set[str] = set()
        self.closed: list[int] = []
        self.stopped = False

    def open(self, path: str, *, deep: bool) -> int:
        if path in self.refused:
            raise PermissionError(13, "refused", path)
        key = len(self.opened) + 1
        self.opened[key] = (path, deep)
        return key

    def close(self, key: int) -> None:
        self.closed.append(key)

    def wait(self, timeout_ms: int = 1000) -> Completion | None:
        try:
            return self.queue.get(timeout=timeout_ms / 1000 or None, block=timeout_ms > 0)
        except queue.Empty:
            return None

    def wake(self) -> None:
        self.queue.put(WOKEN)

    def stop(self) -> None:
        self.stopped = True


class Watched:
    def __init__(self) -> None:
        self.changes = FakeChanges()
        self.told: list[tuple[str, bool]] = []
        self.lost = 0
        self.directories: set[str] = set()
        self.watcher = WindowsWatcher(
            lambda path, is_directory: self.told.append((path, is_directory)),
            self._overflowed,
            lambda: self.changes,
            lambda path: path in self.directories,
        )

    def _overflowed(self) -> None:
        self.lost += 1

    def notify(self, key: int, data: bytes | None) -> None:
        self.changes.queue.put(Completion(key, data))
        assert self.watcher.barrier()


@pytest.fixture
def watched() -> Iterator[Watched]:
    made = Watched()
    yield made
    made.watcher.stop()
    assert made.changes.stopped


def test_a_covered_directory_needs_no_watch_of_its_own(watched: Watched) -> None:
    watched.watcher.cover("/C/p")
    assert watched.watcher.add("/C/p")
    assert watched.watcher.add("/C/p/a/b")
    assert watched.watcher.add("/C/pq")
    watched.watcher.cover("/C/p/a")
    assert watched.changes.opened == {1: ("C:\\p", True), 2: ("C:\\pq", False)}


def test_a_flat_watch_covers_nothing_below(watched: Watched) -> None:
    assert watched.watcher.add("/C")
    assert watched.watcher.add("/C/p")
    watched.watcher.cover("/C/p")
    assert list(watched.changes.opened.values()) == [
        ("C:\\", False),
        ("C:\\p", False),
        ("C:\\p", True),
    ]


def test_events_become_paths_with_what_may_be_a_directory(watched: Watched) -> None:
    watched.watcher.cover("/C/p")
    watched.directories = {"/C/p/new", "/C/p/there"}
    events = packed(
        (ADDED, "new"),
        (ADDED, "a\\x.h"),
        (MODIFIED, "a\\x.h"),
        (MODIFIED, "there"),
        (REMOVED, "gone.h"),
        (RENAMED_FROM, "old.h"),
        (RENAMED_TO, "new.h"),
    )
    watched.notify(1, events)
    assert watched.told == [
        ("/C/p/new", True),
        ("/C/p/a/x.h", False),
        ("/C/p/a/x.h", False),
        ("/C/p/gone.h", True),
        ("/C/p/old.h", True),
        ("/C/p/new.h", False),
    ]


def test_a_completion_without_data_is_a_loss(watched: Watched) -> None:
    watched.watcher.cover("/C/p")
    watched.notify(1, b"")
    assert watched.lost == 1


@pytest.mark.parametrize("data", [b"\0" * 5, struct.pack("<III", 0, 1, 100) + b"x"])
def test_garbage_is_a_loss(watched: Watched, data: bytes) -> None:
    watched.watcher.cover("/C/p")
    watched.notify(1, data)
    assert watched.lost == 1


def test_what_may_be_a_short_name_has_all_looked_at(watched: Watched) -> None:
    watched.watcher.cover("/C/p")
    watched.notify(1, packed((MODIFIED, "LONGNA~1\\x.h")))
    assert watched.told == [("/C/p", True)]


def test_the_end_of_a_watch_is_told_and_forgotten(watched: Watched) -> None:
    watched.watcher.cover("/C/p")
    watched.notify(1, None)
    assert watched.told == [("/C/p", True)]
    assert watched.watcher.add("/C/p")
    assert len(watched.changes.opened) == 2


def test_what_is_forgotten_is_told_before_and_not_after(watched: Watched) -> None:
    watched.watcher.cover("/C/p")
    watched.watcher.add("/C/q")
    watched.changes.queue.put(Completion(1, packed((REMOVED, "x.h"))))
    watched.watcher.forget("/C/p")
    watched.notify(1, packed((REMOVED, "y.h")))
    assert watched.told == [("/C/p/x.h", True)]
    assert watched.changes.closed == [1]
    watched.watcher.forget_one("/C/q")
    assert watched.changes.closed == [1, 2]


def test_forgetting_takes_what_is_below_along(watched: Watched) -> None:
    watched.watcher.add("/C/p/a")
    watched.watcher.add("/C/pq")
    watched.watcher.forget("/C/p")
    assert watched.changes.closed == [1]


def test_what_cannot_be_watched_is_said(watched: Watched) -> None:
    watched.changes.refused.add("C:\\p")
    assert not watched.watcher.add("/C/p")
    watched.watcher.cover("/C/p")
    assert not watched.watcher.add("/usr/include")


def test_a_stopped_watcher_keeps_nobody_waiting(watched: Watched) -> None:
    watched.watcher.stop()
    assert watched.watcher.barrier()


@given(st.lists(st.tuples(st.integers(1, 5), st.text(min_size=1, max_size=20))))
def test_notifications_are_read_as_they_were_written(events: list[tuple[int, str]]) -> None:
    assert list(notifications(packed(*events))) == events


# --- which one is taken -------------------------------------------------------------------------


def test_linux_has_inotify(tmp_path: Path) -> None:
    watcher = watcher_maker(tmp_path)(lambda path, is_directory: None, lambda: None)
    assert isinstance(watcher, InotifyWatcher)
    watcher.stop()


def test_a_prompt_watcher_proves_itself(tmp_path: Path) -> None:
    assert is_prompt(InotifyWatcher, tmp_path)
    assert list(tmp_path.iterdir()) == []


class Late(InotifyWatcher):
    """Its barrier waits for nothing."""

    def _emit(self, wd: int, mask: int, name: bytes) -> None:
        del wd, mask, name


@pytest.mark.parametrize("kind", [Late, lambda changed, overflowed: NoWatcher()])
def test_one_that_tells_too_late_does_not(tmp_path: Path, kind: type[FileWatcher]) -> None:
    assert not is_prompt(kind, tmp_path)


def test_a_place_that_cannot_be_written_proves_nothing(tmp_path: Path) -> None:
    assert not is_prompt(InotifyWatcher, tmp_path / "absent")
